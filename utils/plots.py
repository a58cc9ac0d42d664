"""All figures of the notebooks, in one look.

Every `plot_*` function returns a `Figure`; none shows, saves or draws random numbers. Figures do
not go through pyplot, so none stays open. A figure made from phantoms is marked when it is
saved, and one that shows pictures is saved for phantoms alone: no radiograph ends up in
`figures/`.
"""

import functools
import io
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from utils.baselines import BASELINES
from utils.evaluation import METRICS, NOT_REPORTED, REPORTED_ROW, SCORED_SPLITS, reported_row
from utils.facts import CLASS_NAMES, ETIOLOGIES, IMAGE_SIZE, NORMAL, PNEUMONIA
from utils.files import write_atomically
from utils.paths import figures_dir

# --- The look --------------------------------------------------------------------------------

# Colours of Okabe and Ito, which colour-blind readers can tell apart.
BLUE, SKY, GREEN, ORANGE = "#0072B2", "#56B4E9", "#009E73", "#E69F00"
VERMILION, PURPLE, YELLOW, GRAY = "#D55E00", "#CC79A7", "#F0E442", "#6F6F6F"
CLASS_COLOURS = (BLUE, VERMILION)
"""Colour of each class by its label."""
SPLIT_MARKERS = {"validation": "o", "test": "s"}
SERIES = ((GREEN, "-", "o"), (PURPLE, "--", "s"), ("#222222", "-.", "^"), (SKY, ":", "D"))
"""Colour, line and marker of each model in turn: a copy without colours stays readable."""
REFERENCE_COLOUR = ORANGE

PHANTOM_MARK = "PHANTOM — simulated, no patient"
MARK_INCHES = 0.42
"""Height of the strip below a figure that holds the mark."""

FILE_DPI = 110
NOTEBOOK_DPI = 80
JPEG_QUALITY = 80
"""Of figures with pictures in a notebook, which stays below 1 MB with all of them."""

TITLE_INCHES = 0.31
"""Height of a figure's title."""

LOOK = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 13,
    "axes.titlesize": 14,
    "figure.titlesize": 16,
    "axes.labelsize": 13,
    "legend.fontsize": 12,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": "#DDDDDD",
    "axes.axisbelow": True,
    "lines.linewidth": 2.2,
    "lines.markersize": 7,
    "image.interpolation": "nearest",
}


class StudyFigure(Figure):
    """A figure that a notebook shows where it is the last value of a cell."""

    def _repr_png_(self) -> bytes | None:
        """Return a drawing for the notebook."""
        if _picture_axes(self):
            return None
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=NOTEBOOK_DPI, metadata={"Software": None})
        return stream.getvalue()

    def _repr_jpeg_(self) -> bytes | None:
        """Return a figure with pictures for the notebook: a PNG would be three times as large."""
        if not _picture_axes(self):
            return None
        stream = io.BytesIO()
        options = {"quality": JPEG_QUALITY, "subsampling": 0}
        self.savefig(stream, format="jpeg", dpi=NOTEBOOK_DPI, pil_kwargs=options)
        return stream.getvalue()

    def __repr__(self) -> str:
        """Return the title: the text of a notebook's output where pictures are not shown."""
        mark = f" ({PHANTOM_MARK})" if _is_marked(self) else ""
        return f"Figure: {self.get_suptitle().strip()}{mark}"


Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def _in_house_look(plot: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Make a plot in the house look, and leave matplotlib's own settings as they were."""

    @functools.wraps(plot)
    def wrapped(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with matplotlib.rc_context(LOOK):
            return plot(*args, **kwargs)

    return wrapped


def new_figure(
    title: str, size: tuple[float, float], rows: int = 1, columns: int = 1, **axes: Any
) -> tuple[StudyFigure, np.ndarray]:
    """Return an empty figure of `size` inches and its axes as (rows, columns)."""
    figure = StudyFigure(figsize=size, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    return figure, figure.subplots(rows, columns, squeeze=False, **axes)


# --- Saving and marking ----------------------------------------------------------------------


def mark_phantom(figure: Figure) -> None:
    """Say on a figure, and on every picture in it, that it shows phantoms; once is enough."""
    if _is_marked(figure):
        return
    height = figure.get_figheight() + MARK_INCHES
    strip = MARK_INCHES / height
    figure.set_figheight(height)
    if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        figure.get_layout_engine().set(rect=(0, strip, 1, 1 - strip))
    figure.text(
        0.5, strip / 2, PHANTOM_MARK, ha="center", va="center",
        fontsize=13, fontweight="bold", color="black",
        bbox={"boxstyle": "round,pad=0.3", "facecolor": YELLOW, "edgecolor": "black"},
    )  # fmt: skip
    for ax in _picture_axes(figure):
        # A picture may be cut out of its figure; the mark goes along.
        ax.text(
            0.03, 0.03, "phantom", transform=ax.transAxes, color="white", fontsize=8, va="bottom",
            bbox={"boxstyle": "square,pad=0.15", "facecolor": "black", "alpha": 0.6, "lw": 0},
        )  # fmt: skip


def _is_marked(figure: Figure) -> bool:
    return any(text.get_text() == PHANTOM_MARK for text in figure.texts)


def _picture_axes(figure: Figure) -> list[Axes]:
    return [ax for ax in figure.axes if ax.images]


def save_figure(figure: Figure, study: str, name: str, *, phantom: bool) -> Figure:
    """Save a figure as `figures/<study>/<name>.png` and return it, for the notebook to show.

    Args:
        figure: Any figure; it is marked where it is made from phantoms.
        study: Name of the study.
        name: Number of the notebook and name, such as `05_roc`.
        phantom: Whether the data behind the figure are phantoms.

    Raises:
        ValueError: if the name is unusable, or the figure shows pictures of patients.
    """
    if re.fullmatch(r"\d\d_[a-z0-9_]+", name) is None:
        raise ValueError(f"name a figure like '05_roc', after its notebook, not {name!r}")
    if phantom:
        mark_phantom(figure)
    elif _picture_axes(figure):
        raise ValueError(
            f"{name} shows pictures that are not phantoms, and figures may be published; use "
            "save_example_figure, which shows them but does not save them"
        )
    with write_atomically(figures_dir(study) / f"{name}.png") as temporary:
        # Without the name of the program, equal figures are equal files.
        figure.savefig(temporary, format="png", dpi=FILE_DPI, metadata={"Software": None})
    return figure


def save_example_figure(figure: Figure, study: str, name: str, *, phantom: bool) -> Figure:
    """Save a figure that shows pictures if they are phantoms; return it in any case.

    Radiographs are shown in the notebook, whose executed copy is not committed, and nowhere
    else. Arguments as in `save_figure`.
    """
    return save_figure(figure, study, name, phantom=True) if phantom else figure


# --- Input checks ----------------------------------------------------------------------------


def _require_rows(table: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(f"{what} lacks the column {', '.join(missing)}; it has {list(table)}")
    if table.empty:
        raise ValueError(f"{what} has no rows, so there is nothing to plot")


def _require_labels(labels: pd.Series | np.ndarray) -> None:
    unknown = set(np.unique(labels)) - {NORMAL, PNEUMONIA}
    if unknown:
        raise ValueError(f"labels must be 0 or 1, not {sorted(unknown)}")


def as_pixels(images: np.ndarray, what: str = "images") -> np.ndarray:
    """Return (n, h, w, 3) in [0, 255] as uint8."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3 or not len(images):
        raise ValueError(f"{what} must be (n, h, w, 3) with n of 1 or more, not {images.shape}")
    if not (images.min() >= 0 and images.max() <= 255):
        raise ValueError(
            f"{what} must lie in [0, 255], not {images.min():.4g} to {images.max():.4g}; pass "
            "pixels as they are before preprocessing"
        )
    return np.round(images).astype(np.uint8)


def require_count(values: Sequence[Any], count: int, what: str) -> None:
    """Refuse values that are not one for each image."""
    if len(values) != count:
        raise ValueError(f"{count} images but {len(values)} {what}")


def _require_predictions(predictions: dict[str, pd.DataFrame]) -> str:
    """Check the rows of each model, and return the one split that they are of."""
    if not predictions:
        raise ValueError("no predictions to plot; pass {model: rows of one split}")
    for model, rows in predictions.items():
        _require_rows(rows, ("split", "y_true", "probability"), f"predictions of {model}")
        _require_labels(rows.y_true)
        if rows.y_true.nunique() < 2:
            raise ValueError(f"predictions of {model} hold one class only; both are needed")
    splits = sorted({split for rows in predictions.values() for split in rows.split})
    if len(splits) != 1:
        raise ValueError(
            f"predictions of {len(splits)} splits ({', '.join(splits)}) must not be plotted "
            "together; take one with evaluation.select_split"
        )
    return splits[0]


def _require_thresholds(
    thresholds: dict[str, float] | None, predictions: dict[str, pd.DataFrame]
) -> None:
    missing = [model for model in predictions if model not in (thresholds or {})]
    if missing:
        raise ValueError(f"no threshold for {', '.join(missing)}; pass {{model: threshold}}")


# --- Small parts -----------------------------------------------------------------------------

_THOUSANDS = FuncFormatter(lambda value, _: f"{value:,.0f}")


def _count_axis(axis: matplotlib.axis.Axis) -> None:
    axis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axis.set_major_formatter(_THOUSANDS)


def _class_bars(ax: Axes, counts: pd.DataFrame) -> None:
    """Draw grouped bars of counts: a row a group, a column a label, the number above each bar."""
    places = np.arange(len(counts))
    for label, name in enumerate(CLASS_NAMES):
        bars = ax.bar(
            places + (label - 0.5) * 0.4,
            counts[label],
            0.38,
            color=CLASS_COLOURS[label],
            label=name,
        )
        ax.bar_label(bars, fmt="{:,.0f}", padding=2, fontsize=12)
    ax.set_xticks(places, counts.index)
    ax.margins(y=0.12)
    _count_axis(ax.yaxis)


def _count_classes(table: pd.DataFrame, group: str) -> pd.DataFrame:
    """Count the rows of each group (in the order of appearance below) and label."""
    counts = table.groupby([group, "label"]).size().unstack(fill_value=0)
    order = [name for name in ("train", "validation", "test") if name in counts.index]
    return counts.reindex(index=order, columns=[NORMAL, PNEUMONIA], fill_value=0)


def legend_above(figure: Figure, ax: Axes) -> None:
    """Put one legend for all panels below the title, in as many columns as there is room for."""
    pairs = list(zip(*ax.get_legend_handles_labels(), strict=True))
    pairs.sort(key=lambda pair: isinstance(pair[0], Line2D))  # data before lines of reference
    handles, labels = zip(*pairs, strict=True)
    # About a tenth of an inch a letter, and the handle.
    needed = sum(0.105 * len(label) + 0.75 for label in labels)
    rows = int(np.ceil(needed / figure.get_figwidth()))
    # matplotlib puts a title and a legend above the axes into one place; blank lines of the title
    # make room.
    figure.suptitle(figure.get_suptitle() + rows * "\n")
    figure.legend(
        handles, labels, loc="outside upper center", ncols=-(-len(labels) // rows),
        borderaxespad=0, borderpad=0.1,
        bbox_to_anchor=(0, 0, 1, 1 - TITLE_INCHES / figure.get_figheight()),
    )  # fmt: skip


def show_picture(ax: Axes, pixels: np.ndarray, title: str = "", fontsize: float = 12) -> None:
    """Show an image without axes."""
    ax.imshow(pixels)
    ax.set_title(title, fontsize=fontsize)
    hide_frame(ax)


def hide_frame(ax: Axes) -> None:
    """Leave out ticks and frame, which say nothing about a picture."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def _grid_shape(count: int, columns: int) -> tuple[int, int]:
    columns = min(columns, count)
    return -(-count // columns), columns


# --- 01: data --------------------------------------------------------------------------------


@_in_house_look
def plot_class_balance(index: pd.DataFrame) -> Figure:
    """Plot the number of images of each class in each split.

    Args:
        index: The image index.
    """
    _require_rows(index, ("split", "label"), "the index")
    _require_labels(index.label)
    counts = _count_classes(index, "split")
    figure, axes = new_figure("Images by split and class", (9, 5))
    ax = axes[0, 0]
    _class_bars(ax, counts)
    share = counts[PNEUMONIA] / counts.sum(axis=1)
    ax.set_xticks(
        range(len(counts)),
        [f"{split}\n{value:.1%} pneumonia" for split, value in share.items()],
    )
    ax.set_ylabel("images")
    legend_above(figure, ax)
    return figure


@_in_house_look
def plot_images_per_patient(index: pd.DataFrame) -> Figure:
    """Plot how many patients have one image, two, and so on, by class.

    Args:
        index: The image index, with patients.

    Raises:
        ValueError: if the patients are unknown.
    """
    _require_rows(index, ("patient_id", "label"), "the index")
    if (index.patient_id == "").any():
        raise ValueError("patient_id is empty: this data set does not say who the patients are")
    images = index.groupby(["patient_id", "label"]).size().reset_index(name="images")
    counts = images.groupby(["images", "label"]).size().unstack(fill_value=0)
    counts = counts.reindex(columns=[NORMAL, PNEUMONIA], fill_value=0)
    figure, axes = new_figure("Images of one patient", (9, 5))
    ax = axes[0, 0]
    for label, name in enumerate(CLASS_NAMES):
        ax.bar(
            counts.index + (label - 0.5) * 0.4, counts[label], 0.4,
            color=CLASS_COLOURS[label], label=name,
        )  # fmt: skip
    ax.set_yscale("log")
    ax.set_ylim(0.7, 1.5 * counts.max(axis=None))
    ax.yaxis.set_major_formatter(_THOUSANDS)
    most = counts.index.max()
    ax.set_xticks(range(1, most + 1) if most <= 12 else [1, *range(5, most + 1, 5)])
    ax.set(xlabel="images of the patient", ylabel="patients (log scale)")
    ax.set_xlim(0.3, most + 0.7)
    legend_above(figure, ax)
    return figure


@_in_house_look
def plot_image_sizes(index: pd.DataFrame) -> Figure:
    """Plot width and height of the stored images, and the square that the network takes.

    Args:
        index: The image index; `width` and `height` in pixels.
    """
    _require_rows(index, ("width", "height", "label"), "the index")
    _require_labels(index.label)
    figure, axes = new_figure("Sizes of the stored images", (8, 7))
    ax = axes[0, 0]
    for label in (PNEUMONIA, NORMAL):
        rows = index[index.label == label]
        ax.scatter(
            rows.width, rows.height, s=22, alpha=0.5, color=CLASS_COLOURS[label], lw=0,
            label=f"{CLASS_NAMES[label]} ({len(rows):,})",
        )  # fmt: skip
    ax.plot(
        IMAGE_SIZE, IMAGE_SIZE, "s", mfc="none", mec="black", mew=2, ms=13, ls="none",
        label=f"network input ({IMAGE_SIZE} x {IMAGE_SIZE})",
    )  # fmt: skip
    largest = 1.08 * max(index.width.max(), index.height.max(), IMAGE_SIZE)
    ax.plot([0, largest], [0, largest], color=GRAY, lw=1, ls=":", label="square")
    ax.set(xlabel="width (pixels)", ylabel="height (pixels)", xlim=(0, largest), ylim=(0, largest))
    sizes = index[["width", "height"]].drop_duplicates()
    if len(sizes) == 1:
        width, height = sizes.iloc[0]
        ax.annotate(
            f"all {len(index):,} images:\n{width} x {height}", (width, height),
            xytext=(0.45, 0.62), textcoords="axes fraction", ha="center",
            arrowprops={"arrowstyle": "->", "color": GRAY, "shrinkB": 10},
        )  # fmt: skip
    for axis in (ax.xaxis, ax.yaxis):
        _count_axis(axis)
    ax.set_aspect("equal")
    legend_above(figure, ax)
    return figure


@_in_house_look
def plot_intensity_distributions(
    mean_intensity: np.ndarray, labels: pd.Series | np.ndarray
) -> Figure:
    """Plot how bright the images of each class are.

    Args:
        mean_intensity: (n,) mean of each image, in [0, 255].
        labels: (n,) 0 or 1.
    """
    mean_intensity, labels = np.asarray(mean_intensity), np.asarray(labels)
    if mean_intensity.ndim != 1 or mean_intensity.shape != labels.shape or not len(labels):
        raise ValueError(
            f"mean_intensity {mean_intensity.shape} and labels {labels.shape} must both be (n,)"
        )
    _require_labels(labels)
    figure, axes = new_figure("Mean intensity of an image", (9, 5))
    ax = axes[0, 0]
    bins = np.linspace(np.floor(mean_intensity.min()), np.ceil(mean_intensity.max()), 41)
    for label, name in enumerate(CLASS_NAMES):
        values = mean_intensity[labels == label]
        if not len(values):
            continue
        seaborn.histplot(
            x=values, bins=bins, stat="percent", element="step", alpha=0.25, linewidth=2.2,
            color=CLASS_COLOURS[label], label=f"{name} (median {np.median(values):.0f})", ax=ax,
        )  # fmt: skip
        ax.axvline(np.median(values), color=CLASS_COLOURS[label], lw=1.6, ls="--")
    ax.set(xlabel="mean intensity (0 black, 255 white)", ylabel="images of the class (%)")
    legend_above(figure, ax)
    return figure


@_in_house_look
def plot_example_grid(images: np.ndarray, titles: Sequence[str], columns: int = 4) -> Figure:
    """Show images in a grid, with a title above each.

    Args:
        images: (n, h, w, 3) in [0, 255].
        titles: A title for each.
        columns: Images side by side.
    """
    pixels = as_pixels(images)
    require_count(titles, len(pixels), "titles")
    rows, columns = _grid_shape(len(pixels), columns)
    figure, axes = new_figure("Examples", (2.4 * columns, 2.6 * rows + 0.7), rows, columns)
    for ax in axes.flat:
        hide_frame(ax)
    for ax, image, title in zip(axes.flat, pixels, titles, strict=False):
        show_picture(ax, image, title)
    return figure


@_in_house_look
def plot_split(index: pd.DataFrame) -> Figure:
    """Plot images and patients of each split, by class.

    Where patients are unknown there are images alone, and the title says so.

    Args:
        index: The image index.
    """
    _require_rows(index, ("split", "label", "patient_id"), "the index")
    _require_labels(index.label)
    known = bool((index.patient_id != "").all())
    panels = {"images": index}
    if known:
        panels["patients"] = index.drop_duplicates(["split", "patient_id"])
    title = "The split, by patient" if known else "The split, by image: patients are unknown"
    figure, axes = new_figure(title, (11 if known else 7, 5), 1, len(panels))
    for ax, (what, rows) in zip(axes[0], panels.items(), strict=True):
        _class_bars(ax, _count_classes(rows, "split"))
        ax.set_title(f"{len(rows):,} {what}")
        ax.set_ylabel(what)
    legend_above(figure, axes[0, 0])
    return figure


@_in_house_look
def plot_baseline_scores(scores: pd.DataFrame) -> Figure:
    """Plot the ROC-AUC of the pixel baselines with their intervals.

    Args:
        scores: From `baselines.score_pixel_baselines`, one row a baseline.
    """
    if "baseline" in scores.columns:
        scores = scores.set_index("baseline")
    metric = "roc_auc"
    columns = [f"{split}_{metric}{end}" for split in SCORED_SPLITS for end in ("", "_low", "_high")]
    _require_rows(scores, columns, "the table of baselines")
    figure, axes = new_figure("What pixel statistics reach", (9, 1.6 + 0.85 * len(scores)))
    ax = axes[0, 0]
    places = np.arange(len(scores))
    for number, split in enumerate(SCORED_SPLITS):
        name = f"{split}_{metric}"
        colour = (GRAY, "black")[number]
        _draw_intervals(
            ax, scores[name], scores[f"{name}_low"], scores[f"{name}_high"],
            places + (number - 0.5) * 0.3, colour, SPLIT_MARKERS[split], split,
        )  # fmt: skip
    ax.axvline(0.5, color=GRAY, lw=1.4, ls=":", label="a coin")
    ax.set_yticks(places, [BASELINES.get(name, name) for name in scores.index])
    ax.invert_yaxis()
    ax.grid(axis="x")
    ax.set_xlabel("ROC-AUC, 95 % interval")
    legend_above(figure, ax)
    return figure


def _draw_intervals(
    ax: Axes, value: Any, low: Any, high: Any, places: Any, colour: str, marker: str, label: str
) -> None:
    """Draw values as markers on horizontal lines from `low` to `high`."""
    value, low, high = (np.asarray(part, float) for part in (value, low, high))
    # A point estimate may lie outside a percentile interval; lengths must not be negative.
    lengths = np.stack([value - low, high - value]).clip(min=0)
    ax.errorbar(
        value, places, xerr=lengths, fmt=marker, color=colour, capsize=4, elinewidth=2, label=label
    )


# --- 02: augmentation ------------------------------------------------------------------------


@_in_house_look
def plot_transform_rows(image: np.ndarray, rows: dict[str, np.ndarray]) -> Figure:
    """Show an image and, in a row for each transform, what the transform makes of it.

    Args:
        image: (h, w, 3) in [0, 255].
        rows: For each transform (k, h, w, 3) in [0, 255], the same k in all.
    """
    if not rows:
        raise ValueError("no transforms to show; pass {transform: images}")
    original = as_pixels(np.asarray(image)[None], "image")[0]
    pixels = {name: as_pixels(images, name) for name, images in rows.items()}
    counts = {len(images) for images in pixels.values()}
    if len(counts) != 1:
        raise ValueError(f"transforms must have one number of images, not {sorted(counts)}")
    columns = counts.pop() + 1
    figure, axes = new_figure(
        "Each transform by itself",
        (1.75 * columns + 1.2, 1.75 * len(rows) + 1.0),
        len(rows),
        columns,
    )
    for row, (name, images) in enumerate(pixels.items()):
        show_picture(axes[row, 0], original, "original" if row == 0 else "")
        axes[row, 0].set_ylabel(name.replace("_", "\n"), rotation=0, ha="right", va="center")
        for column, changed in enumerate(images, start=1):
            show_picture(axes[row, column], changed, f"draw {column}" if row == 0 else "")
    return figure


@_in_house_look
def plot_combined_views(
    originals: np.ndarray,
    views: Sequence[np.ndarray],
    titles: Sequence[str],
    names: Sequence[str] | None = None,
    title: str = "All transforms together",
) -> Figure:
    """Show images in the first row and their changed views in the rows below.

    Args:
        originals: (n, h, w, 3) in [0, 255].
        views: For each view (n, h, w, 3) in [0, 255].
        titles: A title for each image.
        names: A name for each view; they are numbered without.
        title: Of the figure.
    """
    names = names or [f"view {number}" for number in range(len(views))]
    require_count(names, len(views), "names of views")
    rows = [as_pixels(originals, "originals")]
    rows += [as_pixels(view, name) for name, view in zip(names, views, strict=True)]
    for part in rows:
        require_count(part, len(rows[0]), "images in a view")
    require_count(titles, len(rows[0]), "titles")
    columns = len(rows[0])
    figure, axes = new_figure(
        title,
        (1.75 * columns + 1.2, 1.75 * len(rows) + 1.0),
        len(rows),
        columns,
    )
    for row, images in enumerate(rows):
        for column, picture in enumerate(images):
            show_picture(axes[row, column], picture, titles[column] if row == 0 else "")
        label = "original" if row == 0 else names[row - 1].replace("_", "\n")
        axes[row, 0].set_ylabel(label, rotation=0, ha="right", va="center")
    return figure


@_in_house_look
def plot_pixel_ranges(before: np.ndarray, after: np.ndarray) -> Figure:
    """Plot the pixel values of each channel before and after `preprocess_input`.

    Args:
        before: (n, h, w, 3) RGB in [0, 255].
        after: (n, h, w, 3) BGR with ImageNet's mean subtracted.
    """
    as_pixels(before, "images before preprocessing")
    if np.shape(after) != np.shape(before):
        raise ValueError(f"before {np.shape(before)} and after {np.shape(after)} must be alike")
    colours = {"red": VERMILION, "green": GREEN, "blue": BLUE}
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
                100 * counts / counts.sum(), edges, color=colours[name], lw=widths[name],
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


# --- 03 and 04: training ---------------------------------------------------------------------


@_in_house_look
def plot_history(history: pd.DataFrame, title: str = "Training") -> Figure:
    """Plot loss and accuracy of a training, the kept epoch and where the learning rate fell.

    Args:
        history: From `training.train_tail`, one row an epoch.
        title: Title of the figure.
    """
    columns = ("epoch", "loss", "val_loss", "accuracy", "val_accuracy")
    _require_rows(history, columns, "the history")
    best = history.loc[history.val_loss.idxmin()]
    drops = []
    if "learning_rate" in history.columns:
        drops = list(history.epoch[history.learning_rate.diff() < 0] - 0.5)
    figure, axes = new_figure(title, (11, 5), 1, 2)
    for ax, metric in zip(axes[0], ("loss", "accuracy"), strict=True):
        ax.plot(history.epoch, history[metric], "--s", color=GRAY, label="training")
        ax.plot(history.epoch, history[f"val_{metric}"], "-o", color=GREEN, label="validation")
        for number, drop in enumerate(drops):
            label = "learning rate falls" if number == 0 else None
            ax.axvline(drop, color=PURPLE, lw=1.6, ls=":", label=label)
        ax.plot(
            best.epoch, best[f"val_{metric}"], "o", ms=15, mfc="none", mec=VERMILION, mew=2.2,
            ls="none", label="kept epoch: lowest validation loss",
        )  # fmt: skip
        ax.annotate(
            f"{best[f'val_{metric}']:.3f}", (best.epoch, best[f"val_{metric}"]),
            xytext=(0, 13 if metric == "accuracy" else -13), textcoords="offset points",
            ha="center", va="bottom" if metric == "accuracy" else "top", color=VERMILION,
            bbox={"facecolor": "white", "alpha": 0.85, "lw": 0, "pad": 1},
        )  # fmt: skip
        ax.set(xlabel="epoch", title=metric)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.grid(axis="y")
        ax.margins(y=0.16)
    axes[0, 0].set_ylabel("cross-entropy")
    axes[0, 1].set_ylabel("share of images")
    legend_above(figure, axes[0, 0])
    return figure


@_in_house_look
def plot_views_cost(costs: pd.DataFrame) -> Figure:
    """Plot what a fixed number of augmented views costs against a fresh view every epoch.

    Args:
        costs: From `views_cost.summarise_views_cost`, one row a number of views.
    """
    metrics = {"loss": "validation loss", "auc": "validation ROC-AUC"}
    ends = ("mean", "min", "max")
    columns = ["views", "epochs", *(f"{metric}_{end}" for metric in metrics for end in ends)]
    _require_rows(costs, columns, "the table of costs")
    costs = costs.sort_values("views")
    places = np.arange(len(costs))
    figure, axes = new_figure("Fixed views against fresh ones", (11, 4.6), 1, 2)
    for ax, (metric, title) in zip(axes[0], metrics.items(), strict=True):
        mean = costs[f"{metric}_mean"].to_numpy()
        lengths = np.stack([mean - costs[f"{metric}_min"], costs[f"{metric}_max"] - mean])
        ax.errorbar(
            places, mean, yerr=lengths.clip(min=0), fmt="o-", color=GREEN, ecolor=GRAY, capsize=5,
            elinewidth=2, label="mean and range of the seeds",
        )  # fmt: skip
        ax.set_xticks(
            places,
            [
                f"{row.views}\n(fresh)" if row.views == row.epochs else f"{row.views}"
                for row in costs.itertuples()
            ],
        )
        ax.set(title=title, xlabel="augmented views of each image", xlim=(-0.4, len(costs) - 0.6))
        ax.grid(axis="y")
        ax.margins(y=0.15)
    legend_above(figure, axes[0, 0])
    return figure


# --- 05: evaluation --------------------------------------------------------------------------


@_in_house_look
def plot_roc(
    predictions: dict[str, pd.DataFrame], thresholds: dict[str, float] | None = None
) -> Figure:
    """Plot the ROC curve of each model, with its AUC and its operating point.

    Args:
        predictions: For each model its rows of one split.
        thresholds: For each model the threshold frozen on validation; without them, no points.
    """
    split = _require_predictions(predictions)
    figure, axes = new_figure(f"ROC, {split}", (7.4, 7))
    ax = axes[0, 0]
    for number, (model, rows) in enumerate(predictions.items()):
        colour, line, marker = SERIES[number % len(SERIES)]
        false_alarms, found, _ = roc_curve(rows.y_true, rows.probability, drop_intermediate=False)
        auc = roc_auc_score(rows.y_true, rows.probability)
        ax.plot(false_alarms, found, ls=line, color=colour, label=f"{model}: AUC {auc:.3f}")
        if thresholds is not None:
            _require_thresholds(thresholds, predictions)
            called = rows.probability >= thresholds[model]
            ax.plot(
                called[rows.y_true == NORMAL].mean(), called[rows.y_true == PNEUMONIA].mean(),
                marker, ms=11, color=colour, mec="black", ls="none",
                label=f"{model} at threshold {thresholds[model]:.2f}",
            )  # fmt: skip
    ax.plot([0, 1], [0, 1], ls=":", color=GRAY, lw=1.4, label="a coin: AUC 0.5")
    ax.set(xlabel="false alarms (1 - specificity)", ylabel="pneumonia found (sensitivity)")
    _square_unit_axes(ax)
    ax.legend(loc="lower right")
    return figure


def _square_unit_axes(ax: Axes) -> None:
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    ax.grid()


@_in_house_look
def plot_precision_recall(
    predictions: dict[str, pd.DataFrame], thresholds: dict[str, float] | None = None
) -> Figure:
    """Plot precision against recall of each model, and the precision of calling everyone sick.

    Args:
        predictions: For each model its rows of one split.
        thresholds: For each model the threshold frozen on validation; without them, no points.
    """
    split = _require_predictions(predictions)
    figure, axes = new_figure(f"Precision and recall, {split}", (7.4, 7))
    ax = axes[0, 0]
    for number, (model, rows) in enumerate(predictions.items()):
        colour, line, marker = SERIES[number % len(SERIES)]
        precision, recall, _ = precision_recall_curve(rows.y_true, rows.probability)
        average = average_precision_score(rows.y_true, rows.probability)
        label = f"{model}: average precision {average:.3f}"
        ax.plot(recall, precision, ls=line, color=colour, drawstyle="steps-post", label=label)
        if thresholds is not None:
            _require_thresholds(thresholds, predictions)
            called = rows.probability >= thresholds[model]
            if called.any():
                ax.plot(
                    called[rows.y_true == PNEUMONIA].mean(), rows.y_true[called].mean(),
                    marker, ms=11, color=colour, mec="black", ls="none",
                    label=f"{model} at threshold {thresholds[model]:.2f}",
                )  # fmt: skip
    prevalence = next(iter(predictions.values())).y_true.mean()
    ax.axhline(
        prevalence, ls=":", color=GRAY, lw=1.4, label=f"everyone called sick: {prevalence:.3f}"
    )
    ax.set(
        xlabel="recall (pneumonia found)", ylabel="precision (calls that are right)",
    )  # fmt: skip
    _square_unit_axes(ax)
    ax.legend(loc="lower left")
    return figure


@_in_house_look
def plot_confusion_matrix(
    predictions: dict[str, pd.DataFrame], thresholds: dict[str, float]
) -> Figure:
    """Plot the confusion matrix of each model: images, and their share of the true class.

    Args:
        predictions: For each model its rows of one split.
        thresholds: For each model its threshold; PNEUMONIA is called at or above it.
    """
    split = _require_predictions(predictions)
    _require_thresholds(thresholds, predictions)
    rows, columns = _grid_shape(len(predictions), 3)
    figure, axes = new_figure(
        f"Confusion matrix, {split}",
        (max(4.2 * columns + 0.8, 6.5), 4.3 * rows + 0.6),
        rows,
        columns,
    )
    for ax in axes.flat[len(predictions) :]:
        ax.set_axis_off()
    for ax, (model, part) in zip(axes.flat, predictions.items(), strict=False):
        called = (part.probability >= thresholds[model]).astype(int)
        counts = confusion_matrix(part.y_true, called, labels=[NORMAL, PNEUMONIA])
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
        ax.set(title=f"{model}, threshold {thresholds[model]:.2f}", xlabel="called by the model")
        ax.tick_params(length=0)
        ax.set_yticklabels(CLASS_NAMES, rotation=90, va="center")
        ax.set_ylabel("true class" if ax.get_subplotspec().is_first_col() else "")
    return figure


@_in_house_look
def plot_probability_histogram(
    predictions: dict[str, pd.DataFrame], thresholds: dict[str, float] | None = None
) -> Figure:
    """Plot the probabilities that each model gives to images of each class.

    Args:
        predictions: For each model its rows of one split.
        thresholds: For each model its threshold; without them, no line.
    """
    split = _require_predictions(predictions)
    if thresholds is not None:
        _require_thresholds(thresholds, predictions)
    rows, columns = _grid_shape(len(predictions), 2)
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
                element="step", alpha=0.25, linewidth=2.2, color=CLASS_COLOURS[label],
                label=name, ax=ax,
            )  # fmt: skip
        if thresholds is not None:
            ax.axvline(thresholds[model], color="black", lw=1.8, ls="--", label="threshold")
        # Most probabilities lie at the ends; a linear scale would hide the doubtful ones.
        ax.set_yscale("symlog", linthresh=1)
        ax.yaxis.set_major_formatter(_THOUSANDS)
        threshold = "" if thresholds is None else f", threshold {thresholds[model]:.2f}"
        ax.set(title=f"{model}{threshold}", xlabel="probability of PNEUMONIA", ylabel="")
        ax.set_ylabel("images (log scale)" if ax.get_subplotspec().is_first_col() else "")
    highest = max(np.histogram(part.probability, 25)[0].max() for part in predictions.values())
    axes[0, 0].set_ylim(0, 1.6 * highest)
    legend_above(figure, axes[0, 0])
    return figure


@_in_house_look
def plot_metric_intervals(
    study_metrics: dict[str, Any],
    split: str,
    section: str = "models",
    metrics: Sequence[str] = tuple(METRICS),
    with_reported: bool = False,
) -> Figure:
    """Plot metrics with their intervals, models beside each other.

    Args:
        study_metrics: The content of `metrics.json`; see `evaluation.evaluate_study`.
        split: `validation` or `test`.
        section: `models` (by image), `by_patient`, `by_etiology` or `differences`.
        metrics: Keys of `evaluation.METRICS`, from top to bottom.
        with_reported: Whether to add what the reference reported on test, by image.
    """
    if section not in study_metrics:
        raise ValueError(f"these metrics have no {section!r}, only {', '.join(study_metrics)}")
    if split not in SCORED_SPLITS:
        raise ValueError(f"split must be one of {', '.join(SCORED_SPLITS)}, not {split!r}")
    unknown = [metric for metric in metrics if metric not in METRICS]
    if unknown or not metrics:
        raise ValueError(f"unknown metric {unknown}; choose from {', '.join(METRICS)}")
    if with_reported and (split, section) != ("test", "models"):
        raise ValueError("the reference reported metrics of test by image alone")
    series = _flatten_series(study_metrics[section], split)
    titles = {
        "models": f"Scores on {split}, by image",
        "by_patient": f"Scores on {split}, by patient",
        "by_etiology": f"Scores on {split}, by etiology",
        "differences": f"Paired differences on {split}",
    }
    # The reference has a line of its own in each row, below the models.
    lines = len(series) + with_reported
    figure, axes = new_figure(titles[section], (10, 2.0 + (0.3 + 0.22 * lines) * len(metrics)))
    ax = axes[0, 0]
    places = np.arange(len(metrics))
    step = 0.7 / max(lines, 2)
    offsets = (np.arange(lines) - (lines - 1) / 2) * step
    for number, (name, values) in enumerate(series.items()):
        colour, _, marker = SERIES[number % len(SERIES)]
        _draw_intervals(
            ax, *([values[metric][key] for metric in metrics] for key in ("value", "low", "high")),
            places + offsets[number], colour, marker, name,
        )  # fmt: skip
    if with_reported:
        reported = dict(zip(metrics, reported_row(metrics), strict=True))
        known = [number for number in places if reported[metrics[number]] != NOT_REPORTED]
        ax.plot(
            [float(reported[metrics[number]]) for number in known], np.array(known) + offsets[-1],
            "*", ms=17, color=REFERENCE_COLOUR, mec="black", mew=0.8, ls="none", label=REPORTED_ROW,
        )  # fmt: skip
    if section == "differences":
        ax.axvline(0, color=GRAY, lw=1.4, ls=":", label="no difference")
    ax.set_yticks(places, [METRICS[metric] for metric in metrics])
    ax.set_ylim(len(metrics) - 0.5, -0.5)
    ax.hlines(places[:-1] + 0.5, 0, 1, color="#DDDDDD", lw=1, transform=ax.get_yaxis_transform())
    ax.grid(axis="x")
    ax.set_xlabel("difference, 95 % interval" if section == "differences" else "95 % interval")
    legend_above(figure, ax)
    return figure


def _flatten_series(section: dict[str, Any], split: str) -> dict[str, dict[str, dict[str, float]]]:
    """Return the metrics of one split by model, or by model and etiology."""
    series = {}
    for name, splits in section.items():
        if split not in splits:
            raise ValueError(f"{name} has no metrics of {split!r}, only of {', '.join(splits)}")
        if set(splits[split]) <= set(ETIOLOGIES):
            for etiology, values in splits[split].items():
                series[f"{name}, {etiology}"] = values
        else:
            series[name] = splits[split]
    return series


# --- 06: Grad-CAM ----------------------------------------------------------------------------

HEAT = LinearSegmentedColormap.from_list(
    # From clear to opaque: where nothing speaks for the class, the image is seen as it is.
    "heat", [(0.0, (0.35, 0.0, 0.45, 0.0)), (0.35, (0.75, 0.1, 0.4, 0.45)),
             (0.7, (0.97, 0.45, 0.1, 0.65)), (1.0, (1.0, 0.95, 0.4, 0.8))],
)  # fmt: skip
"""Colours of the Grad-CAM overlay."""


def require_maps(maps: np.ndarray, pixels: np.ndarray, what: str = "maps") -> None:
    """Refuse heat maps that do not fit (n, h, w, 3) images, or that are no heat maps."""
    if np.shape(maps) != pixels.shape[:3]:
        raise ValueError(f"{what} {np.shape(maps)} do not fit images {pixels.shape}")
    if not (np.isfinite(maps).all() and np.min(maps) >= 0):
        raise ValueError(f"{what} must be finite and not negative; see explanation.explain_images")


def outline_opacity(axes: Iterable[Axes], mask: np.ndarray) -> None:
    """Draw the outline of a known opacity, (h, w) bool, into each of some pictures."""
    if np.any(mask):
        for ax in axes:
            ax.contour(np.asarray(mask, float), [0.5], colors=[SKY], linewidths=1.6)


def name_outline(figure: Figure, ax: Axes) -> None:
    """Say above a figure what the outline is."""
    ax.plot([], [], color=SKY, label="outline of the known opacity")
    legend_above(figure, ax)


@_in_house_look
def plot_cam_grid(
    images: np.ndarray,
    maps: np.ndarray,
    titles: Sequence[str],
    masks: np.ndarray | None = None,
    columns: int = 3,
) -> Figure:
    """Show each image beside its Grad-CAM, all on one colour scale.

    The scale ends at the largest value of all maps; each picture says how high its own map is. A
    map that is zero everywhere is said to be so.

    Args:
        images: (n, h, w, 3) in [0, 255].
        maps: (n, h, w), not negative, from `explanation.explain_images`.
        titles: A title for each.
        masks: (n, h, w) bool; where given, their outlines are drawn.
        columns: Cases side by side; each takes two pictures.
    """
    pixels, maps = as_pixels(images), np.asarray(maps)
    require_maps(maps, pixels)
    require_count(titles, len(pixels), "titles")
    if masks is not None and np.shape(masks) != maps.shape:
        raise ValueError(f"masks {np.shape(masks)} do not fit maps {maps.shape}")
    highest = float(maps.max()) or 1.0
    rows, columns = _grid_shape(len(pixels), columns)
    # Two pictures a case, and a narrow gap between cases.
    figure, axes = new_figure(
        "Grad-CAM", (4.0 * columns + 1.3, 2.4 * rows + 0.9), rows, 3 * columns,
        width_ratios=[1, 1, 0.06] * columns,
    )  # fmt: skip
    for ax in axes.flat:
        hide_frame(ax)
    for ax in axes[:, 2::3].flat:
        ax.set_axis_off()
    for case, title in enumerate(titles):
        plain, overlay = axes.flat[3 * case], axes.flat[3 * case + 1]
        show_picture(plain, pixels[case], title, fontsize=11)
        maximum = maps[case].max()
        note = f"maximum {maximum:.3g}" if maximum > 0 else "zero everywhere"
        show_picture(overlay, pixels[case], note, fontsize=11)
        heat = overlay.imshow(maps[case], cmap=HEAT, vmin=0, vmax=highest)
        if masks is not None:
            outline_opacity((plain, overlay), masks[case])
    bar = figure.colorbar(heat, ax=axes, shrink=min(1.0, 1.6 / rows + 0.3), pad=0.02)
    bar.set_label("Grad-CAM, not normalised\n(one scale for all)")
    if masks is not None:
        name_outline(figure, axes[0, 0])
    return figure
