"""Round two: train the networks that `docs/round_two.md` registered, let each predict once, score.

Nothing is chosen here. Recipes and seeds are those of the document, and each network's record holds
the document's commit and SHA-256 as they were when its training began. Training does not look at
the test set. `python -m utils.selection.round_two` (`make chosen`) trains what is missing and goes
on where it was interrupted. Then every network predicts once: only after all are trained, and only
by code that is committed. A prediction file that is there is not made again. Networks lie in
`results/<study>/models/final`, on the machine that trained them; `RESULTS_DIR` says where else.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from utils.common.constants import EXTERNAL_SPLIT, IMAGE_SIZE, PREDICTION_COLUMNS, SPLITS
from utils.common.files import cached_table, file_sha256, is_made_from, read_json, write_json
from utils.common.paths import (
    ROOT,
    external_file,
    final_name,
    model_file,
    models_dir,
    predictions_file,
    provenance_file,
    results_dir,
    table_file,
)
from utils.common.provenance import Stopwatch, describe_run, find_commit, find_uncommitted
from utils.common.study import Study, load_study
from utils.data.acquisition import PHOTOMETRIC
from utils.data.images import DatasetError, load_images
from utils.data.index import describe_dataset, open_study_index
from utils.data.nih_adults import INDEX_FILE, open_nih_adults
from utils.data.splits import open_development
from utils.evaluation.external import GRAY
from utils.evaluation.predictions import (
    average_predictions,
    load_predictions,
    write_prediction_file,
)
from utils.evaluation.study_metrics import write_chosen_model
from utils.models.export import export_full_size, with_ten_crops
from utils.models.prediction import predict_files
from utils.models.recipe import Candidate
from utils.models.registry import SHIPPED, SHIPPED_MODEL
from utils.selection.candidates import ROBUST
from utils.selection.choices import (
    ENSEMBLE,
    ENSEMBLE_TWO,
    RELEASED,
    ROUND_TWO_RECIPES,
    ROUND_TWO_SEEDS,
    WHOLE_IMAGE,
    SelectionError,
    read_choices,
    round_two_networks,
)
from utils.selection.cross_validation import fingerprint_of
from utils.selection.round_two_scores import (
    FITTED,
    PIXELS,
    WITHIN,
    score_external_set,
    score_round_two,
)
from utils.shortcuts.pixel_baselines import (
    cross_predict_pixel_baseline,
    load_pixel_features,
    predict_pixel_baseline,
)
from utils.training.fine_tuning import train_candidate

logger = logging.getLogger(__name__)

REGISTERED = ROOT / "docs" / "round_two.md"
SEEDS = ROUND_TWO_SEEDS

_BASE = Candidate(
    ROUND_TWO_RECIPES[0], "efficientnet_lite0", 128, ("flip", *PHOTOMETRIC), epochs=24,
    learning_rate=5e-4, trained_statistics=True, smallest_crop=0.08,
)  # fmt: skip
SIZES = (_BASE, replace(_BASE, name=ROUND_TWO_RECIPES[1], size=96))
"""The first of them with the first seed is the released network."""
PHANTOM_EPOCHS = 96
"""Of these recipes on phantoms, which are few; registered in `docs/phantoms.md`."""


def _setting(name: str, smallest_crop: float, transforms: Sequence[str] = ("flip",)) -> Candidate:
    return replace(
        _BASE, name=f"ablation_{name}", size=64, epochs=16, transforms=tuple(transforms),
        smallest_crop=smallest_crop,
    )  # fmt: skip


WHOLE = 1.0
ABLATION = (
    _setting("no_crop", WHOLE),
    _setting("crop_80", 0.8),
    _setting("crop_50", 0.5),
    _setting("crop_30", 0.3),
    _setting("crop_08", 0.08),
    _setting("crop_08_photometric", 0.08, ("flip", *PHOTOMETRIC)),
    _setting("photometric", WHOLE, ("flip", *PHOTOMETRIC)),
    _setting("robust", WHOLE, ROBUST),
)
"""Settings of the controlled ablation: one change of the augmentation each."""


def describe_registration(document: Path = REGISTERED) -> dict[str, Any]:
    """Return the commit and the SHA-256 of a registered document as it is now.

    The commit is None where there is no git history, as in a downloaded archive.
    """
    return {
        "document": document.relative_to(ROOT).as_posix(),
        "commit": find_commit(document) or None,
        "sha256": file_sha256(document),
    }


def is_trained(study: Study, recipe: Candidate, seed: int) -> bool:
    """Return whether this very recipe has been trained on the study's data, on this machine."""
    name = final_name(recipe.name, seed)
    inputs = {"recipe": recipe, "seed": seed, "dataset": {"fingerprint": fingerprint_of(study)}}
    return is_made_from(provenance_file(study.study, name), inputs, model_file(study.study, name))


def train_network(study: Study, recipe: Candidate, seed: int) -> None:
    """Train a registered network on the training patients, and export it with its record.

    Nothing is done where this recipe has been trained on this data. An interrupted training goes
    on from its last epoch.

    Args:
        study: The study, whose data it is trained on.
        recipe: Of `SIZES` or `ABLATION`.
        seed: Of initial weights, order, dropout and augmentation.
    """
    name = final_name(recipe.name, seed)
    if is_trained(study, recipe, seed):
        return
    root, index, images, pixels = open_development(study, IMAGE_SIZE)
    train = (images.split == "train").to_numpy()
    train_and_export(
        study.study, name, recipe, seed, pixels[train], images.label.to_numpy()[train],
        describe_dataset(root, index),
    )  # fmt: skip


def train_and_export(
    study_name: str, name: str, recipe: Candidate, seed: int, pixels: np.ndarray,
    labels: np.ndarray, dataset: Mapping[str, Any], document: Path = REGISTERED,
) -> None:  # fmt: skip
    """Train a registered network on some images, and export it with its record.

    Args:
        study_name: Of the study whose results it is one of.
        name: Of the network, in all folders of results.
        recipe: How it is trained.
        seed: Of initial weights, order, dropout and augmentation.
        pixels: See `fine_tuning.train_candidate`.
        labels: (n,) 0 or 1.
        dataset: What the images are, for the record.
        document: That registered it.
    """
    registered = describe_registration(document)
    stopwatch = Stopwatch()
    network, weights = train_candidate(
        recipe, pixels, labels, seed, models_dir(study_name) / f"{name}.h5",
        f"{recipe.name}, seed {seed}",
    )  # fmt: skip
    export_full_size(network, model_file(study_name, name))
    write_json(
        provenance_file(study_name, name),
        {
            "study": study_name,
            "model": name,
            "recipe": recipe.describe(),
            "seed": seed,
            "registered": registered,
            "weights": {"description": weights, "banner": ""},
            "parameters": network.count_params(),
            "training_minutes": stopwatch.minutes,
            "dataset": dict(dataset),
            "run": describe_run(stopwatch.minutes),
        },
    )


def train_networks(study: Study, recipes: Sequence[Candidate]) -> None:
    """Train what is missing of recipes with every seed, seed by seed."""
    for seed in SEEDS:
        for recipe in recipes:
            train_network(study, recipe, seed)


def require_trained(study: Study, recipes: Sequence[Candidate]) -> None:
    """Refuse to predict before all networks are trained.

    Raises:
        SelectionError: naming those that are not.
    """
    if names := [
        final_name(recipe.name, seed)
        for seed in SEEDS
        for recipe in recipes
        if not is_trained(study, recipe, seed)
    ]:
        raise SelectionError(
            f"{', '.join(names)} must be trained before any network predicts the test set, and "
            f"have network and record in {results_dir(study.study)}: leave --score out"
        )  # fmt: skip


def predict_missing(
    study_name: str,
    networks: Mapping[str, tuple[Path, bool]],
    file_of: Callable[[str, str], Path],
    open_images: Callable[[], tuple[Path, pd.DataFrame]],
    document: Path = REGISTERED,
) -> None:
    """Let each network predict images that it has not predicted yet, and write it down; once.

    Args:
        study_name: Of the study.
        networks: For each model its `.keras` file, and whether it answers by ten crops.
        file_of: From the names of study and model to the file of predictions; beside it lies a
            record of what made them.
        open_images: Opens the images, where they are needed: folder and index.
        document: That registered the predictions.

    Raises:
        SelectionError: if predictions come from another network, or code is not committed.
    """
    files = {model: file_of(study_name, model) for model in networks}
    for model, file in files.items():
        network_file = networks[model][0]
        if file.is_file() and network_file.is_file():
            if read_json(file.with_suffix(".json"))["network_sha256"] != file_sha256(network_file):
                raise SelectionError(
                    f"{file} was predicted by another network than {network_file}, and each "
                    "predicts once; restore that network, or move its predictions away"
                )
    missing = [model for model, file in files.items() if not file.is_file()]
    if not missing:
        return
    require_committed(document)
    root, images = open_images()
    for model in missing:
        _predict_once(*networks[model], files[model], root, images, document)


def require_committed(document: Path) -> None:
    """Refuse to predict by code, or for a registered document, that is not committed.

    Raises:
        SelectionError: naming what is not.
    """
    if changed := find_uncommitted(ROOT / "utils", document):
        raise SelectionError(
            f"{', '.join(changed)} must be committed before anything is predicted and scored"
        )


def _predict_once(
    network_file: Path, ten_crops: bool, file: Path, root: Path, images: pd.DataFrame,
    document: Path,
) -> None:  # fmt: skip
    stopwatch = Stopwatch()
    network = keras.models.load_model(network_file, compile=False, safe_mode=True)
    network = with_ten_crops(network) if ten_crops else network
    probability = {
        split: predict_files(network, root, part.image_id, f"{file.stem}, {split}")
        for split, part in images.groupby("split")
    }
    # Predictions come last: where they are, they are whole.
    write_json(
        file.with_suffix(".json"),
        {
            "network": network_file.name,
            "network_sha256": file_sha256(network_file),
            "test_time": "ten crops" if ten_crops else "whole image",
            "commit": find_commit() or None,
            "registered": describe_registration(document),
            "images": {split: len(values) for split, values in probability.items()},
            "run": describe_run(stopwatch.minutes),
        },
    )
    write_prediction_file(file, images, probability)


def average_files(
    study_name: str, file_of: Callable[[str, str], Path], model: str, parts: Sequence[str],
    in_log_odds: bool = False,
) -> None:  # fmt: skip
    """Write the predictions of a model that averages others, unless they are there."""
    files = {part: file_of(study_name, part) for part in parts}
    made_from = {
        "parts": {part: file_sha256(file) for part, file in files.items()},
        "averaged": "log-odds" if in_log_odds else "probabilities",
    }

    def make() -> pd.DataFrame:
        tables = [load_predictions(file, (*SPLITS, EXTERNAL_SPLIT)) for file in files.values()]
        return average_predictions(tables, in_log_odds)

    cached_table(file_of(study_name, model), made_from, make)


def _list_networks(study_name: str) -> dict[str, tuple[Path, bool]]:
    """List round two's networks by ten crops and by the whole image; see `predict_missing`."""
    networks = {}
    for name in round_two_networks():
        networks[name] = model_file(study_name, name), True
        networks[name + WHOLE_IMAGE] = model_file(study_name, name), False
    return networks


def _average_networks(study_name: str, file_of: Callable[[str, str], Path]) -> None:
    names = round_two_networks()
    average_files(study_name, file_of, ENSEMBLE_TWO, names, in_log_odds=True)
    average_files(study_name, file_of, RELEASED, names[:1])


def predict_study(study: Study) -> None:
    """Let round two's networks predict the study's three splits.

    `results/<study>/identical_images.csv` keeps which test images have the same pixels.
    """

    def open_images() -> tuple[Path, pd.DataFrame]:
        require_trained(study, SIZES)
        return open_study_index(study)

    predict_missing(study.study, _list_networks(study.study), predictions_file, open_images)
    _average_networks(study.study, predictions_file)
    identical = table_file(study.study, "identical_images")
    if not identical.is_file():
        root, index = open_study_index(study)
        alike = index[(index.split == "test") & (index.duplicate_group >= 0)]
        made_from = {"dataset": describe_dataset(root, index)}
        cached_table(identical, made_from, lambda: alike[["image_id", "duplicate_group"]])


def predict_external(study: Study) -> None:
    """Let networks of both rounds, and the pixel baselines, predict the external test.

    Of round one, the shipped network, and the ensemble where its networks are on this machine.
    """
    networks = _list_networks(study.study)
    networks[SHIPPED_MODEL] = SHIPPED / f"{SHIPPED_MODEL}.keras", False
    members = [
        final_name(name, seed)
        for name in read_choices(study.study)["members"] for seed in study.final_seeds
    ]  # fmt: skip
    before = {name: (model_file(study.study, name), False) for name in members}
    if missing := [
        name
        for name, (network_file, _) in before.items()
        if not (network_file.is_file() or external_file(study.study, name).is_file())
    ]:
        logger.warning(
            "round one's ensemble cannot predict the external test, because %s are not on this "
            "machine; train them again: make chosen ROUND=1", ", ".join(missing),
        )  # fmt: skip
    else:
        networks |= before
    predict_missing(study.study, networks, external_file, open_nih_adults)
    _average_networks(study.study, external_file)
    if members and not missing:
        average_files(study.study, external_file, ENSEMBLE, members)
    _predict_from_pixels(study)


def _predict_from_pixels(study: Study) -> None:
    """Keep gray level and pixel baselines of the external test, unless they are there.

    Each baseline is fitted twice: on the training patients, and within the set on other patients.
    """
    files = {
        (fitted, kind): external_file(study.study, f"pixels/{fitted}_{kind}")
        for fitted in FITTED for kind in PIXELS
    }  # fmt: skip
    gray = external_file(study.study, "gray")
    if all(file.is_file() for file in (gray, *files.values())):
        return
    own_root, index = open_study_index(study)
    root, images = open_nih_adults()
    made_from = {
        "images": file_sha256(INDEX_FILE), "dataset": describe_dataset(own_root, index),
        "seed": study.seed,
    }  # fmt: skip
    pixels = load_images(root, images.image_id)
    levels = dict(zip(GRAY, (pixels.mean((1, 2, 3)), pixels.std((1, 2, 3))), strict=True))
    cached_table(gray, made_from, lambda: images[["image_id"]].assign(**levels).round(4))
    train = index[index.split == "train"]
    both = pd.concat([train, images], ignore_index=True)
    own, other = load_pixel_features(own_root, train), load_pixel_features(root, images)
    for (fitted, kind), file in files.items():
        if fitted == WITHIN:
            scored = cross_predict_pixel_baseline(other[kind], images, study.seed)
        else:
            features = np.concatenate([own[kind], other[kind]])
            scored = predict_pixel_baseline(features, both, (EXTERNAL_SPLIT,))
        cached_table(file, made_from, lambda scored=scored: scored[list(PREDICTION_COLUMNS)])


def main() -> None:
    """Train the registered networks from the command line, let them predict, and score them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="full")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--only", choices=[RELEASED], help="train this network, and nothing else")
    only.add_argument("--score", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    study = load_study(arguments.study)
    if arguments.only:
        train_network(study, SIZES[0], SEEDS[0])
        return
    if not arguments.score:
        train_networks(study, SIZES)
    try:
        predict_study(study)
        score_round_two(study.study, study.resamples, study.seed)
        write_chosen_model(study.study, ENSEMBLE_TWO)
        predict_external(study)
        score_external_set(study.study, study.resamples, study.seed)
    except (SelectionError, DatasetError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
