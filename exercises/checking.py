"""What the checks of all exercises share: a verdict in one line, or a hint.

A check takes the student's answer first and the data of the run after it. It returns why the
answer is right, or raises `WrongAnswer` with a hint that helps to think and does not tell; the
decorator `exercise` makes the verdict of that. Printing is the purpose of this package.
"""

import math
import numbers
from collections.abc import Callable
from functools import wraps
from typing import Any

UNANSWERED = "not answered yet"


class WrongAnswer(ValueError):
    """An answer that is not right; the message is the hint."""

    def _render_traceback_(self) -> list[str]:
        """Show the hint alone in a notebook: the way through our code would help nobody."""
        return [f"{type(self).__name__}: {self}"]


class _Unanswered(Exception):
    """A student's function still returns `...`."""


def exercise(check: Callable[..., str]) -> Callable[..., None]:
    """Turn a check into one that prints its verdict, and lets an answer of `...` pass.

    Args:
        check: Takes the answer, then what it needs of the run; returns in one line why the answer
            is right, or raises `WrongAnswer`.
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
        answer: The student's.
        what: What it stands for, such as `the share`.
        low: Smallest value that makes sense.
        high: Largest one.

    Raises:
        WrongAnswer: if it is no number (True and NaN are none), or makes no sense.
    """
    is_number = isinstance(answer, numbers.Real) and not isinstance(answer, bool)
    if not is_number or math.isnan(answer):
        raise WrongAnswer(f"{what} must be a number, not {_shown(answer)}{_remedy(answer)}")
    if not low <= answer <= high:
        raise WrongAnswer(f"{what} lies between {low:,g} and {high:,g}; {answer:,g} cannot be")
    return float(answer)


def read_count(answer: Any, what: str) -> int:
    """Return an answer as a whole number that is not negative.

    Raises:
        WrongAnswer: if it is none; 16.0 is one.
    """
    number = read_number(answer, what, 0, 1e15)
    if not number.is_integer():
        raise WrongAnswer(f"{what} is counted, so it is a whole number; {number:g} is none")
    return int(number)


def read_range(answer: Any, what: str, low: float, high: float) -> tuple[float, float]:
    """Return an answer as a pair of numbers, the lower one first.

    Raises:
        WrongAnswer: if it is no such pair.
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
            f"{what} must begin with its lower end; {first:g} is not below {second:g}"
        )
    return first, second


def call(function: Any, *inputs: Any) -> Any:
    """Call the student's function.

    Raises:
        WrongAnswer: if it is no function, fails, or returns nothing.
    """
    if not callable(function):
        raise WrongAnswer(
            f"pass the function itself, without calling it; this is {_shown(function)}"
        )
    name = getattr(function, "__name__", "the function")
    try:
        result = function(*inputs)
    except Exception as error:  # whatever goes wrong in it is the student's to see, as a hint
        raise WrongAnswer(
            f"{name} stopped with {type(error).__name__}: {error}. Call it yourself on a small "
            "input, in a cell of your own, and look at each step"
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
        return "; a percentage is written as a share, 0.35 and not 35 %"
    return ""
