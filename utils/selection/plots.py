"""The figures of notebooks 07 to 09, of the ablation and of two sites, in the study's look."""

from collections.abc import Iterable
from itertools import cycle

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.colors import FuncNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from utils.common.figures import (
    BLUE,
    GRAY,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    SPLIT_MARKERS,
    VERMILION,
    draw_intervals,
    hide_frame,
    in_house_look,
    interval_lengths,
    legend_above,
    new_figure,
    require_rows,
)
from utils.data.perturbations import PERTURBATIONS, UNCHANGED
from utils.selection.candidates import displayed_candidate

_NETWORK_LOOKS = tuple(zip((BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY), "osD^vP", strict=True))
"""Color and marker of each network in turn."""
_TWO_SITES_LABELS = {
    "gap": "gap: ROC-AUC in validation,\nwhere site and class go together, minus test",
    "flips": "flips: test children whose\npredicted class changes with the site",
}
_TWO_SITES_MODELS = {
    "recipe": "recipe\n(frozen ResNet50)",
    "no_crop": "no_crop\n(flip alone)",
    "robust": "robust\n(robust augmentation)",
    "crop_08": "crop_08\n(crops of 8% to 100%)",
}
_AUC_TICKS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998)
_LEAST_ERROR = 1e-3
"""Smallest distance of an AUC from 1 that the scale tells apart."""


@in_house_look
def plot_criteria(ranked: pd.DataFrame) -> Figure:
    """Plot each candidate's criterion with its standard error, next to plain and block AUC.

    Args:
        ranked: From `rule.rank`, in order; the first one is the choice.
    """
    require_rows(
        ranked,
        ["candidate", "criterion", "standard_error", "block", "within"],
        "the table of criteria",
    )
    size = (10, 1.6 + 0.42 * len(ranked))
    figure, ((ax,),) = new_figure("Candidates by selection criterion", size)
    positions = np.arange(len(ranked))[::-1]
    best = ranked.loc[ranked.criterion.idxmax()]
    ax.axvspan(
        best.criterion - best.standard_error, best.criterion + best.standard_error,
        color=BLUE, alpha=0.12, label="one standard error of the best",
    )  # fmt: skip
    ax.errorbar(
        ranked.criterion, positions, xerr=ranked.standard_error, fmt="o", color=BLUE,
        capsize=3, label="criterion: held-out images, eight versions",
    )  # fmt: skip
    ax.plot(ranked.block, positions, "^", color=GREEN, label="held-out images, unperturbed")
    if "plain" in ranked and ranked["plain"].notna().any():
        plain = ranked["plain"].astype(float)
        ax.plot(plain, positions, "s", color=ORANGE, label="plain validation")
    ax.set_yticks(positions, _label(ranked.candidate))
    for label, row in zip(ax.get_yticklabels(), ranked.itertuples(), strict=True):
        label.set_color("black" if row.within else GRAY)
    ax.get_yticklabels()[0].set_fontweight("bold")
    ax.margins(y=0.02)
    _scale_errors(ax, "x")
    ax.set_xlabel("ROC-AUC on held-out images\n(logarithmic scale of 1 \N{MINUS SIGN} AUC)")
    ax.grid(axis="x")
    legend_above(figure, ax)
    return figure


@in_house_look
def plot_differences(compared: pd.DataFrame, base: str, title: str) -> Figure:
    """Plot what each change of a recipe does to the criterion, with its 95% interval.

    Args:
        compared: From `rule.compare` with a base, one row per change.
        base: Name of the recipe that is changed; it is drawn as the line at 0.
        title: Of the figure.
    """
    require_rows(compared, ["candidate", "difference", "low", "high"], "the table of differences")
    rows = compared[compared.candidate != base]
    figure, ((ax,),) = new_figure(title, (9.5, 2.1 + 0.4 * len(rows)))
    positions = np.arange(len(rows))[::-1]
    shown = displayed_candidate(base, short=True)
    ax.axvline(0, color=GRAY, linestyle="--", label=shown)
    lengths = interval_lengths(rows.difference, rows.low, rows.high)
    ax.errorbar(rows.difference, positions, xerr=lengths, fmt="o", color=BLUE, capsize=4)
    ax.set_yticks(positions, _label(rows.candidate))
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.set_xlabel(f"difference in criterion from {shown}\n(95% interval over patients)")
    ax.grid(axis="x")
    return figure


@in_house_look
def plot_auc_by_perturbation(table: pd.DataFrame) -> Figure:
    """Show the AUC of each candidate under each perturbation of the held-out images.

    Args:
        table: From `rule.auc_by_perturbation`.
    """
    require_rows(table, PERTURBATIONS, "the table of AUCs by perturbation")
    size = (13, 1.9 + 0.42 * len(table))
    figure, ((ax,),) = new_figure("AUC on held-out images, by perturbation", size)
    # The errors' scale is logarithmic: one poor row leaves the others their shades.
    lowest, highest = table.min(axis=None), table.max(axis=None)
    ticks = [tick for tick in _AUC_TICKS if lowest <= tick <= highest]
    seaborn.heatmap(
        table, annot=True, fmt=".3f", cmap="cividis", ax=ax, annot_kws={"size": 11},
        norm=FuncNorm((_stretch_auc, _shrink_auc), lowest, highest), linewidths=1,
        cbar_kws={"label": "ROC-AUC", "ticks": ticks, "format": "{x:g}"},
    )  # fmt: skip
    titles = ["unperturbed" if name == UNCHANGED else name for name in table]
    ax.set_xticklabels([name.replace("_", "\n") for name in titles], rotation=0, fontsize=11)
    ax.set_yticklabels(_label(table.index), rotation=0)
    ax.set(xlabel="", ylabel="")
    ax.tick_params(length=0)
    return figure


@in_house_look
def plot_cost(costs: pd.DataFrame, cost: str, title: str) -> Figure:
    """Plot performance versus cost: one point per network, on a logarithmic scale of cost.

    Args:
        costs: Columns `network`, `criterion`, `standard_error` and the cost.
        cost: Name of the cost's column.
        title: Of the cost's axis, with its unit.
    """
    require_rows(costs, ["network", "criterion", "standard_error", cost], "the table of costs")
    figure, ((ax,),) = new_figure("Performance versus cost", (9, 5.2))
    for row, (color, marker) in zip(costs.itertuples(), cycle(_NETWORK_LOOKS), strict=False):
        ax.errorbar(
            getattr(row, cost), row.criterion, yerr=row.standard_error, fmt=marker,
            color=color, capsize=3, markersize=10, label=displayed_candidate(row.network),
        )  # fmt: skip
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    _scale_errors(ax, "y")
    ax.set_xlabel(title)
    ax.set_ylabel("criterion (ROC-AUC)")
    ax.margins(x=0.25)
    ax.grid()
    legend_above(figure, ax)
    return figure


def _scale_errors(ax: Axes, axis: str) -> None:
    """Scale the axis of an AUC by the logarithm of 1 - AUC.

    Good networks differ in their third digit, bad ones in their first.
    """
    scale, ruler = (ax.set_xscale, ax.xaxis) if axis == "x" else (ax.set_yscale, ax.yaxis)
    scale("function", functions=(_stretch_auc, _shrink_auc))
    ruler.set_major_locator(FixedLocator(_AUC_TICKS))
    ruler.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    interval = ax.dataLim.intervalx if axis == "x" else ax.dataLim.intervaly
    low, high = _stretch_auc(interval)
    margin = 0.05 * (high - low)
    ax.set(**{f"{axis}lim": (_shrink_auc(low - margin), _shrink_auc(high + margin))})


def _label(names: Iterable[str]) -> list[str]:
    """Return what is shown for candidates, without the network where all have the same."""
    same = len({name.split("_")[0] for name in names}) == 1
    return [displayed_candidate(name, short=same) for name in names]


def _stretch_auc(auc: np.ndarray) -> np.ndarray:
    return -np.log(np.maximum(1 - np.asarray(auc), _LEAST_ERROR))


def _shrink_auc(stretched: np.ndarray) -> np.ndarray:
    return 1 - np.exp(-np.asarray(stretched))


@in_house_look
def plot_operations(rows: dict[str, dict[str, np.ndarray]]) -> Figure:
    """Show what operations of a network make of an image, one row an operation.

    Each picture has its own gray scale, from its lowest value in black to its highest in white.

    Args:
        rows: For each operation its pictures by their titles, (h, w) each, equally many in all.

    Raises:
        ValueError: if there are none, or rows of different lengths.
    """
    counts = {len(pictures) for pictures in rows.values()}
    if len(counts) != 1:
        raise ValueError(f"rows must have one number of pictures, not {sorted(counts)}")
    shape = len(rows), counts.pop()
    figure, axes = new_figure(
        "What a layer does to one image", (2.4 * shape[1] + 1.2, 2.6 * shape[0] + 0.5), *shape
    )
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for ax, (title, picture) in zip(line, pictures.items(), strict=True):
            ax.imshow(picture, cmap="gray")
            ax.set_title(title, fontsize=12)
            hide_frame(ax)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


@in_house_look
def plot_crop_area(networks: pd.DataFrame) -> Figure:
    """Plot validation and test ROC-AUC against the least share of the area that a crop keeps.

    Lines join the means over the seeds, and points are networks.

    Args:
        networks: From `ablation.score_networks`; settings whose only other transform is the flip
            are drawn, a smallest crop of 1 being none.
    """
    splits = ("validation", "test")
    columns = ["smallest_crop", "transforms", *splits]
    require_rows(networks, columns, "the table of the ablation")
    rows = networks[networks.transforms == "flip"].sort_values("smallest_crop", ascending=False)
    require_rows(rows, columns, "the table of settings with nothing but a crop and a flip")
    figure, ((ax,),) = new_figure("What the crop does to validation and to test", (8.5, 5.4))
    areas = rows.smallest_crop.unique()
    places = pd.Series(range(len(areas)), index=areas)
    for split, color, line in zip(splits, (ORANGE, BLUE), ("--", "-"), strict=True):
        marker = SPLIT_MARKERS[split]
        ax.plot(
            places[rows.smallest_crop], rows[split], marker, color=color, alpha=0.45, mec="none"
        )
        means = rows.groupby("smallest_crop", sort=False)[split].mean()
        ax.plot(places, means[areas], line, marker=marker, color=color, label=split)
    names = ["no crop" if area == 1 else f"{area:.0%} to 100%" for area in areas]
    ax.set_xticks(places, names)
    ax.set_xlabel("area that a random crop keeps in training")
    ax.set_ylabel("ROC-AUC, whole image")
    ax.grid(axis="y")
    legend_above(figure, ax)
    return figure


@in_house_look
def plot_two_sites(measures: pd.DataFrame) -> Figure:
    """Plot the gap from validation to test and the flips of each model that has seeds.

    Args:
        measures: From `two_sites.list_measures`: means over seeds, 95% intervals, seeds' values.
    """
    columns = ["model", "measure", "value", "low", "high"]
    require_rows(measures, columns, "the table of two sites")
    seeds = [name for name in measures if name.startswith("seed_")]
    rows = measures.dropna(subset=seeds) if seeds else measures.head(0)
    require_rows(rows, columns, "the table of models with seeds")
    models = rows.model.unique()
    figure, axes = new_figure(
        "Phantoms from two sites", (11, 2.9 + 0.5 * len(models)), 1, 2, sharey=True
    )
    positions = np.arange(len(models))[::-1]
    for ax, (measure, label) in zip(axes[0], _TWO_SITES_LABELS.items(), strict=True):
        part = rows[rows.measure == measure].set_index("model").loc[models]
        ax.axvline(0, color=GRAY, linewidth=1)
        draw_intervals(
            ax, part.value, part.low, part.high, positions, BLUE, "o",
            "mean of the seeds, 95% interval over children and seeds",
        )  # fmt: skip
        ax.plot(
            part[seeds].to_numpy().ravel(), np.repeat(positions - 0.22, len(seeds)), "^",
            color=ORANGE, mec="none", label="one seed",
        )  # fmt: skip
        ax.set_yticks(positions, [_TWO_SITES_MODELS.get(model, model) for model in models])
        ax.set_ylim(-0.6, len(models) - 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.set_xlabel(label)
        ax.grid(axis="x")
    legend_above(figure, axes[0, 0])
    return figure
