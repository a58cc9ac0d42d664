"""Exercises of notebook 11: ranking by chance, and what follows from covered regions."""

from collections.abc import Iterable
from itertools import permutations

from scipy.stats import spearmanr

from exercises.checking import WrongAnswer, check_statements, exercise, read_number

MODELS, WANTED = 5, 0.9
LUCK_TOLERANCE = 0.01

_HINTS = {
    "b": (
        "b: the AUC may have fallen, too. A network that uses the lungs and something else still "
        "has the something else; would you see the difference here?"
    ),
    "d": (
        "d: the letters lie outside the lungs, and so do the heart, the diaphragm and the frame. "
        "Which of them was covered alone?"
    ),
}
_MISSING = {
    "a": "0.5 is what is left where nothing tells the classes apart. What was left here?",
    "c": "no training image had a gray patch in its middle. What else can change a score then?",
}


@exercise
def check_luck_with_five(share: float) -> str:
    """Check a prediction: how often an uninformative criterion ranks five models well.

    Args:
        share: Proportion of all orders with a Spearman correlation of 0.9 or more; accepted within
            `LUCK_TOLERANCE`.
    """
    share = read_number(share, "the proportion", 0, 1)
    truth = range(MODELS)
    orders = list(permutations(truth))
    good = sum(spearmanr(truth, order).statistic >= WANTED - 1e-9 for order in orders)
    value = good / len(orders)
    if abs(share - 1 / len(orders)) < 0.001:
        raise WrongAnswer(
            "that is the one perfect order. How many orders differ from it by one swap of "
            "neighbors, and what is their Spearman correlation?"
        )
    if abs(share - value) <= LUCK_TOLERANCE:
        return (
            f"{good} of {len(orders)} orders, one in {len(orders) // good}: comparing four "
            "criteria on five models will now and then make one of them look good by chance"
        )
    raise WrongAnswer(
        f"{share:.3f} is too {'low' if share < value else 'high'}; a prediction may be wrong. "
        f"There are {len(orders)} orders of five models: count them with `itertools.permutations` "
        "and `scipy.stats.spearmanr`"
    )


@exercise
def check_covered(follows: Iterable[str]) -> str:
    """Check what follows from a high AUC on images whose lungs are covered.

    Args:
        follows: Letters of the statements that follow.
    """
    check_statements(follows, _HINTS, _MISSING)
    return (
        "something outside the template tells the classes apart. What it is, and how much of the "
        "answer on whole images rests on it, takes other experiments"
    )
