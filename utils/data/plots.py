"""The figures of notebooks 01, 02 and 07: the data set, and what augmentation does to an image."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from utils.common.constants import CLASS_NAMES, NORMAL, PNEUMONIA
from utils.common.figures import (
    BLUE,
    CLASS_COLORS,
    GRAY,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    THOUSANDS,
    VERMILION,
    YELLOW,
    as_pixels,
    grid_shape,
    hide_frame,
    in_house_look,
    legend_above,
    new_figure,
    require_count,
    require_labels,
    require_rows,
    show_picture,
)

_BOX_COLORS = (ORANGE, SKY, GREEN, PURPLE, VERMILION, YELLOW)


@in_house_look
def plot_class_balance(index: pd.DataFrame) -> Figure:
    """Plot the number of images of each class in each split.

    Args:
        index: The image index.
    """
    require_rows(index, ("split", "label"), "the index")
    require_labels(index.label)
    counts = _count_classes(index)
    figure, ((ax,),) = new_figure("Images by split and class", (9, 5))
    _class_bars(ax, counts)
    share = counts[PNEUMONIA] / counts.sum(axis=1)
    ax.set_xticks(
        range(len(counts)),
        [f"{split}\n{value:.1%} pneumonia" for split, value in share.items()],
    )
    ax.set_ylabel("images")
    legend_above(figure, ax)
    return figure


@in_house_look
def plot_images_per_patient(index: pd.DataFrame) -> Figure:
    """Plot how many patients have one image, two, and so on, by class.

    Args:
        index: The image index, with patients.

    Raises:
        ValueError: if the patients are unknown.
    """
    require_rows(index, ("patient_id", "label"), "the index")
    if (index.patient_id == "").any():
        raise ValueError("patient_id is empty: this data set does not say who the patients are")
    images = index.groupby(["patient_id", "label"]).size().reset_index(name="images")
    counts = images.groupby(["images", "label"]).size().unstack(fill_value=0)
    counts = counts.reindex(columns=[NORMAL, PNEUMONIA], fill_value=0)
    figure, ((ax,),) = new_figure("Images per patient", (9, 5))
    for label, name in enumerate(CLASS_NAMES):
        ax.bar(
            counts.index + (label - 0.5) * 0.4, counts[label], 0.4,
            color=CLASS_COLORS[label], label=name,
        )  # fmt: skip
    ax.set_yscale("log")
    ax.set_ylim(0.7, 1.5 * counts.max(axis=None))
    ax.yaxis.set_major_formatter(THOUSANDS)
    most = counts.index.max()
    ax.set_xticks(range(1, most + 1) if most <= 12 else [1, *range(5, most + 1, 5)])
    ax.set(xlabel="images per patient", ylabel="patients (log scale)")
    ax.set_xlim(0.3, most + 0.7)
    legend_above(figure, ax)
    return figure


@in_house_look
def plot_intensity_distributions(
    mean_intensity: np.ndarray, labels: pd.Series | np.ndarray
) -> Figure:
    """Plot the mean intensity of the images of each class.

    Args:
        mean_intensity: (n,) mean of each image, in [0, 255].
        labels: (n,) 0 or 1.
    """
    mean_intensity, labels = np.asarray(mean_intensity), np.asarray(labels)
    if mean_intensity.ndim != 1 or mean_intensity.shape != labels.shape or not len(labels):
        raise ValueError(
            f"mean_intensity {mean_intensity.shape} and labels {labels.shape} must both be (n,)"
        )
    require_labels(labels)
    figure, ((ax,),) = new_figure("Mean intensity per image", (9, 5))
    bins = np.linspace(np.floor(mean_intensity.min()), np.ceil(mean_intensity.max()), 41)
    for label, name in enumerate(CLASS_NAMES):
        values = mean_intensity[labels == label]
        if not len(values):
            continue
        seaborn.histplot(
            x=values, bins=bins, stat="percent", element="step", alpha=0.25, linewidth=2.2,
            color=CLASS_COLORS[label], label=f"{name} (median {np.median(values):.0f})", ax=ax,
        )  # fmt: skip
        ax.axvline(np.median(values), color=CLASS_COLORS[label], lw=1.6, ls="--")
    ax.set(xlabel="mean intensity (0 black, 255 white)", ylabel="images of the class (%)")
    legend_above(figure, ax)
    return figure


@in_house_look
def plot_example_grid(images: np.ndarray, titles: Sequence[str]) -> Figure:
    """Show images in a grid, with a title above each.

    Args:
        images: (n, h, w, 3) in [0, 255].
        titles: A title for each.
    """
    pixels = as_pixels(images)
    require_count(titles, len(pixels), "titles")
    rows, columns = grid_shape(len(pixels), 4)
    figure, axes = new_figure("Examples", (2.4 * columns, 2.6 * rows + 0.7), rows, columns)
    for ax in axes.flat:
        hide_frame(ax)
    for ax, image, title in zip(axes.flat, pixels, titles, strict=False):
        show_picture(ax, image, title)
    return figure


@in_house_look
def plot_split(index: pd.DataFrame) -> Figure:
    """Plot images and patients of each split, by class.

    Where patients are unknown there are images alone, and the title says so.

    Args:
        index: The image index.
    """
    require_rows(index, ("split", "label", "patient_id"), "the index")
    require_labels(index.label)
    known = bool((index.patient_id != "").all())
    panels = {"images": index}
    if known:
        panels["patients"] = index.drop_duplicates(["split", "patient_id"])
    title = "The split, by patient" if known else "The split, by image: patients are unknown"
    figure, axes = new_figure(title, (11 if known else 7, 5), 1, len(panels))
    for ax, (what, rows) in zip(axes[0], panels.items(), strict=True):
        _class_bars(ax, _count_classes(rows))
        ax.set_title(f"{len(rows):,} {what}")
        ax.set_ylabel(what)
    legend_above(figure, axes[0, 0])
    return figure


@in_house_look
def plot_transform_rows(image: np.ndarray, rows: dict[str, np.ndarray]) -> Figure:
    """Show an image and, in a row for each transform, what the transform makes of it.

    Args:
        image: (h, w, 3) in [0, 255].
        rows: For each transform (k, h, w, 3) in [0, 255], the same k in all.
    """
    if not rows:
        raise ValueError("no transforms to show; pass {transform: images}")
    original = as_pixels(np.asarray(image)[None], "image")
    pixels = {name: as_pixels(images, name) for name, images in rows.items()}
    counts = {len(images) for images in pixels.values()}
    if len(counts) != 1:
        raise ValueError(f"transforms must have one number of images, not {sorted(counts)}")
    titles = ["original", *(f"draw {number}" for number in range(1, counts.pop() + 1))]
    shown = {name: np.concatenate([original, images]) for name, images in pixels.items()}
    return _draw_rows("One transform at a time", shown, titles)


@in_house_look
def plot_combined_views(
    originals: np.ndarray,
    views: Sequence[np.ndarray],
    titles: Sequence[str],
    names: Sequence[str] | None = None,
    title: str = "All transforms together",
) -> Figure:
    """Show images in the first row and their augmented copies in the rows below.

    Args:
        originals: (n, h, w, 3) in [0, 255].
        views: For each copy (n, h, w, 3) in [0, 255].
        titles: A title for each image.
        names: A name for each copy; without, they are numbered.
        title: Of the figure.
    """
    names = names or [f"copy {number}" for number in range(len(views))]
    require_count(names, len(views), "names of copies")
    rows = {"original": as_pixels(originals, "originals")}
    rows |= {name: as_pixels(view, name) for name, view in zip(names, views, strict=True)}
    for part in rows.values():
        require_count(part, len(originals), "images in a copy")
    require_count(titles, len(originals), "titles")
    return _draw_rows(title, rows, titles)


def _draw_rows(title: str, rows: dict[str, np.ndarray], titles: Sequence[str]) -> Figure:
    """Show rows of pictures: what each row is to its left, a title above each column."""
    size = (1.75 * len(titles) + 1.2, 1.75 * len(rows) + 1.0)
    figure, axes = new_figure(title, size, len(rows), len(titles))
    for row, (name, pictures) in enumerate(rows.items()):
        for column, picture in enumerate(pictures):
            show_picture(axes[row, column], picture, titles[column] if row == 0 else "")
        axes[row, 0].set_ylabel(name.replace("_", "\n"), rotation=0, ha="right", va="center")
    return figure


@in_house_look
def plot_crops(image: np.ndarray, boxes: np.ndarray, crops: np.ndarray) -> Figure:
    """Show an image with the boxes that are cut from it, and each crop as it is after resizing.

    Args:
        image: (h, w, 3) in [0, 255].
        boxes: (n, 4) left, upper, right, lower, in pixels; n of at most 6.
        crops: (n, side, side, 3) in [0, 255].
    """
    pixels = as_pixels(np.asarray(image)[None], "image")[0]
    cut = as_pixels(crops, "crops")
    require_count(boxes, len(cut), "boxes")
    area = pixels.shape[0] * pixels.shape[1]
    size = (2.0 * (len(cut) + 1), 2.8)
    figure, (axes,) = new_figure("Random resized crops", size, 1, len(cut) + 1)
    show_picture(axes[0], pixels, "whole image")
    for ax, color, box, crop in zip(axes[1:], _BOX_COLORS, boxes, cut, strict=False):
        left, upper, right, lower = box
        width, height = right - left, lower - upper
        axes[0].add_patch(
            Rectangle((left - 0.5, upper - 0.5), width, height, fill=False, ec=color, lw=2)
        )
        show_picture(ax, crop, f"{width * height / area:.0%} of the area")
        ax.spines[:].set(visible=True, color=color, linewidth=3)
    return figure


@in_house_look
def plot_pixel_ranges(before: np.ndarray, after: np.ndarray) -> Figure:
    """Plot the pixel values of each channel before and after `preprocess_input`.

    Args:
        before: (n, h, w, 3) RGB in [0, 255].
        after: (n, h, w, 3) BGR with ImageNet's mean subtracted.
    """
    as_pixels(before, "images before preprocessing")
    if np.shape(after) != np.shape(before):
        raise ValueError(f"before {np.shape(before)} and after {np.shape(after)} must be alike")
    colors = {"red": VERMILION, "green": GREEN, "blue": BLUE}
    # Gray images have three equal channels: wide lines under narrow ones show all of them.
    wide = {"red": 7.0, "green": 4.0, "blue": 1.6}
    narrow = dict.fromkeys(wide, 2.0)
    rgb = ("red", "green", "blue")
    panels = {
        "before: RGB": (before, rgb, (0, 255), wide),
        "after: BGR, mean subtracted": (after, rgb[::-1], (-123.68, 151.061), narrow),
    }
    figure, axes = new_figure("What reaches the network", (11, 5), 1, 2, sharey=True)
    for ax, (title, panel) in zip(axes[0], panels.items(), strict=True):
        pixels, channels, limits, widths = panel
        bins = np.linspace(limits[0] - 0.5, limits[1] + 0.5, 65)
        for channel in sorted(range(3), key=lambda number: -widths[channels[number]]):
            name = channels[channel]
            counts, edges = np.histogram(pixels[..., channel], bins)
            ax.stairs(
                100 * counts / counts.sum(), edges, color=colors[name], lw=widths[name],
                label=f"channel {channel}: {name}",
            )  # fmt: skip
        for limit in limits:
            ax.axvline(limit, color=GRAY, lw=1.2, ls=":")
        low, high = (f"{limit:g}".replace("-", "\N{MINUS SIGN}") for limit in limits)
        ax.set(title=title, xlabel=f"pixel value ({low} to {high})")
        handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
        ax.legend([handles[name] for name in sorted(handles)], sorted(handles), loc="upper center")
    axes[0, 0].set_ylabel("pixels (%)")
    axes[0, 0].margins(y=0.35)
    return figure


def _class_bars(ax: Axes, counts: pd.DataFrame) -> None:
    """Draw grouped bars with their counts: a row per group, a column per label."""
    positions = np.arange(len(counts))
    for label, name in enumerate(CLASS_NAMES):
        bars = ax.bar(
            positions + (label - 0.5) * 0.4, counts[label], 0.38,
            color=CLASS_COLORS[label], label=name,
        )  # fmt: skip
        ax.bar_label(bars, fmt="{:,.0f}", padding=2, fontsize=12)
    ax.set_xticks(positions, counts.index)
    ax.margins(y=0.12)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    ax.yaxis.set_major_formatter(THOUSANDS)


def _count_classes(table: pd.DataFrame) -> pd.DataFrame:
    """Count the rows of each split (in the order of appearance below) and label."""
    counts = table.groupby(["split", "label"]).size().unstack(fill_value=0)
    order = [name for name in ("train", "validation", "test") if name in counts.index]
    return counts.reindex(index=order, columns=[NORMAL, PNEUMONIA], fill_value=0)
