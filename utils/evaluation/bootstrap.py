"""The bootstrap: patients resampled with all of their images, whatever is measured on them.

Images of one patient are not independent, so a resample draws patients with replacement and takes
each with all of their images. Four functions draw, and each draws as it did when its committed
numbers were made:

- `bootstrap_bounds`: the 95% percentile interval of scores that follow from weights of rows;
- `resample_rows`: the rows of each resample, for scores of several tables in one stream;
- `bounds_over_seeds`: the 95% percentile interval of scores for which seeds are drawn, too;
- `mean_interval`: the 95% percentile interval of a mean, classes together.

All but the last draw NORMAL and PNEUMONIA patients separately, as many of each as there are, so
that no resample lacks a class; the proportion with pneumonia is thereby taken as given. A patient
is a `patient_id` (family, number and etiology), who therefore has one class.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.stats import bootstrap

from utils.common.constants import CLASS_NAMES, NORMAL, PNEUMONIA
from utils.evaluation.intervals import CONFIDENCE, Interval
from utils.evaluation.predictions import PredictionsError, require_patients

BATCH = 500
"""Resamples held in memory at once; part of the random stream, so it is not a parameter."""
_NOWHERE = -9.0
"""Stands for nan in scipy's bootstrap, which warns of one; metrics and differences are above -1."""


def bootstrap_bounds(
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
            A metric that some resamples leave undefined (nan) is bounded by the others.

    Raises:
        PatientsUnknown: if patients are drawn and `patient_id` is empty.
        PredictionsError: if a patient has two classes, or a class fewer than two patients.
    """
    if resamples < 1:
        raise ValueError(f"resamples must be 1 or more, not {resamples}")
    numbers, groups = _number_by_class(predictions, level)
    count = numbers.max() + 1

    def statistic(
        without_pneumonia: np.ndarray, with_pneumonia: np.ndarray, axis: int = -1
    ) -> np.ndarray:
        resample = np.concatenate([without_pneumonia, with_pneumonia], axis=axis)
        offsets = np.arange(len(resample))[:, None] * count
        drawn = np.bincount((resample + offsets).ravel(), minlength=len(resample) * count)
        values = score(drawn.reshape(len(resample), count)[:, numbers])
        return np.where(np.isnan(values), _NOWHERE, values)

    result = bootstrap(
        groups, statistic, n_resamples=resamples, batch=BATCH, vectorized=True, axis=-1,
        confidence_level=CONFIDENCE, method="percentile", rng=np.random.default_rng(seed),
    )  # fmt: skip
    low, high = (np.array(bound) for bound in result.confidence_interval)
    drawn = result.bootstrap_distribution
    tail = 100 * (1 - CONFIDENCE) / 2
    for metric in np.flatnonzero((drawn == _NOWHERE).any(axis=-1)):
        defined = drawn[metric][drawn[metric] != _NOWHERE]
        bounds = np.percentile(defined, (tail, 100 - tail)) if len(defined) else (np.nan, np.nan)
        low[metric], high[metric] = bounds
    return low, high


def resample_rows(
    predictions: pd.DataFrame, resamples: int, random: np.random.Generator
) -> list[np.ndarray]:
    """Draw the rows of bootstrap resamples: patients within class, with all of their images.

    Args:
        predictions: patient_id and y_true, one row per image.
        resamples: Number of resamples.
        random: Drawn from in sequence, so that several tables can share one stream.

    Returns:
        For each resample the positions of its rows, counted from 0.

    Raises:
        PatientsUnknown: if patients are drawn and `patient_id` is empty.
        PredictionsError: if a patient has two classes, or a class fewer than two patients.
    """
    numbers, groups = _number_by_class(predictions, "patient")
    rows = np.split(np.argsort(numbers, kind="stable"), np.bincount(numbers).cumsum()[:-1])
    return [
        np.concatenate([
            rows[patient] for group in groups for patient in random.choice(group, len(group))
        ])
        for _ in range(resamples)
    ]  # fmt: skip


def bounds_over_seeds(
    predictions: pd.DataFrame,
    seeds: int,
    score: Callable[[np.ndarray, np.ndarray], Sequence[float]],
    resamples: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95% bounds of scores where patients and seeds of training are resampled.

    They say where the score of other seeds on other patients would lie. Few seeds vary less among
    themselves than those that could have been drawn: with three, by a factor of the square root of
    2/3 on average, so the seeds' part of these bounds is narrow rather than wide.

    Args:
        predictions: Of any one of the seeds: patient_id and y_true, one row per image.
        seeds: Number of seeds.
        score: From positions of rows and numbers of seeds, both with repetitions, to scores.
        resamples: Number of resamples.
        seed: Of the resamples.

    Returns:
        Lower and upper bound of each score.
    """
    random = np.random.default_rng(seed)
    values = [
        score(rows, random.integers(seeds, size=seeds))
        for rows in resample_rows(predictions, resamples, random)
    ]
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values, (tail, 100 - tail), axis=0)
    return low, high


def _number_by_class(predictions: pd.DataFrame, level: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Number the patients (or images); return each row's number, and the numbers of each class.

    Numbers follow the names, so that a draw does not depend on the order of the rows.
    """
    if level == "patient":
        require_patients(predictions)
    elif level != "image":
        raise ValueError(f"level must be 'patient' or 'image', not {level!r}")
    drawn = predictions.patient_id if level == "patient" else predictions.image_id
    names, numbers = np.unique(drawn.to_numpy(str), return_inverse=True)
    with_pneumonia = predictions.y_true.to_numpy() == PNEUMONIA
    groups = [np.unique(numbers[~with_pneumonia]), np.unique(numbers[with_pneumonia])]
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
    return numbers, groups


def mean_interval(values: np.ndarray, patients: np.ndarray, resamples: int, seed: int) -> Interval:
    """Return the mean of a measure with its 95% bootstrap interval over patients.

    Args:
        values: (n,) one value per image; NaN (a zero map) is excluded.
        patients: (n,) patient of each image; all images of a drawn patient are taken.
        resamples: Bootstrap resamples.
        seed: Seed of the resamples.

    Returns:
        `value`, `low` and `high`.

    Raises:
        ValueError: if fewer than two patients have a value.
    """
    table = pd.DataFrame({"patient": patients, "value": values}).dropna()
    sums = table.groupby("patient").value.agg(["sum", "size"]).to_numpy()
    if len(sums) < 2:
        raise ValueError(f"an interval needs at least two patients; {len(sums)} have a value")
    result = bootstrap(
        (sums[:, 0], sums[:, 1]),
        lambda total, count, axis: total.sum(axis=axis) / count.sum(axis=axis),
        n_resamples=resamples, paired=True, confidence_level=CONFIDENCE, method="percentile",
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    interval = result.confidence_interval
    return {
        "value": float(table.value.mean()),
        "low": float(interval.low),
        "high": float(interval.high),
    }
