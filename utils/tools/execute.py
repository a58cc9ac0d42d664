"""Execute one notebook with papermill, whole or not at all.

`python -m utils.tools.execute NOTEBOOK --study sample` passes the study's parameters to the
notebook and writes the executed copy; `--solutions` fills its exercises in before.
`--save-committed` runs the notebook with its own defaults and replaces it. Progress goes to the
terminal, and nothing but results is saved.
"""

import argparse
import ast
import fcntl
import json
import logging
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from utils.common.files import read_json, remove_leftovers, write_atomically, write_json
from utils.common.paths import minutes_file, results_dir, shown
from utils.common.progress import progress_stream
from utils.common.study import Study, StudyError, load_study
from utils.tools.solutions import (
    SolutionsError,
    fill_in,
    find_exercises,
    read_solutions,
    solutions_file,
)

logger = logging.getLogger(__name__)

FOLDER_VARIABLES = (
    "DATA_DIR", "RESULTS_DIR", "FIGURES_DIR", "ACTIVATION_CACHE_DIR", "WEIGHTS_DIR",
)  # fmt: skip
LANGUAGE, KERNEL_NAME = "python", "python3"
"""The kernel that every environment with ipykernel brings along."""
KERNEL_LOG_LEVEL = f"--IPKernelApp.log_level={logging.ERROR}"
"""Keeps ipykernel's remark on encryption, of no weight on one machine, off the terminal."""
ERASE = "\x1b[K"
"""Erases the rest of a terminal's line, where the bar of another notebook may stand."""
ERROR_LINES = 12
"""Last lines of a failed cell's traceback that are shown."""
PAPERMILL_TAGS = ("injected-parameters", "papermill-error-cell-tag")


class NotebookError(RuntimeError):
    """A notebook that cannot be executed; the message names the notebook and the remedy."""


def declared_parameters(notebook: NotebookNode) -> dict[str, Any]:
    """Read names and default values from the cell tagged `parameters`.

    Raises:
        NotebookError: if there is not exactly one such cell, or it holds more than literals.
    """
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise NotebookError(f"{len(cells)} cells are tagged `parameters`; exactly one must be")
    parameters = {}
    for statement in ast.parse(cells[0].source).body:
        try:
            (target,) = statement.targets
            parameters[target.id] = ast.literal_eval(statement.value)
        except (AttributeError, ValueError) as error:
            raise NotebookError(
                f"the parameters cell holds `{ast.unparse(statement)}`; only `name = literal` "
                "is allowed there, derived values belong into the next cell"
            ) from error
    return parameters


def choose_parameters(
    study: Study, declared: dict[str, Any], overrides: dict[str, Any]
) -> dict[str, Any]:
    """Return what to pass to a notebook: the study's values of those keys that it declares.

    Args:
        study: The study to run.
        declared: Names and defaults of the notebook's parameters cell.
        overrides: Values that replace the study's.

    Raises:
        NotebookError: if an override is not declared by the notebook.
        StudyError: if an override is not a value that a study can have.
    """
    if unknown := overrides.keys() - declared.keys():
        raise NotebookError(
            f"unknown parameter {', '.join(sorted(unknown))}; "
            f"this notebook knows {', '.join(declared) or 'none'}"
        )
    values = study.model_dump()
    try:
        Study.model_validate(values | {key: overrides[key] for key in overrides if key in values})
    except ValueError as error:
        raise StudyError(f"parameters {overrides} do not make a study: {error}") from error
    return {key: values[key] for key in declared if key in values} | overrides


def parse_overrides(pairs: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Turn `[("views", "2"), ("weights", "random")]` into typed values, read as JSON or text."""
    overrides = {}
    for key, text in pairs:
        try:
            overrides[key] = json.loads(text)
        except json.JSONDecodeError:
            overrides[key] = text
    return overrides


def clean_notebook(notebook: NotebookNode) -> NotebookNode:
    """Remove what differs from run to run or machine to machine, in place: logs, times, paths.

    Outputs on stdout, results and figures stay; code cells are counted from 1 without a gap.
    """
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": LANGUAGE, "name": KERNEL_NAME},
            "language_info": {"name": LANGUAGE},
        }
    )
    count = 0
    for cell in notebook.cells:
        for noise in ("papermill", "execution"):
            cell.metadata.pop(noise, None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
    return notebook


def solve_exercises(notebook: NotebookNode, source: Path) -> int:
    """Replace the exercises of a notebook by their solutions, in place, and count them.

    Args:
        notebook: Content of `source`.
        source: Its file; the solutions are in `exercises/solutions/`, beside its folder.

    Raises:
        SolutionsError: if exercises and solutions do not fit together.
    """
    exercises = find_exercises(notebook)
    if exercises or solutions_file(source).is_file():
        fill_in(notebook, read_solutions(solutions_file(source)))
    return len(exercises)


def execute_notebook(
    notebook: NotebookNode, source: Path, target: Path, parameters: dict[str, Any]
) -> float:
    """Execute a notebook in its own folder and write the clean result to `target`.

    Args:
        notebook: Content to execute: that of `source`, or with its exercises filled in.
        source: File that the notebook comes from.
        target: Where the executed copy goes, atomically; may be `source` itself.
        parameters: Values to inject; none leaves the notebook's cells as they are.

    Returns:
        Minutes that it took.

    Raises:
        NotebookError: if a cell fails or the kernel dies; `target` is then as it was, and the
            partial run is kept beside it as `<name>.failed.ipynb`, unless it is `source`.
    """
    failed = target.with_suffix(".failed.ipynb")
    failed.unlink(missing_ok=True)
    remove_leftovers(target)
    _prepare_environment()
    start = time.time()
    with write_atomically(target.absolute()) as temporary:
        try:
            nbformat.write(notebook, temporary)
            papermill.execute_notebook(
                temporary,
                temporary,
                parameters,
                kernel_name=KERNEL_NAME,
                language=LANGUAGE,
                cwd=source.absolute().parent,
                extra_arguments=[KERNEL_LOG_LEVEL],
                # Drawn where a person looks, and nowhere else.
                progress_bar={
                    "desc": source.stem, "disable": None, "leave": False,
                    "bar_format": "{desc}: cell {n_fmt} of {total_fmt} done, {elapsed}" + ERASE,
                },
            )  # fmt: skip
        except (PapermillExecutionError, RuntimeError) as error:
            message = _describe_failure(source, nbformat.read(temporary, as_version=4), error)
            if target != source:
                os.replace(temporary, failed)
                message += f"\nthe partial run is kept in {shown(failed)}"
            raise NotebookError(message) from error
        nbformat.write(clean_notebook(nbformat.read(temporary, as_version=4)), temporary)
        # As old as its inputs: what is edited during a run is newer, and make runs it again.
        os.utime(temporary, (start, start))
    return round((time.time() - start) / 60, 2)


def _prepare_environment() -> None:
    """Set what the kernel inherits: folders, this environment's Python, the way to the terminal."""
    for variable in FOLDER_VARIABLES:
        # The kernel runs in the notebook's folder, where a relative path would mean another folder.
        if os.environ.get(variable):
            os.environ[variable] = str(Path(os.environ[variable]).expanduser().absolute())
    # A kernel of the same name that a reader once installed would be another environment.
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    if stream := progress_stream():
        os.environ.setdefault("PROGRESS_STREAM", stream)


def _describe_failure(source: Path, partial: NotebookNode, error: Exception) -> str:
    cells = [
        cell
        for cell in partial.cells
        if not set(PAPERMILL_TAGS) & set(cell.metadata.get("tags", []))
    ]
    started = [
        number
        for number, cell in enumerate(cells, start=1)
        if cell.metadata.get("papermill", {}).get("start_time")
    ]
    if isinstance(error, PapermillExecutionError):
        reason = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
    else:
        hint = "; was there enough memory?" if isinstance(error, DeadKernelError) else ""
        reason = f"{type(error).__name__}: {error}{hint}"
    last_lines = "\n".join(f"    {line}" for line in reason.splitlines()[-ERROR_LINES:])
    if not started:
        return f"{source.name} failed before its first cell:\n{last_lines}"
    number = started[-1]
    first_line = (cells[number - 1].source.splitlines() or [""])[0]
    return f"{source.name} failed in cell {number} of {len(cells)}, `{first_line}`:\n{last_lines}"


def record_minutes(study_name: str, notebook: str, minutes: float) -> None:
    """Enter a notebook's minutes into the study's `provenance/minutes.json`."""
    file = minutes_file(study_name)
    file.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # two notebooks may end at once
        known = read_json(file) if file.is_file() else {}
        write_json(file, dict(sorted((known | {notebook: minutes}).items())))
    finally:
        os.close(folder)


def run(arguments: argparse.Namespace) -> None:
    """Execute the notebook that the command line names."""
    source = arguments.notebook
    if not source.is_file():
        raise NotebookError(f"there is no notebook {source}")
    try:
        notebook = nbformat.read(source, as_version=4)
        declared = declared_parameters(notebook)
        if arguments.save_committed:
            target, parameters = source, {}
        else:
            study = load_study(arguments.study)
            target = arguments.output or results_dir(study.study) / "notebooks" / source.name
            overrides = parse_overrides(arguments.parameter)
            parameters = choose_parameters(study, declared, overrides)
        solved = ""
        if arguments.solutions and (count := solve_exercises(notebook, source)):
            solved = f", exercises solved: {count}"
    except (NotebookError, SolutionsError, StudyError) as error:
        raise NotebookError(f"{source.name}: {error}") from error
    if not sys.stderr.isatty():  # where there is no bar to say so
        logger.info("%s: running", source.stem)
    minutes = execute_notebook(notebook, source, target, parameters)
    if not arguments.save_committed:
        record_minutes(study.study, source.stem, minutes)
    begin = f"\r{ERASE}" if sys.stderr.isatty() else ""
    done = f"{source.stem}: {minutes:.1f} minutes{solved}, saved as {shown(target)}"
    logger.info("%s%s", begin, done)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m utils.tools.execute", description=__doc__)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--study", default="sample", help="a file of studies/, without .yaml")
    parser.add_argument("--output", type=Path, help="executed copy; in results/<study>/ by default")
    parser.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"),
        help="replace one of the study's parameters",
    )  # fmt: skip
    parser.add_argument(
        "--save-committed", action="store_true",
        help="run with the notebook's own defaults and replace the notebook",
    )  # fmt: skip
    parser.add_argument(
        "--solutions", action="store_true",
        help="fill the exercises in from exercises/solutions/<notebook>.md",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    if arguments.save_committed and (
        arguments.output or arguments.parameter or arguments.solutions
    ):
        parser.error("--save-committed takes no --output, --parameter or --solutions")
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    logging.getLogger("papermill").setLevel(logging.WARNING)
    try:
        run(arguments)
    except (NotebookError, StudyError) as error:
        logger.error("\n%s", error)
        return 1
    except KeyboardInterrupt:
        logger.error("\n%s: interrupted, nothing was saved", arguments.notebook.name)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
