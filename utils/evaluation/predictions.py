"""Prediction files: one row per image, written by training, read by all that evaluates."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from utils.common.constants import ETIOLOGIES, PREDICTION_COLUMNS, SPLITS
from utils.common.files import file_sha256, write_csv
from utils.common.paths import predictions_file

_CLOSEST = 1e-7
"""Probabilities are kept this far from 0 and 1, where log-odds have no value."""


class PredictionsError(ValueError):
    """Predictions that cannot be scored; the message names the row and the remedy."""


class PatientsUnknown(PredictionsError):
    """A result by patient was asked of predictions that do not say who the patients are."""


def load_predictions(file: Path, splits: Sequence[str] = SPLITS) -> pd.DataFrame:
    """Read a prediction file and check every row.

    Args:
        file: CSV file.
        splits: Those that a row may be of. Images of another hospital have a split of their own,
            which only who asks for it is given.

    Returns:
        One row per image: image_id, patient_id (empty in all rows where patients are unknown),
        split, y_true (0 or 1), probability of PNEUMONIA (float64 in [0, 1]).

    Raises:
        PredictionsError: if a column, a value or a row is not as described.
    """
    remedy = "write the file again with the notebook that trains the model"
    with open(file, encoding="utf-8", newline="") as stream:
        reader = csv.reader(stream)
        header = next(reader, [])
        if tuple(header) != PREDICTION_COLUMNS:
            raise PredictionsError(
                f"{file}: the columns are {','.join(header) or 'missing'} instead of "
                f"{','.join(PREDICTION_COLUMNS)}; {remedy}"
            )
        rows, seen = [], {}
        for row in reader:
            line = reader.line_num
            try:
                rows.append(_parse_row(row, splits))
            except PredictionsError as error:
                raise PredictionsError(f"{file}, line {line}: {error}; {remedy}") from error
            first = seen.setdefault(row[0], line)
            if first != line:
                raise PredictionsError(
                    f"{file}, line {line}: image_id {row[0]!r} is already in line {first}; "
                    f"remove one of them, or {remedy}"
                )
    if not rows:
        raise PredictionsError(f"{file} holds no predictions; {remedy}")
    predictions = pd.DataFrame(rows, columns=list(PREDICTION_COLUMNS))
    nameless = predictions.patient_id == ""
    if nameless.any() and not nameless.all():
        raise PredictionsError(
            f"{file}, image {predictions.image_id[nameless].iloc[0]!r}: patient_id is empty here "
            f"but not in every row; {remedy}"
        )
    return predictions


def _parse_row(row: Sequence[str], splits: Sequence[str]) -> tuple[str, str, str, int, float]:
    if len(row) != len(PREDICTION_COLUMNS):
        raise PredictionsError(f"{len(row)} values instead of {len(PREDICTION_COLUMNS)}")
    image_id, patient_id, split, label, probability_text = row
    if not image_id:
        raise PredictionsError("image_id is empty")
    if split not in splits:
        raise PredictionsError(f"split is {split!r}, not one of {', '.join(splits)}")
    if label not in ("0", "1"):
        raise PredictionsError(f"y_true is {label!r}, not 0 or 1")
    try:
        probability = float(probability_text)
    except ValueError:
        probability = math.nan
    if not 0 <= probability <= 1:
        raise PredictionsError(f"probability is {probability_text!r}, not a number between 0 and 1")
    return image_id, patient_id, split, int(label), probability


def list_models(results: Path) -> list[str]:
    """List the models that have predictions and provenance in a study's results, baseline first.

    What was made of other models' predictions, such as an ensemble, has no provenance of its own.
    """
    models = sorted(
        file.stem for file in (results / "predictions").glob("*.csv")
        if (results / "provenance" / f"{file.stem}.json").is_file()
    )  # fmt: skip
    order = ("vgg19", "resnet50")
    return sorted(models, key=lambda model: order.index(model) if model in order else len(order))


def load_study_predictions(study_name: str, models: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Read the prediction files of some models of a study, by model name."""
    return {model: load_predictions(predictions_file(study_name, model)) for model in models}


def load_seeds(folder: Path, model: str) -> list[pd.DataFrame]:
    """Read the predictions of every seed of a baseline: its own file, then those of other seeds.

    Args:
        folder: Of a study's predictions.
        model: Name of the model; other seeds lie in `final/<model>_seed<k>.csv`.

    Returns:
        For each seed its predictions, see `load_predictions`.
    """
    others = sorted((folder / "final").glob(f"{model}_seed*.csv"))
    return [load_predictions(file) for file in (folder / f"{model}.csv", *others)]


def select_split(predictions: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return the rows of one split.

    Raises:
        PredictionsError: if the split is unknown or has no rows.
    """
    rows = predictions[predictions.split == split]
    if rows.empty:
        present = ", ".join(sorted(set(predictions.split))) or "nothing"
        raise PredictionsError(f"no predictions for split {split!r}, only for {present}")
    return rows


def require_one_split(predictions: pd.DataFrame) -> str:
    """Return the split that all rows are of.

    Raises:
        PredictionsError: if they are of several splits, or there are none.
    """
    splits = sorted(set(predictions.split))
    if len(splits) != 1:
        raise PredictionsError(
            f"predictions of {len(splits)} splits ({', '.join(splits)}) must not be taken "
            "together; take one with predictions.select_split"
        )
    return splits[0]


def patients_known(predictions: pd.DataFrame) -> bool:
    """Say whether the predictions name their patients."""
    return bool((predictions.patient_id != "").all())


def require_patients(predictions: pd.DataFrame) -> None:
    """Raise PatientsUnknown where the predictions do not name their patients."""
    if not patients_known(predictions):
        raise PatientsUnknown(
            "patient_id is empty, so nothing can be said by patient: this is an image-level "
            "split. Score images with level='image', or use the data set with its original names"
        )


def average_by_patient(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return one row per patient, with the mean probability of their images.

    The columns stay those of predictions; `image_id` holds the patient.
    """
    require_patients(predictions)
    ordered = predictions.sort_values("image_id")
    patients = ordered.groupby(["patient_id", "split", "y_true"], as_index=False).probability.mean()
    patients.insert(0, "image_id", patients.patient_id)
    return patients


def align(first: pd.DataFrame, second: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Bring two models' predictions of the same images into one order."""
    unshared = set(first.image_id) ^ set(second.image_id)
    if unshared:
        raise PredictionsError(
            f"{len(unshared)} images have a prediction of one model only, such as "
            f"{min(unshared)!r}; a paired difference needs both models on the same images"
        )
    keys = ["image_id", "patient_id", "split", "y_true"]
    first = first.sort_values("image_id", ignore_index=True)
    second = second.sort_values("image_id", ignore_index=True)
    disagree = (first[keys] != second[keys]).any(axis=1)
    if disagree.any():
        raise PredictionsError(
            f"the two models disagree on patient, split or label of "
            f"{first.image_id[disagree].iloc[0]!r}; write both files from one index"
        )
    return first, second


def etiology_of(patient_ids: pd.Series) -> pd.Series:
    """Return the etiology that ends each patient_id: normal, bacteria or virus."""
    etiology = patient_ids.str.rsplit("-", n=1).str[-1]
    unknown = patient_ids[~etiology.isin(ETIOLOGIES)]
    if len(unknown):
        raise PredictionsError(
            f"patient_id {unknown.iloc[0]!r} does not end in one of {', '.join(ETIOLOGIES)}"
        )
    return etiology


def log_odds(probability: np.ndarray) -> np.ndarray:
    """Return the logarithm of probability / (1 - probability), between -16.2 and 16.2."""
    kept = np.clip(np.asarray(probability, np.float64), _CLOSEST, 1 - _CLOSEST)
    return np.log(kept) - np.log1p(-kept)


def from_log_odds(values: np.ndarray) -> np.ndarray:
    """Return the probabilities of log-odds."""
    return 1 / (1 + np.exp(-values))


def average_predictions(tables: Sequence[pd.DataFrame], in_log_odds: bool = False) -> pd.DataFrame:
    """Return predictions whose probability is the mean of several models', image by image.

    Args:
        tables: Predictions of each model.
        in_log_odds: Whether log-odds are averaged in place of probabilities.

    Raises:
        ValueError: if the models did not predict the same images.
    """
    ordered = [table.sort_values("image_id", ignore_index=True) for table in tables]
    first = ordered[0]
    if any(table.image_id.tolist() != first.image_id.tolist() for table in ordered):
        raise ValueError("predictions of different images cannot be averaged")
    each = np.stack([table.probability for table in ordered])
    mean = from_log_odds(log_odds(each).mean(axis=0)) if in_log_odds else np.mean(each, axis=0)
    return first.assign(probability=mean)


def write_predictions(
    study_name: str, model: str, images: pd.DataFrame, probability: dict[str, np.ndarray]
) -> pd.DataFrame:
    """Write `results/<study>/predictions/<model>.csv`, see `write_prediction_file`; return it."""
    return write_prediction_file(predictions_file(study_name, model), images, probability)


def write_prediction_file(
    file: Path, images: pd.DataFrame, probability: dict[str, np.ndarray]
) -> pd.DataFrame:
    """Write a prediction file, one row per image, and return it.

    Args:
        file: CSV file to write, atomically.
        images: The image index.
        probability: For each split that was predicted, the probability of PNEUMONIA of its
            images in the order of the index.
    """
    parts = []
    for split, values in probability.items():
        rows = images[images.split == split]
        if len(rows) != len(values):
            raise ValueError(f"{len(rows)} images in {split!r} but {len(values)} probabilities")
        parts.append(rows.rename(columns={"label": "y_true"}).assign(probability=values))
    predictions = pd.concat(parts)[list(PREDICTION_COLUMNS)].sort_values("image_id")
    write_csv(file, predictions)
    return predictions


def prediction_hashes(study_name: str, models: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of each model's prediction file: what the model was, to the digit.

    Args:
        study_name: Of the study.
        models: Names of models that have predicted.
    """
    return {name: file_sha256(predictions_file(study_name, name)) for name in models}
