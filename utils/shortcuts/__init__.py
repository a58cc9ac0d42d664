"""Shortcuts, measured: what a model could use in place of the lungs, and what leakage hides."""
