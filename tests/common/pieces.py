"""Pieces of work for the tests of jobs, and a command that runs some of them."""

import logging
import os
import random
import signal
import sys
import time
from pathlib import Path

from utils.common.jobs import JobsError, run_pieces


def note(folder: Path, number: int, seconds: float = 0.0) -> int:
    """Write who did a piece, a line each time that it is done, and return its number."""
    time.sleep(seconds)
    with open(folder / f"piece{number}", "a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")
    return number


def die_once(folder: Path, number: int) -> int:
    """Kill the worker half-way through piece 3, the first time."""
    if number == 3 and not (folder / "died").exists():
        (folder / "died").touch()
        time.sleep(1)  # the command hears of what this worker has finished
        os.kill(os.getpid(), signal.SIGKILL)
    return note(folder, number, 0.2)


def die(folder: Path, number: int) -> None:
    """Kill every worker that takes piece 0."""
    (folder / f"{number}-{os.getpid()}").touch()
    if number == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def draw(seconds: float) -> float:
    """Draw after a time in which other threads of the process could have drawn."""
    random.seed(1)
    time.sleep(seconds)
    return random.random()


def wait_for_ever(folder: Path, number: int) -> None:
    """Say that the piece has begun, and never end."""
    (folder / f"piece{number}").touch()
    time.sleep(3600)


def run_more(folder: Path, number: int) -> list[int]:
    """Run pieces within a piece."""
    return run_pieces(note, [(folder, 10 * number + each) for each in range(2)], "within")


def raise_error(error: Exception) -> None:
    """Raise an error."""
    raise error


def main() -> None:
    """Run four pieces of a function of this module, named on the command line with a folder."""
    logging.basicConfig(level=logging.INFO)
    function, folder = globals()[sys.argv[1]], Path(sys.argv[2])
    try:
        print(run_pieces(function, [(folder, number) for number in range(4)], "pieces"))
    except JobsError as error:
        sys.exit(str(error))
    print("dask imported" if "distributed" in sys.modules else "no dask")


if __name__ == "__main__":
    main()
