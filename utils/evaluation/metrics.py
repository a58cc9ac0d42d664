"""Metrics and their intervals, computed from prediction files alone."""

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from utils.common.constants import ETIOLOGIES, NORMAL, PNEUMONIA
from utils.evaluation.bootstrap import bootstrap_bounds
from utils.evaluation.exact import with_exact_intervals
from utils.evaluation.intervals import DECIMALS, Interval
from utils.evaluation.predictions import (
    PredictionsError,
    align,
    average_by_patient,
    etiology_of,
    require_one_split,
    require_patients,
)
from utils.evaluation.thresholds import is_positive

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
"""Every metric and its title in tables. `weighted_f1` is taken at 0.5, as in the published
baseline;
`sensitivity`, `specificity`, `ppv` and `npv` at the threshold fixed on validation. The last one
is read off the ROC curve, at the highest threshold with a sensitivity of 95%."""
THRESHOLD_METRICS = ("accuracy_at_threshold", "sensitivity", "specificity", "ppv", "npv")
_WANTED_SENSITIVITY = 0.95
_ROUNDING = 1e-9
"""Of 100 with pneumonia, 95 are enough, however 95 / 100 is rounded."""
Metrics = dict[str, Interval]


def auc_by_ranks(y_true: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Return the ROC-AUC by ranks; faster than scikit-learn's where it is wanted often.

    Args:
        y_true: (n,) labels, both present.
        probability: (..., n) of PNEUMONIA.

    Returns:
        (...) values in [0, 1].
    """
    with_pneumonia = y_true == PNEUMONIA
    positives, negatives = int(with_pneumonia.sum()), int((~with_pneumonia).sum())
    ranks = rankdata(probability, axis=-1)
    above = ranks[..., with_pneumonia].sum(axis=-1) - positives * (positives + 1) / 2
    return above / (positives * negatives)


def compute_metrics(
    y_true: np.ndarray, probability: np.ndarray, threshold: float
) -> dict[str, float]:
    """Compute every metric of `METRICS` with scikit-learn; nan is undefined.

    PPV is undefined where nobody is predicted PNEUMONIA, NPV where nobody is predicted NORMAL.

    Args:
        y_true: (n,) 0 or 1, both present.
        probability: (n,) probability of PNEUMONIA.
        threshold: At which PNEUMONIA is predicted; see `thresholds.is_positive`.
    """
    at_half, at_threshold = (is_positive(probability, cut) for cut in (0.5, threshold))

    def sensitivity(predicted: np.ndarray) -> float:
        return recall_score(y_true, predicted, pos_label=PNEUMONIA, zero_division=0)

    def specificity(predicted: np.ndarray) -> float:
        return recall_score(y_true, predicted, pos_label=NORMAL, zero_division=0)

    def predictive_value(predicted: np.ndarray, label: int) -> float:
        return precision_score(y_true, predicted, pos_label=label, zero_division=np.nan)

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


def predictive_values(
    sensitivity: float, specificity: float, prevalence: float
) -> tuple[float, float]:
    """Return PPV and NPV at a prevalence, by Bayes' rule; nan where nothing is predicted so.

    Args:
        sensitivity: Proportion of those with pneumonia who are predicted PNEUMONIA, 0 to 1.
        specificity: Proportion of those without who are predicted NORMAL, 0 to 1.
        prevalence: Proportion with pneumonia among those examined, 0 to 1.
    """
    for name, value in (
        ("sensitivity", sensitivity), ("specificity", specificity), ("prevalence", prevalence)
    ):  # fmt: skip
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is between 0 and 1, not {value}")
    tp, fp = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    fn, tn = (1 - sensitivity) * prevalence, specificity * (1 - prevalence)
    ppv = tp / (tp + fp) if tp + fp else float("nan")
    npv = tn / (fn + tn) if fn + tn else float("nan")
    return ppv, npv


class RankedImages:
    """Rows sorted by probability once, to count them under many weightings at every threshold."""

    def __init__(self, y_true: np.ndarray, probability: np.ndarray) -> None:
        """Sort rows with (n,) labels of 0 or 1 and (n,) probabilities."""
        self._order = np.argsort(-probability, kind="stable")
        ranked = probability[self._order]
        self._with_pneumonia = (y_true[self._order] == PNEUMONIA).astype(np.float64)
        # Rows of equal probability are one group: no threshold can separate them.
        self._groups = np.flatnonzero(np.append(True, np.diff(ranked) != 0))
        self.probability = ranked[self._groups]
        """Of each group, from the highest to the lowest."""

    def count(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Count the rows of each group with and without pneumonia.

        Args:
            weights: (resamples, n) whole numbers, in the order of the rows as they came.

        Returns:
            Two arrays (resamples, groups); their running sums are true and false positives.
        """
        weights = weights[:, self._order].astype(np.float64)
        return (
            np.add.reduceat(weights * self._with_pneumonia, self._groups, axis=1),
            np.add.reduceat(weights * (1 - self._with_pneumonia), self._groups, axis=1),
        )


class _Scorer:
    """All metrics of one set of predictions under many weightings of its rows at once.

    scikit-learn would take minutes for thousands of resamples. Rows are sorted once; a resample
    is a vector of weights, and every metric follows from its running sums of true and false
    positives.
    """

    def __init__(self, y_true: np.ndarray, probability: np.ndarray, threshold: float) -> None:
        self._ranked = RankedImages(y_true, probability)
        self._predicted_at = {
            cut: int(is_positive(self._ranked.probability, cut).sum()) for cut in (0.5, threshold)
        }
        self._threshold = threshold

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Score (resamples, n) whole-number weights; return (metrics, resamples)."""
        with_pneumonia, without_pneumonia = self._ranked.count(weights)
        true_positives = with_pneumonia.cumsum(axis=1)
        false_positives = without_pneumonia.cumsum(axis=1)
        positives, negatives = true_positives[:, -1], false_positives[:, -1]
        everyone = positives + negatives

        outranked = negatives[:, None] - false_positives + without_pneumonia / 2
        auc = (with_pneumonia * outranked).sum(axis=1) / (positives * negatives)
        # 0 only where `with_pneumonia` is 0 too.
        predicted = np.maximum(true_positives + false_positives, 1)
        average_precision = (with_pneumonia * true_positives / predicted).sum(axis=1) / positives

        def at(cut: float) -> tuple[np.ndarray, np.ndarray]:
            groups = self._predicted_at[cut]
            if groups == 0:
                return np.zeros_like(positives), np.zeros_like(negatives)
            return true_positives[:, groups - 1], false_positives[:, groups - 1]

        tp_at_half, fp_at_half = at(0.5)
        tn_at_half = negatives - fp_at_half
        f1_pneumonia = 2 * tp_at_half / (tp_at_half + fp_at_half + positives)
        f1_normal = 2 * tn_at_half / (everyone - tp_at_half - fp_at_half + negatives)
        tp, fp = at(self._threshold)
        tn = negatives - fp
        wanted = (_WANTED_SENSITIVITY - _ROUNDING) * positives
        reached = np.argmax(true_positives >= wanted[:, None], axis=1)
        fp_there = false_positives[np.arange(len(reached)), reached]
        values = {
            "accuracy_at_0.5": (tp_at_half + tn_at_half) / everyone,
            "accuracy_at_threshold": (tp + tn) / everyone,
            "weighted_f1": (positives * f1_pneumonia + negatives * f1_normal) / everyone,
            "roc_auc": auc,
            "average_precision": average_precision,
            "sensitivity": tp / positives,
            "specificity": tn / negatives,
            "sensitivity_at_0.5": tp_at_half / positives,
            "specificity_at_0.5": tn_at_half / negatives,
            "ppv": _share(tp, tp + fp),
            "npv": _share(tn, tn + positives - tp),
            "specificity_at_95": 1 - fp_there / negatives,
        }
        return np.stack([values[metric] for metric in METRICS])


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part / whole; nan, undefined, where there is no whole."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _check_one_split(predictions: pd.DataFrame) -> None:
    split = require_one_split(predictions)
    labels = sorted(int(label) for label in set(predictions.y_true))
    if labels != [NORMAL, PNEUMONIA]:
        raise PredictionsError(
            f"split {split!r} holds the labels {labels}; both 0 and 1 are needed"
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
        For each metric of `METRICS`, its value and the bounds of its 95% interval; where all
        resamples agree, those of `exact.with_exact_intervals`.

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
    low, high = bootstrap_bounds(predictions, scorer, resamples, seed, level)
    metrics = _with_bounds(compute_metrics(*_scored(predictions), threshold), low, high)
    return with_exact_intervals(metrics, predictions, threshold, level)


def evaluate_images(
    y_true: np.ndarray, probability: np.ndarray, threshold: float, resamples: int, seed: int
) -> Metrics:
    """Score images of unknown patients, of one class or both, however few.

    Args:
        y_true: (n,) 0 or 1.
        probability: (n,) of PNEUMONIA.
        threshold: At which PNEUMONIA is predicted.
        resamples: Bootstrap resamples.
        seed: Seed of the resamples.

    Returns:
        As `evaluate_predictions`; of one class alone, its proportion of correct predictions, and
        nan for what needs both.
    """
    predictions = pd.DataFrame({
        "image_id": [f"{row:09}" for row in range(len(y_true))], "patient_id": "",
        "split": "test", "y_true": y_true, "probability": probability,
    })  # fmt: skip
    counts = [int((predictions.y_true == label).sum()) for label in (NORMAL, PNEUMONIA)]
    if min(counts) >= 2:
        return evaluate_predictions(predictions, threshold, resamples, seed, level="image")
    if min(counts) == 1:
        values = compute_metrics(*_scored(predictions), threshold)
    else:
        values = dict.fromkeys(METRICS, float("nan"))
        of_class = "sensitivity" if counts[PNEUMONIA] else "specificity"
        for name, cut in ((f"{of_class}_at_0.5", 0.5), (of_class, threshold)):
            right = is_positive(predictions.probability, cut) == (predictions.y_true == PNEUMONIA)
            values[name] = float(right.mean())
    no_bounds = np.full(len(METRICS), np.nan)
    metrics = _with_bounds(values, no_bounds, no_bounds)
    return with_exact_intervals(metrics, predictions, threshold, "image")


def paired_differences(
    first: pd.DataFrame,
    second: pd.DataFrame,
    thresholds: tuple[float, float],
    resamples: int,
    seed: int,
    level: str,
) -> Metrics:
    """Return `first` minus `second` for every metric; see `paired_difference`."""
    first, second = align(first, second)
    _check_one_split(first)
    for threshold in thresholds:
        _check_threshold(threshold)
    scored = list(zip((first, second), thresholds, strict=True))
    scorers = [_Scorer(*_scored(rows), threshold) for rows, threshold in scored]
    values = [compute_metrics(*_scored(rows), threshold) for rows, threshold in scored]
    low, high = bootstrap_bounds(
        first, lambda weights: scorers[0](weights) - scorers[1](weights), resamples, seed, level
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
    differences = paired_differences(
        first, second, thresholds or (0.5, 0.5), resamples, seed, level
    )
    return differences[metric]


def evaluate_by_etiology(
    predictions: pd.DataFrame, threshold: float, resamples: int, seed: int
) -> dict[str, Metrics]:
    """Score bacterial and viral pneumonia separately, each against all normal images of the split.

    The specificity is that of all normals in both; the sensitivity says which kind is missed.

    Args:
        predictions: Rows of one split.
        threshold: Fixed on validation, the same for both.
        resamples: Bootstrap resamples.
        seed: Seed of the resamples.

    Returns:
        The metrics of `bacteria` and of `virus`.
    """
    require_patients(predictions)
    etiology = etiology_of(predictions.patient_id)
    return {
        kind: evaluate_predictions(
            predictions[etiology.isin(["normal", kind])], threshold, resamples, seed
        )
        for kind in ETIOLOGIES
        if kind != "normal"
    }
