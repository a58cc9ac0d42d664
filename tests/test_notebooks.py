"""The committed notebooks follow the house style, and what nbval compares is worth comparing.

Each check takes a notebook and returns complaints. The checks themselves are proven on a small
notebook that is right, and on copies of it with one thing wrong.
"""

import ast
import base64
import copy
import io
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat import NotebookNode, v4
from PIL import Image

from exercises.checking import UNANSWERED
from tests.small_notebooks import build_notebook, code_cell, markdown_cell
from utils.common.figures import PHANTOM_MARK
from utils.common.paths import ROOT
from utils.common.study import Study, load_study
from utils.tools.execute import declared_parameters
from utils.tools.solutions import TAG as EXERCISE
from utils.tools.solutions import SolutionsError, find_exercises

NAMES = (
    "01_data_exploration",
    "02_augmentation",
    "03_vgg19_baseline",
    "04_resnet50_training",
    "05_evaluation",
    "06_grad_cam",
    "07_fine_tuning",
    "08_architectures",
    "09_outside_validation",
    "10_operating_point",
    "11_shortcuts",
    "12_trusting_heat_maps",
)
DEFAULT_STUDY = dict.fromkeys(NAMES, "sample") | dict.fromkeys(
    (
        "05_evaluation", "07_fine_tuning", "08_architectures", "09_outside_validation",
        "10_operating_point", "11_shortcuts", "12_trusting_heat_maps",
    ), "full",
)  # fmt: skip
"""These read committed predictions of the real study, so that their numbers are real."""

MAX_LINES, MAX_MEDIAN_LINES = 15, 5
MAX_FUNCTION_STATEMENTS = 3
MIN_COMPARED_CELLS, MAX_EXEMPT_SHARE = 8, 0.3
MAX_BYTES = 1_000_000
EXEMPT, FORBIDDEN_TAGS = "nbval-ignore-output", {"nbval-skip", "raises-exception"}

UNWANTED_TEXT = {
    "object repr": r"<[\w.]+ (object )?at 0x|<\w+(\.\w+)+[ >]|<\w+ name=",
    "absolute path": r"(?<![\w.:/])/(home|root|Users|tmp|var|usr|opt|mnt|work|private)/|\b[A-Z]:\\",
    "progress bar": r"it/s\b|s/it\b|\d%\||━━|\[=+[>\]]|\bETA\b|\r",
    "terminal codes": r"\x1b",
}


# ---- reading


def cells_of(notebook: NotebookNode, kind: str) -> list[NotebookNode]:
    """Return a notebook's cells of one type."""
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def tags_of(cell: NotebookNode) -> list[str]:
    """Return a cell's tags."""
    return cell.metadata.get("tags", [])


def texts_of(cell: NotebookNode) -> list[str]:
    """Return the texts that a code cell printed or displayed, figures left out."""
    texts = []
    for output in cell.outputs:
        if output.output_type == "stream":
            texts.append(output.text)
        elif not {"image/png", "image/jpeg"} & set(output.get("data", {})):
            texts += [text for kind, text in output.get("data", {}).items() if "text" in kind]
    return texts


def pictures_of(notebook: NotebookNode) -> list[np.ndarray]:
    """Return the pictures embedded in a notebook's outputs as (height, width) float arrays."""
    encoded = [
        output.data[kind]
        for cell in cells_of(notebook, "code")
        for output in cell.outputs
        for kind in ("image/png", "image/jpeg")
        if kind in output.get("data", {})
    ]
    images = [Image.open(io.BytesIO(base64.b64decode(text))).convert("L") for text in encoded]
    return [np.asarray(image, float) for image in images]


def pictures_without_mark(notebook: NotebookNode) -> NotebookNode:
    """Return the notebook without the pictures whose text says that they show phantoms."""
    others = copy.deepcopy(notebook)
    for cell in cells_of(others, "code"):
        cell.outputs = [
            output
            for output in cell.outputs
            if PHANTOM_MARK not in output.get("data", {}).get("text/plain", "")
        ]
    return others


def is_compared(cell: NotebookNode) -> bool:
    """Tell whether nbval compares some text of a cell."""
    return EXEMPT not in tags_of(cell) and any(text.strip() for text in texts_of(cell))


# ---- checks: structure


BOX = (
    r"\| \*\*Question\*\* \| .+\?", r"\| \*\*You need\*\* \| \w", r"\| \*\*Produces\*\* \| \w",
    r"\| \*\*Reading\*\* \| about \d+ minutes", r"\| \*\*Running\*\* \|.*minute",
    r"\| \*\*Level\*\* \| (beginner|intermediate|advanced) \|",
    r"\| \*\*Roadmap\*\* \|.*: you are here\*\*",
)  # fmt: skip


def check_opening(notebook: NotebookNode) -> list[str]:
    """Title that asks, box, three things to learn, imports, parameters."""
    found = []
    first, code = notebook.cells[0].source, cells_of(notebook, "code")
    title = first.splitlines()[0] if first else ""
    if not re.fullmatch(r"# .+\?", title):
        found.append(f"the first line must be an H1 that asks a question, not {title!r}")
    learn = re.search(r"You will learn\W*\n+((?:[-*] .+\n(?:  .+\n)*)+)", first + "\n")
    bullets = re.findall(r"^[-*] ", learn[1], re.MULTILINE) if learn else []
    if len(bullets) != 3:
        found.append(f"`You will learn` has {len(bullets)} bullets; it must have 3")
    for word in BOX:
        if not re.search(word, first, re.IGNORECASE):
            found.append(f"the first cell does not say {word!r}")
    if not code or any(
        not isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(code[0].source).body
    ):
        found.append("the first code cell must hold imports alone")
    if len(code) < 2 or "parameters" not in tags_of(code[1]):
        found.append("the second code cell must be tagged `parameters`")
    return found


def check_parameters(notebook: NotebookNode) -> list[str]:
    """Literals only, each with a comment."""
    try:
        declared_parameters(notebook)
    except RuntimeError as error:
        return [str(error)]
    (cell,) = [cell for cell in notebook.cells if "parameters" in tags_of(cell)]
    return [
        f"parameter without a comment: {line}"
        for line in cell.source.splitlines()
        if not re.search(r"# \S+", line)
    ]


def names_that_reach_calls(code: str) -> set[str]:
    """Return the names that are an argument of a call, directly or within it, other than print."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) != "print":
            arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
            found |= {
                name.id for part in arguments for name in ast.walk(part)
                if isinstance(name, ast.Name)
            }  # fmt: skip
    return found


def check_parameters_do_something(notebook: NotebookNode) -> list[str]:
    """A parameter that is printed alone looks as if it did something; a label is declared one."""
    cells = [
        cell for cell in cells_of(notebook, "code")
        if not {"parameters", EXERCISE} & set(tags_of(cell))
    ]  # fmt: skip
    (parameters,) = (cell.source for cell in notebook.cells if "parameters" in tags_of(cell))
    reached = set().union(*(names_that_reach_calls(cell.source) for cell in cells))
    return [
        f"parameter {name} reaches no call but print"
        for name in declared_parameters(notebook)
        if name not in reached and not re.search(rf"^{name} = .*# .*\ba label\b", parameters, re.M)
    ]


def check_closing(notebook: NotebookNode) -> list[str]:
    """What we found, what could be wrong, exercises, and a link onwards, after the last code."""
    found = []
    last_code = max(
        i
        for i, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and EXERCISE not in tags_of(cell)
    )
    closing = [cell for cell in notebook.cells[last_code + 1 :] if cell.cell_type == "markdown"]
    text = "\n".join(cell.source for cell in closing) + "\n"
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    sections = {
        heading.strip(): body for heading, body in zip(parts[1::2], parts[2::2], strict=True)
    }
    last_line = text.strip().splitlines()[-1]
    for heading in ("Quiz", "References"):
        sections.pop(heading, None)
    headings, bodies = list(sections), list(sections.values())
    if headings[-3:] != ["What we found", "What could be wrong", "Exercises"]:
        return [f"the last sections are {headings[-3:]}"]
    answers, doubts, exercises = bodies[-3:]
    if len(re.findall(r"^[-*] ", answers, re.MULTILINE)) < 3:
        found.append("`What we found` answers fewer than 3 bullets")
    if not doubts.strip():
        found.append("`What could be wrong` is empty")
    number = len(re.findall(r"^### Exercise \d+: ", exercises, re.MULTILINE))
    # Where no exercise has a check yet, they are numbered prose.
    number = number or len(re.findall(r"^\d\. ", exercises, re.MULTILINE))
    if number not in (2, 3):
        found.append(f"{number} exercises; there must be 2 or 3")
    if not re.search(r"\]\([^)]+\.(ipynb|md)\)", last_line):
        found.append("the last line must link to what comes next")
    return found


def check_exercises(notebook: NotebookNode) -> list[str]:
    """Each in a cell of its own under its heading: one thing to fill in, and a check after it."""
    try:
        exercises = find_exercises(notebook)
    except SolutionsError as error:
        return [str(error)]
    found = []
    for number, (name, cell) in enumerate(exercises.items(), start=1):
        before = notebook.cells[notebook.cells.index(cell) - 1].source
        if not name.startswith(f"Exercise {number}: ") or f"### {name}\n\n" not in before:
            found.append(f"{name} must be number {number} and have its name as heading")
        if cell.source.count("...") != 1:
            found.append(f"{name} must have one `...` to fill in")
        last = ast.unparse(ast.parse(cell.source).body[-1])
        if not re.match(r"exercises\.check_\w+\(", last):
            found.append(f"{name} must end with its check, not with `{last}`")
        if texts_of(cell) != [f"{UNANSWERED}\n"] or len(cell.outputs) != 1:
            found.append(f"{name} was saved with an answer; put `...` back")
    headings = re.findall(r"^### Exercise \d+: .+$", _text(notebook, "markdown"), re.MULTILINE)
    if len(headings) != len(exercises):
        found.append(f"{len(headings)} headings for {len(exercises)} exercise cells")
    closing = _text(notebook, "markdown").partition("\n## Exercises\n")[2]
    if exercises and "](../exercises/solutions/" not in closing:
        found.append("the exercises must link to their solutions")
    return found


def _text(notebook: NotebookNode, kind: str) -> str:
    return "\n".join(cell.source for cell in cells_of(notebook, kind))


def check_rhythm(notebook: NotebookNode) -> list[str]:
    """Prose before every code cell, except that derived values may follow the parameters."""
    found = []
    for number, (before, cell) in enumerate(
        zip(notebook.cells, notebook.cells[1:], strict=False), start=2
    ):
        if before.cell_type == cell.cell_type == "code" and "parameters" not in tags_of(before):
            found.append(f"cell {number} is code right after code")
    if len(cells_of(notebook, "markdown")) < len(cells_of(notebook, "code")):
        found.append("there is more code than markdown")
    return found


def check_code_is_short(notebook: NotebookNode) -> list[str]:
    """Short cells, no long functions, no matplotlib: those belong into `utils`."""
    found = []
    code = cells_of(notebook, "code")
    lines = [len(cell.source.splitlines()) for cell in code]
    if max(lines) > MAX_LINES:
        found.append(f"a code cell has {max(lines)} lines; at most {MAX_LINES}")
    if statistics.median(lines) > MAX_MEDIAN_LINES:
        found.append(f"the median code cell has {statistics.median(lines)} lines")
    for node in (node for cell in code for node in ast.walk(ast.parse(cell.source))):
        if isinstance(node, ast.FunctionDef) and len(node.body) > MAX_FUNCTION_STATEMENTS:
            found.append(f"function {node.name} is too long for a notebook; move it to utils")
        if isinstance(node, ast.Import | ast.ImportFrom) and "matplotlib" in ast.unparse(node):
            found.append("matplotlib is imported; plots belong into utils.common.figures")
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path":
            found.append("sys.path is edited; `make setup` installs utils")
    return found


# ---- checks: outputs


def check_saved_clean(notebook: NotebookNode) -> list[str]:
    """Run once from top to bottom, small, without logs, reprs, paths or bars."""
    found = []
    code = cells_of(notebook, "code")
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        found.append(f"execution counts are {counts}; save it with `make notebooks`")
    if (size := len(nbformat.writes(notebook).encode())) > MAX_BYTES:
        found.append(f"{size} bytes; at most {MAX_BYTES}")
    for cell in code:
        for output in cell.outputs:
            if output.output_type == "error" or output.get("name") == "stderr":
                found.append(f"In [{cell.execution_count}] has an error or a log in its output")
        for text in texts_of(cell):
            for what, pattern in UNWANTED_TEXT.items():
                if match := re.search(pattern, text):
                    found.append(f"In [{cell.execution_count}] shows a {what}: {match[0]!r}")
        if {"injected-parameters"} & set(tags_of(cell)):
            found.append("parameters of a run are left in it; save it with `make notebooks`")
    return found


def check_nbval_has_something_to_compare(notebook: NotebookNode) -> list[str]:
    """Enough compared text, few exemptions, nothing skipped; empty exercises are no evidence."""
    found = []
    code = [cell for cell in cells_of(notebook, "code") if EXERCISE not in tags_of(cell)]
    compared = sum(map(is_compared, code))
    if compared < MIN_COMPARED_CELLS:
        found.append(f"{compared} cells with compared text; at least {MIN_COMPARED_CELLS}")
    with_output = [cell for cell in code if cell.outputs]
    exempt = [cell for cell in with_output if EXEMPT in tags_of(cell)]
    if len(exempt) > MAX_EXEMPT_SHARE * len(with_output):
        found.append(f"{len(exempt)} of {len(with_output)} cells with output are exempt")
    for cell in cells_of(notebook, "code"):
        if FORBIDDEN_TAGS & set(tags_of(cell)) or re.search(r"#\s*(NBVAL|PYTEST)_", cell.source):
            found.append(f"In [{cell.execution_count}]: the tag {EXEMPT} is the only way out")
    return found


def check_no_figure_is_blank(notebook: NotebookNode) -> list[str]:
    """Every picture shows something."""
    return [
        f"picture {number} is blank"
        for number, picture in enumerate(pictures_of(notebook), start=1)
        if picture.std() < 1
    ]


CHECKS: tuple[Callable[[NotebookNode], list[str]], ...] = (
    check_opening,
    check_parameters,
    check_parameters_do_something,
    check_closing,
    check_exercises,
    check_rhythm,
    check_code_is_short,
    check_saved_clean,
    check_nbval_has_something_to_compare,
    check_no_figure_is_blank,
)


# ---- the committed notebooks


@cache
def read_committed(name: str) -> NotebookNode:
    """Read a committed notebook; fail where it is missing."""
    file = ROOT / "notebooks" / f"{name}.ipynb"
    if not file.is_file():
        pytest.fail(f"notebooks/{name}.ipynb is missing")
    return nbformat.read(file, as_version=4)


def test_every_notebook_has_the_same_roadmap():
    """All notebooks in order, each a link but the one at hand."""
    words = {}
    for name in NAMES:
        (line,) = re.findall(
            r"^\| \*\*Roadmap\*\* \| (.+) \|$", read_committed(name).cells[0].source, re.M
        )
        stops = line.split(" · ")
        assert [stop.strip("[*")[:2] for stop in stops] == [each[:2] for each in NAMES]
        for each, stop in zip(NAMES, stops, strict=True):
            pattern = (
                r"\*\*(.+): you are here\*\*" if each == name else rf"\[(.+)\]\({each}\.ipynb\)"
            )
            assert (found := re.fullmatch(pattern, stop)), f"{name}: {stop!r}"
            assert words.setdefault(each, found[1]) == found[1]


def test_no_other_notebook_is_there():
    assert {file.stem for file in (ROOT / "notebooks").glob("*.ipynb")} <= set(NAMES)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_notebook(name, check):
    assert check(read_committed(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_those_of_the_study_file(name):
    declared = declared_parameters(read_committed(name))
    # A run of the whole study draws radiographs; what is committed never does.
    study = load_study(DEFAULT_STUDY[name]).model_dump() | {"draw_cases": False}
    assert declared == {key: study[key] for key in declared if key in study}
    assert declared["study"] == DEFAULT_STUDY[name]


def test_every_key_of_a_study_is_used_by_some_notebook():
    declared = {key for name in NAMES for key in declared_parameters(read_committed(name))}
    assert declared == set(Study.model_fields)


@pytest.mark.parametrize(("name", "following"), list(zip(NAMES, NAMES[1:], strict=False)))
def test_notebook_links_to_the_next(name, following):
    last_line = read_committed(name).cells[-1].source.strip().splitlines()[-1]
    assert f"]({following}.ipynb)" in last_line


@pytest.mark.slow
def test_nbval_notices_one_altered_digit(tmp_path):
    """The quickest notebook, up to its first number: right as it is, wrong with another digit."""
    shutil.copytree(ROOT / "results" / "full", tmp_path / "results" / "full")
    notebook = copy.deepcopy(read_committed("05_evaluation"))
    is_number = [
        cell.cell_type == "code" and is_compared(cell) and re.search(r"\d", texts_of(cell)[0])
        for cell in notebook.cells
    ]
    notebook.cells = notebook.cells[: is_number.index(next(filter(None, is_number))) + 1]
    right = run_nbval(notebook, tmp_path, "right.ipynb")
    assert right.returncode == 0, right.stdout
    (output,) = notebook.cells[-1].outputs
    output.text = re.sub(r"\d", lambda digit: str(9 - int(digit[0])), output.text, count=1)
    wrong = run_nbval(notebook, tmp_path, "wrong.ipynb")
    assert wrong.returncode == 1
    assert "Cell outputs differ" in wrong.stdout


def run_nbval(notebook: NotebookNode, folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    """Run nbval on a notebook as `make nbval` does, with results in `folder`."""
    nbformat.write(notebook, folder / name)
    command = [
        sys.executable, "-m", "pytest", "-p", "conftest", "--nbval", "--nbval-current-env",
        "--rootdir", str(ROOT), "--config-file", str(ROOT / "pyproject.toml"), str(folder / name),
    ]  # fmt: skip
    environment = {"RESULTS_DIR": str(folder / "results"), "FIGURES_DIR": str(folder / "figures")}
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )


# ---- the checks themselves


def picture(pixels: np.ndarray) -> NotebookNode:
    """Build the output of a cell that shows a picture."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    data = {"image/png": base64.b64encode(stream.getvalue()).decode(), "text/plain": "<Figure>"}
    return v4.new_output("display_data", data)


OPENING = """# Is it right?

<div class="alert alert-info">

| | |
|---|---|
| **Question** | Is it right? |
| **You need** | nothing |
| **Produces** | nothing |
| **Reading** | about 5 minutes |
| **Running** | one minute |
| **Level** | beginner |
| **Roadmap** | **01 small: you are here** |

</div>

In this notebook, we ask.

**You will learn**

- one;
- two, on
  two lines;
- three.
"""
CLOSING = """## What we found

- One.
- Two.
- Three.

## What could be wrong

- All of it.

## Exercises

Try first: [exercises/solutions/01.md](../exercises/solutions/01.md).
"""
ONWARDS = "Next: [02](02_augmentation.ipynb)\n"
PROSE = "## Exercises\n\n1. Why?\n2. Why not?\n\n"
AT_CLOSING, AT_EXERCISE = -6, -4
"""Positions of the closing text and of the first exercise in the good notebook."""


def good_notebook() -> NotebookNode:
    """Build a small notebook with which every check is content."""
    cells = [
        markdown_cell(OPENING),
        code_cell("from utils import plots"),
        markdown_cell("## Parameters"),
        code_cell('study = "sample"  # name of the study', "parameters"),
        code_cell("derived = load_study(study)"),
    ]
    for number in range(MIN_COMPARED_CELLS + 1):
        cells += [markdown_cell("We expect a number."), code_cell("1", stdout=f"{number}\n")]
    cells[-1].metadata["tags"] = [EXEMPT]
    cells.append(markdown_cell(CLOSING))
    for number in (1, 2):
        code = f"# Exercise {number}: why\nwhy = ...\nexercises.check_why(why)"
        cells.append(markdown_cell(f"### Exercise {number}: why\n\nWhy?"))
        cells.append(code_cell(code, EXERCISE, stdout=f"{UNANSWERED}\n"))
    cells.append(markdown_cell(ONWARDS))
    notebook = build_notebook(*cells)
    noise = np.random.default_rng(0).integers(0, 255, (8, 8), np.uint8)
    notebook.cells[6].outputs.append(picture(noise))
    return notebook


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_check_is_content_with_a_good_notebook(check):
    assert check(good_notebook()) == []


def test_closing_may_have_exercises_in_prose():
    notebook = good_notebook()
    closing = CLOSING.split("## Exercises")[0] + PROSE + ONWARDS
    notebook.cells = [*notebook.cells[:AT_CLOSING], markdown_cell(closing)]
    assert check_closing(notebook) == check_exercises(notebook) == []


@pytest.mark.parametrize("line", [None, *[x for x in OPENING.splitlines() if "| **" in x]])
def test_a_box_must_say_what_is_needed(line):
    notebook = good_notebook()
    if line:
        notebook.cells[0].source = OPENING.replace(line, "")
    assert bool(check_opening(notebook)) == bool(line)


def test_a_quiz_and_references_may_stand_around_the_exercises():
    notebook = good_notebook()
    closing = notebook.cells[AT_CLOSING]
    closing.source = closing.source.replace("## Exercises", "## Quiz\n\nWhy?\n\n## Exercises")
    notebook.cells[-1].source = f"## References\n\n- A.\n\n{ONWARDS}"
    assert check_closing(notebook) == check_exercises(notebook) == []


def replace(cell: int, old: str, new: str) -> Callable[[NotebookNode], None]:
    """Return a change of a cell's source."""

    def change(notebook: NotebookNode) -> None:
        assert old in notebook.cells[cell].source
        notebook.cells[cell].source = notebook.cells[cell].source.replace(old, new)

    return change


def show(text: str) -> Callable[[NotebookNode], None]:
    """Return a change of what a cell printed."""

    def change(notebook: NotebookNode) -> None:
        notebook.cells[6].outputs[0].text = text

    return change


def tag(*cells: int, name: str = EXEMPT) -> Callable[[NotebookNode], None]:
    """Return a change that tags cells."""

    def change(notebook: NotebookNode) -> None:
        for cell in cells:
            notebook.cells[cell].metadata["tags"] = [name]

    return change


def set_output(cell: int, *outputs: NotebookNode) -> Callable[[NotebookNode], None]:
    """Return a change of a cell's outputs."""

    def change(notebook: NotebookNode) -> None:
        notebook.cells[cell].outputs = list(outputs)

    return change


def delete(*cells: int) -> Callable[[NotebookNode], None]:
    """Return a change that deletes cells, one after the other."""
    return lambda notebook: [notebook.cells.pop(cell) for cell in cells]


STDERR = v4.new_output("stream", name="stderr", text="a log")
ERROR = v4.new_output("error", ename="E", evalue="e", traceback=[])
FIGURE_ALONE = picture(np.eye(8, dtype=np.uint8) * 255)

DEFECTS = [
    (check_opening, "question", replace(0, "Is it right?", "It is right.")),
    (check_opening, "2 bullets", replace(0, "- three.\n", "")),
    (check_opening, "Running", replace(0, "one minute", "long")),
    (check_opening, "imports alone", replace(1, "from", "x = 1\nfrom")),
    (check_opening, "second code cell", tag(3, name="other")),
    (check_parameters, "0 cells", tag(3, name="other")),
    (check_parameters, "without a comment", replace(3, "  # name of the study", "")),
    (check_parameters, "literal", replace(3, '"sample"', "str(1)")),
    (check_parameters_do_something, "study reaches no call", replace(4, "load_study(study)", "1")),
    (check_parameters_do_something, "study reaches", replace(4, "load_study(study)", "study")),
    (check_parameters_do_something, "study reaches", replace(4, "load_study(", "print(")),
    (check_closing, "last sections", replace(AT_CLOSING, "## What could be wrong\n", "")),
    (check_closing, "fewer than 3", replace(AT_CLOSING, "- Three.\n", "")),
    (check_closing, "is empty", replace(AT_CLOSING, "- All of it.\n", "")),
    (check_closing, "1 exercises", replace(AT_EXERCISE - 1, "### Exercise 1: why", "")),
    (check_closing, "link", replace(-1, "](02_augmentation.ipynb)", "]")),
    (check_closing, "last sections", tag(AT_EXERCISE, name="other")),
    (check_exercises, "must begin with", replace(AT_EXERCISE, "# Exercise 1", "# Exercise")),
    (check_exercises, "two cells", replace(-2, "# Exercise 2", "# Exercise 1")),
    (check_exercises, "be number 1", replace(AT_EXERCISE, "# Exercise 1", "# Exercise 3")),
    (check_exercises, "name as heading", replace(AT_EXERCISE - 1, ": why", ": who")),
    (check_exercises, "2 headings for 1", tag(AT_EXERCISE, name="other")),
    (check_exercises, "one `...`", replace(AT_EXERCISE, "...", "42")),
    (check_exercises, "end with its check", replace(AT_EXERCISE, "exercises.check_", "print")),
    (check_exercises, "with an answer", set_output(AT_EXERCISE)),
    (check_exercises, "with an answer", set_output(AT_EXERCISE, STDERR)),
    (check_exercises, "link to their solutions", replace(AT_CLOSING, "../exercises/", "")),
    (check_rhythm, "right after code", delete(5)),
    (check_rhythm, "more code", delete(-1, 2)),
    (check_code_is_short, "16 lines", replace(6, "1", "1\n" * 16)),
    (check_code_is_short, "too long", replace(6, "1", "def f():\n" + "    x = 1\n" * 4)),
    (check_code_is_short, "matplotlib", replace(6, "1", "import matplotlib.pyplot as plt")),
    (check_code_is_short, "matplotlib", replace(6, "1", "from matplotlib import pyplot")),
    (check_code_is_short, "sys.path", replace(6, "1", "sys.path.append('..')")),
    (check_saved_clean, "counts", delete(4)),
    (check_saved_clean, "log", set_output(6, STDERR)),
    (check_saved_clean, "error", set_output(6, ERROR)),
    (check_saved_clean, "object repr", show("[<matplotlib.lines.Line2D at 0x7f1c>]")),
    (check_saved_clean, "object repr", show("<Functional name=resnet50, built=True>")),
    (check_saved_clean, "absolute path", show("saved /home/me/study/x.csv")),
    (check_saved_clean, "progress bar", show(" 30%|███       | 3/10 [00:01<00:03, 2.1it/s]")),
    (check_saved_clean, "progress bar", show("8/8 ━━━━━━━━━━ 1s")),
    (check_saved_clean, "bytes", show("x" * MAX_BYTES)),
    (check_saved_clean, "parameters of a run", tag(6, name="injected-parameters")),
    (check_nbval_has_something_to_compare, "7 cells", set_output(6, FIGURE_ALONE)),
    (check_nbval_has_something_to_compare, "7 cells", show("\n")),
    (check_nbval_has_something_to_compare, "are exempt", tag(6, 8, 10)),
    (check_nbval_has_something_to_compare, "only way out", tag(6, name="nbval-skip")),
    (check_nbval_has_something_to_compare, "only way out", replace(6, "1", "# NBVAL_SKIP\n1")),
    (check_no_figure_is_blank, "blank", set_output(6, picture(np.full((8, 8), 255, np.uint8)))),
]  # fmt: skip


@pytest.mark.parametrize(("check", "complaint", "change"), DEFECTS)
def test_check_notices_a_defect(check, complaint, change):
    notebook = good_notebook()
    change(notebook)
    assert complaint in "\n".join(check(notebook))
