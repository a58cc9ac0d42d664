"""Metrics and their intervals, computed from prediction files alone.

Intervals are percentile bootstrap intervals of 95 % (`scipy.stats.bootstrap`). A resample draws
patients with replacement and takes each with all of their images, because images of one patient
are not independent. NORMAL and PNEUMONIA patients are drawn apart, as many of each as there are,
so that no resample lacks a class; the share of sick patients is thereby taken as given. A patient
is a `patient_id` (family, number and etiology), who therefore has one class.
"""

import csv
import math
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest, bootstrap, rankdata
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from utils.common.constants import (
    CLASS_NAMES,
    ETIOLOGIES,
    IMAGE_LEVEL_SPLIT,
    NORMAL,
    PATIENT_LEVEL_SPLIT,
    PNEUMONIA,
    PREDICTION_COLUMNS,
    REPORTED,
)
from utils.common.files import read_json, write_json
from utils.common.paths import predictions_dir, results_dir

SPLITS = ("train", "validation", "test")
SCORED_SPLITS = ("validation", "test")

METRICS = {
    "accuracy_at_0.5": "accuracy at 0.5",
    "accuracy_at_threshold": "accuracy at threshold",
    "weighted_f1": "weighted F1",
    "roc_auc": "ROC-AUC",
    "average_precision": "average precision",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "sensitivity_at_0.5": "sensitivity at 0.5",
    "specificity_at_0.5": "specificity at 0.5",
    "ppv": "PPV",
    "npv": "NPV",
    "specificity_at_95": "specificity at sensitivity 0.95",
}
"""Every metric and its title in tables. `weighted_f1` is taken at 0.5, as in the reference;
`sensitivity`, `specificity`, `ppv` and `npv` at the threshold frozen on validation. The last one
is read off the ROC curve, at the highest threshold that finds 95 % of the sick."""
THRESHOLD_METRICS = ("accuracy_at_threshold", "sensitivity", "specificity", "ppv", "npv")
_WANTED_SENSITIVITY = 0.95
_ROUNDING = 1e-9
"""Of 100 sick, 95 are enough, however 95 / 100 is rounded."""

CHOSEN_MODEL = "chosen_model"
CONFIDENCE = 0.95
BATCH = 500
"""Resamples held in memory at once; part of the random stream, so it is not a parameter."""
DECIMALS = 10
"""Kept of a metric: processors add in different orders and disagree in the 16th digit."""

Interval = dict[str, float]
"""`value`, `low` and `high` of one metric."""
Metrics = dict[str, Interval]


class PredictionsError(ValueError):
    """Predictions that cannot be scored; the message names the row and the remedy."""


class PatientsUnknown(PredictionsError):
    """A result by patient was asked of predictions that do not say who the patients are."""


def metrics_file(study: str) -> Path:
    """Return where the metrics of a study are kept."""
    return results_dir(study) / "metrics.json"


def write_metrics(study: str, metrics: dict[str, Any]) -> None:
    """Write the metrics of a study; what notebook 09 added about the chosen model stays."""
    file = metrics_file(study)
    chosen = read_json(file).get(CHOSEN_MODEL) if file.is_file() else None
    write_json(file, metrics | ({CHOSEN_MODEL: chosen} if chosen else {}))


def write_chosen_model(study: str, name: str) -> None:
    """Record in `metrics.json` which model a study has chosen."""
    file = metrics_file(study)
    write_json(file, read_json(file) | {CHOSEN_MODEL: name})


# --- Reading ---------------------------------------------------------------------------------


def load_predictions(file: Path) -> pd.DataFrame:
    """Read a prediction file and check every row.

    Returns:
        One row an image: image_id, patient_id (empty in all rows where patients are unknown),
        split (train, validation or test), y_true (0 or 1), probability of PNEUMONIA (float64
        in [0, 1]).

    Raises:
        PredictionsError: if a column, a value or a row is not as described.
    """
    file = Path(file)
    remedy = "write the file anew with the notebook that trains the model"
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
                rows.append(_parse_row(row))
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


def _parse_row(row: Sequence[str]) -> tuple[str, str, str, int, float]:
    if len(row) != len(PREDICTION_COLUMNS):
        raise PredictionsError(f"{len(row)} values instead of {len(PREDICTION_COLUMNS)}")
    image_id, patient_id, split, label, probability_text = row
    if not image_id:
        raise PredictionsError("image_id is empty")
    if split not in SPLITS:
        raise PredictionsError(f"split is {split!r}, not one of {', '.join(SPLITS)}")
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
    """List the models that have a prediction file in a study's results, baseline first."""
    models = sorted(file.stem for file in (results / "predictions").glob("*.csv"))
    order = ("vgg19", "resnet50")
    return sorted(models, key=lambda model: order.index(model) if model in order else len(order))


def load_study_predictions(study: str, models: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Read the prediction files of some models of a study, by model name."""
    return {model: load_predictions(predictions_dir(study) / f"{model}.csv") for model in models}


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


def patients_known(predictions: pd.DataFrame) -> bool:
    """Say whether the predictions name their patients."""
    return bool((predictions.patient_id != "").all())


def _require_patients(predictions: pd.DataFrame) -> None:
    if not patients_known(predictions):
        raise PatientsUnknown(
            "patient_id is empty, so nothing can be said by patient: this is an image-level "
            "split. Score images with level='image', or use the data set with its original names"
        )


def average_by_patient(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return one row a patient, with the mean probability of their images.

    The columns stay those of predictions; `image_id` holds the patient.
    """
    _require_patients(predictions)
    ordered = predictions.sort_values("image_id")
    patients = ordered.groupby(["patient_id", "split", "y_true"], as_index=False).probability.mean()
    patients.insert(0, "image_id", patients.patient_id)
    return patients


# --- Threshold -------------------------------------------------------------------------------


def choose_threshold(y_true: np.ndarray, probability: np.ndarray) -> float:
    """Choose the threshold with the largest Youden's J (sensitivity + specificity - 1).

    PNEUMONIA is predicted when probability >= threshold. J only changes at the probabilities
    that occur, so whole ranges of thresholds tie: the middle of the widest range is taken, of
    equally wide ones the lowest, which is the more sensitive. Where validation is separated
    perfectly, that is the middle of the gap between the classes.

    Args:
        y_true: (n,) 0 or 1, both present.
        probability: (n,) in [0, 1].
    """
    y_true, probability = np.asarray(y_true), np.asarray(probability, np.float64)
    positives, negatives = int((y_true == PNEUMONIA).sum()), int((y_true == NORMAL).sum())
    if not positives or not negatives or positives + negatives != len(y_true):
        raise PredictionsError(
            f"a threshold needs images of both classes, labelled 0 and 1; there are {negatives} "
            f"{CLASS_NAMES[NORMAL]} and {positives} {CLASS_NAMES[PNEUMONIA]} of {len(y_true)}"
        )
    # Between two neighbouring edges every threshold in (lower, upper] calls the same images
    # PNEUMONIA. J is counted in whole numbers (times positives * negatives): ties are exact.
    edges = np.unique([0.0, *probability, 1.0])
    called = probability[:, None] >= edges[None, 1:]
    true_positives = called[y_true == PNEUMONIA].sum(axis=0)
    false_positives = called[y_true == NORMAL].sum(axis=0)
    scores = true_positives * negatives - false_positives * positives
    if scores.max() < 0:
        return 0.0  # worse than chance at every cut: calling everyone sick is the best there is
    best = np.flatnonzero(scores == scores.max())
    runs = np.split(best, np.flatnonzero(np.diff(best) > 1) + 1)
    lower, upper = max(
        ((edges[run[0]], edges[run[-1] + 1]) for run in runs), key=lambda run: run[1] - run[0]
    )
    middle = (lower + upper) / 2
    # Between neighbouring floats there is no middle; the upper end always belongs to the range.
    return float(middle if middle > lower else upper)


def choose_validation_threshold(predictions: pd.DataFrame) -> float:
    """Choose the threshold of a model from its validation rows alone; see `choose_threshold`."""
    validation = select_split(predictions, "validation")
    return choose_threshold(validation.y_true.to_numpy(), validation.probability.to_numpy())


# --- Metrics ---------------------------------------------------------------------------------


def auc_by_ranks(y_true: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Return the ROC-AUC by ranks; faster than scikit-learn's where it is wanted often.

    Args:
        y_true: (n,) labels, both present.
        probability: (..., n) of PNEUMONIA.

    Returns:
        (...) values in [0, 1].
    """
    sick = y_true == PNEUMONIA
    positives, negatives = int(sick.sum()), int((~sick).sum())
    ranks = rankdata(probability, axis=-1)
    above = ranks[..., sick].sum(axis=-1) - positives * (positives + 1) / 2
    return above / (positives * negatives)


def compute_metrics(
    y_true: np.ndarray, probability: np.ndarray, threshold: float
) -> dict[str, float]:
    """Compute every metric of `METRICS` with scikit-learn.

    Args:
        y_true: (n,) 0 or 1, both present.
        probability: (n,) probability of PNEUMONIA.
        threshold: PNEUMONIA is predicted when probability >= threshold.
    """
    at_half, at_threshold = probability >= 0.5, probability >= threshold

    def sensitivity(predicted: np.ndarray) -> float:
        return recall_score(y_true, predicted, pos_label=PNEUMONIA, zero_division=0)

    def specificity(predicted: np.ndarray) -> float:
        return recall_score(y_true, predicted, pos_label=NORMAL, zero_division=0)

    def predictive_value(predicted: np.ndarray, label: int) -> float:
        return precision_score(y_true, predicted, pos_label=label, zero_division=0)

    false_positive_rate, true_positive_rate, _ = roc_curve(
        y_true, probability, drop_intermediate=False
    )
    reached = np.argmax(true_positive_rate >= _WANTED_SENSITIVITY - _ROUNDING)
    values = {
        "accuracy_at_0.5": accuracy_score(y_true, at_half),
        "accuracy_at_threshold": accuracy_score(y_true, at_threshold),
        "weighted_f1": f1_score(y_true, at_half, average="weighted", zero_division=0),
        "roc_auc": roc_auc_score(y_true, probability),
        "average_precision": average_precision_score(y_true, probability),
        "sensitivity": sensitivity(at_threshold),
        "specificity": specificity(at_threshold),
        "sensitivity_at_0.5": sensitivity(at_half),
        "specificity_at_0.5": specificity(at_half),
        "ppv": predictive_value(at_threshold, PNEUMONIA),
        "npv": predictive_value(at_threshold, NORMAL),
        "specificity_at_95": 1 - false_positive_rate[reached],
    }
    return {metric: float(values[metric]) for metric in METRICS}


class _Scorer:
    """All metrics of one set of predictions under many weightings of its rows at once.

    scikit-learn would take minutes for thousands of resamples. Rows are sorted once; a resample
    is a vector of weights, and every metric follows from its running sums of true and false
    positives.
    """

    def __init__(self, y_true: np.ndarray, probability: np.ndarray, threshold: float) -> None:
        self._order = np.argsort(-probability, kind="stable")
        ranked = probability[self._order]
        self._sick = (y_true[self._order] == PNEUMONIA).astype(np.float64)
        # Rows of equal probability are one group: no threshold can part them.
        self._groups = np.flatnonzero(np.append(True, np.diff(ranked) != 0))
        self._called_at = {
            cut: int((ranked[self._groups] >= cut).sum()) for cut in (0.5, threshold)
        }
        self._threshold = threshold

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Score (resamples, n) whole-number weights; return (metrics, resamples)."""
        weights = weights[:, self._order].astype(np.float64)
        sick = np.add.reduceat(weights * self._sick, self._groups, axis=1)
        healthy = np.add.reduceat(weights * (1 - self._sick), self._groups, axis=1)
        true_positives, false_positives = sick.cumsum(axis=1), healthy.cumsum(axis=1)
        positives, negatives = true_positives[:, -1], false_positives[:, -1]
        everyone = positives + negatives

        outranked = negatives[:, None] - false_positives + healthy / 2
        auc = (sick * outranked).sum(axis=1) / (positives * negatives)
        called = np.maximum(true_positives + false_positives, 1)  # 0 only where `sick` is 0 too
        average_precision = (sick * true_positives / called).sum(axis=1) / positives

        def at(cut: float) -> tuple[np.ndarray, np.ndarray]:
            groups = self._called_at[cut]
            if groups == 0:
                return np.zeros_like(positives), np.zeros_like(negatives)
            return true_positives[:, groups - 1], false_positives[:, groups - 1]

        def rates(cut: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            hits, alarms = at(cut)
            rejected = negatives - alarms
            return (hits + rejected) / everyone, hits / positives, rejected / negatives

        hits, alarms = at(0.5)
        rejected = negatives - alarms
        f1_sick = 2 * hits / (hits + alarms + positives)
        f1_healthy = 2 * rejected / (everyone - hits - alarms + negatives)
        accuracy, sensitivity, specificity = rates(self._threshold)
        found, false_alarms = at(self._threshold)
        cleared = negatives - false_alarms
        wanted = (_WANTED_SENSITIVITY - _ROUNDING) * positives
        reached = np.argmax(true_positives >= wanted[:, None], axis=1)
        alarms_there = false_positives[np.arange(len(reached)), reached]
        accuracy_at_half, sensitivity_at_half, specificity_at_half = rates(0.5)
        values = {
            "accuracy_at_0.5": accuracy_at_half,
            "accuracy_at_threshold": accuracy,
            "weighted_f1": (positives * f1_sick + negatives * f1_healthy) / everyone,
            "roc_auc": auc,
            "average_precision": average_precision,
            "sensitivity": sensitivity,
            "specificity": specificity,
            "sensitivity_at_0.5": sensitivity_at_half,
            "specificity_at_0.5": specificity_at_half,
            # Nobody called sick (or healthy) is a value of 0, as scikit-learn has it.
            "ppv": found / np.maximum(found + false_alarms, 1),
            "npv": cleared / np.maximum(cleared + positives - found, 1),
            "specificity_at_95": 1 - alarms_there / negatives,
        }
        return np.stack([values[metric] for metric in METRICS])


def _bootstrap_bounds(
    predictions: pd.DataFrame,
    score: Callable[[np.ndarray], np.ndarray],
    resamples: int,
    seed: int,
    level: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and upper bounds of every metric, each (metrics,).

    Args:
        predictions: Rows of one split.
        score: From (resamples, n) weights of these rows to (metrics, resamples) values.
        resamples: Number of resamples.
        seed: The same seed draws the same patients, whatever the model.
        level: What is drawn, `patient` or `image`.
    """
    if resamples < 1:
        raise ValueError(f"resamples must be 1 or more, not {resamples}")
    if level == "patient":
        _require_patients(predictions)
    elif level != "image":
        raise ValueError(f"level must be 'patient' or 'image', not {level!r}")
    drawn = predictions.patient_id if level == "patient" else predictions.image_id
    # Sorted by name: the draw does not depend on the order of the rows.
    names, numbers = np.unique(drawn.to_numpy(str), return_inverse=True)
    sick = predictions.y_true.to_numpy() == PNEUMONIA
    groups = [np.unique(numbers[~sick]), np.unique(numbers[sick])]
    if both := set(groups[0]) & set(groups[1]):
        raise PredictionsError(
            f"{level} {str(names[min(both)])!r} has images of both classes; a patient_id carries "
            "one etiology, so correct y_true or the name"
        )
    if min(map(len, groups)) < 2:
        raise PredictionsError(
            f"an interval needs at least two {level}s of each class; there are {len(groups[0])} "
            f"{CLASS_NAMES[NORMAL]} and {len(groups[1])} {CLASS_NAMES[PNEUMONIA]}"
        )

    def statistic(healthy: np.ndarray, sick: np.ndarray, axis: int = -1) -> np.ndarray:
        resample = np.concatenate([healthy, sick], axis=axis)
        offsets = np.arange(len(resample))[:, None] * len(names)
        counts = np.bincount((resample + offsets).ravel(), minlength=len(resample) * len(names))
        return score(counts.reshape(len(resample), len(names))[:, numbers])

    result = bootstrap(
        groups, statistic, n_resamples=resamples, batch=BATCH, vectorized=True, axis=-1,
        confidence_level=CONFIDENCE, method="percentile", rng=np.random.default_rng(seed),
    )  # fmt: skip
    return result.confidence_interval.low, result.confidence_interval.high


def _check_one_split(predictions: pd.DataFrame) -> None:
    splits = sorted(set(predictions.split))
    if len(splits) != 1:
        raise PredictionsError(
            f"predictions of {len(splits)} splits ({', '.join(splits)}) must not be scored "
            "together; take one with select_split"
        )
    labels = sorted(int(label) for label in set(predictions.y_true))
    if labels != [NORMAL, PNEUMONIA]:
        raise PredictionsError(
            f"split {splits[0]!r} holds the labels {labels}; both 0 and 1 are needed"
        )


def _check_threshold(threshold: float) -> None:
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must lie in [0, 1], not {threshold}")


def _scored(predictions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return predictions.y_true.to_numpy(), predictions.probability.to_numpy(np.float64)


def _with_bounds(values: dict[str, float], low: np.ndarray, high: np.ndarray) -> Metrics:
    return {
        metric: {
            "value": round(values[metric], DECIMALS),
            "low": round(float(low[number]), DECIMALS),
            "high": round(float(high[number]), DECIMALS),
        }
        for number, metric in enumerate(METRICS)
    }


def evaluate_predictions(
    predictions: pd.DataFrame,
    threshold: float,
    resamples: int,
    seed: int,
    unit: str = "image",
    level: str = "patient",
) -> Metrics:
    """Score the predictions of one split: every metric with its bootstrap interval.

    Args:
        predictions: Rows of one split, with both classes.
        threshold: Frozen on validation; see `choose_validation_threshold`.
        resamples: Bootstrap resamples.
        seed: Seed of the resamples.
        unit: What counts once, `image`, or `patient` with the mean probability of their images.
        level: What is resampled, `patient`, or `image` where patients are unknown; a result
            made with `image` must say "image-level split".

    Returns:
        For each metric of `METRICS`, its value and the bounds of its 95 % interval.

    Raises:
        PatientsUnknown: if `unit` or `level` is `patient` and `patient_id` is empty.
        PredictionsError: if the rows are of several splits or one class.
    """
    _check_threshold(threshold)
    _check_one_split(predictions)
    if unit == "patient":
        predictions = average_by_patient(predictions)
    elif unit != "image":
        raise ValueError(f"unit must be 'image' or 'patient', not {unit!r}")
    scorer = _Scorer(*_scored(predictions), threshold)
    low, high = _bootstrap_bounds(predictions, scorer, resamples, seed, level)
    return _with_bounds(compute_metrics(*_scored(predictions), threshold), low, high)


def _align(first: pd.DataFrame, second: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
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


def _paired_differences(
    first: pd.DataFrame,
    second: pd.DataFrame,
    thresholds: tuple[float, float],
    resamples: int,
    seed: int,
    level: str,
) -> Metrics:
    """Return `first` minus `second` for every metric; see `paired_difference`."""
    first, second = _align(first, second)
    _check_one_split(first)
    for threshold in thresholds:
        _check_threshold(threshold)
    scorers = [
        _Scorer(*_scored(rows), threshold)
        for rows, threshold in zip((first, second), thresholds, strict=True)
    ]
    values = [
        compute_metrics(*_scored(rows), threshold)
        for rows, threshold in zip((first, second), thresholds, strict=True)
    ]
    low, high = _bootstrap_bounds(
        first,
        lambda weights: scorers[0](weights) - scorers[1](weights),
        resamples,
        seed,
        level,
    )
    difference = {metric: values[0][metric] - values[1][metric] for metric in METRICS}
    return _with_bounds(difference, low, high)


def paired_difference(
    first: pd.DataFrame,
    second: pd.DataFrame,
    resamples: int,
    seed: int,
    metric: str = "roc_auc",
    thresholds: tuple[float, float] | None = None,
    level: str = "patient",
) -> Interval:
    """Return a metric of `first` minus that of `second`, both scored on the same resamples.

    An interval that leaves out 0 says that the models differ; two overlapping intervals of the
    models by themselves do not say that they are alike.

    Args:
        first: Predictions of one model, rows of one split.
        second: Predictions of the other model for the same images, in any order.
        resamples: Bootstrap resamples.
        seed: Seed of the resamples.
        metric: A key of `METRICS`.
        thresholds: The threshold of each model; needed by metrics at the threshold.
        level: What is resampled, `patient` or `image`.

    Raises:
        PredictionsError: if the images, their labels or their patients differ.
    """
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; choose one of {', '.join(METRICS)}")
    if thresholds is None and metric in THRESHOLD_METRICS:
        raise ValueError(f"{metric} depends on the thresholds of both models; pass `thresholds`")
    differences = _paired_differences(
        first, second, thresholds or (0.5, 0.5), resamples, seed, level
    )
    return differences[metric]


def etiology_of(patient_ids: pd.Series) -> pd.Series:
    """Return the etiology that ends each patient_id: normal, bacteria or virus."""
    etiology = patient_ids.str.rsplit("-", n=1).str[-1]
    unknown = patient_ids[~etiology.isin(ETIOLOGIES)]
    if len(unknown):
        raise PredictionsError(
            f"patient_id {unknown.iloc[0]!r} does not end in one of {', '.join(ETIOLOGIES)}"
        )
    return etiology


def evaluate_by_etiology(
    predictions: pd.DataFrame, threshold: float, resamples: int, seed: int, unit: str = "image"
) -> dict[str, Metrics]:
    """Score bacterial and viral pneumonia apart, each against all normal images of the split.

    The specificity is that of all normals in both; the sensitivity says which kind is missed.

    Args:
        predictions: Rows of one split.
        threshold: Frozen on validation, the same for both.
        resamples: Bootstrap resamples.
        seed: Seed of the resamples.
        unit: What counts once, `image` or `patient`.

    Returns:
        The metrics of `bacteria` and of `virus`.
    """
    _require_patients(predictions)
    etiology = etiology_of(predictions.patient_id)
    return {
        kind: evaluate_predictions(
            predictions[etiology.isin(["normal", kind])], threshold, resamples, seed, unit
        )
        for kind in ETIOLOGIES
        if kind != "normal"
    }


# --- A study ---------------------------------------------------------------------------------


def _count(predictions: pd.DataFrame) -> dict[str, int]:
    counts = {"images": len(predictions)}
    for label, name in enumerate(CLASS_NAMES):
        counts[name] = int((predictions.y_true == label).sum())
    if patients_known(predictions):
        counts["patients"] = int(predictions.patient_id.nunique())
    return counts


def evaluate_study(
    predictions: dict[str, pd.DataFrame], resamples: int, seed: int
) -> dict[str, Any]:
    """Score the models of a study on validation and test, in the form of `metrics.json`.

    Each model's threshold is chosen on its validation rows. Where patients are unknown, images
    are resampled, nothing is reported by patient or etiology, and `split` says so.

    Args:
        predictions: For each model its predictions of validation and test, of the same images.
        resamples: Bootstrap resamples.
        seed: Seed of the resamples, the same for every model.

    Returns:
        `models`, `by_patient`: {model: {split: {metric: {value, low, high}}}};
        `by_etiology`: {model: {split: {etiology: {metric: ...}}}};
        `differences`: {"b - a": {split: {metric: ...}}} for every pair, by image;
        `thresholds`: {model: threshold}; `split`: whether patients or images were kept apart;
        `counts`: {split: {images, NORMAL, PNEUMONIA, patients}}; `intervals`: how they were made.
    """
    if not predictions:
        raise PredictionsError("no predictions to evaluate; pass at least one model")
    known = {model: patients_known(rows) for model, rows in predictions.items()}
    if len(set(known.values())) > 1:
        nameless = ", ".join(model for model, named in known.items() if not named)
        raise PredictionsError(
            f"patients are known for some models but not for {nameless}; use one data set"
        )
    by_patient = all(known.values())
    level = "patient" if by_patient else "image"
    parts = {
        model: {split: select_split(rows, split) for split in SCORED_SPLITS}
        for model, rows in predictions.items()
    }
    thresholds = {model: choose_validation_threshold(rows) for model, rows in predictions.items()}

    def evaluate_all(score: Callable[[pd.DataFrame, float], Any]) -> dict[str, Any]:
        return {
            model: {split: score(rows, thresholds[model]) for split, rows in splits.items()}
            for model, splits in parts.items()
        }

    study: dict[str, Any] = {
        "split": PATIENT_LEVEL_SPLIT if by_patient else IMAGE_LEVEL_SPLIT,
        "intervals": {
            "method": "percentile bootstrap, stratified by class",
            "resampled": f"{level}s",
            "confidence": CONFIDENCE,
            "resamples": resamples,
            "seed": seed,
        },
        "counts": {split: _count(next(iter(parts.values()))[split]) for split in SCORED_SPLITS},
        "thresholds": thresholds,
        "models": evaluate_all(
            lambda rows, cut: evaluate_predictions(rows, cut, resamples, seed, level=level)
        ),
        "differences": {
            f"{second} - {first}": {
                split: _paired_differences(
                    parts[second][split],
                    parts[first][split],
                    (thresholds[second], thresholds[first]),
                    resamples,
                    seed,
                    level,
                )
                for split in SCORED_SPLITS
            }
            for first, second in combinations(parts, 2)
        },
    }
    if by_patient:
        study["by_patient"] = evaluate_all(
            lambda rows, cut: evaluate_predictions(rows, cut, resamples, seed, unit="patient")
        )
        study["by_etiology"] = evaluate_all(
            lambda rows, cut: evaluate_by_etiology(rows, cut, resamples, seed)
        )
    return study


# --- Tables ----------------------------------------------------------------------------------

REPORTED_ROW = "reference as reported"
NOT_REPORTED = "–"
_REPORTED_METRICS = {
    "accuracy_at_0.5": "test accuracy",
    "weighted_f1": "test weighted F1",
    "roc_auc": "test ROC-AUC",
}


def format_interval(interval: Interval, digits: int = 3, signed: bool = False) -> str:
    """Format a metric as `0.956 [0.940, 0.970]`; `signed` shows the sign of a difference."""
    sign = "+" if signed else ""
    # Adding 0 turns -0.0, which rounding may leave, into 0.0.
    value, low, high = (
        f"{round(interval[key], digits) + 0.0:{sign}.{digits}f}" for key in ("value", "low", "high")
    )
    return f"{value} [{low}, {high}]"


def reported_row(metrics: Sequence[str]) -> list[str]:
    """Return what the reference reported of some test metrics, a dash where it did not."""
    reported = {metric: f"{REPORTED[name]:.2f}" for metric, name in _REPORTED_METRICS.items()}
    return [reported.get(metric, NOT_REPORTED) for metric in metrics]


def metrics_table(
    study_metrics: dict[str, Any],
    split: str,
    section: str = "models",
    metrics: Sequence[str] = tuple(METRICS),
    digits: int = 3,
    with_reported: bool = False,
) -> pd.DataFrame:
    """Return a table of strings for display, such as `0.956 [0.940, 0.970]`.

    Args:
        study_metrics: The content of `metrics.json`; see `evaluate_study`.
        split: `validation` or `test`.
        section: `models` (by image), `by_patient`, `by_etiology` or `differences`.
        metrics: Keys of `METRICS`, the columns.
        digits: Decimals.
        with_reported: Whether to add what the reference reported on test.

    Returns:
        One row a model (and etiology, or pair of models), columns titled as in `METRICS`.
    """
    if section in ("by_patient", "by_etiology") and section not in study_metrics:
        raise PatientsUnknown(
            f"these metrics have no {section!r}: they come from an {study_metrics['split']}, "
            "where patients are unknown"
        )
    if split not in SCORED_SPLITS:
        raise ValueError(f"split must be one of {', '.join(SCORED_SPLITS)}, not {split!r}")
    if with_reported and (split, section) != ("test", "models"):
        raise ValueError("the reference reported metrics of test by image alone")
    scored = {name: splits[split] for name, splits in study_metrics[section].items()}
    if section == "by_etiology":
        scored = {
            f"{name}, {etiology}": values
            for name, etiologies in scored.items()
            for etiology, values in etiologies.items()
        }
    signed = section == "differences"
    rows = {
        name: [format_interval(values[metric], digits, signed) for metric in metrics]
        for name, values in scored.items()
    }
    if with_reported:
        rows[REPORTED_ROW] = reported_row(metrics)
    titles = [METRICS[metric] for metric in metrics]
    return pd.DataFrame.from_dict(rows, orient="index", columns=titles)


def binomial_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a proportion (Clopper and Pearson 1934)."""
    interval = binomtest(successes, trials).proportion_ci(CONFIDENCE, method="exact")
    return float(interval.low), float(interval.high)
