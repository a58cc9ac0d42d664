"""Exercises of notebook 10: temperature scaling and selective prediction."""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from exercises.checking import WrongAnswer, call, exercise, read_number
from utils.evaluation.thresholds import is_positive

MEASURES = {"ROC-AUC", "accuracy at 0.5", "ECE", "Brier score"}
_MOVED = {"ECE", "Brier score"}

REFUSED = 0.1
"""Proportion of the images on which the model may abstain."""
ACCURACY_TOLERANCE = 0.0005


@exercise
def check_temperature(moved: Iterable[str]) -> str:
    """Check a prediction: which measures change when all logits are divided by one number.

    Args:
        moved: Names out of `MEASURES`.
    """
    if isinstance(moved, str) or not isinstance(moved, Iterable):
        raise WrongAnswer(f"give a set of names, out of {', '.join(sorted(MEASURES))}")
    named = set(moved)
    if unknown := sorted(map(str, named - MEASURES)):
        raise WrongAnswer(
            f"{unknown[0]!r} is none of the four; choose from {', '.join(sorted(MEASURES))}"
        )
    if "ROC-AUC" in named:
        raise WrongAnswer(
            "the AUC asks which of two images has the higher probability. Can dividing both logits "
            "by the same positive number reverse their order?"
        )
    if "accuracy at 0.5" in named:
        raise WrongAnswer(
            "a probability of 0.5 is a logit of 0. What is 0 divided by a temperature, and does "
            "any image cross it?"
        )
    if missing := _MOVED - named:
        raise WrongAnswer(
            f"{len(missing)} more: a measure that compares the probability itself with the "
            "outcome changes when 0.99 becomes 0.9"
        )
    return (
        "order and side of 0.5 stay, the values change. The accuracy at another threshold can "
        "change as well, unless the threshold is rescaled too"
    )


@exercise
def check_refusal(
    accuracy: Callable[[pd.DataFrame, float], float], rows: pd.DataFrame, threshold: float
) -> str:
    """Check the accuracy of a model that abstains on the images nearest to its threshold.

    Args:
        accuracy: From test rows with `y_true` and `probability`, and the threshold, to the
            accuracy on the images that it predicts.
        rows: Test predictions of one model.
        threshold: Its pre-specified threshold.
    """
    answer = read_number(call(accuracy, rows.copy(), threshold), "the accuracy", 0, 1)
    right = is_positive(rows.probability, threshold) == rows.y_true
    kept = _farthest(rows, threshold)
    expected, everyone = right[kept].mean(), right.mean()
    if abs(answer - expected) <= ACCURACY_TOLERANCE:
        return (
            f"{expected:.3f} instead of {everyone:.3f}; of {int((~right).sum())} errors "
            f"{int((~right & ~kept).sum())} were among the {int((~kept).sum())} images on which it "
            "abstains"
        )
    mistakes = {
        "that is the accuracy on all images; the model did not abstain": everyone,
        "that is the accuracy on those on which it abstains": right[~kept].mean(),
        "you measured the distance of each probability from 0.5, but this model decides at "
        f"{threshold:.3f}": right[_farthest(rows, 0.5)].mean(),
        "the images were selected by the threshold, but judged at 0.5": (
            (is_positive(rows.probability, 0.5) == rows.y_true)[kept].mean()
        ),
    }
    for hint, value in mistakes.items():
        if np.isclose(answer, value, atol=ACCURACY_TOLERANCE):
            raise WrongAnswer(hint)
    raise WrongAnswer(
        f"{answer:.3f} is not right. Sort by the distance |probability - threshold|, leave out the "
        f"tenth that is nearest ({int((~kept).sum())} images), and judge the rest at the threshold"
    )


def _farthest(rows: pd.DataFrame, center: float) -> pd.Series:
    """Return which rows are kept: all but the tenth whose probability is nearest to a center."""
    distance = (rows.probability - center).abs()
    return distance.rank(method="first") > round(REFUSED * len(rows))
