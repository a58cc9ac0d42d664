"""Exercises of notebook 09: the interval of a paired difference, and patients seen by number."""

import math
from collections.abc import Callable, Sequence

from exercises.checking import WrongAnswer, call, exercise, read_count, read_number

ERRORS, CORRELATION = (0.006, 0.008), 0.5
"""Standard errors of the two AUCs of exercise 1, and how their errors are correlated."""
NORMAL_QUANTILE, WIDTH_TOLERANCE = 1.96, 0.0003

TRAINING = (
    *["person-1-bacteria"] * 5, "person-2-virus", "person-12-bacteria", "IM-3-normal",
    "NORMAL2-IM-7-normal",
)  # fmt: skip
TEST = (
    "person-1-virus", "person-1-virus", "person-12-virus", "person-21-virus", "person-3-bacteria",
    "IM-7-normal", "IM-4-normal",
)  # fmt: skip
"""Patient of each image of two made-up folders."""
KNOWN = 3


@exercise
def check_half_width(half_width: float) -> str:
    """Check how far the 95% interval of a paired difference reaches to each side.

    Args:
        half_width: Of the interval, accepted within `WIDTH_TOLERANCE`.
    """
    answer = read_number(half_width, "the half-width", 0, 1)
    first, second = ERRORS
    error = math.sqrt(first**2 + second**2 - 2 * CORRELATION * first * second)
    expected = NORMAL_QUANTILE * error
    if abs(answer - expected) <= WIDTH_TOLERANCE:
        return (
            f"{expected:.3f}. A difference of 0.015 would exclude 0 here, although the two "
            f"intervals, {NORMAL_QUANTILE * first:.3f} and {NORMAL_QUANTILE * second:.3f} to each "
            "side, would overlap: the patients who are hard for one model are hard for the other, "
            "and that cancels out"
        )
    mistakes = {
        "that is the standard error of the difference; an interval of 95% reaches farther": error,
        "that would hold if the models had been scored on different patients. What does the "
        "correlation take away from the variance?": NORMAL_QUANTILE * math.hypot(first, second),
        "that is how far apart two intervals must lie not to overlap, which asks for more than a "
        "difference that excludes 0": NORMAL_QUANTILE * (first + second),
        "you added the covariance; of a difference it is subtracted": NORMAL_QUANTILE
        * math.sqrt(first**2 + second**2 + 2 * CORRELATION * first * second),
    }
    for hint, value in mistakes.items():
        if abs(answer - value) <= WIDTH_TOLERANCE:
            raise WrongAnswer(hint)
    raise WrongAnswer(
        f"{answer:.4f} is not right. Var(A - B) = Var(A) + Var(B) - 2 Cov(A, B), the covariance is "
        "the correlation times both standard errors, and the interval reaches 1.96 standard errors"
    )


@exercise
def check_known(count_known: Callable[[Sequence[str], Sequence[str]], int]) -> str:
    """Check a count of the test images whose patient number the training folder has, too.

    Args:
        count_known: From the patient of each training image and of each test image to the count.
    """
    answer = read_count(call(count_known, list(TRAINING), list(TEST)), "the number of images")
    if answer == KNOWN:
        return (
            f"{answer} of {len(TEST)} images, two of them of one number. By the whole name it is "
            "none: which reading is right, names cannot say, so the table has both"
        )
    hints = {
        0: "no whole name is in both folders. Which parts of the name are the series and number?",
        2: "that counts numbers, or patients; the table counts images",
        4: "IM-7 and NORMAL2-IM-7 are two series, and so are person-3 and IM-3: a number counts "
        "within its series",
        6: "that counts the training images",
        5: "IM-7 and NORMAL2-IM-7 are two series, and so are person-3 and IM-3: a number counts "
        "within its series",
    }
    raise WrongAnswer(
        hints.get(
            answer,
            f"{answer} of {len(TEST)} test images is not right. Cut the etiology off each name "
            "(`rsplit`), and ask for each test image whether what is left is among the training's",
        )
    )
