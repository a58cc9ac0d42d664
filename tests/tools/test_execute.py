"""`utils.tools.execute`: parameters that arrive, clean results, and failures that leave nothing
fresh."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import nbformat
import pytest
from nbformat import v4

from tests.small_notebooks import build_notebook, code_cell, markdown_cell, write_notebook
from utils.common.files import read_json
from utils.common.paths import ROOT, minutes_file
from utils.common.study import StudyError, load_study
from utils.tools.execute import (
    NotebookError,
    choose_parameters,
    clean_notebook,
    declared_parameters,
    main,
    parse_overrides,
    record_minutes,
)

PARAMETERS = 'study = "sample"  # name\nviews = 1  # copies per image'


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    """Keep results and environment of a run inside the test."""
    monkeypatch.chdir(tmp_path)
    with mock.patch.dict(os.environ, RESULTS_DIR=str(tmp_path / "results")):
        os.environ.pop("PROGRESS_STREAM", None)
        yield


def read_outputs(path: Path) -> list[str]:
    """Return the text that each code cell of a notebook printed."""
    cells = nbformat.read(path, as_version=4).cells
    return [
        "".join(output.get("text", "") for output in cell.outputs)
        for cell in cells
        if cell.cell_type == "code"
    ]


# ---- parameters


def test_declared_parameters_are_read_with_their_defaults():
    notebook = build_notebook(code_cell(PARAMETERS + "\nrate = -1e-4  # -\n", "parameters"))
    assert declared_parameters(notebook) == {"study": "sample", "views": 1, "rate": -1e-4}


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([code_cell("views = 1")], "0 cells are tagged"),
        ([code_cell("a = 1", "parameters"), code_cell("b = 1", "parameters")], "2 cells"),
        ([code_cell("views = 1 + epochs", "parameters")], r"`views = 1 \+ epochs`.*next cell"),
        ([code_cell("import os", "parameters")], "`import os`"),
    ],
)
def test_unusable_parameters_cells_are_refused(cells, message):
    with pytest.raises(NotebookError, match=message):
        declared_parameters(build_notebook(*cells))


def test_only_declared_keys_of_the_study_are_passed():
    study = load_study("sample")
    declared = {"study": "x", "views": 9, "own": 1}
    assert choose_parameters(study, declared, {"own": 2}) == {
        "study": "sample", "views": study.views, "own": 2,
    }  # fmt: skip


def test_unknown_parameter_is_refused_with_the_known_ones():
    with pytest.raises(NotebookError, match="unknown parameter epoch; this notebook knows epochs"):
        choose_parameters(load_study("sample"), {"epochs": 1}, {"epoch": 3})


def test_override_must_make_a_valid_study():
    with pytest.raises(StudyError, match="epochs"):
        choose_parameters(load_study("sample"), {"epochs": 1}, {"epochs": "many"})


def test_overrides_are_typed():
    pairs = [("a", "2"), ("b", "1e-4"), ("c", "true"), ("d", "random")]
    assert parse_overrides(pairs) == {"a": 2, "b": 1e-4, "c": True, "d": "random"}


# ---- what is saved


def test_clean_notebook_drops_logs_times_and_paths():
    cell = code_cell("x", "nbval-ignore-output")
    cell.metadata |= {"papermill": {"start_time": "now"}, "execution": {"iopub": "now"}}
    cell.outputs = [
        v4.new_output("stream", name="stderr", text="log"),
        v4.new_output("stream", name="stdout", text="fact"),
        v4.new_output("execute_result", {"text/plain": "1"}, execution_count=9),
    ]
    notebook = build_notebook(markdown_cell("# Why?"), code_cell("y"), cell)
    notebook.metadata.papermill = {"output_path": "/somewhere"}
    notebook.cells[0].metadata.tags = []
    cell.execution_count = 9
    clean_notebook(notebook)
    assert [output.output_type for output in cell.outputs] == ["stream", "execute_result"]
    assert cell.execution_count == cell.outputs[1].execution_count == 2
    assert cell.metadata == {"tags": ["nbval-ignore-output"]}
    assert notebook.cells[0].metadata == {}
    assert "somewhere" not in nbformat.writes(notebook)
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.slow
def test_run_injects_cleans_and_records_minutes(tmp_path):
    source = write_notebook(
        tmp_path / "notebooks" / "01_small.ipynb",
        code_cell(PARAMETERS, "parameters"),
        code_cell("import os, sys\nprint(study, views, os.path.basename(os.getcwd()))"),
        code_cell("print('log', file=sys.stderr)\nprint(sys.executable)"),
        code_cell("print(os.environ['RESULTS_DIR'])"),
    )
    before = source.read_bytes()
    with mock.patch.dict(os.environ, RESULTS_DIR="results"):
        assert main([str(source), "--study", "sample", "-p", "views", "7"]) == 0
    executed = tmp_path / "results" / "sample" / "notebooks" / "01_small.ipynb"
    outputs = read_outputs(executed)
    assert outputs[2:] == [
        "sample 7 notebooks\n",
        f"{sys.executable}\n",
        f"{tmp_path / 'results'}\n",
    ]
    assert source.read_bytes() == before
    assert os.listdir(executed.parent) == [executed.name]
    minutes = json.loads((executed.parents[1] / "provenance" / "minutes.json").read_text())
    assert minutes.keys() == {"01_small"}
    assert 0 <= minutes["01_small"] < 2


def test_minutes_of_notebooks_that_end_at_once_are_all_kept():
    names = [f"{number:02}" for number in range(20)]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: record_minutes("sample", name, 1.0), names))
    assert list(read_json(minutes_file("sample"))) == names


@pytest.mark.slow
def test_an_edit_during_the_run_is_newer_than_the_result(tmp_path):
    source = write_notebook(
        tmp_path / "01_small.ipynb",
        code_cell(PARAMETERS, "parameters"),
        code_cell("from pathlib import Path\nPath('01_small.ipynb').touch()"),
    )
    target = tmp_path / "out" / "01_small.ipynb"
    assert main([str(source), "--output", str(target)]) == 0
    assert source.stat().st_mtime > target.stat().st_mtime


@pytest.mark.slow
def test_save_committed_replaces_the_notebook_without_injecting(tmp_path):
    source = write_notebook(
        tmp_path / "01_small.ipynb",
        code_cell(PARAMETERS, "parameters"),
        markdown_cell("We expect the default."),
        code_cell("print(views)", stdout="an old output\n"),
    )
    assert main([str(source), "--save-committed"]) == 0
    assert read_outputs(source) == ["", "1\n"]
    notebook = nbformat.read(source, as_version=4)
    assert len(notebook.cells) == 3
    assert notebook.cells[0].metadata == {"tags": ["parameters"]}
    assert os.listdir(tmp_path) == ["01_small.ipynb"]


# ---- solutions

EXERCISE = "# Exercise 1: a number\nnumber = ...\nassert number is not ..., 'not answered yet'"
SOLUTION = "# Solutions\n\n## Exercise 1: a number\n\nBecause.\n\n```python\n# {}\n{}\n```\n"


def write_exercise(folder: Path, code: str, name: str = "Exercise 1: a number") -> Path:
    """Write a notebook with one exercise, and its solution."""
    (folder / "exercises" / "solutions").mkdir(parents=True)
    (folder / "exercises" / "solutions" / "01_small.md").write_text(SOLUTION.format(name, code))
    return write_notebook(
        folder / "notebooks" / "01_small.ipynb",
        code_cell(PARAMETERS, "parameters"),
        markdown_cell("Which number?"),
        code_cell(EXERCISE, "exercise"),
    )


@pytest.mark.slow
def test_solutions_are_filled_in_and_the_notebook_stays_empty(tmp_path, caplog):
    source = write_exercise(tmp_path, "print(6 * 7)")
    before = source.read_bytes()
    target = tmp_path / "out.ipynb"
    with caplog.at_level("INFO"):
        assert main([str(source), "--solutions", "--output", str(target)]) == 0
    assert "01_small: 0.0 minutes, exercises solved: 1, saved as" in re.sub(
        r"0\.\d", "0.0", caplog.text
    )
    assert read_outputs(target)[-1] == "42\n"
    assert "print(6 * 7)" in nbformat.read(target, as_version=4).cells[-1].source
    assert source.read_bytes() == before
    assert main([str(source), "--output", str(target)]) == 1
    assert "AssertionError: not answered yet" in caplog.text


@pytest.mark.slow
def test_failed_solution_is_named_with_its_hint(tmp_path, caplog):
    check = "from exercises.checking import WrongAnswer\nraise WrongAnswer('think of six')"
    source = write_exercise(tmp_path, check)
    with mock.patch.dict(os.environ, PYTHONPATH=str(ROOT)):
        assert main([str(source), "--solutions", "--output", "out.ipynb"]) == 1
    assert "01_small.ipynb failed in cell 3 of 3, `# Exercise 1: a number`" in caplog.text
    assert "\n    WrongAnswer: think of six" in caplog.text
    assert "Traceback" not in caplog.text


def test_solutions_that_do_not_fit_run_nothing(tmp_path, caplog):
    source = write_exercise(tmp_path, "1", name="Exercise 2: a number")
    assert main([str(source), "--solutions"]) == 1
    assert "01_small.ipynb: 01_small.md: the block under 'Exercise 1: a number'" in caplog.text
    (tmp_path / "exercises" / "solutions" / "01_small.md").unlink()
    assert main([str(source), "--solutions"]) == 1
    complaint = "there are exercises but no exercises/solutions/01_small.md"
    assert f"01_small.ipynb: {complaint}" in caplog.text
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_notebook_without_exercises_needs_no_solutions(tmp_path):
    source = write_notebook(tmp_path / "01_small.ipynb", code_cell(PARAMETERS, "parameters"))
    assert main([str(source), "--solutions", "--output", "out.ipynb"]) == 0


# ---- failures


@pytest.mark.slow
def test_failed_cell_is_named_and_leaves_no_target(tmp_path, caplog):
    source = write_notebook(
        tmp_path / "03_small.ipynb",
        code_cell(PARAMETERS, "parameters"),
        markdown_cell("Now it breaks."),
        code_cell("# Divide.\nviews / 0"),
    )
    target = tmp_path / "out" / "03_small.ipynb"
    assert main([str(source), "--output", str(target)]) == 1
    assert "03_small.ipynb failed in cell 3 of 3, `# Divide.`" in caplog.text
    assert "ZeroDivisionError: division by zero" in caplog.text
    assert "\x1b" not in caplog.text
    assert os.listdir(target.parent) == ["03_small.failed.ipynb"]
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_next_success_removes_the_failed_copy(tmp_path):
    source = write_notebook(tmp_path / "03_small.ipynb", code_cell(PARAMETERS, "parameters"))
    target = tmp_path / "out" / "03_small.ipynb"
    write_notebook(target.with_suffix(".failed.ipynb"))
    assert main([str(source), "--output", str(target)]) == 0
    assert os.listdir(target.parent) == ["03_small.ipynb"]


@pytest.mark.slow
def test_dead_kernel_is_a_failure_with_its_cell(tmp_path, caplog):
    source = write_notebook(
        tmp_path / "04_small.ipynb",
        code_cell(PARAMETERS, "parameters"),
        code_cell("import os\nos._exit(9)"),
        code_cell("1"),
    )
    before = source.read_bytes()
    assert main([str(source), "--save-committed"]) == 1
    assert "04_small.ipynb failed in cell 2 of 3, `import os`" in caplog.text
    assert "memory" in caplog.text
    assert source.read_bytes() == before
    assert os.listdir(tmp_path) == ["04_small.ipynb"]


def test_unknown_parameter_runs_nothing(tmp_path, caplog):
    source = write_notebook(tmp_path / "01_small.ipynb", code_cell(PARAMETERS, "parameters"))
    assert main([str(source), "--study", "sample", "-p", "view", "2"]) == 1
    assert "01_small.ipynb: unknown parameter view; this notebook knows study, views" in caplog.text
    assert not (tmp_path / "results").exists()


def test_missing_notebook_and_study_are_named(tmp_path, caplog):
    assert main(["nowhere.ipynb"]) == 1
    source = write_notebook(tmp_path / "01_small.ipynb", code_cell(PARAMETERS, "parameters"))
    assert main([str(source), "--study", "huge"]) == 1
    assert "no notebook nowhere.ipynb" in caplog.text
    assert "there is no study 'huge'; choose one of full, sample" in caplog.text


@pytest.mark.parametrize("more", [("-p", "views", "2"), ("--solutions",)])
def test_save_committed_takes_the_notebook_as_it_is(more):
    with pytest.raises(SystemExit):
        main(["x.ipynb", "--save-committed", *more])


@pytest.mark.slow
def test_the_next_run_removes_what_a_killed_one_left(tmp_path):
    source = write_notebook(
        tmp_path / "01_small.ipynb",
        code_cell(PARAMETERS, "parameters"),
        code_cell("import os, time\nopen('started', 'w')\ntime.sleep(600 if views == 7 else 0)"),
    )
    target = tmp_path / "out" / "01_small.ipynb"
    another = write_notebook(target.with_name(".0123abcd.02_other.ipynb"))
    command = [sys.executable, "-m", "utils.tools.execute", str(source), "--output", str(target)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    killed = subprocess.Popen([*command, "-p", "views", "7"], env=environment)
    while not (tmp_path / "started").exists():
        assert killed.poll() is None
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    left = set(os.listdir(target.parent)) - {another.name}
    assert len(left) == 1 and left.pop().endswith(".01_small.ipynb")
    assert main([str(source), "--output", str(target)]) == 0
    assert sorted(os.listdir(target.parent)) == [another.name, target.name]


# ---- progress


@pytest.mark.slow
def test_progress_reaches_the_log_but_not_the_notebook(tmp_path):
    source = write_notebook(
        tmp_path / "01_small.ipynb",
        code_cell(PARAMETERS, "parameters"),
        code_cell(
            "import time\nfrom utils.common.progress import track\n"
            "for _ in track(range(3), 'a long step'):\n    time.sleep(1.1)\nprint('done')"
        ),
    )
    command = [sys.executable, "-m", "utils.tools.execute", str(source), "--output", "out.ipynb"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "01_small: running\n" in finished.stderr
    assert "a long step" in finished.stderr
    assert read_outputs(Path("out.ipynb"))[-1] == "done\n"
    assert "a long step" not in nbformat.read("out.ipynb", as_version=4).cells[-1].get("outputs")
