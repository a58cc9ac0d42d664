"""The threshold at or above which PNEUMONIA is predicted, and how it is chosen."""

import numpy as np
import pandas as pd

from utils.common.constants import CLASS_NAMES, NORMAL, PNEUMONIA
from utils.evaluation.predictions import PredictionsError, select_split


def is_positive(
    probability: float | np.ndarray | pd.Series, threshold: float | np.ndarray
) -> bool | np.ndarray | pd.Series:
    """Say whether PNEUMONIA is predicted: where the probability is the threshold or above.

    Args:
        probability: Of PNEUMONIA, in [0, 1]; one number or many.
        threshold: In [0, 1]; one number, or thresholds that broadcast against the probabilities.

    Returns:
        Bools in the form of the probabilities.
    """
    return probability >= threshold


def choose_threshold(y_true: np.ndarray, probability: np.ndarray) -> float:
    """Choose the threshold with the largest Youden's J (sensitivity + specificity - 1).

    J only changes at the probabilities that occur, so whole ranges of thresholds tie: the middle
    of the widest range is taken, of equally wide ones the lowest, which is the more sensitive.
    Where validation is separated perfectly, that is the middle of the gap between the classes.

    Args:
        y_true: (n,) 0 or 1, both present.
        probability: (n,) in [0, 1].
    """
    y_true, probability = np.asarray(y_true), np.asarray(probability, np.float64)
    positives, negatives = int((y_true == PNEUMONIA).sum()), int((y_true == NORMAL).sum())
    if not positives or not negatives or positives + negatives != len(y_true):
        raise PredictionsError(
            f"a threshold needs images of both classes, labeled 0 and 1; there are {negatives} "
            f"{CLASS_NAMES[NORMAL]} and {positives} {CLASS_NAMES[PNEUMONIA]} of {len(y_true)}"
        )
    # Between two neighboring edges every threshold in (lower, upper] makes the same
    # predictions. J is counted in whole numbers (times positives * negatives): ties are exact.
    edges = np.unique([0.0, *probability, 1.0])
    predicted = is_positive(probability[:, None], edges[None, 1:])
    true_positives = predicted[y_true == PNEUMONIA].sum(axis=0)
    false_positives = predicted[y_true == NORMAL].sum(axis=0)
    scores = true_positives * negatives - false_positives * positives
    if scores.max() < 0:
        return 0.0  # worse than chance at every cut: best is to predict only positives
    best = np.flatnonzero(scores == scores.max())
    runs = np.split(best, np.flatnonzero(np.diff(best) > 1) + 1)
    lower, upper = max(
        ((edges[run[0]], edges[run[-1] + 1]) for run in runs), key=lambda run: run[1] - run[0]
    )
    middle = (lower + upper) / 2
    # Between neighboring floats there is no middle; the upper end always belongs to the range.
    return float(middle if middle > lower else upper)


def net_benefit(y_true: np.ndarray, probability: np.ndarray, threshold: float) -> float:
    """Return the net benefit of treating whoever reaches a threshold (Vickers and Elkin 2006).

    True positives less false positives, each of which costs as much as the odds of the threshold
    say, per image: to treat none has 0, to treat all is a probability of 1 for everybody.

    Args:
        y_true: (n,) 0 or 1.
        probability: (n,) in [0, 1].
        threshold: Above 0 and below 1; the probability at which treatment begins to pay.
    """
    treated = is_positive(np.asarray(probability), threshold)
    with_it = np.asarray(y_true) == PNEUMONIA
    odds = threshold / (1 - threshold)
    return float(np.mean(treated & with_it) - np.mean(treated & ~with_it) * odds)


def choose_validation_threshold(predictions: pd.DataFrame) -> float:
    """Choose the threshold of a model from its validation rows alone; see `choose_threshold`."""
    validation = select_split(predictions, "validation")
    return choose_threshold(validation.y_true.to_numpy(), validation.probability.to_numpy())
