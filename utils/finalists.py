"""Train the finalists on the study's training patients, and let each predict once.

A finalist's predictions of validation and test are written when it is finished and not again, in
`results/<study>/predictions/final/<candidate>_seed<k>.csv`; they are scored in notebook 09. The
networks are exported as one flat graph each, from RGB pixels to probabilities.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from keras import layers

from utils.candidate_list import find_candidate
from utils.candidates import Candidate, train_candidate
from utils.dataset import build_index, load_images, open_dataset
from utils.development import development_index, load_development_images, plain_fold
from utils.evaluation import SCORED_SPLITS
from utils.facts import IMAGE_SIZE, PNEUMONIA
from utils.files import read_json, write_json
from utils.networks import build_network
from utils.paths import models_dir, predictions_dir, results_dir
from utils.progress import track
from utils.provenance import Stopwatch, describe_dataset, describe_run
from utils.screening import keep_held_out
from utils.study import Study, load_study
from utils.training import export_model, write_predictions

SEEDS = (42, 43, 44)
_AT_ONCE = 64


def final_name(candidate: str, seed: int) -> str:
    """Return the name of one finished model in all folders of results."""
    return f"final/{candidate}_seed{seed}"


def train_final(study: Study, candidate: Candidate, seed: int) -> None:
    """Train a candidate on the training split, export it, and write its predictions.

    Nothing is done where the predictions of this very recipe are there already.
    """
    name = final_name(candidate.name, seed)
    record_file = results_dir(study.study) / "provenance" / f"{name}.json"
    if (predictions_dir(study.study) / f"{name}.csv").is_file() and record_file.is_file():
        if Candidate.from_record(read_json(record_file)["recipe"]) == candidate:
            return
    stopwatch = Stopwatch()
    root = open_dataset(study.dataset_name)
    index = build_index(root, study.seed, study.validation_fraction)
    images = development_index(index)
    pixels = load_development_images(root, images, candidate.size)
    train = (images.split == "train").to_numpy()
    network, weights = train_candidate(
        candidate, pixels[train], images.label.to_numpy()[train], seed,
        models_dir(study.study) / f"{name}.h5", name,
    )  # fmt: skip
    trained = stopwatch.minutes
    # The plain fold's split is the study's own, so this is its training too.
    keep_held_out(
        study.study, candidate, images, pixels, plain_fold(images), seed, network, weights, trained
    )
    exported = export_full_size(candidate, network, models_dir(study.study) / f"{name}.keras")
    write_predictions(
        study.study, name, index,
        {
            split: predict_files(exported, root, index[index.split == split], f"{name}, {split}")
            for split in SCORED_SPLITS
        },
    )  # fmt: skip
    write_json(
        record_file,
        {
            "study": study.study,
            "model": name,
            "recipe": candidate.describe(),
            "seed": seed,
            "weights": {"description": weights, "banner": ""},
            "parameters": network.count_params(),
            "training_minutes": trained,
            "dataset": describe_dataset(root, index),
            "run": describe_run(stopwatch.minutes),
        },
    )


def export_full_size(candidate: Candidate, network: keras.Model, file: Path) -> keras.Model:
    """Export a trained network as a graph from (n, 224, 224, 3) RGB in [0, 255]; return it."""
    full = build_network(
        candidate.architecture, candidate.size, 0, full_size=True, dropout=candidate.dropout
    )
    full.set_weights(network.get_weights())
    file.parent.mkdir(parents=True, exist_ok=True)
    return export_model(full, file)


def predict_files(network: keras.Model, root: Path, images: pd.DataFrame, title: str) -> np.ndarray:
    """Return the probability of PNEUMONIA of image files, (n,) float64 in [0, 1].

    Args:
        network: From (n, 224, 224, 3) RGB in [0, 255] to (n, 2) probabilities.
        root: Root of the data set.
        images: Rows of the image index.
        title: Of the progress bar.
    """
    pixels = load_images(root, images.image_id)
    starts = range(0, len(pixels), _AT_ONCE)
    parts = [
        network.predict_on_batch(pixels[start : start + _AT_ONCE].astype(np.float32))
        for start in track(starts, title, len(starts))
    ]
    return np.concatenate(parts)[:, PNEUMONIA].astype(np.float64)


def average_networks(networks: Sequence[keras.Model], name: str) -> keras.Model:
    """Return one network whose probabilities are the mean of several networks'.

    Args:
        networks: From (n, 224, 224, 3) RGB in [0, 255] to (n, 2) probabilities, with layers of
            their own.
        name: Of the network that holds them.
    """
    image = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3), name="image")
    outputs = [
        keras.Model(network.input, network.output, name=f"member_{number}")(image)
        for number, network in enumerate(networks, start=1)
    ]
    return keras.Model(image, layers.Average(name="mean_of_members")(outputs), name=name)


def main() -> None:
    """Train finalists from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="full")
    parser.add_argument("--candidates", nargs="+", required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    arguments = parser.parse_args()
    study = load_study(arguments.study)
    for name in arguments.candidates:
        for seed in arguments.seeds:
            train_final(study, find_candidate(name), seed)


if __name__ == "__main__":
    main()
