"""Progress goes to the terminal, and never into a notebook."""

import io
import os
import pty
import sys
from pathlib import Path

import pytest

from utils.common.progress import progress_stream, track


class NotebookStream(io.StringIO):
    """Stands in for a kernel's stderr, which is known by its module."""

    __module__ = "ipykernel.iostream"


def test_items_pass_through(capsys):
    assert list(track(range(5), "counting", 5)) == [0, 1, 2, 3, 4]
    assert "counting" in capsys.readouterr().err
    assert not sys.stderr.closed


def test_a_notebook_draws_in_the_stream_that_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", NotebookStream())
    monkeypatch.setenv("PROGRESS_STREAM", str(tmp_path / "terminal"))
    assert list(track("ab", "reading")) == ["a", "b"]
    assert "reading" in (tmp_path / "terminal").read_text()
    assert sys.stderr.getvalue() == ""


def test_without_a_terminal_a_notebook_draws_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", NotebookStream())
    monkeypatch.setenv("PROGRESS_STREAM", str(tmp_path / "no" / "such" / "terminal"))
    assert list(track("ab", "reading")) == ["a", "b"]
    assert sys.stderr.getvalue() == ""


def test_progress_goes_to_the_terminal():
    controller, terminal = pty.openpty()
    assert progress_stream(terminal) == os.ttyname(terminal)
    os.close(controller)
    os.close(terminal)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs the /proc of Linux")
def test_progress_goes_to_a_pipe_or_an_appended_log(tmp_path):
    read_end, write_end = os.pipe()
    assert progress_stream(write_end) == f"/proc/{os.getpid()}/fd/{write_end}"
    os.close(read_end)
    os.close(write_end)
    with open(tmp_path / "run.log", "a") as log:
        assert os.path.samefile(progress_stream(log.fileno()), tmp_path / "run.log")


def test_progress_never_overwrites_a_log_nor_needs_a_stream(tmp_path):
    with open(tmp_path / "run.log", "w") as log:
        assert progress_stream(log.fileno()) is None
        closed = log.fileno()
    assert progress_stream(closed) is None
