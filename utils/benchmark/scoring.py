"""What `make predict` costs with the released model: on ONNX Runtime against the same in Keras.

Each is the command itself in a process of its own, so that its start counts; both are run in turn.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.benchmark.preparation import Bench, BenchError
from utils.common.paths import ROOT
from utils.models.registry import RELEASED_MODEL, open_shipped_model, register_model

WAYS = ("onnx", "keras")
_KERAS_NAME = "released_in_keras"


def measure_scoring(bench: Bench) -> dict[str, Any]:
    """Measure the command on one image and on many, and its memory.

    Returns:
        `images`, the number of the many, and for each of `WAYS` the medians of `first_seconds`,
        from start to end with one image, `seconds`, the same with many, and of their `peak_mb`,
        the largest resident size, None outside Linux; all repetitions stand beside them.
    """
    folder = bench.empty_folder("scoring")
    rows = pd.concat(bench.choose()).head(bench.settings.scored_images)
    for number, image_id in enumerate(rows.image_id):
        for name in ("one", "many") if number == 0 else ("many",):
            target = folder / name / f"{number}{Path(image_id).suffix}"
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(bench.root / image_id, target)
    models = {
        "onnx": RELEASED_MODEL,
        "keras": register_in_keras(folder / "results" / "full" / "models"),
    }
    measured: dict[str, dict[str, list]] = {
        way: {"first_seconds": [], "seconds": [], "peak_mb": []} for way in WAYS
    }
    for repetition in range(bench.settings.repetitions + 1):
        for way in WAYS:
            first, _ = run_predict(folder, models[way], "one")
            if repetition:  # the first one reads the packages from the disk
                seconds, peak = run_predict(folder, models[way], "many")
                measured[way]["first_seconds"].append(first)
                measured[way]["seconds"].append(seconds)
                measured[way]["peak_mb"].append(peak)
    shutil.rmtree(folder)
    return {"images": len(rows)} | {
        way: {name: _median(values) for name, values in measured[way].items()}
        | {"repetitions": measured[way]}
        for way in WAYS
    }


def _median(values: list[float | None]) -> float | None:
    return None if None in values else float(np.median(values))


def register_in_keras(folder: Path) -> str:
    """Register the Keras file of the released model among a study's models; return its name."""
    released = open_shipped_model()
    folder.mkdir(parents=True)
    file = Path(shutil.copy(released.file, folder))
    register_model(
        folder, _KERAS_NAME, file, released.threshold, released.temperature, released.description
    )
    return _KERAS_NAME


def run_predict(folder: Path, model: str, images: str) -> tuple[float, float | None]:
    """Score the images of a subfolder; return the seconds and the peak of memory in MB.

    Raises:
        BenchError: if the command fails.
    """
    command = [
        sys.executable, "-m", "utils.tools.predict", "--study", "full", "--model", model,
        "--images", str(folder / images), "--out", str(folder / "scores.csv"),
    ]  # fmt: skip
    environment = os.environ | {"RESULTS_DIR": str(folder / "results")}
    log, peak = folder / "log.txt", None
    with open(log, "w", encoding="utf-8") as stream:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=stream, stderr=subprocess.STDOUT
        )
        while process.poll() is None:
            peak = read_peak_mb(process.pid) or peak
            time.sleep(0.01)
        seconds = time.perf_counter() - start
    if process.returncode != 0:
        raise BenchError(f"predict failed: {log.read_text(encoding='utf-8')[-500:]}")
    return seconds, peak


def read_peak_mb(process: int) -> float | None:
    """Return the largest resident size that a process has had, in MB; None outside Linux."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    kilobytes = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(kilobytes[1]) * 1024 / 1e6 if kilobytes else None
