"""The commands of the Makefile; no notebook imports them."""
