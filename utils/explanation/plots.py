"""The figures of notebooks 06 and 12 on heat maps, in the look of the study's other figures."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from utils.common.constants import CLASS_NAMES, PNEUMONIA
from utils.common.figures import (
    GRAY,
    SERIES,
    SKY,
    VERMILION,
    as_pixels,
    draw_intervals,
    grid_shape,
    hide_frame,
    in_house_look,
    interval_lengths,
    legend_above,
    new_figure,
    require_count,
    show_picture,
)
from utils.common.names import displayed
from utils.explanation.heat_maps import CASES, METHODS
from utils.explanation.measures import BASELINES, NO_NETWORK, TITLES

HEAT = LinearSegmentedColormap.from_list(
    # From clear to opaque: where nothing is evidence for the class, the image shows through.
    "heat", [(0.0, (0.35, 0.0, 0.45, 0.0)), (0.35, (0.75, 0.1, 0.4, 0.45)),
             (0.7, (0.97, 0.45, 0.1, 0.65)), (1.0, (1.0, 0.95, 0.4, 0.8))],
)  # fmt: skip
"""Colors of the heat maps, which lie over an image."""

_STYLES = (*SERIES, (VERMILION, "-", "v"))
"""Color, line and marker of each method, or network, in turn."""


@in_house_look
def plot_cam_grid(
    images: np.ndarray,
    maps: np.ndarray,
    titles: Sequence[str],
    masks: np.ndarray | None = None,
    class_name: str = CLASS_NAMES[PNEUMONIA],
) -> Figure:
    """Show each image beside its Grad-CAM, all on one color scale.

    The scale ends at the largest value of all maps; each picture says how high its own map is. A
    map that is zero everywhere is said to be so.

    Args:
        images: (n, h, w, 3) in [0, 255].
        maps: (n, h, w), not negative, from `heat_maps.explain_images`.
        titles: A title for each.
        masks: (n, h, w) bool; where given, their outlines are drawn.
        class_name: Of the class that the maps explain, for the title.
    """
    pixels, maps = as_pixels(images), np.asarray(maps)
    _require_maps(maps, pixels)
    require_count(titles, len(pixels), "titles")
    if masks is not None and np.shape(masks) != maps.shape:
        raise ValueError(f"masks {np.shape(masks)} do not fit maps {maps.shape}")
    highest = float(maps.max()) or 1.0
    rows, columns = grid_shape(len(pixels), 3)
    # Two pictures per case, and a narrow gap between cases.
    figure, axes = new_figure(
        f"Grad-CAM for {class_name}", (4.0 * columns + 1.3, 2.6 * rows + 0.9), rows, 3 * columns,
        width_ratios=[1, 1, 0.06] * columns,
    )  # fmt: skip
    for ax in axes.flat:
        hide_frame(ax)
    for ax in axes[:, 2::3].flat:
        ax.set_axis_off()
    for case, title in enumerate(titles):
        plain, overlay = axes.flat[3 * case], axes.flat[3 * case + 1]
        # A line of its own for what is in brackets: an outcome is wider than a picture.
        show_picture(plain, pixels[case], title.replace(" (", "\n("), fontsize=11)
        maximum = maps[case].max()
        note = f"maximum {maximum:.3g}" if maximum > 0 else "zero everywhere"
        show_picture(overlay, pixels[case], note, fontsize=11)
        heat = overlay.imshow(maps[case], cmap=HEAT, vmin=0, vmax=highest)
        if masks is not None:
            _outline_opacity((plain, overlay), masks[case])
    bar = _add_scale(figure, heat, axes, shrink=min(1.0, 1.6 / rows + 0.3), pad=0.02)
    bar.set_label("Grad-CAM, not normalized\n(one scale for all,\nover black to white pixels)")
    if masks is not None:
        _name_outline(figure, axes[0, 0])
    return figure


@in_house_look
def plot_methods(
    images: np.ndarray,
    maps: Mapping[str, np.ndarray],
    titles: Sequence[str],
    masks: np.ndarray | None = None,
    title: str = "Heat maps by five methods",
    same_units: bool = True,
) -> Figure:
    """Show each image in a row beside its maps by several methods, or of several layers.

    Their units differ, so that every column has a scale of its own below it, from 0 to its largest
    value; within a column heights compare. A map that is zero everywhere is said to be so.

    Args:
        images: (n, h, w, 3) in [0, 255].
        maps: (n, h, w) each, not negative, by the title of their column.
        titles: A title for each image.
        masks: (n, h, w) bool; where given, their outlines are drawn.
        title: Of the figure.
        same_units: Whether the maps of a column have the same units. Where rows are of different
            networks they have not, and each map is drawn up to its own maximum.
    """
    pixels = as_pixels(images)
    for method, values in maps.items():
        _require_maps(values, pixels, f"{method}: maps")
    require_count(titles, len(pixels), "titles")
    columns = 1 + len(maps)
    size = (2.1 * columns, 2.25 * len(pixels) + 1.35)
    figure, axes = new_figure(title, size, len(pixels), columns)
    for row, name in enumerate(titles):
        show_picture(axes[row, 0], pixels[row])
        axes[row, 0].set_ylabel(name.replace(" (", "\n("), fontsize=10)
        for column, (method, values) in enumerate(maps.items(), start=1):
            ax, maximum = axes[row, column], values[row].max()
            note = f"max {maximum:.3g}" if maximum > 0 else "zero everywhere"
            show_picture(ax, pixels[row], f"{method}\n{note}" if row == 0 else note, 11)
            hottest = values.max() if same_units else maximum
            ax.imshow(values[row], cmap=HEAT, vmin=0, vmax=hottest or 1.0)
        if masks is not None:
            _outline_opacity(axes[row], masks[row])
    for column, values in enumerate(maps.values(), start=1):
        bar = _add_scale(figure, axes[-1, column].images[1], axes[:, column], location="bottom")
        bar.ax.set_xticks(
            bar.mappable.get_clim(), ["0", f"{values.max():.3g}" if same_units else "max"]
        )
        for text, side in zip(bar.ax.get_xticklabels(), ("left", "right"), strict=True):
            text.set_horizontalalignment(side)
    # As much room below the images as below their maps.
    _add_scale(figure, axes[-1, 1].images[1], axes[:, 0], location="bottom").ax.set_visible(False)
    if masks is not None:
        _name_outline(figure, axes[0, 0])
    return figure


@in_house_look
def plot_truth(summary: pd.DataFrame, measures: Mapping[str, str]) -> Figure:
    """Plot how well maps coincide with known opacities: a panel per measure, a row per map.

    Args:
        summary: From `summary.summarize` by `network` and `map`; the rows of the
            baselines give the dotted line, the best of them.
        measures: Columns, and the titles of their panels.
    """
    baselines = summary[summary.network == NO_NETWORK]
    networks = [name for name in summary.network.unique() if name != NO_NETWORK]
    order = [*(name for name in TITLES if name in set(summary["map"]))]
    positions = dict(zip(order, range(len(order))[::-1], strict=True))
    size = (3.6 * len(measures) + 1.5, 1.9 + 0.42 * len(order))
    figure, (axes,) = new_figure(
        "Do maps coincide with the known opacity of a phantom?", size, 1, len(measures)
    )
    for ax, (measure, title) in zip(axes, measures.items(), strict=True):
        ax.axvline(
            baselines[measure].max(), color=GRAY, linestyle=":", linewidth=1.5,
            label="best baseline",
        )  # fmt: skip
        for number, network in enumerate([NO_NETWORK, *networks]):
            rows = summary[summary.network == network]
            offset = 0.15 * (-1) ** (number - 1) if number else 0.0
            color, _, marker = (GRAY, "", "s") if number == 0 else _STYLES[number - 1]
            draw_intervals(
                ax, rows[measure], rows[f"{measure}_low"], rows[f"{measure}_high"],
                rows["map"].map(positions) + offset, color, marker,
                f"{displayed(network)} network" if number else "baselines",
            )  # fmt: skip
        ax.set_yticks(list(positions.values()), [TITLES[name] for name in positions])
        _label_panel(ax, f"{title}\n(higher is better)")
    legend_above(figure, axes[0])
    return figure


def _label_panel(ax: Axes, title: str) -> None:
    """Name the measure of a panel whose rows are named on the left."""
    ax.set_xlim(0, None)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlabel(title)
    ax.grid(axis="x")
    ax.label_outer()


def _spread(rows: pd.DataFrame, measure: str) -> np.ndarray:
    """Return the lengths of a measure's error bars."""
    return interval_lengths(rows[measure], rows[f"{measure}_low"], rows[f"{measure}_high"])


@in_house_look
def plot_cascade(summary: pd.DataFrame, measures: Mapping[str, str]) -> Figure:
    """Plot how similar maps stay while weights are randomized from the output on.

    Args:
        summary: From `summary.summarize` by `map` and `step`.
        measures: Columns, and the titles of their panels.
    """
    size = (4.6 * len(measures) + 0.6, 4.6)
    title = "Maps under cascading randomization of the weights"
    figure, (axes,) = new_figure(title, size, 1, len(measures))
    for ax, (measure, name) in zip(axes, measures.items(), strict=True):
        groups = zip(summary.groupby("map", sort=False), _STYLES, strict=True)
        for number, ((method, rows), (color, line, marker)) in enumerate(groups):
            # Beside each other: two methods with the same values would hide each other.
            aside = 0.09 * (number - (len(_STYLES) - 1) / 2)
            # Before the first step a map is compared with itself.
            ax.plot(
                np.array([0, *rows.step]) + aside, [1, *rows[measure]], color=color, linestyle=line,
                marker=marker, markersize=5, label=TITLES[method],
            )  # fmt: skip
            ax.errorbar(
                rows.step + aside, rows[measure], yerr=_spread(rows, measure), fmt="none",
                ecolor=color, capsize=3,
            )  # fmt: skip
        ax.axhline(0, color=GRAY, linewidth=1)
        ax.set_ylim(min(-0.25, summary[f"{measure}_low"].min() - 0.05), 1.05)
        ax.set_xlabel("layer groups randomized, from the output")
        ax.set_ylabel(name)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(figure, axes[0])
    return figure


@in_house_look
def plot_faithfulness(summary: pd.DataFrame) -> Figure:
    """Plot deletion against insertion of each order; the better ones lie to the upper left.

    Args:
        summary: From `summary.summarize` by `map`, of `deletion` and `insertion`.
    """
    figure, ((ax,),) = new_figure("Deletion and insertion in the order of each map", (7, 5.6))
    looks = dict(zip(METHODS, _STYLES, strict=True)) | {
        name: (GRAY, "", marker) for name, marker in zip(BASELINES, "osD", strict=True)
    }
    for name, row in summary.groupby("map", sort=False):
        color, _, marker = looks[name]
        ax.errorbar(
            row.deletion, row.insertion, xerr=_spread(row, "deletion"),
            yerr=_spread(row, "insertion"), fmt=marker, color=color, capsize=2,
            markerfacecolor="white" if name in BASELINES else color, label=TITLES[name],
        )  # fmt: skip
    ax.set_xlabel("area under the deletion curve (lower is better)")
    ax.set_ylabel("area under the insertion curve (higher is better)")
    legend_above(figure, ax)
    return figure


@in_house_look
def plot_attention(
    summary: pd.DataFrame, regions: Mapping[str, str], shares: Mapping[str, float]
) -> Figure:
    """Plot where Grad-CAM's energy lies, a panel per region, by outcome and network.

    Args:
        summary: From `summary.summarize` by `network` and `outcome`.
        regions: Columns, and the titles of their panels.
        shares: Of the image that each region covers, which is what a constant map puts there.
    """
    outcomes, networks = list(CASES.values()), list(summary.network.unique())
    size = (3.6 * len(regions) + 1.8, 4.4)
    figure, (axes,) = new_figure("Where Grad-CAM's energy lies", size, 1, len(regions))
    for ax, (region, title) in zip(axes, regions.items(), strict=True):
        ax.axvline(shares[region], color=GRAY, linestyle=":", linewidth=1.5, label="constant map")
        for number, network in enumerate(networks):
            rows = summary[summary.network == network]
            positions = rows.outcome.map(outcomes[::-1].index) + 0.2 * (
                (len(networks) - 1) / 2 - number
            )
            color, _, marker = _STYLES[number]
            draw_intervals(
                ax, rows[region], rows[f"{region}_low"], rows[f"{region}_high"], positions, color,
                marker, displayed(network),
            )  # fmt: skip
        ax.set_yticks(range(len(outcomes)), outcomes[::-1])
        _label_panel(ax, title)
    furthest = max(ax.get_xlim()[1] for ax in axes)
    for ax in axes:
        ax.set_xlim(0, furthest)  # shares of the same energy
    legend_above(figure, axes[0])
    return figure


def _add_scale(figure: Figure, heat: AxesImage, axes: np.ndarray, **where: Any) -> Colorbar:
    """Add the scale of a heat map, whose colors depend on the image that shines through them.

    Across the scale the background goes from black to white, as the pixels of a radiograph do.
    """
    bar = figure.colorbar(heat, ax=axes, aspect=12, **where)
    shades, (low, high) = np.linspace(0, 1, 33), heat.get_clim()
    across, along = shades, [low, high]
    if bar.orientation == "vertical":
        corners, colors = (across, along), shades[None, :-1] + shades[1] / 2
    else:
        corners, colors = (along, across), shades[:-1, None] + shades[1] / 2
    bar.ax.pcolormesh(*corners, colors, cmap="gray", vmin=0, vmax=1, zorder=-1)
    return bar


def _require_maps(maps: np.ndarray, pixels: np.ndarray, what: str = "maps") -> None:
    """Refuse heat maps that do not fit (n, h, w, 3) images, or that are no heat maps."""
    if np.shape(maps) != pixels.shape[:3]:
        raise ValueError(f"{what} {np.shape(maps)} do not fit images {pixels.shape}")
    if not (np.isfinite(maps).all() and np.min(maps) >= 0):
        raise ValueError(f"{what} must be finite and not negative; see explanation.explain_images")


def _outline_opacity(axes: Iterable[Axes], mask: np.ndarray) -> None:
    """Draw the outline of a known opacity, (h, w) bool, into each of some pictures."""
    if np.any(mask):
        for ax in axes:
            ax.contour(np.asarray(mask, float), [0.5], colors=[SKY], linewidths=1.6)


def _name_outline(figure: Figure, ax: Axes) -> None:
    """Say above a figure what the outline is."""
    ax.plot([], [], color=SKY, label="outline of the known opacity")
    legend_above(figure, ax)
