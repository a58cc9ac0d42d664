"""Rendered chests with known opacities, by which the study runs without a data set."""
