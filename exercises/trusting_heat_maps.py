"""Exercises of notebook 10: what randomised weights prove, undoing a shift, and an ideal curve."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from exercises.checking import WrongAnswer, call, exercise, read_number

FOLLOWS = {"a", "c"}
_HINTS = {
    "b": (
        "b: who has looked whether the place was right? The maps were compared with each other and "
        "not with an opacity"
    ),
    "d": (
        "d: the maps hardly changed between a network that knows pneumonia and one that knows "
        "nothing. Did you learn more of this network than of that one?"
    ),
}
_MISSING = {
    "a": "the weights changed completely and the map did not. What then did it not depend on?",
    "c": (
        "something must be the same in both networks, or the maps would differ. Both have seen the "
        "same image; which of the maps that see no network is made of it?"
    ),
}

OPACITY, AREA_TOLERANCE = 0.2, 0.005
"""Share of the image that the opacity of the second prediction covers."""


@exercise
def check_unmoved(follows: Iterable[str]) -> str:
    """Check what follows from maps that survive the randomisation of all weights.

    Args:
        follows: Letters of the statements that follow.
    """
    letters = {"a", "b", "c", "d"}
    if not isinstance(follows, Iterable) or not set(follows) <= letters:
        raise WrongAnswer('a set of letters is wanted, out of "a", "b", "c" and "d"')
    chosen = set(follows)
    if wrong := sorted(chosen - FOLLOWS):
        raise WrongAnswer(_HINTS[wrong[0]])
    if missing := sorted(FOLLOWS - chosen):
        raise WrongAnswer(f"{len(missing)} more: {_MISSING[missing[0]]}")
    return (
        "such a map is a picture of the image, not of the network. It may still look convincing, "
        "since the eye finds ribs and lungs in it"
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
                f"a map of shape {before.shape} came back as {back.shape}; what moves in at the "
                "edge does not matter here, but the shape should stay"
            )
        found = back[inner, inner]
        if np.allclose(found, before[inner, inner]):
            continue
        if np.array_equal(found, after[inner, inner]):
            raise WrongAnswer(f"{name}: the map stayed where it was")
        if np.array_equal(found, np.roll(after, move, axis=(0, 1))[inner, inner]):
            raise WrongAnswer(
                f"{name}: the image was moved by {move}, and your map is now moved by twice that. "
                "Which way is back?"
            )
        exchanged = np.roll(after, (-move[1], -move[0]), axis=(0, 1))
        if np.array_equal(found, exchanged[inner, inner]):
            raise WrongAnswer(f"{name}: rows come first, columns second; these two are exchanged")
        raise WrongAnswer(f"{name}: away from the edges the map should be as before the shift")
    return (
        "a map that follows its image is stable. Compared where it lies, it would look unstable, "
        "and one that stays behind would look perfect"
    )


@exercise
def check_ideal_deletion(area: float) -> str:
    """Check a prediction: the area under the deletion curve in the best order there is.

    Args:
        area: Under the curve, 0 to 1; right within `AREA_TOLERANCE`.
    """
    area = read_number(area, "the area", 0, 1)
    best = OPACITY / 2
    if abs(area - best) <= AREA_TOLERANCE:
        return (
            "a triangle of width 0.2 and height 1. So 0 is out of reach, and what a good value is "
            "depends on how much of the image matters"
        )
    if abs(area - 0.5) <= AREA_TOLERANCE:
        raise WrongAnswer(
            "that is what a random order gives: it reaches the last of the opacity with the last "
            "pixels. The best order begins with the opacity"
        )
    if abs(area - (1 - best)) <= AREA_TOLERANCE:
        raise WrongAnswer(
            "that is the ideal insertion. Deletion takes the opacity away first; is the "
            "probability high or low for most of the way?"
        )
    if abs(area - OPACITY) <= AREA_TOLERANCE:
        raise WrongAnswer(
            "that would be the area if the probability stayed at 1 until the last pixel of the "
            "opacity is gone. Here it falls evenly all the while"
        )
    raise WrongAnswer(
        f"{area:.3f} is not it. Draw the curve: from which point to which does it fall, and where "
        "does it lie afterwards?"
    )
