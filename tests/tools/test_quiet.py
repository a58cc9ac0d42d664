"""`utils.tools.quiet`: the terminal shows what the study says, and errors that matter."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.small_notebooks import code_cell, write_notebook
from utils.common.constants import DISCLAIMER
from utils.common.paths import ROOT
from utils.tools import quiet
from utils.tools.quiet import pass_on

HARMLESS_LOG = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795899362.08 13115 port.cc:153] oneDNN custom operations are on.
To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow.
E0000 00:00:1.2 3 tfg_optimizer_hook.cc:135] tfg_optimizer{any(tfg)} failed: INVALID_ARGUMENT: x
\twhen importing GraphDef to MLIR module in GrapplerHook
W0000 00:00:1.2 3 graph_view.cc:850] No registered '' OpKernel for CPU devices compatible with node
\t.  Registered:  <no registered kernels>

W0000 00:1 3 x.cc:1] Ignoring multi-device function optimization failure: INVALID_ARGUMENT: Node 'a'
E0000 00:00:1.2 3 meta_optimizer.cc:967] remapper failed: NOT_FOUND: Op type not registered '' in
E0000 00:00:1.2 3 util.cc:131] oneDNN supports DT_HALF only on platforms with AVX-512.
"""
NO_DRIVER = (
    "E0000 00:00:1.2 3 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: Failed "
    "call to cuInit: UNKNOWN ERROR (303)\n"
)
THAT_MATTER = """\
E0000 00:00:1.2 3 cuda_platform.cc:52] failed call to cuInit: CUDA_ERROR_NO_DEVICE (100)
W0000 00:00:1.2 3 graph_view.cc:850] No registered 'Add' OpKernel for GPU devices
W0000 00:00:1.2 3 gpu_device.cc:2431] Cannot dlopen some GPU libraries.
E0000 00:00:1.2 3 gpu_allocator.cc:1] Out of memory: I0000 was tried
F0000 00:00:1.2 3 tensor.cc:1] Check failed
\twhen a tensor was read

  a line of a table
"""


def filter_text(text: str, tmp_path: Path) -> str:
    """Return what the filter lets through."""
    source, target = tmp_path / "log", tmp_path / "terminal"
    source.write_text(text)
    with open(source, "rb") as log, open(target, "wb") as terminal:
        pass_on(log.fileno(), terminal.fileno())
    return target.read_text()


def read_screen(written: str) -> list[str]:
    """Return the lines that a terminal shows: bars that were erased are gone."""
    screen = []
    for line in written.replace("\r\n", "\n").split("\n"):
        shown = ""
        for part in line.split("\r"):
            before, erased, after = part.partition("\x1b[K")
            shown = before + after if erased else part + shown[len(part) :]
        screen.append(shown.rstrip())
    return screen[:-1] if screen[-1] == "" else screen


def run_on_terminal(*arguments: str, results: Path, verbose: bool = False) -> list[str]:
    """Run a module as the Makefile does, and return all that its terminal shows."""
    controller, terminal = pty.openpty()
    unset = ("PROGRESS_STREAM", "TF_CPP_MIN_LOG_LEVEL")
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    environment |= {"RESULTS_DIR": str(results), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", *([] if verbose else ["utils.tools.quiet"]), *arguments]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    written = b""
    try:
        while chunk := os.read(controller, 65536):
            written += chunk
    except OSError:  # how Linux says that the terminal's last process has gone
        pass
    os.close(controller)
    assert process.wait() == 0, written.decode()
    return read_screen(written.decode())


def test_harmless_lines_are_dropped_and_all_others_pass(tmp_path, monkeypatch):
    monkeypatch.setattr(quiet, "GPU_DEVICE", tmp_path / "nowhere")
    assert filter_text(HARMLESS_LOG + NO_DRIVER + THAT_MATTER, tmp_path) == THAT_MATTER
    assert filter_text("half a line", tmp_path) == "half a line"


def test_a_gpu_that_is_there_and_has_no_driver_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(quiet, "GPU_DEVICE", tmp_path)
    assert filter_text(HARMLESS_LOG + NO_DRIVER, tmp_path) == NO_DRIVER


def test_a_line_passes_before_the_log_ends():
    log = subprocess.Popen(
        [sys.executable, quiet.__file__, quiet.FILTER], stdin=subprocess.PIPE,
        stderr=subprocess.PIPE, bufsize=0,
    )  # fmt: skip
    log.stdin.write(b"I0000 no\nE0000 yes\n")
    ready, _, _ = select.select([log.stderr], [], [], 30)
    passed = os.read(log.stderr.fileno(), 100) if ready else b""
    log.stdin.close()
    assert log.wait(30) == 0
    assert passed == b"E0000 yes\n"


def run_module(tmp_path: Path, code: str, **options) -> subprocess.Popen:
    """Start a module of these lines with the log filtered."""
    (tmp_path / "module.py").write_text(code)
    return subprocess.Popen(
        [sys.executable, "-m", "utils.tools.quiet", "module", "--an", "argument"], cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def test_a_module_runs_as_it_would_alone(tmp_path):
    code = (
        "import os, sys\nassert __name__ == '__main__'\nprint(sys.argv)\n"
        "os.write(2, b'I0000 C++\\n')\nsys.stderr.write('I0000 Python\\n')\nsys.exit(7)"
    )
    process = run_module(tmp_path, code)
    assert process.communicate() == (
        f"{[str(tmp_path / 'module.py'), '--an', 'argument']}\n", "I0000 Python\n",
    )  # fmt: skip
    assert process.returncode == 7


def test_the_last_words_of_a_killed_command_pass_and_no_process_is_left(tmp_path):
    code = "import os\nos.write(2, b'E0000 out of memory\\n')\nos.kill(os.getpid(), 9)"
    process = run_module(tmp_path, code)
    # Read to the end, so that nothing holds it open any more: neither the command nor the filter.
    assert process.communicate(timeout=30)[1] == "E0000 out of memory\n"
    assert process.returncode == -signal.SIGKILL


def test_ctrl_c_reaches_the_command_alone(tmp_path):
    code = (
        "import os, time\ntry:\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    os.write(2, b'E0000 interrupted\\n')"
    )
    process = run_module(tmp_path, code, start_new_session=True)
    process.stdout.readline()
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=30)[1] == "E0000 interrupted\n"
    assert process.returncode == 0


IMPORT_TENSORFLOW = (
    "import os, tensorflow as tf\nprint(int(tf.reduce_sum(tf.ones(3))))\n"
    "os.write(2, b'E0000 00:00:1.2 3 somewhere.cc:1] something new\\n');"
)


@pytest.fixture
def notebook(tmp_path):
    """Write a notebook that uses TensorFlow, and logs an error that nobody has seen before."""
    cells = [code_cell("views = 1", "parameters"), code_cell(IMPORT_TENSORFLOW)]
    return write_notebook(tmp_path / "01_small.ipynb", *cells)


@pytest.mark.slow
def test_a_notebook_leaves_one_line_on_the_terminal_and_what_it_does_not_know(tmp_path, notebook):
    executed = tmp_path / "executed.ipynb"
    execute = ("utils.tools.execute", str(notebook), "--output", str(executed))
    shown = [
        re.sub(r"\d\.\d minutes", "N minutes", line)
        for line in run_on_terminal(*execute, results=tmp_path)
    ]
    assert shown == [
        "E0000 00:00:1.2 3 somewhere.cc:1] something new",
        f"01_small: N minutes, saved as {executed}",
    ]
    everything = run_on_terminal(*execute, results=tmp_path, verbose=True)
    assert any("absl::InitializeLog" in line for line in everything)
    assert shown[0] in everything


@pytest.mark.slow
def test_predict_says_which_model_and_what_came_of_it(tmp_path):
    out = tmp_path / "scores.csv"
    images = ROOT / "models" / "phantoms"
    model, disclaimer, scored, *remarks = run_on_terminal(
        "utils.tools.predict", "--images", str(images), "--out", str(out), results=tmp_path
    )
    assert model.startswith("Model released: ")
    assert disclaimer == DISCLAIMER
    assert scored == f"6 images scored: {out}"
    # The guard takes one of the phantoms for a negative: see models/README.md.
    assert remarks == [
        "images with a remark, in the column of that name: 1",
        "  1 x probably a negative: invert it",
        "  (what remarks mean, and what they miss: docs/using.md)",
    ]
