"""Progress goes to the terminal, and never into a notebook."""

import io
import sys

from utils.common.progress import track


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
