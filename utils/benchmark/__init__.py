"""`make bench`: this study against the usual loops, and against the limits of the machine."""
