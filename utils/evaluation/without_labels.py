"""What predictions alone say of the accuracy on a new site's images, whose labels nobody knows."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from utils.evaluation.thresholds import is_positive


def measure_agreement(probabilities: Sequence[np.ndarray], threshold: float) -> float:
    """Return the proportion of images for which two models predict the same class, over all pairs.

    Models with the same recipe agree where they are right, and disagree where the images are
    unlike those in training (Jiang et al. 2022).

    Args:
        probabilities: Of each model, (n,) for the same images.
        threshold: PNEUMONIA is predicted at this probability or above.

    Raises:
        ValueError: if there are fewer than two models.
    """
    if len(probabilities) < 2:
        raise ValueError("agreement needs two models or more, such as two seeds of one recipe")
    predicted = [is_positive(np.asarray(each), threshold) for each in probabilities]
    return float(np.mean([np.mean(a == b) for a, b in combinations(predicted, 2)]))


def expect_accuracy(
    y_true: np.ndarray, known: np.ndarray, unknown: np.ndarray, threshold: float
) -> float:
    """Return the accuracy to expect on unlabeled images: average thresholded confidence.

    Garg et al. 2022: find the confidence that as many labeled images reach as are classified
    correctly, and see how many unlabeled ones reach it. Confidence is the distance to the
    threshold, each side scaled to 1.

    Args:
        y_true: (n,) labels of images of the known site.
        known: (n,) their probabilities.
        unknown: (m,) probabilities of images of the new site.
        threshold: PNEUMONIA is predicted at this probability or above.
    """
    wrong = np.mean(is_positive(np.asarray(known), threshold) != np.asarray(y_true))
    needed = np.quantile(_confidence(known, threshold), wrong)
    return float(np.mean(_confidence(unknown, threshold) >= needed))


def _confidence(probability: np.ndarray, threshold: float) -> np.ndarray:
    probability = np.asarray(probability, np.float64)
    above = (probability - threshold) / max(1 - threshold, 1e-12)
    below = (threshold - probability) / max(threshold, 1e-12)
    return np.where(is_positive(probability, threshold), above, below)
