"""Exercises of a notebook and their worked solutions, which belong together by name.

An exercise is a code cell tagged `exercise` whose first line names it, as in
`# Exercise 1: images at random`. Its solution is in `exercises/solutions/<notebook>.md`, under a
heading of the same name: an explanation, and one Python block that replaces the cell.
"""

import re
from pathlib import Path

from nbformat import NotebookNode

TAG = "exercise"
_FIRST_LINE = re.compile(r"# (Exercise \d+: \S.*)")
_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class SolutionsError(ValueError):
    """Exercises and solutions that do not fit; the message names the exercise and the remedy."""


def solutions_file(notebook: Path) -> Path:
    """Return where the solutions of a notebook are: `exercises/solutions/` beside its folder."""
    return notebook.absolute().parent.parent / "exercises" / "solutions" / f"{notebook.stem}.md"


def find_exercises(notebook: NotebookNode) -> dict[str, NotebookNode]:
    """Return the exercise cells of a notebook by name, in order.

    Raises:
        SolutionsError: if a cell does not say its name in its first line, or two have the same.
    """
    cells: dict[str, NotebookNode] = {}
    for cell in notebook.cells:
        if TAG in cell.metadata.get("tags", []):
            name = name_exercise(cell.source)
            if name in cells:
                raise SolutionsError(f"two cells are called {name!r}; number them again")
            cells[name] = cell
    return cells


def name_exercise(source: str) -> str:
    """Return the name that the first line of a cell or of a solution gives to the exercise.

    Raises:
        SolutionsError: if it gives none.
    """
    first_line = source.split("\n", 1)[0]
    if not (match := _FIRST_LINE.fullmatch(first_line.rstrip())):
        raise SolutionsError(
            f"an exercise must begin with a line such as `# Exercise 1: its name`, not "
            f"`{first_line}`"
        )
    return match[1]


def read_solutions(file: Path) -> dict[str, str]:
    """Read the solutions of a notebook: for each exercise the code that replaces its cell.

    Raises:
        SolutionsError: if there is no such file, or a section does not hold exactly one Python
            block whose first line repeats the heading.
    """
    if not file.is_file():
        raise SolutionsError(
            f"there are exercises but no exercises/solutions/{file.name}; write it"
        )
    solutions: dict[str, str] = {}
    _, *parts = _SECTION.split(file.read_text(encoding="utf-8"))
    for heading, text in zip(parts[::2], parts[1::2], strict=True):
        blocks = _BLOCK.findall(text)
        if len(blocks) != 1:
            raise SolutionsError(
                f"{file.name}: {heading!r} has {len(blocks)} Python blocks; one replaces the cell"
            )
        code = blocks[0].rstrip("\n")
        name = name_exercise(code)
        if name != heading.strip() or name in solutions:
            raise SolutionsError(
                f"{file.name}: the block under {heading!r} is of {name!r}; each exercise has one "
                "heading and one block, which name it alike"
            )
        solutions[name] = code
    return solutions


def fill_in(notebook: NotebookNode, solutions: dict[str, str]) -> None:
    """Replace each exercise cell of a notebook by its solution, in place.

    Raises:
        SolutionsError: if an exercise has no solution, or a solution no exercise.
    """
    exercises = find_exercises(notebook)
    if missing := [name for name in exercises if name not in solutions]:
        raise SolutionsError(
            f"no solution for {', '.join(missing)}; write it in exercises/solutions/"
        )
    if orphans := [name for name in solutions if name not in exercises]:
        raise SolutionsError(
            f"solutions of {', '.join(orphans)}, but no such exercise; a heading and the first "
            "line of a cell differ, or a cell lacks the tag `exercise`"
        )
    for name, cell in exercises.items():
        cell.source = solutions[name]
