"""What the checks of all exercises share: a verdict of one line, or a hint.

A check takes the student's answer first, then the data of the run. It returns why the answer is
right, or raises `WrongAnswer` with a hint that helps the student think without giving the answer
away; the decorator `exercise` turns this into the verdict. Printing is the purpose of this package.
"""

import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any

UNANSWERED = "not answered yet"


class WrongAnswer(ValueError):
    """A wrong answer; the message is the hint."""

    def _render_traceback_(self) -> list[str]:
        """Show only the hint in a notebook: a traceback through our code would not help."""
        return [f"{type(self).__name__}: {self}"]


class _Unanswered(Exception):
    """A student's function still returns `...`."""


def exercise(check: Callable[..., str]) -> Callable[..., None]:
    """Turn a check into one that prints its verdict, and lets an answer of `...` pass.

    Args:
        check: Takes the answer, then what it needs from the run; returns in one line why the
            answer is right, or raises `WrongAnswer`.
    """

    @wraps(check)
    def judge(answer: Any, *data: Any) -> None:
        try:
            verdict = UNANSWERED if answer is ... else f"right: {check(answer, *data)}"
        except _Unanswered:
            verdict = UNANSWERED
        print(verdict)

    return judge


def read_number(answer: Any, what: str, low: float, high: float) -> float:
    """Return an answer as a number.

    Args:
        answer: The student's answer.
        what: What it stands for, such as `the proportion`.
        low: Smallest value that makes sense.
        high: Largest value that makes sense.

    Raises:
        WrongAnswer: if it is not a number (True and NaN are not), or out of range.
    """
    is_number = isinstance(answer, numbers.Real) and not isinstance(answer, bool)
    if not is_number or math.isnan(answer):
        raise WrongAnswer(f"{what} must be a number, not {_shown(answer)}{_remedy(answer)}")
    if not low <= answer <= high:
        raise WrongAnswer(f"{what} must lie between {low:,g} and {high:,g}; {answer:,g} does not")
    return float(answer)


def read_count(answer: Any, what: str) -> int:
    """Return an answer as a whole number that is not negative.

    Raises:
        WrongAnswer: if it is not one; 16.0 is accepted.
    """
    number = read_number(answer, what, 0, 1e15)
    if not number.is_integer():
        raise WrongAnswer(f"{what} is counted, so it must be a whole number, not {number:g}")
    return int(number)


def read_range(answer: Any, what: str, low: float, high: float) -> tuple[float, float]:
    """Return an answer as a pair of numbers, the lower one first.

    Raises:
        WrongAnswer: if it is not such a pair.
    """
    try:
        first, second = answer
    except (TypeError, ValueError):
        raise WrongAnswer(
            f"{what} must be a pair, such as ({low:g}, {high:g}), not {_shown(answer)}"
        ) from None
    first, second = (read_number(value, f"each end of {what}", low, high) for value in answer)
    if first >= second:
        raise WrongAnswer(
            f"{what} must start with its lower end; {first:g} is not below {second:g}"
        )
    return first, second


def check_statements(answer: Any, hints: Mapping[str, str], missing: Mapping[str, str]) -> None:
    """Check an answer that names those of some statements that follow, by their letters.

    Args:
        answer: The student's answer, a set of letters.
        hints: Why each statement that does not follow might be doubted, by its letter.
        missing: What leads to each statement that follows, by its letter.

    Raises:
        WrongAnswer: if it is no such set, has a wrong letter, or lacks one.
    """
    *first, last = sorted({*hints, *missing})
    if not isinstance(answer, Iterable) or not set(answer) <= {*first, last}:
        quoted = ", ".join(f'"{letter}"' for letter in first)
        raise WrongAnswer(f'give a set of letters out of {quoted} and "{last}"')
    if wrong := sorted(set(answer) & set(hints)):
        raise WrongAnswer(hints[wrong[0]])
    if lacking := sorted(set(missing) - set(answer)):
        raise WrongAnswer(f"{len(lacking)} more: {missing[lacking[0]]}")


def call(function: Any, *inputs: Any) -> Any:
    """Call the student's function.

    Raises:
        WrongAnswer: if it is not a function, fails, or returns nothing.
    """
    if not callable(function):
        raise WrongAnswer(
            f"pass the function itself, without calling it; this is {_shown(function)}"
        )
    name = getattr(function, "__name__", "the function")
    try:
        result = function(*inputs)
    except Exception as error:  # whatever goes wrong is shown to the student as a hint
        raise WrongAnswer(
            f"{name} stopped with {type(error).__name__}: {error}. Call it yourself on a small "
            "input, in a separate cell, and look at each step"
        ) from error
    if result is ...:
        raise _Unanswered
    if result is None:
        raise WrongAnswer(f"{name} returns nothing; is there a `return`?")
    return result


def _shown(answer: Any) -> str:
    text = repr(answer).replace("\n", " ")
    return text if len(text) <= 40 else f"{text[:37]}..."


def _remedy(answer: Any) -> str:
    if callable(answer):
        return "; call the function and pass what it returns"
    if isinstance(answer, str) and answer.strip().endswith("%"):
        return "; write a percentage as a proportion: 0.35, not 35%"
    return ""
