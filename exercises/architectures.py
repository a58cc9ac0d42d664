"""Exercises of notebook 08: what attention costs, Pareto-optimal networks, combining two models."""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from exercises.checking import WrongAnswer, call, exercise, read_number

PATCH = 8
"""Pixels per side of the plain transformer's patches."""
SMALL, LARGE = 64, 224

_FIRST = pd.DataFrame({"image_id": ["a", "b", "c"], "probability": [0.2, 0.9, 0.6]})
_SECOND = pd.DataFrame({"image_id": ["c", "a", "b"], "probability": [0.1, 0.4, 0.7]})
"""Two networks on the same three images, which they list in different orders."""
_MEAN = {"a": 0.3, "b": 0.8, "c": 0.35}


@exercise
def check_attention(times: float) -> str:
    """Check a prediction: how many times as many pairs of patches a larger image has.

    Args:
        times: Pairs at 224 pixels divided by pairs at 64.
    """
    times = read_number(times, "the factor", 0, 1e9)
    sides = LARGE / SMALL
    if np.isclose(times, sides**4, rtol=0.01):
        return (
            f"{SMALL // PATCH}² = {(SMALL // PATCH) ** 2} patches become "
            f"{LARGE // PATCH}² = {(LARGE // PATCH) ** 2}, and each attends to all of them: "
            f"{sides**4:.0f} times as many pairs, where a convolution needs {sides**2:.0f} times "
            "as many operations"
        )
    if np.isclose(times, sides**2, rtol=0.01):
        raise WrongAnswer("that is how many times as many patches. Which patch attends to which?")
    if np.isclose(times, sides, rtol=0.01):
        raise WrongAnswer("that is how many times as many pixels per side. An image has two sides")
    raise WrongAnswer(
        f"count the patches of {PATCH} x {PATCH} pixels at both sizes; then the pairs, if each "
        "patch attends to all of them, itself included"
    )


@exercise
def check_worth_their_cost(names: Iterable[str], compared: pd.DataFrame, cost: pd.DataFrame) -> str:
    """Check which networks are Pareto-optimal in criterion and operations.

    Args:
        names: Candidate names, in any order.
        compared: From `rule.compare`.
        cost: From `costs.measure_costs`.
    """
    table = compared.merge(cost, on="candidate").set_index("candidate")
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise WrongAnswer(f"the answer is a set of names, such as {{{table.index[0]!r}}}")
    named = set(names)
    unknown = sorted(map(str, named - set(table.index)))
    if unknown:
        raise WrongAnswer(f"{unknown[0]!r} is none of the networks; copy names from the table")

    def beaten_by(name: str) -> list[str]:
        own = table.loc[name]
        others = table[(table.criterion >= own.criterion) & (table.gigaflops <= own.gigaflops)]
        return [each for each in others.index if each != name]

    for name in sorted(named):
        if rivals := beaten_by(name):
            raise WrongAnswer(
                f"{name} is not Pareto-optimal: {rivals[0]} has at least the same criterion and "
                "needs no more operations"
            )
    kept = {name for name in table.index if not beaten_by(name)}
    if missing := kept - named:
        raise WrongAnswer(
            f"{len(missing)} more are Pareto-optimal. The cheapest network cannot be beaten in "
            "cost, however poor it is; go on from there to the right, and keep each network that "
            "is higher than all before it"
        )
    return f"{', '.join(sorted(kept))}: the others cost more and score no higher"


@exercise
def check_mean_of_two(mean: Callable[[pd.DataFrame, pd.DataFrame], pd.Series]) -> str:
    """Check the mean probability of two networks whose tables list images in different orders.

    Args:
        mean: From two tables with `image_id` and `probability` to a series, or dictionary, of the
            mean probability for each image.
    """
    answer = call(mean, _FIRST.copy(), _SECOND.copy())
    if not isinstance(answer, pd.Series | dict):
        raise WrongAnswer(
            f"the answer must be a pandas.Series indexed by image, not {type(answer)}"
        )
    found = pd.Series(answer)
    if set(found.index) != set(_MEAN):
        raise WrongAnswer(
            f"its index is {list(found.index)}: row numbers, but row 0 of one table is a different "
            "image from row 0 of the other. Which column matches two predictions for one image?"
        )
    if found.isna().any():
        raise WrongAnswer("some means are NaN; index both tables by `image_id` before you add")
    right = pd.Series(_MEAN)
    found = found.astype(float)[right.index]
    if np.allclose(found, right):
        return "each image is matched with itself, in whatever order the files list them"
    if found.isin([0, 0.5, 1]).all():
        raise WrongAnswer(
            "those are means of labels: 0.51 and 0.99 were made equal before they were averaged"
        )
    if np.allclose(found, 2 * right):
        raise WrongAnswer("that is the sum; a probability cannot be more than 1")
    raise WrongAnswer(
        f"image a has 0.2 from one network and 0.4 from the other; you return {found['a']:.2f}. "
        "Are those two rows of the same image?"
    )
