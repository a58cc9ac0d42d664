"""What a result must say of its origin."""

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from utils.common.constants import DISCLAIMER
from utils.common.files import read_json, write_json
from utils.common.paths import ROOT, provenance_file

PACKAGES = ("keras", "numpy", "pandas", "scikit-learn", "scipy", "tensorflow")

THREADS = "TF_NUM_INTRAOP_THREADS"
"""TensorFlow's own environment variable for the threads that share one operation."""


def count_threads() -> int:
    """Return the threads that share one operation: one a processor of this process, unless set.

    A training has other last digits with another number of them.
    """
    if number := os.environ.get(THREADS):
        return int(number)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_commit(*files: Path) -> str:
    """Return the commit of the code, or the last one that changed some files; empty without git."""
    return _ask_git("log", "-1", "--format=%H", "--", *map(str, files))


def find_uncommitted(*files: Path) -> list[str]:
    """Return which of some files, and of those in some folders, differ from the last commit.

    There are none without git.
    """
    found = _ask_git("status", "--porcelain", "--", *map(str, files))
    return [line.split(maxsplit=1)[1] for line in found.splitlines()]


def _ask_git(*words: str) -> str:
    try:
        done = subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


class Stopwatch:
    """Measure the minutes since it was made."""

    def __init__(self) -> None:
        """Start."""
        self._start = time.perf_counter()

    @property
    def minutes(self) -> float:
        """Minutes since the start, to one hundredth."""
        return round((time.perf_counter() - self._start) / 60, 2)


def describe_run(minutes: float) -> dict[str, Any]:
    """Describe the run behind a result: packages, Python, processor family, threads, minutes."""
    return {
        "python": platform.python_version(),
        "packages": {package: version(package) for package in PACKAGES},
        "machine": platform.machine(),
        "threads": count_threads(),
        "minutes": minutes,
        "disclaimer": DISCLAIMER,
    }


def write_provenance(
    study_name: str,
    model: str,
    *,
    dataset: dict[str, Any],
    weights: dict[str, Any],
    recipe: dict[str, Any],
    minutes: float,
) -> dict[str, Any]:
    """Record where a model's numbers come from, and return the record.

    Args:
        study_name: Of the study.
        model: Name of the model, as in its prediction file.
        dataset: From `index.describe_dataset`.
        weights: From `Weights.provenance`.
        recipe: Seed, augmented copies, epochs and what else the training was told.
        minutes: How long the notebook took.
    """
    record = {
        "study": study_name,
        "model": model,
        "dataset": dataset,
        "weights": weights,
        "recipe": recipe,
        "run": describe_run(minutes),
    }
    write_json(provenance_file(study_name, model), record)
    return record


def read_provenance(results: Path, model: str) -> dict[str, Any]:
    """Read the provenance of one model from a study's results."""
    return read_json(results / "provenance" / f"{model}.json")
