"""What flawed validation would have let us claim: notebook 11's demonstrations.

`python -m utils.shortcuts.leakage --study full` trains the head of our ResNet50 twice on cached
activations, once with patients kept apart and once with images split at random, for all epochs of
the recipe. What every epoch reaches on its held-out images and on the test set goes to
`results/<study>/leakage_epochs.csv`, the best epoch's held-out predictions to
`leakage_validation.csv`; from these `claim_table` reads what each flawed rule would have
reported. The test set is looked at on purpose, by declared exception; nothing here feeds a choice.
"""

import argparse

import keras
import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, roc_auc_score

from utils.common.constants import NORMAL, PNEUMONIA
from utils.common.files import cached_table, write_csv
from utils.common.paths import results_dir, table_file
from utils.common.provenance import read_provenance
from utils.common.study import Study, load_study
from utils.data.index import open_study_index, patient_number
from utils.data.splits import development_index
from utils.evaluation.thresholds import is_positive
from utils.models.backbones import build_head
from utils.models.weights import resolve_study_weights
from utils.training.activations import ActivationTable, training_copies
from utils.training.head import Recipe, predict_pneumonia, prepare_head_data, train_plainly

EPOCHS, VALIDATION = "leakage_epochs.csv", "leakage_validation.csv"
PATIENTS, IMAGES = "patients apart", "images at random"
OFFICIAL_VALIDATION = 8
"""Images of each class in the original `val` folder."""
DRAWS = 1000
"""Times that 16 images are drawn, because which 16 they are decides what they say."""


class _EpochPredictions(keras.callbacks.Callback):
    """Record what a head predicts for some tables after every epoch."""

    def __init__(self, tables: dict[str, ActivationTable]) -> None:
        super().__init__()
        self._tables = tables
        self.epochs: list[dict[str, np.ndarray]] = []

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.epochs.append(
            {part: predict_pneumonia(self.model, table) for part, table in self._tables.items()}
        )


def split_images_at_random(images: pd.DataFrame, share: float, seed: int) -> np.ndarray:
    """Return which images a flawed split holds out: at random within class, patients ignored.

    Args:
        images: The development images.
        share: Of them that is held out, 0 to 1.
        seed: Of the draw.

    Returns:
        (n,) bool.
    """
    random = np.random.default_rng(seed)
    held_out = np.zeros(len(images), bool)
    for label in (NORMAL, PNEUMONIA):
        rows = np.flatnonzero(images.label == label)
        held_out[random.permutation(rows)[: round(share * len(rows))]] = True
    return held_out


def find_known_numbers(study: Study) -> pd.DataFrame:
    """Say which test images carry a patient number that the training folder has too.

    With another etiology, since no patient with the same one is in both: whether such a number is
    one child, names cannot say. Kept in `results/<study>/known_numbers.csv`.

    Returns:
        One row per test image: image_id, known.
    """
    dataset = read_provenance(results_dir(study.study), "resnet50")["dataset"]

    def make() -> pd.DataFrame:
        _, index = open_study_index(study)
        numbers = index.patient_id.map(patient_number)
        test = index.split == "test"
        known = numbers[test].isin(set(numbers[~test]))
        return pd.DataFrame({"image_id": index.image_id[test], "known": known})

    return cached_table(table_file(study.study, "known_numbers"), {"dataset": dataset}, make)


def measure_leakage(study: Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train under both splits and write what every epoch reaches; see the module's text.

    Both tables are kept, and made again where the recipe, the data or the weights are others.

    Returns:
        A row per split, epoch and part (`held out`, `test`) with accuracy and AUC; and a row per
        image held out with its patient, by the epoch of the best held-out accuracy: image_id,
        y_true, probability.
    """
    results = results_dir(study.study)
    trained = read_provenance(results, "resnet50")
    made_from = {
        "dataset": trained["dataset"], "weights": trained["weights"],
        "epochs": study.leakage_epochs, "batch_size": study.batch_size, "views": study.views,
        "learning_rate": study.learning_rate, "seed": study.seed,
    }  # fmt: skip

    def make() -> pd.DataFrame:
        scores, validation = _train_with_flaws(study)
        write_csv(results / VALIDATION, validation)
        return scores.round(6)

    scores = cached_table(results / EPOCHS, made_from, make)
    return scores, pd.read_csv(results / VALIDATION)


def _train_with_flaws(study: Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train the head of our ResNet50 under both splits; return what `measure_leakage` keeps."""
    root, index = open_study_index(study)
    images, test = development_index(index), index[index.split == "test"]
    weights = resolve_study_weights("resnet50", study)
    by_patient = (images.split == "validation").to_numpy()
    splits = {
        PATIENTS: by_patient,
        IMAGES: split_images_at_random(images, by_patient.mean(), study.seed),
    }
    scores, validation = [], pd.DataFrame()
    for split, held_out in splits.items():
        train, judged = images[~held_out], images[held_out]
        data = prepare_head_data(
            root, weights, train, {"held out": judged, "test": test},
            training_copies(study.views, study.seed),
        )  # fmt: skip
        watch = _EpochPredictions(data.held_out)
        head = build_head(data.backbone.output_shape[1:], study.seed)
        recipe = Recipe.of_study(study, epochs=study.leakage_epochs)
        train_plainly(head, data.copies, train.label.to_numpy(), recipe, [watch])
        labels = {"held out": judged.label.to_numpy(), "test": test.label.to_numpy()}
        reached = score_epochs(split, watch.epochs, labels)
        scores.append(reached)
        if split == PATIENTS:
            best = best_epoch(reached, split, "held out")
            validation = judged[["image_id"]].assign(
                y_true=judged.label, probability=watch.epochs[best - 1]["held out"].round(6)
            )
    return pd.concat(scores, ignore_index=True), validation


def score_epochs(
    split: str, epochs: list[dict[str, np.ndarray]], labels: dict[str, np.ndarray]
) -> pd.DataFrame:
    """Return accuracy at 0.5 and AUC of every part and epoch.

    Args:
        split: Name of the split that was trained on.
        epochs: For each epoch the probabilities of each part.
        labels: For each part its (n,) labels.
    """
    return pd.DataFrame([
        {
            "split": split, "part": part, "epoch": epoch,
            "accuracy": accuracy_score(labels[part], is_positive(probability, 0.5)),
            "auc": roc_auc_score(labels[part], probability),
        }
        for epoch, predicted in enumerate(epochs, start=1)
        for part, probability in predicted.items()
    ])  # fmt: skip


def best_epoch(scores: pd.DataFrame, split: str, part: str) -> int:
    """Return the epoch with the best accuracy on one part; the first of several."""
    rows = scores[(scores.split == split) & (scores.part == part)].set_index("epoch")
    return int(rows.accuracy.idxmax())


def draw_official_validation(predictions: pd.DataFrame, seed: int) -> np.ndarray:
    """Return the accuracies that draws of 16 validation images, 8 of each class, would report.

    Args:
        predictions: Of held-out images by one model, one epoch.
        seed: Of the draws.

    Returns:
        (DRAWS,) accuracies at 0.5.
    """
    random = np.random.default_rng(seed)
    right = (is_positive(predictions.probability, 0.5) == predictions.y_true).to_numpy()
    rows = [np.flatnonzero(predictions.y_true == label) for label in (NORMAL, PNEUMONIA)]
    return np.array([
        np.mean([
            right[random.choice(of_class, OFFICIAL_VALIDATION, replace=False)] for of_class in rows
        ])
        for _ in range(DRAWS)
    ])  # fmt: skip


def claim_table(scores: pd.DataFrame, validation: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return what each rule would have let us claim, and what the same epoch does on test.

    Rules: patients kept apart (this study), images split at random, 16 validation images (the range
    of 95% of the draws), and the epoch with the best test accuracy.

    Args:
        scores: From `measure_leakage`.
        validation: From `measure_leakage`.
        seed: Of the draws of 16 images.
    """
    indexed = scores.set_index(["split", "part", "epoch"])
    rows = []
    for rule, split, part in (
        ("patients kept apart", PATIENTS, "held out"),
        ("images split at random", IMAGES, "held out"),
        ("16 validation images", PATIENTS, "held out"),
        ("the epoch that is best on test", PATIENTS, "test"),
    ):
        epoch = best_epoch(scores, split, part)
        claimed, true = (indexed.loc[(split, each, epoch)] for each in (part, "test"))
        rows.append({
            "rule": rule, "epoch": epoch,
            "claimed accuracy": f"{claimed.accuracy:.3f}", "claimed AUC": f"{claimed.auc:.3f}",
            "accuracy on test": true.accuracy, "AUC on test": true.auc,
        })  # fmt: skip
    low, high = np.quantile(draw_official_validation(validation, seed), [0.025, 0.975])
    rows[2] |= {"claimed accuracy": f"{low:.3f} to {high:.3f}", "claimed AUC": "–"}
    return pd.DataFrame(rows)


def main() -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="full")
    study = load_study(parser.parse_args().study)
    table = claim_table(*measure_leakage(study), study.seed)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
