"""Exercises of notebook 07: choosing on the block alone, the best of many, paired intervals."""

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
"""Standard errors to either side of a value that hold 95% of a normal distribution."""


@exercise
def check_choice_of_the_block(name: str, compared: pd.DataFrame, by_change: pd.DataFrame) -> str:
    """Check which recipe the unperturbed held-out block would choose.

    Args:
        name: Of a recipe; right if none has a higher AUC on the unperturbed block.
        compared: From `rule.compare`.
        by_change: From `rule.auc_by_perturbation`.
    """
    if not isinstance(name, str) or name not in set(compared.candidate):
        raise WrongAnswer(f"{name!r} is none of the recipes; copy a name from the table")
    scores = compared.set_index("candidate")
    if scores.block[name] < scores.block.max():
        if scores.criterion[name] == scores.criterion.max():
            raise WrongAnswer(
                "that is the best over all eight versions. Someone who has only the unperturbed "
                "block reads another column"
            )
        raise WrongAnswer(
            f"{name} has {scores.block[name]:.4f} on the unperturbed block; others have a "
            "higher AUC. Which column would someone use who has never perturbed an image?"
        )
    chosen = scores.criterion.idxmax()
    weakest = by_change.min(axis=1)
    return (
        f"{name}; under its worst perturbation its AUC is {weakest[name]:.3f}, that of {chosen}, "
        f"the choice of the criterion, {weakest[chosen]:.3f}"
    )


@exercise
def check_best_of_many(errors: float, recipes: int) -> str:
    """Check a prediction: how good the best of many equal recipes looks by chance.

    Args:
        errors: By how many standard errors the best exceeds the truth, on average; right within
            `BEST_TOLERANCE`.
        recipes: How many are compared.
    """
    errors = read_number(errors, "the number of standard errors", -10, 10)
    draws = np.random.default_rng(0).standard_normal((LOTTERIES, recipes))
    best = float(draws.max(axis=1).mean())
    if abs(errors - best) > BEST_TOLERANCE:
        raise WrongAnswer(
            f"{errors:g} is too {'low' if errors < best else 'high'}; a prediction may be wrong. "
            f"Each score is the truth plus its own error, and the winner is the luckiest of "
            f"{recipes}. Draw that many standard normal numbers, take the largest, and repeat often"
        )
    return (
        f"{best:.1f} standard errors: the winner of {recipes} equal recipes looks that much better "
        "than it is, so the winner must be scored on data that did not choose it"
    )


@exercise
def check_paired_judgment(times: float, compared: pd.DataFrame, name: str) -> str:
    """Check how much wider an interval would be if two recipes had different patients.

    Args:
        times: Width divided by that of the paired interval; right within `PAIRED_TOLERANCE`.
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
            f"{apart:.1f} times as wide: with the same patients, what makes an image hard for one "
            "recipe often makes it hard for the other, and that part of the error cancels"
        )
    if abs(times / ratio(own + base) - 1) <= PAIRED_TOLERANCE / 2:
        raise WrongAnswer(
            "you added the errors. Two independent errors often point in opposite directions: add "
            "their squares"
        )
    if abs(times / (ratio(np.hypot(own, base)) / 2) - 1) <= PAIRED_TOLERANCE:
        raise WrongAnswer("half of it: a 95% interval extends 1.96 standard errors to *both* sides")
    raise WrongAnswer(
        f"{times:.2f} is not right. The variance of the difference of two independent numbers is "
        "the sum of their variances; `standard_error` has both. Divide by `high - low`"
    )
