"""Exercises of notebook 03: parameters of a pooled head, and how far from 0.5 guessing can be."""

import numpy as np

from exercises.checking import WrongAnswer, exercise, read_count, read_number
from utils.common.constants import CLASS_NAMES, NORMAL, PNEUMONIA
from utils.evaluation.metrics import auc_by_ranks

UNITS = (512, 128, len(CLASS_NAMES))
"""Of the dense layers of the head."""

GUESSING_HEADS = 2000
LUCK_TOLERANCE = 0.2
"""Relative: where 0.10 is right, 0.08 to 0.12 are accepted."""


@exercise
def check_pooled_parameters(parameters: int, activation_shape: tuple[int, int, int]) -> str:
    """Check the number of parameters of the dense layers after global average pooling.

    Args:
        parameters: Weights and biases of all three layers, exactly.
        activation_shape: (height, width, channels) of the backbone's output.
    """
    parameters = read_count(parameters, "the number of parameters")
    height, width, channels = activation_shape
    weights, biases = _count_dense(channels)
    flat_weights, _ = _count_dense(height * width * channels)
    if parameters == weights + biases:
        return (
            f"{parameters:,} instead of {flat_weights + biases:,}: pooling reduces each "
            f"{height} x {width} map to one number, and the location is lost"
        )
    if parameters == weights:
        raise WrongAnswer("almost: every unit of a dense layer also has a bias")
    if parameters in (flat_weights, flat_weights + biases):
        raise WrongAnswer(
            f"that is the head with Flatten. How many of the {height} x {width} x {channels} "
            "numbers are left if each map is averaged?"
        )
    if parameters in (channels * UNITS[0], (channels + 1) * UNITS[0]):
        raise WrongAnswer(
            f"that is the first dense layer. Two more follow it, with {UNITS[1]} and {UNITS[2]} "
            "units"
        )
    raise WrongAnswer(
        f"pooling leaves one number for each channel; then come layers of {UNITS[0]}, {UNITS[1]} "
        f"and {UNITS[2]} units. How many weights, and how many biases, does a dense layer from a "
        "to b numbers have?"
    )


def _count_dense(inputs: int) -> tuple[int, int]:
    """Count the weights and biases of the head's dense layers on so many inputs."""
    sizes = (inputs, *UNITS)
    return sum(a * b for a, b in zip(sizes, UNITS, strict=False)), sum(UNITS)


@exercise
def check_luck(spread: float, labels: np.ndarray) -> str:
    """Check a prediction: how far from 0.5 the AUC of random guessing lies.

    Args:
        spread: Distance from 0.5 within which the AUCs of 95 of 100 guessing classifiers lie;
            accepted within `LUCK_TOLERANCE` of it.
        labels: (n,) labels of the validation images.
    """
    spread = read_number(spread, "the distance from 0.5", 0, 0.5)
    distance = float(np.quantile(np.abs(_guessed_aucs(labels) - 0.5), 0.95))
    if abs(spread / distance - 1) > LUCK_TOLERANCE:
        counts = f"{(labels == NORMAL).sum()} and {(labels == PNEUMONIA).sum()}"
        raise WrongAnswer(
            f"{spread:.3f} is too {'small' if spread < distance else 'large'}; a prediction may be "
            f"wrong. Let `np.random.default_rng().random({len(labels)})` guess for the {counts} "
            "images of the two classes, compute the AUC, and repeat that a few hundred times"
        )
    return (
        f"of 100 classifiers that guess, 95 have an AUC within {distance:.3f} of 0.5 on these "
        f"{len(labels)} images; an AUC inside that range is no evidence of learning"
    )


def _guessed_aucs(labels: np.ndarray) -> np.ndarray:
    """Return the AUCs of many classifiers that guess."""
    guesses = np.random.default_rng(0).random((GUESSING_HEADS, len(labels)))
    return auc_by_ranks(labels, guesses)
