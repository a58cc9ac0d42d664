"""Show progress on the terminal, never in a notebook's saved output."""

import os
import sys
from collections.abc import Iterable, Iterator
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
