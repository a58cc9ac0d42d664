"""Exercises of notebook 12: what randomized weights show, undoing a shift, and an ideal curve."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from exercises.checking import WrongAnswer, call, check_statements, exercise, read_number

_HINTS = {
    "b": (
        "b: has anyone checked whether the regions are right? The maps were compared with each "
        "other, not with an opacity"
    ),
    "d": (
        "d: the maps hardly changed between a network that has learned pneumonia and one that "
        "has learned nothing. Do they tell you more about the first than about the second?"
    ),
}
_MISSING = {
    "a": "the weights changed completely and the map did not. So what did it not depend on?",
    "c": (
        "something must be the same for both networks, or the maps would differ. Both received the "
        "same image; which of the network-independent baselines is computed from it?"
    ),
}

OPACITY, AREA_TOLERANCE = 0.2, 0.005
"""Share of the image that the opacity of exercise 3 covers."""


@exercise
def check_unmoved(follows: Iterable[str]) -> str:
    """Check what follows from maps that survive the randomization of all weights.

    Args:
        follows: Letters of the statements that follow.
    """
    check_statements(follows, _HINTS, _MISSING)
    return (
        "such a map shows the image, not the network. It may still look convincing, because the "
        "eye finds ribs and lungs in it"
    )


@exercise
def check_undo(
    undo: Callable[[np.ndarray, tuple[int, int]], np.ndarray], changes: Mapping[str, tuple]
) -> str:
    """Check that a map of a shifted image is moved back before it is compared.

    Args:
        undo: From the (h, w) map of the shifted image, and by how many rows and columns the image
            was shifted, to the map moved back.
        changes: By name, the shift in rows and columns, as the notebook has them.
    """
    edge = max(abs(step) for move in changes.values() for step in move)
    before = np.random.default_rng(0).random((8 * edge, 8 * edge))
    inner = slice(2 * edge, -2 * edge)
    for name, move in changes.items():
        after = np.roll(before, move, axis=(0, 1))
        back = np.asarray(call(undo, after.copy(), move))
        if back.shape != before.shape:
            raise WrongAnswer(
                f"a map of shape {before.shape} came back as {back.shape}; what enters at the edge "
                "does not matter here, but the shape should stay the same"
            )
        found = back[inner, inner]
        if np.allclose(found, before[inner, inner]):
            continue
        if np.array_equal(found, after[inner, inner]):
            raise WrongAnswer(f"{name}: the map stayed where it was")
        if np.array_equal(found, np.roll(after, move, axis=(0, 1))[inner, inner]):
            raise WrongAnswer(
                f"{name}: the image was shifted by {move}, and your map is now shifted by twice "
                "that. Which direction undoes the shift?"
            )
        exchanged = np.roll(after, (-move[1], -move[0]), axis=(0, 1))
        if np.array_equal(found, exchanged[inner, inner]):
            raise WrongAnswer(f"{name}: rows come first, columns second; you have exchanged them")
        raise WrongAnswer(f"{name}: away from the edges the map should be as before the shift")
    return (
        "a map that moves with its image is stable. If it were not moved back, it would look "
        "unstable, and a map that ignores the shift would look perfect"
    )


@exercise
def check_ideal_deletion(area: float) -> str:
    """Check a prediction: the area under the deletion curve for the optimal order.

    Args:
        area: Under the curve, 0 to 1; right within `AREA_TOLERANCE`.
    """
    area = read_number(area, "the area", 0, 1)
    best = OPACITY / 2
    if abs(area - best) <= AREA_TOLERANCE:
        return (
            "a triangle of width 0.2 and height 1. So 0 is out of reach, and what counts as a good "
            "value depends on how much of the image matters"
        )
    if abs(area - 0.5) <= AREA_TOLERANCE:
        raise WrongAnswer(
            "that is what a random order gives on average: the last of the opacity goes with the "
            "last pixels. The optimal order begins with the opacity"
        )
    if abs(area - (1 - best)) <= AREA_TOLERANCE:
        raise WrongAnswer(
            "that is the ideal insertion. The optimal deletion removes the opacity first; is the "
            "probability then high or low for most of the curve?"
        )
    if abs(area - OPACITY) <= AREA_TOLERANCE:
        raise WrongAnswer(
            "that would be the area if the probability stayed at 1 until the last pixel of the "
            "opacity was gone. Here it falls linearly from the start"
        )
    raise WrongAnswer(
        f"{area:.3f} is not right. Draw the curve: between which points does it fall, and where "
        "does it lie afterward?"
    )
