"""The metrics of a study's models, in the form of `metrics.json`."""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from utils.common.constants import (
    CLASS_NAMES,
    IMAGE_LEVEL_SPLIT,
    PATIENT_LEVEL_SPLIT,
    PNEUMONIA,
    SCORED_SPLITS,
)
from utils.common.files import read_json, write_json
from utils.common.paths import metrics_file
from utils.evaluation.bootstrap import bounds_over_seeds
from utils.evaluation.intervals import CONFIDENCE, DECIMALS, with_null
from utils.evaluation.metrics import (
    auc_by_ranks,
    evaluate_by_etiology,
    evaluate_predictions,
    paired_differences,
)
from utils.evaluation.predictions import (
    PredictionsError,
    from_log_odds,
    patients_known,
    select_split,
)
from utils.evaluation.thresholds import choose_validation_threshold, is_positive

CHOSEN_MODEL = "chosen_model"
SEED_METRICS = ("roc_auc", "accuracy_at_0.5", "sensitivity_at_0.5", "specificity_at_0.5")
"""What is reported of each seed where seeds are resampled."""


def write_metrics(study_name: str, metrics: dict[str, Any]) -> None:
    """Write the metrics of a study; what notebook 09 added about the chosen model stays."""
    file = metrics_file(study_name)
    chosen = read_json(file).get(CHOSEN_MODEL) if file.is_file() else None
    write_json(file, with_null(metrics) | ({CHOSEN_MODEL: chosen} if chosen else {}))


def write_chosen_model(study_name: str, name: str) -> None:
    """Record in `metrics.json` which model a study has chosen."""
    file = metrics_file(study_name)
    write_json(file, read_json(file) | {CHOSEN_MODEL: name})


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
                split: paired_differences(
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


def evaluate_seeds(
    images: pd.DataFrame, odds: np.ndarray, together: bool, resamples: int, seed: int
) -> dict[str, Any]:
    """Score networks of several seeds, with patients and seeds resampled.

    Args:
        images: Rows of one split: patient_id and y_true.
        odds: (seeds, n) log-odds of PNEUMONIA.
        together: Whether seeds are averaged into one model; else each is scored, and the mean of
            the scores is reported, that of one network of a new seed.
        resamples: Bootstrap resamples.
        seed: Of the resamples.

    Returns:
        For each metric of `SEED_METRICS` the value with its interval under `both`, and under
        `of_seeds` those of each seed alone.
    """
    labels = images.y_true.to_numpy() == PNEUMONIA
    everything, seeds = np.arange(len(labels)), np.arange(len(odds))

    def score(rows: np.ndarray, drawn: np.ndarray) -> list[float]:
        chosen = odds[drawn].mean(axis=0, keepdims=True) if together else odds[drawn]
        chosen, with_it = chosen[:, rows], labels[rows]
        right = is_positive(from_log_odds(chosen), 0.5) == with_it
        auc = auc_by_ranks(with_it.astype(int), chosen).mean()
        values = (auc, right.mean(), right[:, with_it].mean(), right[:, ~with_it].mean())
        return [round(float(value), DECIMALS) for value in values]

    low, high = bounds_over_seeds(images, len(seeds), score, resamples, seed)
    value, each = score(everything, seeds), [score(everything, seeds[[one]]) for one in seeds]
    return {
        metric: {
            "both": {
                "value": value[number],
                "low": round(float(low[number]), DECIMALS),
                "high": round(float(high[number]), DECIMALS),
            },
            "of_seeds": [values[number] for values in each],
        }
        for number, metric in enumerate(SEED_METRICS)
    }
