"""Train candidates on folds of the development images, and keep their held-out predictions.

`python -m utils.selection.cross_validation --candidates NAME ... --folds NAME ... --seeds 42`
trains whatever is not there yet, each training run a piece of work (`common.jobs`), and writes
`results/<study>/screening/<candidate>/<fold>_seed<k>.csv`: one row per held-out image, its
probability of PNEUMONIA unperturbed and under each perturbation of `utils.data.perturbations`, and
next to it a record of the recipe and the minutes. An interrupted run goes on where it was. The test
set is not read.
"""

import argparse
import sys
import time
from collections.abc import Sequence

import keras
import numpy as np
import pandas as pd

from utils.common.files import is_made_from, read_json, write_csv, write_json
from utils.common.jobs import JobsError, run_pieces
from utils.common.paths import held_out_file, models_dir, provenance_file
from utils.common.provenance import count_threads
from utils.common.study import Study, load_study
from utils.data.index import dataset_fingerprint, open_study_index
from utils.data.perturbations import PERTURBATIONS, perturb_images
from utils.data.splits import FOLDS, Fold, block_folds, open_development, plain_fold, rows_of
from utils.models.prediction import predict_pixels
from utils.models.recipe import Candidate
from utils.selection.candidates import pick_candidates
from utils.training.fine_tuning import train_candidate

VERSION = 1
"""Of networks, augmentation and perturbations. Raise it when a change of their code makes other
numbers: all candidates are then trained again."""


def cross_validate(
    study: Study,
    candidates: Sequence[Candidate],
    folds: Sequence[str],
    seeds: Sequence[int],
) -> None:
    """Train every candidate on every fold with every seed, where its predictions are missing.

    The data set is opened only where something is missing, so that whoever has the committed
    predictions needs no radiograph to compare candidates.

    Args:
        study: The study.
        candidates: What to train.
        folds: `plain`, `block1`, ...
        seeds: Of the training runs.

    Raises:
        KeyError: if there is no such fold.
    """
    if unknown := set(folds) - set(FOLDS):
        raise KeyError(f"there is no fold {min(unknown)!r}; choose of {', '.join(FOLDS)}")
    missing = [
        (study, candidate, fold, seed)
        for candidate in candidates for fold in folds for seed in seeds
        if not is_cross_validated(study, candidate, fold, seed)
    ]  # fmt: skip
    if missing:
        open_study_index(study)  # decodes images that are new, before each worker would
    run_pieces(_validate_one, missing, "cross-validation")


def is_cross_validated(study: Study, candidate: Candidate, fold: str, seed: int) -> bool:
    """Return whether this very recipe's held-out predictions of the study's data are there."""
    file = held_out_file(study.study, candidate.name, fold, seed)
    inputs = {"candidate": candidate, "version": VERSION, "fingerprint": fingerprint_of(study)}
    return is_made_from(file.with_suffix(".json"), inputs, file)


def fingerprint_of(study: Study) -> str:
    """Return the fingerprint of a study's data: as notebook 04 recorded it, else computed.

    Whoever has the committed results needs no radiograph to know what they were made from.
    """
    record_file = provenance_file(study.study, "resnet50")
    if record_file.is_file():
        return read_json(record_file)["dataset"]["fingerprint"]
    _, index = open_study_index(study)
    return dataset_fingerprint(index)


def list_trainings(
    study_name: str, candidates: Sequence[Candidate], folds: Sequence[str], seeds: Sequence[int]
) -> pd.DataFrame:
    """Return a row for each fold and seed: images learned and held out, and how many training runs.

    Minutes are not in it: they say as much about the machine as about the recipes.
    """
    columns = ["fold", "seed", "trained_images", "held_out_images"]
    table = pd.DataFrame(_read_records(study_name, candidates, folds, seeds))[columns]
    return table.groupby(columns).size().rename("trainings").reset_index()


def list_origins(
    study_name: str, candidates: Sequence[Candidate], folds: Sequence[str], seeds: Sequence[int]
) -> pd.DataFrame:
    """Return what each candidate's network started from: candidate, epochs, initial weights."""
    rows = [
        {
            "candidate": record["candidate"]["name"],
            "epochs": record["candidate"]["epochs"],
            "initial weights": record["weights"].split(" (")[0],
        }
        for record in _read_records(study_name, candidates, folds, seeds)
    ]
    return pd.DataFrame(rows).drop_duplicates(ignore_index=True)


def _read_records(
    study_name: str, candidates: Sequence[Candidate], folds: Sequence[str], seeds: Sequence[int]
) -> list[dict]:
    files = [
        held_out_file(study_name, candidate.name, fold, seed).with_suffix(".json")
        for candidate in candidates for fold in folds for seed in seeds
    ]  # fmt: skip
    return [read_json(file) for file in files]


def _validate_one(study: Study, candidate: Candidate, fold_name: str, seed: int) -> None:
    """Train one candidate on one fold and keep what it says of the images held out."""
    if is_cross_validated(study, candidate, fold_name, seed):
        return
    _, _, images, pixels = open_development(study, candidate.size)
    fold = {fold.name: fold for fold in (plain_fold(images), *block_folds(images))}[fold_name]
    start = time.perf_counter()
    learned = rows_of(images, fold.train)
    network, weights = train_candidate(
        candidate, pixels[learned], images.label.to_numpy()[learned], seed,
        models_dir(study.study) / "screening" / f"{candidate.name}-{fold.name}-{seed}.h5",
        f"{candidate.name} {fold.name} seed {seed}",
    )  # fmt: skip
    minutes = (time.perf_counter() - start) / 60
    keep_held_out(study, candidate, images, pixels, fold, seed, network, weights, minutes)


def keep_held_out(
    study: Study, candidate: Candidate, images: pd.DataFrame, pixels: np.ndarray, fold: Fold,
    seed: int, network: keras.Model, weights: str, minutes: float,
) -> None:  # fmt: skip
    """Write what a trained network says of the images its fold holds out, under every change.

    Args:
        study: The study.
        candidate: What was trained.
        images: The development images.
        pixels: (n, size, size, 1) uint8 of all of them.
        fold: Which of them were learned and which are held out.
        seed: Of the training.
        network: From gray pixels to probabilities.
        weights: Provenance of the initial weights.
        minutes: Spent on the training.
    """
    judged = rows_of(images, fold.held_out)
    held_out = images.iloc[judged]
    table = held_out[["image_id", "patient_id"]].assign(y_true=held_out.label)
    for perturbation in PERTURBATIONS:
        changed = perturb_images(pixels[judged], held_out.label.to_numpy(), perturbation)
        table[perturbation] = predict_pixels(network, changed).round(6)
    record = {
        "candidate": candidate.describe(),
        "version": VERSION,
        "fingerprint": fingerprint_of(study),
        "fold": fold.name,
        "seed": seed,
        "trained_images": len(fold.train),
        "held_out_images": len(judged),
        "weights": weights,
        "parameters": network.count_params(),
        "minutes": round(minutes, 2),
        "threads": count_threads(),
    }
    file = held_out_file(study.study, candidate.name, fold.name, seed)
    # The record says that the predictions are whole, so it comes last.
    write_csv(file, table)
    write_json(file.with_suffix(".json"), record)


def main() -> None:
    """Screen candidates from the command line; without arguments, what the study screens."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="full")
    parser.add_argument("--candidates", nargs="+")
    parser.add_argument("--folds", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int)
    arguments = parser.parse_args()
    study = load_study(arguments.study)
    names = arguments.candidates or study.candidates
    candidates = pick_candidates(names, study.candidate_epochs)
    folds, seeds = arguments.folds or study.screening_folds, arguments.seeds or [study.seed]
    try:
        cross_validate(study, candidates, folds, seeds)
    except JobsError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
