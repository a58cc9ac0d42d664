"""Helpers shared by the notebooks of the study; one module a concern."""
