"""Exercises of notebook 06: maps that can be compared, and scaled logits."""

from collections.abc import Callable

import numpy as np

from exercises.checking import WrongAnswer, call, exercise, read_number

LOUDER = 10
FACTOR_TOLERANCE = 0.01
_KNOWN = np.zeros((3, 4, 4))
_KNOWN[0, 1, 1], _KNOWN[1, 2, 2] = 2.0, 0.5
"""A map with a large maximum, one with a quarter of it, and one that is zero."""


@exercise
def check_scale(scale: Callable[[np.ndarray], np.ndarray], maps: np.ndarray) -> str:
    """Check that maps are scaled to be drawn and can still be compared.

    Args:
        scale: From (n, h, w) maps to maps of which the largest value of all is 1.
        maps: Those of the notebook.
    """
    with np.errstate(all="ignore"):
        known = _read_maps(call(scale, _KNOWN.copy()), _KNOWN.shape)
        silent = _read_maps(call(scale, np.zeros((2, 4, 4))), (2, 4, 4))
        scaled = _read_maps(call(scale, np.array(maps, float)), np.shape(maps))
    if not np.isfinite(known).all():
        raise WrongAnswer(
            "some values are not finite. One of the three maps that were tried is zero everywhere; "
            "what is it divided by?"
        )
    first, second = known.max(axis=(1, 2))[:2]
    if not np.isclose(first, 4 * second):
        raise WrongAnswer(
            f"the maximum of one map was four times that of another; afterward it is "
            f"{first / second:.2f} times. What must be the same for all maps?"
        )
    if not np.isclose(first, 1):
        raise WrongAnswer(f"the largest value of all maps should become 1, not {first:.3g}")
    if not np.array_equal(silent, np.zeros((2, 4, 4))):
        raise WrongAnswer("and if all maps are zero? They should stay zero, not become undefined")
    heights = scaled.max(axis=(1, 2))
    return (
        f"the maxima of the notebook's maps now range from {heights.min():.2f} to "
        f"{heights.max():.2f}; divided by its own maximum, each map would reach 1"
    )


def _read_maps(maps: object, shape: tuple[int, ...]) -> np.ndarray:
    values = np.asarray(maps)
    if values.shape != shape or not np.issubdtype(values.dtype, np.number):
        raise WrongAnswer(
            f"maps of shape {shape} should come back in the same shape, not in {values.shape}"
        )
    return values.astype(float)


@exercise
def check_shouting(factor: float) -> str:
    """Check a prediction: how much larger maps are if the last layer is multiplied by ten.

    Args:
        factor: By which every map is multiplied; right within 1%.
    """
    factor = read_number(factor, "the factor", 0, 1e6)
    if np.isclose(factor, LOUDER, rtol=FACTOR_TOLERANCE):
        return (
            "every value is ten times as large, but no image changes its rank, or its label at "
            "0.5; so values can be compared within a model, and not between models"
        )
    if np.isclose(factor, 1):
        raise WrongAnswer(
            "the labels and the ranking stay the same. But the map is in units of the score before "
            "the softmax; what happens to that score?"
        )
    if np.isclose(factor, LOUDER**2):
        raise WrongAnswer(
            "the gradient grows, yes. But the activations that it weights come from the layers "
            "before the last one, and these have not changed"
        )
    raise WrongAnswer(
        "write the score as weights times features, and the map as gradient times activations. "
        "Which of the four contains the last layer's weights?"
    )
