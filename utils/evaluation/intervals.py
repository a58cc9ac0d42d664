"""What an interval is, and those that have a formula."""

import math
from typing import Any

import numpy as np
from scipy.stats import binomtest, norm

CONFIDENCE = 0.95
DECIMALS = 10
"""Kept of a metric: processors add in different orders and disagree in the 16th digit."""
Interval = dict[str, float]
"""`value`, `low` and `high` of one metric; nan where they are undefined."""
UNDEFINED = "undefined"
"""What a table says where a metric or its interval has no value."""


def is_defined(value: float | None) -> bool:
    """Say whether a number of a metric has a value; JSON has null where it has none."""
    return value is not None and not math.isnan(value)


def with_null(content: Any) -> Any:
    """Return content for JSON, None where a number is undefined."""
    if isinstance(content, dict):
        return {key: with_null(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [with_null(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content


def binomial_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the exact 95% interval of a proportion (Clopper and Pearson 1934)."""
    interval = binomtest(successes, trials).proportion_ci(CONFIDENCE, method="exact")
    return float(interval.low), float(interval.high)


def spearman_interval(correlation: float, count: int) -> tuple[float, float]:
    """Return the 95% interval of a rank correlation (Bonett and Wright 2000).

    Both bounds are nan where there are fewer than four pairs or the correlation is 1 or -1.
    """
    if count < 4 or not abs(correlation) < 1 - 1e-9:
        return float("nan"), float("nan")
    reach = norm.ppf(0.5 + CONFIDENCE / 2) * np.sqrt((1 + correlation**2 / 2) / (count - 3))
    center = np.arctanh(correlation)
    return float(np.tanh(center - reach)), float(np.tanh(center + reach))
