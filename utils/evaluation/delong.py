"""DeLong's interval of an AUC and test of the difference of two on the same images.

DeLong, DeLong and Clarke-Pearson 1988, computed by ranks as in Sun and Xu 2014. It takes images for
independent, which those of one patient are not: it stands beside the patient-level bootstrap, for
readers who know it, and is narrower than it should be.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata

from utils.common.constants import PNEUMONIA
from utils.evaluation.intervals import CONFIDENCE


@dataclass(frozen=True)
class Difference:
    """An AUC or the difference of two, with its interval and the p value of no difference."""

    value: float
    low: float
    high: float
    p: float


def _components(y_true: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what each sick and each healthy image contributes to the AUC."""
    sick, healthy = probability[y_true == PNEUMONIA], probability[y_true != PNEUMONIA]
    if not len(sick) or not len(healthy):
        raise ValueError("DeLong's method needs images of both classes")
    together = rankdata(np.concatenate([sick, healthy]))
    of_sick = (together[: len(sick)] - rankdata(sick)) / len(healthy)
    of_healthy = 1 - (together[len(sick) :] - rankdata(healthy)) / len(sick)
    return of_sick, of_healthy


def delong_interval(y_true: np.ndarray, probability: np.ndarray) -> Difference:
    """Return an AUC with its 95 % interval, cut to [0, 1]; p is that of an AUC of 0.5.

    Args:
        y_true: (n,) 0 or 1, both present.
        probability: (n,) of PNEUMONIA.

    Raises:
        ValueError: if there is one class alone.
    """
    of_sick, of_healthy = _components(np.asarray(y_true), np.asarray(probability, np.float64))
    variance = of_sick.var(ddof=1) / len(of_sick) + of_healthy.var(ddof=1) / len(of_healthy)
    auc = float(of_sick.mean())
    described = _describe(auc, variance, around=0.5)
    return Difference(auc, max(described.low, 0.0), min(described.high, 1.0), described.p)


def delong_difference(y_true: np.ndarray, first: np.ndarray, second: np.ndarray) -> Difference:
    """Return the first AUC less the second, on the same images, with interval and p value.

    Args:
        y_true: (n,) 0 or 1, both present.
        first: (n,) probabilities of one model.
        second: (n,) of the other.

    Raises:
        ValueError: if there is one class alone.
    """
    y_true = np.asarray(y_true)
    parts = [_components(y_true, np.asarray(each, np.float64)) for each in (first, second)]
    of_sick, of_healthy = (parts[0][side] - parts[1][side] for side in (0, 1))
    variance = of_sick.var(ddof=1) / len(of_sick) + of_healthy.var(ddof=1) / len(of_healthy)
    return _describe(float(of_sick.mean()), variance, around=0.0)


def _describe(value: float, variance: float, around: float) -> Difference:
    error = float(np.sqrt(variance))
    reach = float(norm.ppf(0.5 + CONFIDENCE / 2)) * error
    if error == 0:
        p = 1.0 if value == around else 0.0
    else:
        p = float(2 * norm.sf(abs(value - around) / error))
    return Difference(value, value - reach, value + reach, p)
