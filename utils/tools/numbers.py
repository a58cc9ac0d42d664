"""Fill in the numbers that documents and notebooks quote, each from the result that its key names.

A number of a text is followed by its key, an HTML comment that nobody sees when the text is
rendered: `0.974<!--09_scores/ensemble/ROC-AUC-->`. A key is a path:

- `09_scores/ensemble/ROC-AUC`: a table that notebook 09 shows, in `results/full/tables`; then the
  values of its first columns, or `column=value`, until one value is meant; then the column.
- `costs.csv/resnet50_64_robust/parameters`: the same in any other table of `results/full`.
- `metrics.json/counts/test/images`: a value of a record, by its keys.

Where the result is `0.974 [0.962, 0.984]` or a range, a single number is the first of it, and
`/low` and `/high` name the others; a number with its interval is compared as a whole. `a + b`,
`a - b` and `a / b`, of keys or plain numbers, are worked out from left to right. A percentage, or
a number of points, is the result times 100. A number keeps the decimals and the sign that it is
written with; what is rounded half way is rounded up, as by hand.

`python -m utils.tools.numbers` fills the numbers in; `--check` writes nothing, names those that
differ, and fails where one does.
"""

import argparse
import logging
import re
import sys
from collections.abc import Callable, Sequence
from decimal import ROUND_HALF_UP, Decimal
from operator import add, sub, truediv
from pathlib import Path
from typing import Any

import pandas as pd

from utils.common.files import read_json, write_atomically
from utils.common.paths import ROOT

logger = logging.getLogger(__name__)

PATTERNS = (
    "README.md", "MODEL_CARD.md", "data/README.md", "docs/*.md", "exercises/solutions/*.md",
    "notebooks/[0-9]*.ipynb",
)  # fmt: skip
"""Where numbers may have keys. A notebook is read as text, too: keys need no escapes in JSON."""

NUMBER = r"(?<![\w.])(?<!\d,)(?:(?<![\w)\]])[+-])?\d+(?:,\d{3})*(?:\.\d+)?(?![\w])(?!\.\d)"
"""As it stands in a text: not within a name or a version; the hyphen of a range is no sign."""
QUOTED = re.compile(
    rf"(?P<shown>{NUMBER}%?(?: \[{NUMBER}, {NUMBER}\])?)<!--(?P<key>[^\s>][^>]*)-->"
    r"(?P<points> (?:percentage )?points?\b)?"
)
LOOSE_KEY = re.compile(r"<!--([^\s>][^>]*)-->")
OPERATIONS: dict[str, Callable[..., Decimal]] = {"+": add, "-": sub, "/": truediv}


class NumbersError(ValueError):
    """A key that names no result; the message says what there is."""


def documents(root: Path = ROOT) -> list[Path]:
    """Return the files whose numbers may have keys."""
    return [file for pattern in PATTERNS for file in sorted(root.glob(pattern))]


def fill_in(text: str, results: Path) -> tuple[str, list[str]]:
    """Return a text with its numbers as the results have them.

    Args:
        text: Document, or notebook as it is stored.
        results: Folder of a study's results.

    Returns:
        The text, and a line for each number that changed: it, its key, what the results say.

    Raises:
        NumbersError: if a key names no result, or stands behind no number.
    """
    changed = []

    def replace(match: re.Match[str]) -> str:
        scale = 100 if "%" in match["shown"] or match["points"] else 1
        values = [value * scale for value in find_values(match["key"], results)]
        found = _write_like(match["shown"], values, match["key"])
        if found != match["shown"]:
            changed.append(f"{match['shown']} ({match['key']}) is {found} in the results")
        return found + match[0].removeprefix(match["shown"])

    if loose := LOOSE_KEY.findall(QUOTED.sub("", text)):
        raise NumbersError(f"the key {loose[0]!r} stands behind no number; put it right behind one")
    return QUOTED.sub(replace, text), changed


def _write_like(shown: str, values: list[Decimal], key: str) -> str:
    """Write values with the decimals and signs of a text."""
    if len(re.findall(NUMBER, shown)) > len(values):
        raise NumbersError(f"{shown} has an interval and {key!r} none; name another result")
    remaining = iter(values)

    def write(match: re.Match[str]) -> str:
        step = Decimal(1).scaleb(-len(match[0].partition(".")[2]))
        sign = "+" if match[0].startswith("+") else ""
        # Adding 0 turns -0, which rounding may leave, into 0.
        return f"{next(remaining).quantize(step, ROUND_HALF_UP) + 0:{sign},}"

    return re.sub(NUMBER, write, shown)


def find_values(expression: str, results: Path) -> list[Decimal]:
    """Return what a key, or a calculation with keys, stands for.

    Returns:
        The value, and where the result has an interval or a range its two ends.

    Raises:
        NumbersError: if one of the keys names no result.
    """
    first, *rest = re.split(r" ([+/-]) ", expression)
    values = _find_operand(first, results)
    for operation, operand in zip(rest[::2], rest[1::2], strict=True):
        values = [OPERATIONS[operation](values[0], _find_operand(operand, results)[0])]
    return values


def _find_operand(key: str, results: Path) -> list[Decimal]:
    if re.fullmatch(NUMBER, key):
        return [Decimal(key)]
    is_record = ".json/" in key
    try:
        cell, end = (_find_in_record if is_record else _find_in_table)(key, results)
    except (LookupError, TypeError, ValueError, OSError) as error:
        raise NumbersError(f"the key {key!r} names no result: {error}") from error
    # A number of a record may be written as 1e-05, which is none in a text.
    numbers = [str(cell)] if type(cell) in (int, float) else re.findall(NUMBER, str(cell))
    if not 1 <= len(numbers) <= 3 or (end and len(numbers) == 1):
        raise NumbersError(f"the key {key!r} names {cell!r}, which has no {end or 'number'}")
    values = [Decimal(number.replace(",", "")) for number in numbers]
    return [values[{"low": -2, "high": -1}[end]]] if end else values


def _find_in_record(key: str, results: Path) -> tuple[Any, str]:
    """Return a value of a JSON file, an interval as text."""
    name, _, path = key.partition(".json/")
    cell = read_json(_find_file(f"{name}.json", results))
    for part in path.split("/"):
        cell = cell[int(part)] if isinstance(cell, list) else cell[part]
    if isinstance(cell, dict) and cell.keys() == {"value", "low", "high"}:
        cell = f"{cell['value']} [{cell['low']}, {cell['high']}]"
    if isinstance(cell, dict | list):
        raise LookupError(f"it holds {len(cell)} values; name one of them")
    return cell, ""


def _find_in_table(key: str, results: Path) -> tuple[str, str]:
    """Return a cell of a CSV file, and which of its ends is meant, if any."""
    if ".csv/" not in key:
        key = f"tables/{key.replace('/', '.csv/', 1)}"
    name, _, path = key.partition(".csv/")
    table = pd.read_csv(_find_file(f"{name}.csv", results), dtype=str, keep_default_na=False)
    *selectors, column = path.split("/")
    end = ""
    if column in ("low", "high") and column not in table:
        end, column = column, selectors.pop()
    for position, selector in enumerate(selectors):
        named, _, value = selector.rpartition("=")
        cells = table[named or table.columns[position]]
        if not (cells == value).any():
            raise LookupError(f"{value!r} is none of {', '.join(cells.unique())}")
        table = table[cells == value]
    if column not in table:
        raise LookupError(f"{column!r} is none of the columns {', '.join(table)}")
    if table[column].nunique() != 1:
        raise LookupError(f"{len(table)} rows are meant; name one by its first columns")
    return table[column].iloc[0], end


def _find_file(name: str, results: Path) -> Path:
    """Return a file of the study's results, or of the results beside them, such as the bench's."""
    inside, beside = results / name, results.parent / name
    return inside if inside.is_file() else beside


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m utils.tools.numbers", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of documents and results")
    arguments = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    results, status = arguments.root / "results" / "full", 0
    for file in documents(arguments.root):
        text = file.read_text(encoding="utf-8")
        try:
            filled, changed = fill_in(text, results)
        except NumbersError as error:
            logger.error("%s: %s", file, error)
            status = 1
            continue
        for line in changed:
            logger.log(logging.ERROR if arguments.check else logging.INFO, "%s: %s", file, line)
        if changed and arguments.check:
            status = 1
        elif changed:
            with write_atomically(file) as temporary:
                temporary.write_text(filled, encoding="utf-8")
    if status:
        logger.error("run `make readme`; where a key is wrong, correct it")
    return status


if __name__ == "__main__":
    sys.exit(main())
