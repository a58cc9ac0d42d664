"""What images of a new place say without labels: another setting, which chooses nothing here."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np


def measure_agreement(probabilities: Sequence[np.ndarray], threshold: float) -> float:
    """Return the share of images that two models call alike, the mean over all pairs.

    Models that were trained alike agree where they are right, and part where the images are
    strange to them (Jiang et al. 2022).

    Args:
        probabilities: Of each model, (n,) for the same images.
        threshold: PNEUMONIA is called at this probability or above.

    Raises:
        ValueError: if there are fewer than two models.
    """
    if len(probabilities) < 2:
        raise ValueError("agreement needs two models or more, such as two seeds of one recipe")
    calls = [np.asarray(each) >= threshold for each in probabilities]
    return float(np.mean([np.mean(a == b) for a, b in combinations(calls, 2)]))


def expect_accuracy(
    y_true: np.ndarray, known: np.ndarray, unknown: np.ndarray, threshold: float
) -> float:
    """Return the accuracy to expect on unlabelled images: average thresholded confidence.

    Garg et al. 2022: find the confidence that as many labelled images reach as are called right,
    and see how many unlabelled ones reach it. Confidence is the distance to the threshold, each
    side scaled to 1.

    Args:
        y_true: (n,) labels of images of the known place.
        known: (n,) their probabilities.
        unknown: (m,) probabilities of images of the new place.
        threshold: PNEUMONIA is called at this probability or above.
    """
    wrong = np.mean((np.asarray(known) >= threshold) != np.asarray(y_true))
    needed = np.quantile(_confidence(known, threshold), wrong)
    return float(np.mean(_confidence(unknown, threshold) >= needed))


def _confidence(probability: np.ndarray, threshold: float) -> np.ndarray:
    probability = np.asarray(probability, np.float64)
    above = (probability - threshold) / max(1 - threshold, 1e-12)
    below = (threshold - probability) / max(threshold, 1e-12)
    return np.where(probability >= threshold, above, below)
