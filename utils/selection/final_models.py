"""Train the final models on the study's training patients, and let each predict once.

The predictions of a final model for validation and test are written once, after training, in
`results/<study>/predictions/final/<candidate>_seed<k>.csv`; they are scored in notebook 09. The
networks are exported as one flat graph each, from RGB pixels to probabilities.

`python -m utils.selection.final_models --study full` (`make chosen ROUND=1`) rebuilds round one's
chosen model from the data alone: it trains what the committed choices name, and says how far the
new predictions are from the committed ones.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from utils.common.constants import PREDICTION_COLUMNS, SCORED_SPLITS
from utils.common.files import cached_table, is_made_from, write_json
from utils.common.jobs import JobsError, run_pieces
from utils.common.paths import (
    final_name,
    model_file,
    models_dir,
    predictions_file,
    provenance_file,
    results_dir,
)
from utils.common.provenance import Stopwatch, describe_run, read_provenance, write_provenance
from utils.common.study import Study, load_study
from utils.data.images import load_images
from utils.data.index import describe_dataset, open_study_index
from utils.data.splits import open_development, plain_fold
from utils.evaluation.calibration import fit_temperature
from utils.evaluation.predictions import (
    average_predictions,
    load_predictions,
    prediction_hashes,
    select_split,
    write_predictions,
)
from utils.models.backbones import build_head, join
from utils.models.catalogue import BACKBONES
from utils.models.export import average_networks, export_full_size, export_model
from utils.models.prediction import CROP, predict_files, predict_with_crops
from utils.models.pretrained import Weights
from utils.models.recipe import Candidate
from utils.models.registry import register_model
from utils.models.weights import resolve_study_weights
from utils.selection.candidates import pick_candidates
from utils.selection.choices import ENSEMBLE, read_choices
from utils.selection.comparison import BASELINE, REIMPLEMENTATION, final_names
from utils.selection.cross_validation import fingerprint_of, keep_held_out
from utils.training.activations import ActivationTable, AugmentedCopy, training_copies
from utils.training.fine_tuning import train_candidate
from utils.training.head import Recipe, predict_pneumonia, prepare_head_data, train_head

CHOSEN_FILE = "chosen.keras"


@dataclass(frozen=True)
class Rebuilt:
    """How far a rebuilt network is from what was committed, on validation images."""

    mean: float
    """Of the absolute differences between probabilities, and so is `largest`."""
    largest: float
    committed_auc: float
    auc: float

    def __str__(self) -> str:
        """Return the comparison in words."""
        return (
            f"validation probabilities are {self.mean:.3f} from the committed ones on average, "
            f"{self.largest:.3f} at most; ROC-AUC {self.auc:.4f}, was {self.committed_auc:.4f}"
        )


def name_two_networks(choices: Mapping[str, Any], seeds: Sequence[int]) -> list[str]:
    """Return the names of one network of our ResNet50 and one of the single model.

    ResNet50 is that of the last seed, which `train_final_models` exports, or where there is
    one seed alone, that of notebook 04.
    """
    reference = (
        final_name(REIMPLEMENTATION, seeds[-1])
        if len(seeds) > 1
        else f"{REIMPLEMENTATION}_best_model"
    )
    return [reference, final_name(choices["single"], seeds[0])]


def is_finished(study: Study, candidate: Candidate, seed: int) -> bool:
    """Return whether this very recipe has been trained with this seed and has predicted."""
    name = final_name(candidate.name, seed)
    inputs = {"recipe": candidate, "dataset": {"fingerprint": fingerprint_of(study)}}
    return is_made_from(
        provenance_file(study.study, name), inputs, predictions_file(study.study, name)
    )


def train_final_models(
    study: Study,
    choices: Mapping[str, Any],
    candidates: Sequence[Candidate],
    controls: Sequence[str] = (),
) -> None:
    """Train the single model and the members with all seeds, the baselines with the others.

    What has predicted already is left alone. Where all of the chosen model's parts were trained
    on this machine, the chosen model is built and registered for `make predict`.

    Args:
        study: The study; the first of its `final_seeds` is that of notebooks 03 and 04.
        choices: From `rule.make_choices`.
        candidates: The study's candidates, among them those that the choices name.
        controls: Names of candidates that are trained with the first seed, chosen or not; those
            that the study has not compared are ignored.
    """
    seeds = study.final_seeds
    recipes = {candidate.name: candidate for candidate in candidates}
    for backbone in (BASELINE, REIMPLEMENTATION):
        for seed in seeds[1:]:
            train_baseline(study, backbone, seed)
    wanted = [(name, seed) for name in final_names(choices) for seed in seeds]
    wanted += [(name, seeds[0]) for name in controls if name in recipes]
    missing = [
        (study, recipes[name], seed)
        for name, seed in dict.fromkeys(wanted)
        if not is_finished(study, recipes[name], seed)
    ]
    run_pieces(train_final, missing, "final models")
    parts = _parts_of_chosen(choices, seeds)
    if all(model_file(study.study, part).is_file() for part in parts):
        build_chosen(study.study, choices, seeds)


def train_final(study: Study, candidate: Candidate, seed: int) -> Rebuilt | None:
    """Train a candidate on the training split and export it; write its predictions, once.

    Returns:
        None where the predictions are new, or network and predictions are there; where only this
        recipe's predictions are, how far the new network is from them, and nothing is overwritten.
    """
    name = final_name(candidate.name, seed)
    if model_file(study.study, name).is_file() and is_finished(study, candidate, seed):
        return None
    stopwatch = Stopwatch()
    root, index, images, pixels = open_development(study, candidate.size)
    train = (images.split == "train").to_numpy()
    network, weights = train_candidate(
        candidate, pixels[train], images.label.to_numpy()[train], seed,
        models_dir(study.study) / f"{name}.h5", name,
    )  # fmt: skip
    trained = stopwatch.minutes
    exported = export_full_size(network, model_file(study.study, name))
    if is_finished(study, candidate, seed):
        return _compare_with_committed(study.study, name, exported, root)
    # The plain fold's split is the study's own, so this is its training too.
    keep_held_out(
        study, candidate, images, pixels, plain_fold(images), seed, network, weights, trained
    )
    write_predictions(
        study.study, name, index,
        {
            split: predict_files(
                exported, root, index.image_id[index.split == split], f"{name}, {split}"
            )
            for split in SCORED_SPLITS
        },
    )  # fmt: skip
    write_json(
        provenance_file(study.study, name),
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
    return None


def _compare_with_committed(
    study_name: str, name: str, network: keras.Model, root: Path
) -> Rebuilt:
    before = select_split(load_predictions(predictions_file(study_name, name)), "validation")
    again = predict_files(network, root, before.image_id, f"{name}, validation")
    difference = np.abs(again - before.probability.to_numpy())
    return Rebuilt(
        float(difference.mean()), float(difference.max()),
        roc_auc_score(before.y_true, before.probability), roc_auc_score(before.y_true, again),
    )  # fmt: skip


def train_baseline(study: Study, backbone: str, seed: int) -> None:
    """Train the head of notebook 03 or 04 with another seed, from cached activations; predict once.

    Initial weights, order and dropout are new; the augmented copies and the weights of the backbone
    are those of the notebook. Nothing is done where such a training has predicted already.

    Args:
        study: The study.
        backbone: A key of `catalogue.BACKBONES`.
        seed: Of the head.
    """
    name, facts = final_name(backbone, seed), BACKBONES[backbone]
    first = read_provenance(results_dir(study.study), backbone)
    recipe, count = Recipe.of_study(study, seed=seed), getattr(study, facts.copies_key)
    described = recipe.describe() | {"views": count}
    inputs = {"recipe": described, "weights": first["weights"], "dataset": first["dataset"]}
    if is_made_from(
        provenance_file(study.study, name), inputs, predictions_file(study.study, name)
    ):
        return
    stopwatch = Stopwatch()
    root, index = open_study_index(study)
    weights = resolve_study_weights(backbone, study)
    head, held_out = train_and_export_head(
        study.study, name, root, index, weights, recipe, training_copies(count, study.seed)
    )
    write_predictions(
        study.study, name, index,
        {split: predict_pneumonia(head, table) for split, table in held_out.items()},
    )  # fmt: skip
    write_provenance(
        study.study, name, dataset=describe_dataset(root, index), weights=weights.provenance(),
        recipe=described, minutes=stopwatch.minutes,
    )  # fmt: skip


def train_and_export_head(
    study_name: str, name: str, root: Path, index: pd.DataFrame, weights: Weights, recipe: Recipe,
    copies: Sequence[AugmentedCopy], held_out: Sequence[str] = SCORED_SPLITS,
) -> tuple[keras.Model, dict[str, ActivationTable]]:  # fmt: skip
    """Train a head on a frozen backbone, stopped by the validation images; export both as one.

    Args:
        study_name: Of the study whose results it is one of.
        name: Of the network, in all folders of results.
        root: Root of the data set.
        index: Of its images.
        weights: Of the backbone, which they name.
        recipe: With the seed of the head.
        copies: Augmented copies of each training image.
        held_out: Splits whose activations are wanted, among them validation.

    Returns:
        The head, and the activations of the held-out splits.
    """
    parts = {split: index[index.split == split] for split in ("train", *held_out)}
    data = prepare_head_data(
        root, weights, parts["train"], {split: parts[split] for split in held_out}, copies
    )
    standardize = BACKBONES[weights.backbone].standardize_head
    head = build_head(data.backbone.output_shape[1:], recipe.seed, standardize)
    train_head(
        head, data.copies, parts["train"].label.to_numpy(), data.held_out["validation"],
        parts["validation"].label.to_numpy(), recipe,
        models_dir(study_name) / f"{name}.weights.h5",
    )  # fmt: skip
    export_model(join(data.backbone, head), model_file(study_name, name))
    return head, data.held_out


def read_finished_aucs(
    study: Study, candidates: Sequence[Candidate], seed: int
) -> dict[str, float]:
    """Return the test AUC of every candidate that was trained with a seed, by name."""
    reached = {}
    for candidate in candidates:
        if is_finished(study, candidate, seed):
            file = predictions_file(study.study, final_name(candidate.name, seed))
            test = select_split(load_predictions(file), "test")
            reached[candidate.name] = float(roc_auc_score(test.y_true, test.probability))
    return reached


def _parts_of_chosen(choices: Mapping[str, Any], seeds: Sequence[int]) -> list[str]:
    """Return the names of the final models that the chosen one averages."""
    names = choices["members"] if choices["chosen"] == ENSEMBLE else [choices["single"]]
    return [final_name(name, seed) for name in names for seed in seeds]


def build_chosen(study_name: str, choices: Mapping[str, Any], seeds: Sequence[int]) -> Path:
    """Join the chosen model's networks of all seeds into one, and register it.

    Returns:
        The file, `results/<study>/models/chosen.keras`.
    """
    names = _parts_of_chosen(choices, seeds)
    parts = [model_file(study_name, name) for name in names]
    networks = [keras.models.load_model(file, compile=False, safe_mode=True) for file in parts]
    file = models_dir(study_name) / CHOSEN_FILE
    export_model(average_networks(networks, "chosen"), file)
    predicted = average_predictions(
        [load_predictions(predictions_file(study_name, name)) for name in names]
    )
    validation = select_split(predicted, "validation")
    register_model(
        models_dir(study_name), choices["chosen"], file, choices["thresholds"][choices["chosen"]],
        round(fit_temperature(validation.y_true, validation.probability), 6),
        f"mean of {len(parts)} networks, the model chosen by {choices['rule']}",
        members=[part.stem for part in parts],
    )  # fmt: skip
    return file


def predict_test_with_crops(study: Study, choices: Mapping[str, Any]) -> pd.DataFrame:
    """Return the test predictions of the single model, first seed, with test-time augmentation.

    Kept in `results/<study>/predictions/final/single_crops.csv`; a row next to that network, which
    is used without.

    Raises:
        FileNotFoundError: if nothing is kept and the network is not on this machine.
    """
    name = final_name(choices["single"], study.final_seeds[0])
    made_from = {"crop": CROP, "parts": prediction_hashes(study.study, [name])}

    def make() -> pd.DataFrame:
        root, index = open_study_index(study)
        test = index[index.split == "test"].rename(columns={"label": "y_true"})
        network = keras.models.load_model(model_file(study.study, name), compile=False)
        probability = predict_with_crops(
            network, load_images(root, test.image_id), f"{name}, crops"
        )
        return test.assign(probability=probability)[list(PREDICTION_COLUMNS)]

    file = predictions_file(study.study, "final/single_crops")
    cached_table(file, made_from, make)
    return load_predictions(file)


def main() -> None:
    """Rebuild the chosen model from the command line: train what is missing, then join it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="full")
    study = load_study(parser.parse_args().study)
    choices = read_choices(study.study)
    recipes = {each.name: each for each in pick_candidates(None, study.candidate_epochs)}
    missing = [
        (study, recipes[name], seed)
        for name in final_names(choices) for seed in study.final_seeds
        if not model_file(study.study, final_name(name, seed)).is_file()
        or not is_finished(study, recipes[name], seed)
    ]  # fmt: skip
    try:
        rebuilt = run_pieces(train_final, missing, "final models")
    except JobsError as error:
        sys.exit(str(error))
    for (_, recipe, seed), difference in zip(missing, rebuilt, strict=True):
        if difference is not None:
            sys.stdout.write(f"{recipe.name}, seed {seed}: {difference}\n")
    sys.stdout.write(f"{build_chosen(study.study, choices, study.final_seeds)}\n")


if __name__ == "__main__":
    main()
