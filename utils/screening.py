"""Train candidates on folds of the development images, and keep what they say of those held out.

`python -m utils.screening --candidates NAME ... --folds NAME ... --seeds 42` trains whatever is
not there yet and writes `results/<study>/screening/<candidate>/<fold>_seed<k>.csv`: one row a
held-out image, its probability of PNEUMONIA as it is and under each change of `utils.stress`, and
beside it a record of the recipe and the minutes. An interrupted run goes on where it was. The test
set is not read.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.candidate_list import CANDIDATES, find_candidate
from utils.candidates import Candidate, predict_images, train_candidate
from utils.dataset import build_index, open_dataset
from utils.development import (
    PLAIN,
    Fold,
    block_folds,
    development_index,
    load_development_images,
    plain_fold,
    rows_of,
)
from utils.files import read_json, write_csv, write_json
from utils.paths import models_dir, results_dir
from utils.stress import CHANGES, change_images
from utils.study import Study, load_study


def screening_dir(study: str) -> Path:
    """Return the folder of a study's held-out predictions of candidates."""
    return results_dir(study) / "screening"


def predictions_file(study: str, candidate: str, fold: str, seed: int) -> Path:
    """Return where the held-out predictions of one training are kept."""
    return screening_dir(study) / candidate / f"{fold}_seed{seed}.csv"


def make_folds(images: pd.DataFrame) -> dict[str, Fold]:
    """Return all folds of the development images by name: `plain`, `block1`, ..."""
    return {fold.name: fold for fold in [plain_fold(images), *block_folds(images)]}


def screen(
    study: Study, candidates: Sequence[Candidate], folds: Sequence[str], seeds: Sequence[int]
) -> None:
    """Train every candidate on every fold with every seed, where its predictions are missing.

    Raises:
        KeyError: if there is no such fold.
    """
    root = open_dataset(study.dataset_name)
    images = development_index(build_index(root, study.seed, study.validation_fraction))
    known = make_folds(images)
    by_size: dict[int, np.ndarray] = {}
    for candidate in candidates:
        for fold in folds:
            for seed in seeds:
                file = predictions_file(study.study, candidate.name, fold, seed)
                if file.is_file() and _recipe_of(file) == candidate.describe():
                    continue
                if candidate.size not in by_size:
                    by_size = {
                        candidate.size: load_development_images(root, images, candidate.size)
                    }
                _screen_one(study, candidate, images, by_size[candidate.size], known[fold], seed)


def _recipe_of(file: Path) -> dict[str, Any]:
    return read_json(file.with_suffix(".json"))["candidate"]


def _screen_one(
    study: Study, candidate: Candidate, images: pd.DataFrame, pixels: np.ndarray, fold: Fold,
    seed: int,
) -> None:  # fmt: skip
    """Train one candidate on one fold and write what it says of the images held out."""
    start = time.perf_counter()
    learned, judged = rows_of(images, fold.train), rows_of(images, fold.held_out)
    labels = images.label.to_numpy()
    checkpoint = models_dir(study.study) / "screening" / f"{candidate.name}-{fold.name}-{seed}.h5"
    network, weights = train_candidate(
        candidate, pixels[learned], labels[learned], seed, checkpoint,
        f"{candidate.name} {fold.name} seed {seed}",
    )  # fmt: skip
    trained = time.perf_counter()
    held_out = images.iloc[judged]
    table = held_out[["image_id", "patient_id"]].assign(y_true=held_out.label)
    for change in CHANGES:
        changed = change_images(pixels[judged], labels[judged], change)
        table[change] = predict_images(network, changed).round(6)
    file = predictions_file(study.study, candidate.name, fold.name, seed)
    record = {
        "candidate": candidate.describe(),
        "fold": fold.name,
        "seed": seed,
        "trained_images": len(learned),
        "held_out_images": len(judged),
        "weights": weights,
        "parameters": network.count_params(),
        "minutes": round((trained - start) / 60, 2),
    }
    write_json(file.with_suffix(".json"), record)
    write_csv(file, table)


def main() -> None:
    """Screen candidates from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="full")
    parser.add_argument("--candidates", nargs="+", default=[each.name for each in CANDIDATES])
    parser.add_argument("--folds", nargs="+", default=[PLAIN, "block1"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[42])
    arguments = parser.parse_args()
    screen(
        load_study(arguments.study),
        [find_candidate(name) for name in arguments.candidates],
        arguments.folds,
        arguments.seeds,
    )


if __name__ == "__main__":
    main()
