"""Curves over every threshold: bands around rates, what a threshold does, and its net benefit."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from utils.common.constants import NORMAL, PNEUMONIA
from utils.evaluation.bootstrap import bootstrap_bounds
from utils.evaluation.metrics import RankedImages, predictive_values
from utils.evaluation.predictions import patients_known
from utils.evaluation.thresholds import is_positive, net_benefit

GRID = np.linspace(0, 1, 201)
"""Points of the horizontal axis."""
Curve = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From running counts of true and false positives to a value at each point."""


def roc_band(predictions: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Return the 95% bounds of the sensitivity at each false-positive rate of `GRID`.

    The bounds are pointwise: each would cover the true curve there in 95 of 100 studies, the whole
    band less often. Patients are resampled, images where patients are unknown.

    Args:
        predictions: Of one model, rows of one split.
        resamples: Bootstrap resamples.
        seed: Of the resamples.

    Returns:
        x, low and high, one row per point.
    """
    return _band(predictions, resamples, seed, _sensitivity_at)


def precision_band(predictions: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Return the 95% bounds of the precision at each recall of `GRID`; see `roc_band`."""
    return _band(predictions, resamples, seed, _precision_at)


def _sensitivity_at(true_positives: np.ndarray, false_positives: np.ndarray) -> np.ndarray:
    """Return the sensitivity at each false-positive rate of `GRID`."""
    rates = false_positives / false_positives[-1], true_positives / true_positives[-1]
    return np.interp(GRID, *rates)


def _precision_at(true_positives: np.ndarray, false_positives: np.ndarray) -> np.ndarray:
    """Return the precision at the highest threshold that has each recall of `GRID`."""
    wanted = GRID * true_positives[-1] - 1e-9
    reached = np.searchsorted(true_positives, np.maximum(wanted, 1e-9))
    return true_positives[reached] / (true_positives + false_positives)[reached]


def _band(predictions: pd.DataFrame, resamples: int, seed: int, curve: Curve) -> pd.DataFrame:
    ranked = RankedImages(
        predictions.y_true.to_numpy(), predictions.probability.to_numpy(np.float64)
    )

    def score(weights: np.ndarray) -> np.ndarray:
        positives, negatives = (part.cumsum(axis=1) for part in ranked.count(weights))
        return np.stack([curve(*pair) for pair in zip(positives, negatives, strict=True)], axis=1)

    level = "patient" if patients_known(predictions) else "image"
    low, high = bootstrap_bounds(predictions, score, resamples, seed, level)
    return pd.DataFrame({"x": GRID, "low": low, "high": high})


def operating_points(
    predictions: pd.DataFrame, prevalence: float, thresholds: Sequence[float] = tuple(GRID)
) -> pd.DataFrame:
    """Return what a model does at each threshold, and what its positives are worth.

    Args:
        predictions: Of one model, rows of one split.
        prevalence: Proportion with pneumonia among those examined, 0 to 1.
        thresholds: At or above which PNEUMONIA is predicted.

    Returns:
        threshold, sensitivity, specificity and ppv, one row per threshold. `ppv` is nan where
        nothing is predicted PNEUMONIA.
    """
    rows = []
    for threshold in thresholds:
        predicted = is_positive(predictions.probability, threshold)
        sensitivity = float(predicted[predictions.y_true == PNEUMONIA].mean())
        specificity = float(1 - predicted[predictions.y_true == NORMAL].mean())
        ppv, _ = predictive_values(sensitivity, specificity, prevalence)
        rows.append((threshold, sensitivity, specificity, ppv))
    return pd.DataFrame(rows, columns=["threshold", "sensitivity", "specificity", "ppv"])


def decision_curve(
    predictions: Mapping[str, pd.DataFrame], thresholds: Sequence[float]
) -> pd.DataFrame:
    """Return the net benefit of models by threshold; see `thresholds.net_benefit`.

    Args:
        predictions: For each model its rows of one split.
        thresholds: Above 0 and below 1.

    Returns:
        threshold, a column for each model, and `treat all`; to treat nobody has 0.
    """
    labels = next(iter(predictions.values())).y_true
    curve = {"threshold": list(thresholds)}
    for name, rows in predictions.items():
        curve[name] = [net_benefit(rows.y_true, rows.probability, each) for each in thresholds]
    everyone = np.ones(len(labels))
    curve["treat all"] = [net_benefit(labels, everyone, each) for each in thresholds]
    return pd.DataFrame(curve)
