"""The figures of notebooks 05, 09 and 10: curves, counts, intervals and calibration."""

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from utils.common.constants import CLASS_NAMES, NORMAL, PNEUMONIA, SCORED_SPLITS
from utils.common.figures import (
    CLASS_COLORS,
    GRAY,
    PUBLISHED_COLOR,
    SERIES,
    THOUSANDS,
    draw_intervals,
    grid_shape,
    in_house_look,
    interval_lengths,
    legend_above,
    new_figure,
    require_labels,
    require_rows,
)
from utils.evaluation.curves import operating_points
from utils.evaluation.intervals import binomial_interval
from utils.evaluation.metrics import METRICS
from utils.evaluation.predictions import require_one_split
from utils.evaluation.tables import NOT_REPORTED, REPORTED_ROW, reported_row
from utils.evaluation.thresholds import is_positive


@in_house_look
def plot_roc(
    predictions: dict[str, pd.DataFrame],
    thresholds: dict[str, float] | None = None,
    bands: dict[str, pd.DataFrame] | None = None,
) -> Figure:
    """Plot the ROC curve of each model, with its AUC, its operating point and its corner enlarged.

    Args:
        predictions: For each model its rows of one split.
        thresholds: For each model the threshold fixed on validation; without them, no points.
        bands: For each model what `curves.roc_band` returns; without them, no bands.
    """
    figure, ax = _new_curves("ROC", predictions, thresholds)
    curves, points = {}, {}
    for model, rows in predictions.items():
        curves[model] = roc_curve(rows.y_true, rows.probability, drop_intermediate=False)[:2]
        if thresholds is not None:
            predicted = is_positive(rows.probability, thresholds[model])
            points[model] = (
                predicted[rows.y_true == NORMAL].mean(),
                predicted[rows.y_true == PNEUMONIA].mean(),
            )
    labels = {
        model: f"{model}: AUC {roc_auc_score(rows.y_true, rows.probability):.3f}"
        for model, rows in predictions.items()
    }
    corner = ax.inset_axes((0.54, 0.09, 0.43, 0.36))
    for part in (ax, corner):
        _draw_curves(part, curves, labels, points, thresholds, bands)
        part.plot([0, 1], [0, 1], ls=":", color=GRAY, lw=1.4, label="chance: AUC 0.5")
    rates = np.array([(0.2, 0.9), *points.values()])
    _enlarge(ax, corner, (-0.005, rates[:, 0].max() + 0.05), (rates[:, 1].min() - 0.05, 1.005))
    counts = _count_classes(predictions)
    ax.set_xlabel(f"false-positive rate (1 - specificity), {counts[NORMAL]}")
    ax.set_ylabel(f"true-positive rate (sensitivity), {counts[PNEUMONIA]}")
    legend_above(figure, ax)
    return figure


def _new_curves(
    title: str, predictions: dict[str, pd.DataFrame], thresholds: dict[str, float] | None
) -> tuple[Figure, Axes]:
    """Return a figure for curves of rates, and its square axes."""
    split = _require_predictions(predictions, thresholds)
    figure, ((ax,),) = new_figure(f"{title}, {split}", (7.4, 8.2))
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    return figure, ax


def _draw_curves(
    ax: Axes,
    curves: dict[str, Sequence[np.ndarray]],
    labels: dict[str, str],
    points: dict[str, tuple[float, float]],
    thresholds: dict[str, float] | None,
    bands: dict[str, pd.DataFrame] | None,
    drawstyle: str = "default",
) -> None:
    """Draw the curve of each model, its band and where its threshold puts it."""
    ax.grid()
    for model, (color, line, marker) in zip(curves, cycle(SERIES), strict=False):
        if bands is not None:
            band = bands[model]
            ax.fill_between(band.x, band.low, band.high, color=color, alpha=0.18, lw=0)
        ax.plot(*curves[model], ls=line, color=color, drawstyle=drawstyle, label=labels[model])
        if model in points:
            ax.plot(
                *points[model], marker, ms=11, color=color, mec="black", ls="none",
                label=f"{model} at threshold {thresholds[model]:.3f}",
            )  # fmt: skip
    if bands is not None:
        ax.fill_between([], [], [], color=GRAY, alpha=0.3, lw=0, label="95% interval, pointwise")


def _enlarge(
    ax: Axes, corner: Axes, x_limits: tuple[float, float], y_limits: tuple[float, float]
) -> None:
    """Let an inset show a corner of the axes that it lies in."""
    corner.set(xlim=x_limits, ylim=y_limits)
    corner.tick_params(labelsize=11)
    corner.set_title("the same, enlarged", fontsize=11)
    ax.indicate_inset(corner.viewLim.bounds, edgecolor=GRAY)


def _count_classes(predictions: dict[str, pd.DataFrame]) -> list[str]:
    """Say of how many images of each class the predictions of every model are."""
    labels = next(iter(predictions.values())).y_true
    return [f"{(labels == label).sum():,} {name}" for label, name in enumerate(CLASS_NAMES)]


@in_house_look
def plot_precision_recall(
    predictions: dict[str, pd.DataFrame],
    thresholds: dict[str, float] | None = None,
    bands: dict[str, pd.DataFrame] | None = None,
) -> Figure:
    """Plot precision against recall of each model, and that of predicting only positives.

    Args:
        predictions: For each model its rows of one split.
        thresholds: For each model the threshold fixed on validation; without them, no points.
        bands: For each model what `curves.precision_band` returns; without them, no bands.
    """
    figure, ax = _new_curves("Precision and recall", predictions, thresholds)
    curves, points, labels = {}, {}, {}
    for model, rows in predictions.items():
        precision, recall, _ = precision_recall_curve(rows.y_true, rows.probability)
        curves[model] = recall, precision
        average = average_precision_score(rows.y_true, rows.probability)
        labels[model] = f"{model}: average precision {average:.3f}"
        if thresholds is None:
            continue
        predicted = is_positive(rows.probability, thresholds[model])
        if predicted.any():
            hit = predicted[rows.y_true == PNEUMONIA].mean()
            points[model] = hit, rows.y_true[predicted].mean()
    prevalence = next(iter(predictions.values())).y_true.mean()
    corner = ax.inset_axes((0.12, 0.08, 0.47, 0.4))
    for part in (ax, corner):
        _draw_curves(part, curves, labels, points, thresholds, bands, "steps-post")
        part.axhline(
            prevalence, ls=":", color=GRAY, lw=1.4,
            label=f"all predicted positive: {prevalence:.3f}",
        )  # fmt: skip
    low = np.array([(0.9, 0.9), *points.values()]).min(axis=0) - 0.05
    _enlarge(ax, corner, (low[0], 1.005), (low[1], 1.005))
    counts = _count_classes(predictions)
    ax.set_xlabel(f"recall (sensitivity), {counts[PNEUMONIA]}")
    ax.set_ylabel(f"precision (positive predictive value), {' and '.join(counts)}")
    legend_above(figure, ax)
    return figure


@in_house_look
def plot_confusion_matrix(
    predictions: dict[str, pd.DataFrame], thresholds: dict[str, float]
) -> Figure:
    """Plot the confusion matrix of each model: images, and their proportion of the true class.

    Args:
        predictions: For each model its rows of one split.
        thresholds: For each model its threshold; PNEUMONIA is predicted at or above it.
    """
    split = _require_predictions(predictions, thresholds)
    rows, columns = grid_shape(len(predictions), 3)
    size = (max(4.2 * columns + 0.8, 6.5), 4.3 * rows + 0.6)
    figure, axes = new_figure(f"Confusion matrix, {split}", size, rows, columns)
    for ax in axes.flat[len(predictions) :]:
        ax.set_axis_off()
    for ax, (model, part) in zip(axes.flat, predictions.items(), strict=False):
        predicted = is_positive(part.probability, thresholds[model]).astype(int)
        counts = confusion_matrix(part.y_true, predicted, labels=[NORMAL, PNEUMONIA])
        shares = counts / counts.sum(axis=1, keepdims=True)
        text = [
            [f"{count:,}\n{share:.1%}" for count, share in zip(*row, strict=True)]
            for row in zip(counts, shares, strict=True)
        ]
        seaborn.heatmap(
            shares, annot=np.array(text), fmt="", cmap="Blues", vmin=0, vmax=1, cbar=False,
            square=True, linewidths=2, annot_kws={"fontsize": 15}, ax=ax,
            xticklabels=CLASS_NAMES, yticklabels=CLASS_NAMES,
        )  # fmt: skip
        ax.set(title=f"{model}, threshold {thresholds[model]:.3f}", xlabel="predicted class")
        ax.tick_params(length=0)
        ax.set_yticklabels(CLASS_NAMES, rotation=90, va="center")
        ax.set_ylabel("true class" if ax.get_subplotspec().is_first_col() else "")
    return figure


@in_house_look
def plot_probability_histogram(
    predictions: dict[str, pd.DataFrame], thresholds: dict[str, float] | None = None
) -> Figure:
    """Plot the probabilities that each model gives to images of each class.

    Args:
        predictions: For each model its rows of one split.
        thresholds: For each model its threshold; without them, no line.
    """
    split = _require_predictions(predictions, thresholds)
    rows, columns = grid_shape(len(predictions), 2)
    figure, axes = new_figure(
        f"Probability of PNEUMONIA, {split}", (5.5 * columns + 1, 4.4 * rows + 0.6), rows, columns,
        sharey=True,
    )  # fmt: skip
    for ax in axes.flat[len(predictions) :]:
        ax.set_axis_off()
    for ax, (model, part) in zip(axes.flat, predictions.items(), strict=False):
        for label, name in enumerate(CLASS_NAMES):
            seaborn.histplot(
                x=part.probability[part.y_true == label], bins=np.linspace(0, 1, 26),
                element="step", alpha=0.25, linewidth=2.2, color=CLASS_COLORS[label],
                label=name, ax=ax,
            )  # fmt: skip
        title = model
        if thresholds is not None:
            title = f"{model}, threshold {thresholds[model]:.3f}"
            ax.axvline(thresholds[model], color="black", lw=1.8, ls="--", label="threshold")
        # Most probabilities lie at the ends; a linear scale would hide the doubtful ones. It
        # begins below one image, so that a single one is seen and none has no height.
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(THOUSANDS)
        ax.set(title=title, xlabel="probability of PNEUMONIA")
        ax.set_ylabel("images (log scale)" if ax.get_subplotspec().is_first_col() else "")
    highest = max(np.histogram(part.probability, 25)[0].max() for part in predictions.values())
    axes[0, 0].set_ylim(0.5, 1.6 * highest)
    legend_above(figure, axes[0, 0])
    return figure


@in_house_look
def plot_metric_intervals(
    study_metrics: dict[str, Any],
    split: str,
    metrics: Sequence[str] = tuple(METRICS),
    with_reported: bool = False,
) -> Figure:
    """Plot metrics per image with their intervals, models side by side.

    Args:
        study_metrics: The content of `metrics.json`; see `study_metrics.evaluate_study`.
        split: `validation` or `test`.
        metrics: Keys of `metrics.METRICS`, from top to bottom.
        with_reported: Whether to add what the published baseline reported on test.
    """
    if split not in SCORED_SPLITS:
        raise ValueError(f"split must be one of {', '.join(SCORED_SPLITS)}, not {split!r}")
    unknown = [metric for metric in metrics if metric not in METRICS]
    if unknown or not metrics:
        raise ValueError(f"unknown metric {unknown}; choose from {', '.join(METRICS)}")
    if with_reported and split != "test":
        raise ValueError("the published baseline reported metrics per image on test only")
    series = {model: splits[split] for model, splits in study_metrics["models"].items()}
    # The published baseline has a line of its own in each row, below the models.
    lines = len(series) + with_reported
    size = (10, 2.0 + (0.3 + 0.22 * lines) * len(metrics))
    figure, ((ax,),) = new_figure(f"Scores on {split}, per image", size)
    positions = np.arange(len(metrics))
    step = 0.7 / max(lines, 2)
    offsets = (np.arange(lines) - (lines - 1) / 2) * step
    for number, (name, values) in enumerate(series.items()):
        color, _, marker = SERIES[number % len(SERIES)]
        draw_intervals(
            ax, *([values[metric][key] for metric in metrics] for key in ("value", "low", "high")),
            positions + offsets[number], color, marker, name,
        )  # fmt: skip
    if with_reported:
        reported = dict(zip(metrics, reported_row(metrics), strict=True))
        known = [number for number in positions if reported[metrics[number]] != NOT_REPORTED]
        ax.plot(
            [float(reported[metrics[number]]) for number in known], np.array(known) + offsets[-1],
            "*", ms=17, color=PUBLISHED_COLOR, mec="black", mew=0.8, ls="none", label=REPORTED_ROW,
        )  # fmt: skip
    ax.set_yticks(positions, [METRICS[metric] for metric in metrics])
    ax.set_ylim(len(metrics) - 0.5, -0.5)
    ax.hlines(positions[:-1] + 0.5, 0, 1, color="#DDDDDD", lw=1, transform=ax.get_yaxis_transform())
    ax.grid(axis="x")
    ax.set_xlabel("score, with 95% interval")
    legend_above(figure, ax)
    return figure


def _require_predictions(
    predictions: dict[str, pd.DataFrame], thresholds: dict[str, float] | None
) -> str:
    """Check rows and threshold of each model, and return the one split that the rows are of."""
    if not predictions:
        raise ValueError("no predictions to plot; pass {model: rows of one split}")
    for model, rows in predictions.items():
        require_rows(rows, ("split", "y_true", "probability"), f"predictions of {model}")
        require_labels(rows.y_true)
        if rows.y_true.nunique() < 2:
            raise ValueError(f"predictions of {model} hold one class only; both are needed")
    if thresholds is not None and (missing := predictions.keys() - thresholds):
        raise ValueError(
            f"no threshold for {', '.join(sorted(missing))}; pass {{model: threshold}}"
        )
    return require_one_split(pd.concat(predictions.values()))


@in_house_look
def plot_reliability(
    tables: dict[str, Sequence[tuple[float, float, int]]], title: str = "Calibration"
) -> Figure:
    """Plot the proportion with PNEUMONIA against the mean probability of each bin.

    Intervals are exact ones of a proportion of images (Clopper and Pearson 1934): within a bin,
    images of one patient count as independent.

    Args:
        tables: For each curve what `calibration.reliability_table` returns.
        title: Of the figure.
    """
    if not tables or not all(tables.values()):
        raise ValueError("a reliability curve needs at least one filled bin for every model")
    figure, ((ax,),) = new_figure(title, (7.4, 7.6))
    ax.plot([0, 1], [0, 1], color=GRAY, linestyle=":", label="perfect calibration")
    for (name, table), (color, line, marker) in zip(tables.items(), SERIES, strict=False):
        mean, share, count = (np.array(column) for column in zip(*table, strict=True))
        positive = np.round(share * count).astype(int)
        bounds = [binomial_interval(*pair) for pair in zip(positive, count.tolist(), strict=True)]
        reach = interval_lengths(share, *zip(*bounds, strict=True))
        ax.errorbar(mean, share, reach, ls="none", ecolor=color, elinewidth=1.4, capsize=3)
        ax.plot(mean, share, line, color=color, label=f"{name}, {count.sum():,} images")
        ax.scatter(mean, share, s=30 + 200 * count / count.sum(), color=color, marker=marker)
    for each in (0.05, 0.5):
        ax.scatter([], [], s=30 + 200 * each, color=GRAY, label=f"{each:.0%} of the images")
    ax.errorbar([], [], [], ls="none", ecolor=GRAY, capsize=3, label="95% interval over images")
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    ax.set_xlabel("mean probability of PNEUMONIA")
    ax.set_ylabel("proportion with PNEUMONIA")
    ax.grid()
    legend_above(figure, ax)
    return figure


@in_house_look
def plot_operating_point(rows: pd.DataFrame, threshold: float, prevalence: float) -> Figure:
    """Plot sensitivity, specificity and PPV over every threshold, and their values at one.

    Args:
        rows: Of one model and one split.
        threshold: The one that is marked, in [0, 1].
        prevalence: Proportion with pneumonia among those examined, 0 to 1, for the PPV alone.
    """
    split = _require_predictions({"the model": rows}, None)
    figure, ((ax,),) = new_figure(f"Operating point, {split}", (8.6, 5.6))
    points = operating_points(rows, prevalence)
    marked = operating_points(rows, prevalence, [threshold]).iloc[0]
    names = {
        "sensitivity": "sensitivity", "specificity": "specificity",
        "ppv": f"PPV at a prevalence of {prevalence:g}",
    }  # fmt: skip
    ax.axvline(threshold, color=GRAY, ls=":", label=f"threshold {threshold:.3f}")
    for (name, title), (color, line, marker) in zip(names.items(), SERIES, strict=False):
        value = f"{marked[name]:.3f}" if np.isfinite(marked[name]) else "undefined"
        ax.plot(points.threshold, points[name], line, color=color, label=f"{title}: {value}")
        ax.plot(threshold, marked[name], marker, ms=10, color=color, mec="black")
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04), xlabel="threshold", ylabel="proportion")
    ax.grid()
    legend_above(figure, ax)
    return figure


@in_house_look
def plot_decision_curve(curve: pd.DataFrame, split: str) -> Figure:
    """Plot the net benefit of models against treating all and treating none.

    Args:
        curve: What `curves.decision_curve` returns.
        split: Of the predictions, for the title.
    """
    require_rows(curve, ("threshold", "treat all"), "the decision curve")
    figure, ((ax,),) = new_figure(f"Decision curve, {split}", (8.6, 5.6))
    models = curve.columns.drop(["threshold", "treat all"])
    for name, (color, line, marker) in zip(models, cycle(SERIES), strict=False):
        ax.plot(curve.threshold, curve[name], line, color=color, marker=marker, label=name)
    ax.plot(curve.threshold, curve["treat all"], color=GRAY, ls="--", lw=1.6, label="treat all")
    ax.axhline(0, color="black", lw=1.2, label="treat none")
    # Treating all falls without bound, and would make the rest flat.
    ax.set_ylim(-0.1, 1.1 * max(curve[models].max().max(), 0.1))
    ax.set(xlim=(0, 1), xlabel="threshold probability", ylabel="net benefit per image")
    ax.grid()
    legend_above(figure, ax)
    return figure
