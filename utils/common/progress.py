"""Show progress on the terminal, never in a notebook's saved output."""

import fcntl
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


class _TerminalBar(tqdm):
    """A bar that closes the stream that was opened for it."""

    own_stream: TextIO | None = None

    def close(self) -> None:
        """End the bar."""
        super().close()
        if self.own_stream is not None:
            self.own_stream.close()


def progress_stream(descriptor: int | None = None) -> str | None:
    """Name the file through which a kernel reaches an open file of this process, if there is one.

    A kernel has no terminal of its own, and its stderr ends up in the notebook.

    Args:
        descriptor: Number of the open file; by default that of `sys.stderr`, which need not be 2.
    """
    try:
        descriptor = sys.stderr.fileno() if descriptor is None else descriptor
        if os.isatty(descriptor):
            return os.ttyname(descriptor)
        mode, flags = os.fstat(descriptor).st_mode, fcntl.fcntl(descriptor, fcntl.F_GETFL)
    except OSError:
        return None
    # A log file that is not open for appending would be overwritten from two positions.
    shareable = stat.S_ISFIFO(mode) or (stat.S_ISREG(mode) and flags & os.O_APPEND)
    own_file = Path(f"/proc/{os.getpid()}/fd/{descriptor}")
    return str(own_file) if shareable and own_file.exists() else None


def _open_terminal() -> TextIO | None:
    """Open the terminal of the person who started a notebook, if there is one."""
    try:
        return open(os.environ.get("PROGRESS_STREAM", "/dev/tty"), "a", encoding="utf-8")
    except OSError:
        return None


def progress_bar(
    description: str, total: int | None = None, items: Iterable[Item] | None = None
) -> tqdm:
    """Return a tqdm bar on the terminal.

    In a notebook's kernel, stderr is the notebook, so the bar is drawn in the file that
    `PROGRESS_STREAM` names, or on the terminal itself; without either there is no bar, and none
    with tqdm's own `TQDM_DISABLE=1`, as workers have it.
    """
    in_notebook = type(sys.stderr).__module__.startswith("ipykernel")
    stream = _open_terminal() if in_notebook else None
    bar = _TerminalBar(
        items,
        desc=description,
        total=total,
        file=stream or sys.stderr,
        disable=(in_notebook and stream is None) or os.environ.get("TQDM_DISABLE") == "1",
        mininterval=1.0,
        leave=False,
    )
    bar.own_stream = stream
    return bar


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yield from `items` under a bar on the terminal."""
    with progress_bar(description, total, items) as bar:
        yield from bar
