"""Exercises of notebook 07: the block's own choice, the best of many, and paired judgement."""

import numpy as np
import pandas as pd

from exercises.checking import WrongAnswer, exercise, read_number
from utils.selection.candidates import BASE

LOTTERIES = 20_000
BEST_TOLERANCE = 0.25
"""In standard errors."""

PAIRED_TOLERANCE = 0.15
"""Relative: 2.0 may be answered by 1.7 to 2.3."""
WITHIN_95 = 1.96
"""Standard errors to either side of a value that hold 95 % of a normal distribution."""


@exercise
def check_choice_of_the_block(name: str, compared: pd.DataFrame, by_change: pd.DataFrame) -> str:
    """Check which recipe a plain held-out block would choose.

    Args:
        name: Of a recipe; right if none has a higher AUC on the block as it is.
        compared: From `rule.compare`.
        by_change: From `rule.auc_by_perturbation`.
    """
    if not isinstance(name, str) or name not in set(compared.candidate):
        raise WrongAnswer(f"{name!r} is none of the recipes; copy a name from the table")
    scores = compared.set_index("candidate")
    if scores.block[name] < scores.block.max():
        if scores.criterion[name] == scores.criterion.max():
            raise WrongAnswer(
                "that is the best over all eight versions. Someone with one version, the block as "
                "it is, reads another column"
            )
        raise WrongAnswer(
            f"{name} has {scores.block[name]:.4f} on the block as it is; others have more. By "
            "which column does someone choose who has never changed an image?"
        )
    chosen = scores.criterion.idxmax()
    weakest = by_change.min(axis=1)
    return (
        f"{name}; its weakest version has {weakest[name]:.3f}, that of {chosen}, the choice of the "
        f"criterion, {weakest[chosen]:.3f}"
    )


@exercise
def check_best_of_many(errors: float, recipes: int) -> str:
    """Check a prediction: how good the best of many equal recipes looks by luck alone.

    Args:
        errors: How many standard errors the best lies above the truth, on average; right within
            `BEST_TOLERANCE`.
        recipes: How many are compared.
    """
    errors = read_number(errors, "the number of standard errors", -10, 10)
    draws = np.random.default_rng(0).standard_normal((LOTTERIES, recipes))
    best = float(draws.max(axis=1).mean())
    if abs(errors - best) > BEST_TOLERANCE:
        raise WrongAnswer(
            f"{errors:g} is too {'low' if errors < best else 'high'}, and predictions may be "
            f"wrong. Each score is the truth plus its own error; the winner is the luckiest of "
            f"{recipes}. Draw so many normal numbers, take the largest, and do that often"
        )
    return (
        f"{best:.1f} standard errors: the winner of {recipes} equal recipes looks that much better "
        "than it is, so the winner must be scored on something that did not choose it"
    )


@exercise
def check_paired_judgement(times: float, compared: pd.DataFrame, name: str) -> str:
    """Check how much wider an interval would be if two recipes were judged on other children.

    Args:
        times: Width over that of the paired interval; right within `PAIRED_TOLERANCE` of it.
        compared: From `rule.compare` with the base of this study.
        name: Of the recipe that is compared with the base.
    """
    times = read_number(times, "the ratio", 0, 1e6)
    scores = compared.set_index("candidate")
    own, base = scores.standard_error[name], scores.standard_error[BASE]
    paired = scores.high[name] - scores.low[name]

    def ratio(error: float) -> float:
        return 2 * WITHIN_95 * error / paired

    apart = ratio(np.hypot(own, base))
    if abs(times / apart - 1) <= PAIRED_TOLERANCE:
        return (
            f"{apart:.1f} times as wide: on the same children, what makes a child hard for one "
            "recipe makes it hard for the other, and cancels"
        )
    if abs(times / ratio(own + base) - 1) <= PAIRED_TOLERANCE / 2:
        raise WrongAnswer(
            "you added the errors. Two independent errors rarely point the same way: what adds is "
            "their squares"
        )
    if abs(times / (ratio(np.hypot(own, base)) / 2) - 1) <= PAIRED_TOLERANCE:
        raise WrongAnswer(
            "half of it: an interval of 95 % reaches 1.96 standard errors to *both* sides"
        )
    raise WrongAnswer(
        f"{times:.2f} is not it. The variance of a difference of two independent numbers is the "
        "sum of their variances; `standard_error` has both. Divide by `high - low`"
    )
