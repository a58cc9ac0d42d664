"""Whether a probability means what it says: calibration before and after logits are scaled."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from sklearn.metrics import brier_score_loss, log_loss

from utils.common.constants import NORMAL, PNEUMONIA

BINS = 10
_CLOSEST = 1e-7
"""Probabilities are kept this far from 0 and 1, where a logit has no value."""
_TEMPERATURES, _LARGEST_BIAS = (0.05, 20.0), 50.0


@dataclass(frozen=True)
class Calibration:
    """How well probabilities agree with frequencies."""

    ece: float
    """Expected calibration error, 0 to 1."""
    brier: float
    """Mean squared error of the probability, 0 to 1."""


def _logit(probability: np.ndarray) -> np.ndarray:
    kept = np.clip(np.asarray(probability, np.float64), _CLOSEST, 1 - _CLOSEST)
    return np.log(kept) - np.log1p(-kept)


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
    return 1 / (1 + np.exp(-(_logit(probability) / temperature + bias)))


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
