"""What an interval is, and those that have a formula."""

import numpy as np
from scipy.stats import binomtest, norm

CONFIDENCE = 0.95
Interval = dict[str, float]
"""`value`, `low` and `high` of one metric."""


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
