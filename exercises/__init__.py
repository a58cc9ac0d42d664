"""Checks of the notebooks' exercises: one module a notebook, named after its subject.

In a notebook: `from exercises import evaluation as exercises`, then `exercises.check_...(answer)`.
"""
