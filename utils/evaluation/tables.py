"""Metrics as text: tables with intervals, and what others have reported."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from utils.common.constants import SCORED_SPLITS
from utils.common.names import displayed
from utils.evaluation.intervals import UNDEFINED, Interval, is_defined
from utils.evaluation.metrics import METRICS, compute_metrics
from utils.evaluation.predictions import PatientsUnknown, select_split
from utils.evaluation.thresholds import choose_validation_threshold

REPORTED = {"accuracy_at_0.5": 0.89, "weighted_f1": 0.89, "roc_auc": 0.97}
"""What the published baseline reported on test, by keys of `METRICS`."""

PUBLISHED = (
    ("Google AutoML Vision at 28 pixels (Yang et al. 2023)", "0.991", "0.946", "yes"),
    ("DINO ViT-B/16, linear probe (Doerrich et al. 2024)", "0.989", "0.916", "yes"),
    ("ResNet-18, end to end (Doerrich et al. 2024)", "0.980", "0.911", "yes"),
    ("frozen ImageNet networks (Doerrich et al. 2024)", "0.968-0.976", "0.832-0.881", "yes"),
    ("Inception v3 (Kermany et al. 2018)", "0.968", "0.928", "yes"),
    ("DenseNet-201 (Rahman et al. 2020)", "0.98", "0.98", "no, another split"),
)
"""What others reported on these radiographs; see `published_table`. The last one divided 5,247 of
the images again, so its test images come from the same pool as its training images, as in plain
validation."""

REPORTED_ROW = "published baseline, as reported"
NOT_REPORTED = "–"


def format_interval(interval: Interval, digits: int = 3, signed: bool = False) -> str:
    """Format a metric as `0.956 [0.940, 0.970]`; `signed` shows the sign of a difference.

    What has no value is `undefined`, and what has no interval `1.000 [undefined]`.
    """
    if not is_defined(interval["value"]):
        return UNDEFINED
    sign = "+" if signed else ""
    # Adding 0 turns -0.0, which rounding may leave, into 0.0.
    value, low, high = (
        f"{round(interval[key], digits) + 0.0:{sign}.{digits}f}"
        if is_defined(interval[key]) else UNDEFINED
        for key in ("value", "low", "high")
    )  # fmt: skip
    return f"{value} [{low}, {high}]" if low != UNDEFINED else f"{value} [{UNDEFINED}]"


def format_range(values: Sequence[float], digits: int = 3) -> str:
    """Format a metric of several seeds as mean and range, `0.956 (0.941-0.963)`."""
    if not all(map(is_defined, values)):
        return UNDEFINED
    mean, low, high = sum(values) / len(values), min(values), max(values)
    spread = f" ({low:.{digits}f}-{high:.{digits}f})" if len(values) > 1 else ""
    return f"{mean:.{digits}f}{spread}"


def interval_columns(name: str, interval: Interval) -> dict[str, float]:
    """Return a metric as columns of a row: `<name>`, `<name>_low` and `<name>_high`."""
    ends = {"value": "", "low": "_low", "high": "_high"}
    return {f"{name}{end}": interval[key] for key, end in ends.items()}


def format_columns(table: pd.DataFrame, name: str, digits: int, signed: bool = False) -> list[str]:
    """Format what `interval_columns` made of a metric, a hyphen where there is no value."""
    intervals = table[[name, f"{name}_low", f"{name}_high"]].set_axis(
        ["value", "low", "high"], axis=1
    )
    return [
        format_interval(interval, digits, signed) if pd.notna(interval["value"]) else "-"
        for interval in intervals.to_dict("records")
    ]


def reported_row(metrics: Sequence[str]) -> list[str]:
    """Return what the published baseline reported of some test metrics, a dash where it did not."""
    return [f"{REPORTED[metric]:.2f}" if metric in REPORTED else NOT_REPORTED for metric in metrics]


def published_table() -> pd.DataFrame:
    """Return what others reported on these radiographs, as text.

    Returns:
        One row per publication: ROC-AUC, accuracy, and whether they were measured on the official
        test set without choosing on it.
    """
    names, *columns = zip(*PUBLISHED, strict=True)
    titles = ("ROC-AUC", "accuracy", "official test set")
    return pd.DataFrame(dict(zip(titles, columns, strict=True)), index=names)


def seeds_table(
    seeds: Mapping[str, Sequence[pd.DataFrame]], metrics: Sequence[str], with_reported: bool = False
) -> pd.DataFrame:
    """Return mean and range over seeds of test metrics, as text.

    Args:
        seeds: For each model the predictions of its seeds; each seed has the threshold that its
            own validation images choose.
        metrics: Keys of `METRICS`, the columns.
        with_reported: Whether to add what the published baseline reported.

    Returns:
        One row per model: number of seeds, then the metrics, titled as in `METRICS`.
    """
    rows = {}
    for model, tables in seeds.items():
        values = []
        for table in tables:
            test = select_split(table, "test")
            threshold = choose_validation_threshold(table)
            values.append(compute_metrics(test.y_true, test.probability, threshold))
        ranges = [format_range([value[metric] for value in values]) for metric in metrics]
        rows[model] = [str(len(values)), *ranges]
    if with_reported:
        rows[REPORTED_ROW] = ["1", *reported_row(metrics)]
    titles = ["seeds", *(METRICS[metric] for metric in metrics)]
    return pd.DataFrame.from_dict(rows, orient="index", columns=titles)


def metrics_table(
    study_metrics: dict[str, Any],
    split: str,
    section: str = "models",
    metrics: Sequence[str] = tuple(METRICS),
    with_reported: bool = False,
) -> pd.DataFrame:
    """Return a table of strings for display, such as `0.956 [0.940, 0.970]`.

    Args:
        study_metrics: The content of `metrics.json`; see `evaluate_study`.
        split: `validation` or `test`.
        section: `models` (per image), `by_patient`, `by_etiology` or `differences`.
        metrics: Keys of `METRICS`, the columns.
        with_reported: Whether to add what the published baseline reported on test.

    Returns:
        One row per model (and etiology, or pair of models), columns titled as in `METRICS`.
    """
    if section in ("by_patient", "by_etiology") and section not in study_metrics:
        raise PatientsUnknown(
            f"these metrics have no {section!r}: they come from an {study_metrics['split']}, "
            "where patients are unknown"
        )
    if split not in SCORED_SPLITS:
        raise ValueError(f"split must be one of {', '.join(SCORED_SPLITS)}, not {split!r}")
    if with_reported and (split, section) != ("test", "models"):
        raise ValueError("the published baseline reported metrics per image on test only")
    scored = {name: splits[split] for name, splits in study_metrics[section].items()}
    if section == "by_etiology":
        scored = {
            f"{name}, {etiology}": values
            for name, etiologies in scored.items()
            for etiology, values in etiologies.items()
        }
    signed = section == "differences"
    rows = {
        name: [format_interval(values[metric], signed=signed) for metric in metrics]
        for name, values in scored.items()
    }
    if with_reported:
        rows[REPORTED_ROW] = reported_row(metrics)
    titles = [METRICS[metric] for metric in metrics]
    return pd.DataFrame.from_dict(rows, orient="index", columns=titles)


def goals_table(scores: Mapping[str, Any]) -> pd.DataFrame:
    """Return the registered goals of round two, what was reached, and whether they were met.

    Four decimals, because a goal of three may be missed by less than the third shows.

    Args:
        scores: From `round_two_scores.score_round_two`, and so below.
    """
    rows = [
        (
            goal["model"], METRICS[goal["metric"]], _or_dash(goal["goal"]), goal["least"],
            format_interval(goal["reached"], 4), _or_dash(goal["goal_met"]), goal["least_met"],
        )
        for goal in scores["goals"]
    ]  # fmt: skip
    titles = ["model", "on test", "goal", "least", "reached", "goal met", "least met"]
    return pd.DataFrame(rows, columns=titles)


def _or_dash(value: Any) -> str:
    return NOT_REPORTED if value is None else str(value)


def models_table(
    scores: Mapping[str, Any], metrics: Sequence[str], part: str = "test"
) -> pd.DataFrame:
    """Return metrics of all models that were scored on a part, as text with intervals."""
    rows = {
        displayed(name): [str(scored[part]["images"])]
        + [format_interval(scored[part][metric]) for metric in metrics]
        for name, scored in scores["models"].items()
        if part in scored
    }
    titles = ["images", *(METRICS[metric] for metric in metrics)]
    return pd.DataFrame.from_dict(rows, orient="index", columns=titles)


def calibration_table(scores: Mapping[str, Any]) -> pd.DataFrame:
    """Return the calibration of the models of `round_two_metrics.json` that have one, as text.

    A row per model and split; `corrected` is for having been trained with balanced classes, which
    moves the intercept and leaves the slope.
    """
    rows: dict[str, dict[str, str]] = {}
    for name, scored in scores["models"].items():
        for split, kinds in scored.get("calibration", {}).items():
            found, corrected = kinds["as_is"], kinds["prevalence_corrected"]
            rows[f"{displayed(name)}, {split}"] = {
                "intercept": format_interval(found["intercept"], 2, signed=True),
                "intercept, corrected": format_interval(corrected["intercept"], 2, signed=True),
                "ECE": f"{found['ece']:.3f}",
                "ECE, corrected": f"{corrected['ece']:.3f}",
                "slope": format_interval(found["slope"], 2),
                "Brier score": f"{found['brier']:.3f}",
                "Brier score, corrected": f"{corrected['brier']:.3f}",
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def resampled_seeds_table(scores: Mapping[str, Any]) -> pd.DataFrame:
    """Return mean and range over the seeds, and the ROC-AUC's interval over seeds and patients."""
    rows = {
        name: [format_range(scored[metric]["of_seeds"]) for metric in scored]
        + [format_interval(scored["roc_auc"]["both"])]
        for name, scored in scores["seeds"].items()
    }
    titles = [
        *(METRICS[metric] for metric in next(iter(scores["seeds"].values()))),
        "ROC-AUC, patients and seeds",
    ]
    return pd.DataFrame.from_dict(rows, orient="index", columns=titles)


def external_table(scores: Mapping[str, Any]) -> pd.DataFrame:
    """Return what models and pixel baselines do on another hospital's images, as text.

    Args:
        scores: From `external.score_external`.
    """
    rows = {
        displayed(name): {
            "ROC-AUC": scored["all"]["roc_auc"],
            "ROC-AUC, matched on gray": scored["matched"]["roc_auc"],
            "sensitivity at 0.5": scored["all"]["sensitivity_at_0.5"],
            "specificity at 0.5": scored["all"]["specificity_at_0.5"],
            "sensitivity at round one's threshold": scored["all"]["sensitivity"],
            "specificity at round one's threshold": scored["all"]["specificity"],
            "intercept": scored["calibration"]["as_is"]["intercept"],
            "slope": scored["calibration"]["as_is"]["slope"],
        }
        for name, scored in scores["models"].items()
    }
    for fitted, kinds in scores["pixel_baselines"].items():
        for kind, scored in kinds.items():
            rows[f"{kind}, {fitted}"] = {
                "ROC-AUC": scored["all"], "ROC-AUC, matched on gray": scored["matched"],
            }  # fmt: skip
    return _format_cells(rows)


def remedy_table(scores: Mapping[str, Any]) -> pd.DataFrame:
    """Return what the threshold right in hindsight and the remedies give, as text.

    Args:
        scores: From `external.score_external`.
    """
    rows = {}
    for name, scored in scores["models"].items():
        remedies = {"right in hindsight": scored["right_threshold"], **scored["uses_new_site"]}
        for remedy, values in remedies.items():
            rows[f"{displayed(name)}, {remedy.replace('_', ' ')}"] = {
                key: values[key] for key in ("threshold", "sensitivity", "specificity")
            }
    return _format_cells(rows)


def _format_cells(rows: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    table = {
        name: {
            title: format_interval(cell) if isinstance(cell, Mapping) else f"{cell:.3f}"
            for title, cell in row.items()
        }
        for name, row in rows.items()
    }
    return pd.DataFrame.from_dict(table, orient="index").fillna("–")
