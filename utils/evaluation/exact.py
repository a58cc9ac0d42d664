"""Intervals of metrics on which all resamples agree: a bootstrap of three right images has none."""

import math

import numpy as np
import pandas as pd

from utils.common.constants import CLASS_NAMES, NORMAL, PNEUMONIA
from utils.evaluation.intervals import DECIMALS, Interval, binomial_interval, is_defined
from utils.evaluation.thresholds import is_positive

FEW = 20
"""Images of a class below which its metrics say little."""
_WANTED_SENSITIVITY = 0.95


def with_exact_intervals(
    metrics: dict[str, Interval], predictions: pd.DataFrame, threshold: float, level: str
) -> dict[str, Interval]:
    """Replace intervals without width by exact ones, or say that there is none (nan).

    One probability for all images ranks none of them: that AUC is 0.5 on any images, and stays.

    Proportions get that of Clopper and Pearson. An AUC of 1 or 0 gets that of as many pairs as the
    smaller class has members: each is paired with another member of the larger class, so the pairs
    are independent, and all agree. Where patients were resampled, a patient counts once.

    Args:
        metrics: By key of `metrics.METRICS`.
        predictions: The rows that were scored.
        threshold: At which they were scored.
        level: What was resampled, `patient` or `image`.
    """
    ranks = predictions.probability.nunique() > 1
    return {
        name: interval
        if interval["low"] < interval["high"] or (name == "roc_auc" and not ranks)
        else interval | _exact_bounds(name, interval["value"], predictions, threshold, level)
        for name, interval in metrics.items()
    }


def _exact_bounds(
    name: str, value: float, predictions: pd.DataFrame, threshold: float, level: str
) -> dict[str, float]:
    right, tried = _count_trials(name, predictions, threshold)
    trials = predictions[tried]
    if not is_defined(value) or trials.empty:
        return {"low": math.nan, "high": math.nan}
    if value in (0, 1) and name in ("roc_auc", *_PROPORTIONS):
        units = trials.patient_id if level == "patient" else trials.image_id
        by_class = units.groupby(trials.y_true).nunique()
        count = int(by_class.min() if name == "roc_auc" else units.nunique())
        successes = count if value == 1 else 0
    elif name in _PROPORTIONS and level == "image":
        count, successes = len(trials), int((right & tried).sum())
    else:
        return {"low": math.nan, "high": math.nan}
    low, high = binomial_interval(successes, count)
    return {"low": round(low, DECIMALS), "high": round(high, DECIMALS)}


_PROPORTIONS = (
    "accuracy_at_0.5", "accuracy_at_threshold", "sensitivity", "specificity",
    "sensitivity_at_0.5", "specificity_at_0.5", "ppv", "npv", "specificity_at_95",
)  # fmt: skip


def _count_trials(
    name: str, predictions: pd.DataFrame, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows are right, and which are counted, for a proportion."""
    with_pneumonia = predictions.y_true.to_numpy() == PNEUMONIA
    probability = predictions.probability.to_numpy()
    cut = 0.5 if name.endswith("at_0.5") else threshold
    if name == "specificity_at_95" and with_pneumonia.any():
        true_positives = math.ceil(_WANTED_SENSITIVITY * with_pneumonia.sum() - 1e-9)
        cut = np.sort(probability[with_pneumonia])[-true_positives]
    positive = is_positive(probability, cut)
    tried = {
        "sensitivity": with_pneumonia, "specificity": ~with_pneumonia,
        "ppv": positive, "npv": ~positive,
    }.get(name.split("_at_")[0], np.ones_like(with_pneumonia))  # fmt: skip
    return positive == with_pneumonia, tried


def warn_of_few(y_true: np.ndarray) -> list[str]:
    """Return a sentence for each class of fewer than 20 images."""
    sentences = []
    for label in (NORMAL, PNEUMONIA):
        count = int((np.asarray(y_true) == label).sum())
        if 0 < count < FEW:
            sentences.append(
                f"{count} {CLASS_NAMES[label]} images are few (fewer than {FEW}): other images of "
                "the same kind may give quite other numbers."
            )
        elif count == 0:
            sentences.append(
                f"There is no {CLASS_NAMES[label]} image: what needs both classes is undefined."
            )
    return sentences
