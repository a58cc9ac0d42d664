"""`utils.tools.solutions`: exercises and solutions find each other by name, or say what is
wrong."""

from pathlib import Path

import pytest

from tests.small_notebooks import build_notebook, code_cell, markdown_cell
from utils.tools.solutions import (
    SolutionsError,
    fill_in,
    find_exercises,
    name_exercise,
    read_solutions,
    solutions_file,
)

ONE = (
    "## Exercise 1: one\n\nWhy.\n\n```text\nno code\n```\n\n```python\n# Exercise 1: one\n1\n```\n"
)
TWO = "\n## Exercise 2: two\n\n```python\n# Exercise 2: two\n\nx = 2\n```\n\nAfter it.\n"


def write(folder: Path, text: str) -> Path:
    file = folder / "01_small.md"
    file.write_text(f"# Solutions\n\nTry first.\n\n{text}")
    return file


def exercises(*names: str):
    cells = [code_cell(f"# Exercise {name}\n...", "exercise") for name in names]
    return build_notebook(markdown_cell("# Why?"), code_cell("# Exercise 9: untagged"), *cells)


def test_solutions_are_beside_the_folder_of_notebooks(tmp_path):
    file = solutions_file(tmp_path / "notebooks" / "01_small.ipynb")
    assert file == tmp_path / "exercises" / "solutions" / "01_small.md"


def test_exercises_and_solutions_are_read_in_order(tmp_path):
    assert list(find_exercises(exercises("2: two", "1: one"))) == [
        "Exercise 2: two",
        "Exercise 1: one",
    ]
    assert read_solutions(write(tmp_path, ONE + TWO)) == {
        "Exercise 1: one": "# Exercise 1: one\n1",
        "Exercise 2: two": "# Exercise 2: two\n\nx = 2",
    }


def test_fill_in_replaces_the_exercises_and_nothing_else(tmp_path):
    notebook = exercises("1: one", "2: two")
    fill_in(notebook, read_solutions(write(tmp_path, TWO + ONE)))
    assert [cell.source for cell in notebook.cells] == [
        "# Why?",
        "# Exercise 9: untagged",
        "# Exercise 1: one\n1",
        "# Exercise 2: two\n\nx = 2",
    ]


@pytest.mark.parametrize(
    "first_line", ["x = ...", "# exercise 1: x", "# Exercise: x", "# Exercise 1:"]
)
def test_exercise_without_a_name_is_refused(first_line):
    with pytest.raises(SolutionsError, match="must begin with a line such as `# Exercise 1"):
        name_exercise(f"{first_line}\ny")


def test_two_exercises_of_one_name_are_refused():
    with pytest.raises(SolutionsError, match="two cells are called 'Exercise 1: one'"):
        find_exercises(exercises("1: one", "1: one"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ONE.replace("```python", "```"), "has 0 Python blocks"),
        (ONE + "```python\n# Exercise 1: one\n```\n", "has 2 Python blocks"),
        (ONE.replace("## Exercise 1: one", "## Exercise 1: won"), "under 'Exercise 1: won' is of"),
        (ONE.replace("# Exercise 1: one\n1", "1"), "must begin with a line"),
        (ONE + ONE, "one heading and one block"),
    ],
)
def test_unusable_solutions_are_refused(tmp_path, text, message):
    with pytest.raises(SolutionsError, match=message):
        read_solutions(write(tmp_path, text))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(SolutionsError, match=r"no exercises/solutions/03_x\.md; write it"):
        read_solutions(tmp_path / "03_x.md")


def test_exercise_without_solution_and_solution_without_exercise_are_named(tmp_path):
    solutions = read_solutions(write(tmp_path, ONE))
    with pytest.raises(SolutionsError, match="no solution for Exercise 2: two"):
        fill_in(exercises("1: one", "2: two"), solutions)
    with pytest.raises(SolutionsError, match="solutions of Exercise 1: one, but no such exercise"):
        fill_in(exercises(), solutions)
