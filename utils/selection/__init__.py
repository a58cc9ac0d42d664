"""Candidates, their cross-validation, the rule that chooses, final models and their comparison."""
