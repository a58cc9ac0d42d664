"""Exercises of notebook 08: what attention costs, dominated networks, and one answer of two."""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from exercises.checking import WrongAnswer, call, exercise, read_number

PATCH = 8
"""Pixels on a side of the plain transformer's patches."""
SMALL, LARGE = 64, 224

_FIRST = pd.DataFrame({"image_id": ["a", "b", "c"], "probability": [0.2, 0.9, 0.6]})
_SECOND = pd.DataFrame({"image_id": ["c", "a", "b"], "probability": [0.1, 0.4, 0.7]})
"""Two networks on the same three images, which they list in different orders."""
_MEAN = {"a": 0.3, "b": 0.8, "c": 0.35}


@exercise
def check_attention(times: float) -> str:
    """Check a prediction: how many times as many pairs of places a larger image has.

    Args:
        times: Pairs at 224 pixels over pairs at 64.
    """
    times = read_number(times, "the factor", 0, 1e9)
    sides = LARGE / SMALL
    if np.isclose(times, sides**4, rtol=0.01):
        return (
            f"{SMALL // PATCH}² = {(SMALL // PATCH) ** 2} patches become "
            f"{LARGE // PATCH}² = {(LARGE // PATCH) ** 2}, and every one looks at every other: "
            f"{sides**4:.0f} times as many pairs, where a convolution does {sides**2:.0f} times as "
            "much"
        )
    if np.isclose(times, sides**2, rtol=0.01):
        raise WrongAnswer("so many times as many patches. Who looks at whom?")
    if np.isclose(times, sides, rtol=0.01):
        raise WrongAnswer("so many times as many pixels on one side. An image has two sides")
    raise WrongAnswer(
        f"count the patches of {PATCH} x {PATCH} pixels at both sizes; then the pairs, if each "
        "patch looks at all of them, itself included"
    )


@exercise
def check_worth_their_cost(names: Iterable[str], compared: pd.DataFrame, cost: pd.DataFrame) -> str:
    """Check which networks are beaten by no other in both criterion and operations.

    Args:
        names: Names of candidates, in any order.
        compared: From `rule.compare`.
        cost: From `costs.measure_costs`.
    """
    table = compared.merge(cost, on="candidate").set_index("candidate")
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise WrongAnswer(f"a set of names is wanted, such as {{{table.index[0]!r}}}")
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
                f"{name} does not belong to them: {rivals[0]} has at least its criterion and "
                "takes no more operations"
            )
    kept = {name for name in table.index if not beaten_by(name)}
    if missing := kept - named:
        raise WrongAnswer(
            f"{len(missing)} more belong to them. The cheapest network cannot be beaten in cost, "
            "however bad it is; go on from there to the right, and keep each that is higher than "
            "all before it"
        )
    return f"{', '.join(sorted(kept))}: the others cost more and bring no more"


@exercise
def check_mean_of_two(mean: Callable[[pd.DataFrame, pd.DataFrame], pd.Series]) -> str:
    """Check the mean probability of two networks, whose tables list images in different orders.

    Args:
        mean: From two tables with `image_id` and `probability` to a series, or dictionary, of the
            mean probability of each image.
    """
    answer = call(mean, _FIRST.copy(), _SECOND.copy())
    if not isinstance(answer, pd.Series | dict):
        raise WrongAnswer(f"a pandas.Series indexed by image is wanted, not {type(answer)}")
    found = pd.Series(answer)
    if set(found.index) != set(_MEAN):
        raise WrongAnswer(
            f"its index is {list(found.index)}: row numbers, and row 0 of one table is another "
            "image than row 0 of the other. By what do two predictions of one image find each "
            "other?"
        )
    if found.isna().any():
        raise WrongAnswer("some means are NaN; index both tables by `image_id` before you add")
    right = pd.Series(_MEAN)
    found = found.astype(float)[right.index]
    if np.allclose(found, right):
        return "each image meets itself, in whatever order the files list them"
    if found.isin([0, 0.5, 1]).all():
        raise WrongAnswer(
            "those are means of labels: 0.51 and 0.99 became the same before they were averaged"
        )
    if np.allclose(found, 2 * right):
        raise WrongAnswer("that is the sum; a probability of more than 1 is none")
    raise WrongAnswer(
        f"image a has 0.2 from one network and 0.4 from the other; you say {found['a']:.2f}. Are "
        "those two rows of the same image?"
    )
