"""Whether a probability means what it says: calibration before and after logits are scaled."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit
from sklearn.metrics import brier_score_loss, log_loss

from utils.common.constants import NORMAL, PNEUMONIA
from utils.evaluation.bootstrap import bootstrap_bounds
from utils.evaluation.intervals import DECIMALS, Interval
from utils.evaluation.predictions import from_log_odds, log_odds

BINS = 10
_TEMPERATURES, _LARGEST_BIAS = (0.05, 20.0), 50.0
_STEPS = 30
"""Of Newton's method, of which ten are plenty."""


@dataclass(frozen=True)
class Calibration:
    """How well probabilities agree with frequencies."""

    ece: float
    """Expected calibration error, 0 to 1."""
    brier: float
    """Mean squared error of the probability, 0 to 1."""


def apply_temperature(probability: np.ndarray, temperature: float, bias: float = 0.0) -> np.ndarray:
    """Divide the logits of probabilities by a temperature; above 1 they become less confident.

    Guo et al. 2017. Order and AUC stay as they are.

    Args:
        probability: (n,) in [0, 1].
        temperature: Above 0.
        bias: Added to the logits afterwards; above 0 all probabilities rise.
    """
    if temperature <= 0:
        raise ValueError(f"a temperature is above 0, not {temperature}")
    return from_log_odds(log_odds(probability) / temperature + bias)


def fit_temperature(y_true: np.ndarray, probability: np.ndarray) -> float:
    """Return the temperature with the least cross-entropy, between 0.05 and 20.

    Fit it on validation images, never on those that are scored afterwards.

    Args:
        y_true: (n,) 0 or 1, both present.
        probability: (n,) of PNEUMONIA.

    Raises:
        ValueError: if there is one class alone.
    """
    bounds = tuple(np.log(_TEMPERATURES))
    found = minimize_scalar(_cross_entropy_of(y_true, probability), bounds=bounds, method="bounded")
    return float(np.exp(found.x))


def fit_temperature_and_bias(y_true: np.ndarray, probability: np.ndarray) -> tuple[float, float]:
    """Return the temperature and the bias with the least cross-entropy together (Platt 1999).

    The bias takes over how frequent the illness is among the images that it is fitted on.

    Args:
        y_true: (n,) 0 or 1, both present.
        probability: (n,) of PNEUMONIA.

    Returns:
        The temperature, between 0.05 and 20, and the bias, between -50 and 50.

    Raises:
        ValueError: if there is one class alone.
    """
    cross_entropy = _cross_entropy_of(y_true, probability)
    bounds = [tuple(np.log(_TEMPERATURES)), (-_LARGEST_BIAS, _LARGEST_BIAS)]
    found = minimize(lambda x: cross_entropy(*x), np.zeros(2), method="L-BFGS-B", bounds=bounds)
    return float(np.exp(found.x[0])), float(found.x[1])


def _cross_entropy_of(y_true: np.ndarray, probability: np.ndarray) -> Callable[..., float]:
    """Return the cross-entropy as a function of the temperature's logarithm and of the bias."""
    y_true = np.asarray(y_true)
    if len(set(y_true)) < 2:
        raise ValueError("a temperature needs images of both classes")

    def cross_entropy(log_temperature: float, bias: float = 0.0) -> float:
        scaled = apply_temperature(probability, float(np.exp(log_temperature)), bias)
        return log_loss(y_true, scaled, labels=[NORMAL, PNEUMONIA])

    return cross_entropy


def reliability_table(
    y_true: np.ndarray, probability: np.ndarray
) -> list[tuple[float, float, int]]:
    """Return mean probability, share of PNEUMONIA and number of images of each filled bin.

    The ten bins are equally wide, from 0 to 1.
    """
    y_true, probability = np.asarray(y_true), np.asarray(probability, np.float64)
    position = np.minimum((probability * BINS).astype(int), BINS - 1)
    return [
        (
            float(probability[position == number].mean()),
            float(np.mean(y_true[position == number] == PNEUMONIA)),
            int((position == number).sum()),
        )
        for number in range(BINS)
        if (position == number).any()
    ]


def measure_calibration(y_true: np.ndarray, probability: np.ndarray) -> Calibration:
    """Return the expected calibration error over ten equally wide bins, and the Brier score."""
    table = reliability_table(y_true, probability)
    images = sum(count for _, _, count in table)
    ece = sum(count * abs(mean - share) for mean, share, count in table) / images
    return Calibration(float(ece), float(brier_score_loss(y_true, probability)))


def correct_prevalence(probability: np.ndarray, trained: float, deployed: float) -> np.ndarray:
    """Return probabilities as they are where PNEUMONIA is as frequent as said.

    The log-odds of a prevalence add to those of a probability, so they are exchanged:
    log-odds(p) - log-odds(trained) + log-odds(deployed) (Saerens et al. 2002). A network trained
    with classes of equal weight has the prevalence 0.5 in its probabilities.

    Args:
        probability: (n,) of PNEUMONIA.
        trained: Prevalence in the eyes of the training, weights of classes counted; above 0, below
            1.
        deployed: Prevalence among the images that the probabilities are meant for, likewise.
    """
    return from_log_odds(log_odds(probability) - log_odds(trained) + log_odds(deployed))


def fit_calibration_line(
    y_true: np.ndarray, probability: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return intercept and slope of the calibration (Cox 1958; Van Calster et al. 2019).

    Both come from logistic regressions of the labels on the log-odds. The intercept is fitted with
    a slope of 1: above 0, PNEUMONIA is more frequent than the probabilities say. The slope is
    fitted with an intercept of its own: below 1, probabilities are too far from 0.5. Honest
    probabilities have 0 and 1.

    Args:
        y_true: (n,) 0 or 1, both present.
        probability: (n,) of PNEUMONIA.
        weights: (resamples, n) of the images; without them each counts once.

    Returns:
        Intercepts and slopes, (resamples,) each; nan where labels and log-odds have no such line,
        because one class lies above the other.
    """
    y_true, x = np.asarray(y_true, np.float64), log_odds(probability)
    weights = np.ones((1, len(x))) if weights is None else np.asarray(weights, np.float64)
    with_it, drawn = y_true == PNEUMONIA, weights > 0
    highest = np.where(drawn & ~with_it, x, -np.inf).max(1)
    lowest = np.where(drawn & with_it, x, np.inf).min(1)
    intercept, line, slope = np.zeros((3, len(weights)))
    for _ in range(_STEPS):  # Newton's method, all resamples at once
        fitted = expit(intercept[:, None] + x)
        gain = (weights * (y_true - fitted)).sum(1)
        # Far from the answer the curve is flat, and a whole step would lead out of reach.
        bend = np.maximum((weights * fitted * (1 - fitted)).sum(1), 1e-12)
        intercept = intercept + np.clip(gain / bend, -2, 2)
        fitted = expit(line[:, None] + slope[:, None] * x)
        rest, curve = weights * (y_true - fitted), weights * fitted * (1 - fitted)
        one, first, second = curve.sum(1), (curve * x).sum(1), (curve * x**2).sum(1)
        determinant = np.maximum(one * second - first**2, 1e-12)
        up, along = rest.sum(1), (rest * x).sum(1)
        line = np.clip(line + (second * up - first * along) / determinant, -500, 500)
        slope = np.clip(slope + (one * along - first * up) / determinant, -50, 50)
    return intercept, np.where(highest < lowest, np.nan, slope)


def evaluate_calibration(
    predictions: pd.DataFrame, resamples: int, seed: int
) -> dict[str, Interval | float]:
    """Return intercept and slope of the calibration with intervals over patients, ECE and Brier.

    Args:
        predictions: Rows of one split, with both classes.
        resamples: Bootstrap resamples of patients.
        seed: Seed of the resamples.
    """
    y_true, probability = predictions.y_true.to_numpy(), predictions.probability.to_numpy()

    def score(weights: np.ndarray) -> np.ndarray:
        return np.stack(fit_calibration_line(y_true, probability, weights))

    low, high = bootstrap_bounds(predictions, score, resamples, seed, "patient")
    values = score(np.ones((1, len(y_true))))[:, 0]
    found = measure_calibration(y_true, probability)
    bounds = np.round([values, low, high], DECIMALS).T.tolist()
    lines = [dict(zip(("value", "low", "high"), each, strict=True)) for each in bounds]
    return {
        "intercept": lines[0],
        "slope": lines[1],
        "ece": round(found.ece, DECIMALS),
        "brier": round(found.brier, DECIMALS),
    }
