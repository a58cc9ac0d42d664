"""DeLong's interval of the difference of two AUCs on the same images.

DeLong, DeLong and Clarke-Pearson 1988, computed by ranks as in Sun and Xu 2014. It takes images for
independent, which those of one patient are not: it stands next to the patient-level bootstrap, for
readers who know it, and is narrower than it should be.
"""

import numpy as np
from scipy.stats import norm, rankdata

from utils.common.constants import PNEUMONIA
from utils.evaluation.intervals import CONFIDENCE, Interval


def delong_difference(y_true: np.ndarray, first: np.ndarray, second: np.ndarray) -> Interval:
    """Return the first AUC minus the second, on the same images, with its 95% interval.

    Args:
        y_true: (n,) 0 or 1, both present.
        first: (n,) probabilities of one model.
        second: (n,) of the other.

    Raises:
        ValueError: if there is one class alone.
    """
    y_true = np.asarray(y_true)
    parts = [_components(y_true, np.asarray(each, np.float64)) for each in (first, second)]
    with_it, without_it = (parts[0][side] - parts[1][side] for side in (0, 1))
    variance = sum(each.var(ddof=1) / len(each) for each in (with_it, without_it))
    value = float(with_it.mean())
    reach = float(norm.ppf(0.5 + CONFIDENCE / 2) * np.sqrt(variance))
    return {"value": value, "low": value - reach, "high": value + reach}


def _components(y_true: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what each image with and without pneumonia contributes to the AUC."""
    positive = y_true == PNEUMONIA
    with_pneumonia, without_pneumonia = probability[positive], probability[~positive]
    if not len(with_pneumonia) or not len(without_pneumonia):
        raise ValueError("DeLong's method needs images of both classes")
    together = rankdata(probability)
    with_it = (together[positive] - rankdata(with_pneumonia)) / len(without_pneumonia)
    without_it = 1 - (together[~positive] - rankdata(without_pneumonia)) / len(with_pneumonia)
    return with_it, without_it
