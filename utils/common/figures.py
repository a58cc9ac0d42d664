"""What all figures share: their look, how they are marked and saved, and small parts.

The figures themselves are in the `plots` of each package.

Every `plot_*` function returns a `Figure`; none shows, saves or draws random numbers. Figures do
not go through pyplot, so none stays open. A figure made from phantoms is marked when it is
saved, and one that shows pictures is saved for phantoms alone: no radiograph ends up in
`figures/`.
"""

import functools
import io
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from utils.common.constants import NORMAL, PNEUMONIA
from utils.common.files import write_atomically
from utils.common.paths import figures_dir

# --- The look --------------------------------------------------------------------------------

# Colors of Okabe and Ito, which color-blind readers can tell apart.
BLUE, SKY, GREEN, ORANGE = "#0072B2", "#56B4E9", "#009E73", "#E69F00"
VERMILION, PURPLE, YELLOW, GRAY = "#D55E00", "#CC79A7", "#F0E442", "#6F6F6F"
CLASS_COLORS = (BLUE, VERMILION)
"""Color of each class by its label."""
SPLIT_MARKERS = {"validation": "o", "test": "s"}
SERIES = ((GREEN, "-", "o"), (PURPLE, "--", "s"), ("#222222", "-.", "^"), (SKY, ":", "D"))
"""Color, line and marker of each model in turn: a copy without colors stays readable."""
PUBLISHED_COLOR = ORANGE

PHANTOM_MARK = "PHANTOM — simulated, no patient"
MARK_INCHES = 0.42
"""Height of the strip below a figure that holds the mark."""

FILE_DPI = 110
NOTEBOOK_DPI = 80
JPEG_QUALITY = 80
"""Of figures with pictures in a notebook, which stays below 1 MB with all of them."""

JUPYTER_SESSION = "JPY_SESSION_NAME"
"""Set by a Jupyter server for the kernels of the notebooks that people open; not for papermill."""
SLIDER_STEPS = 200

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


def in_house_look(plot: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
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


def save_figure(figure: Figure, study_name: str, name: str, *, phantom: bool) -> Figure:
    """Save a figure as `figures/<study>/<name>.png` and return it, for the notebook to show.

    Args:
        figure: Any figure; it is marked where it is made from phantoms.
        study_name: Of the study.
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
    write_figure(figure, figures_dir(study_name) / f"{name}.png")
    return figure


def write_figure(figure: Figure, file: Path) -> None:
    """Write a figure as a PNG file, atomically."""
    with write_atomically(file) as temporary:
        # Without the name of the program, equal figures are equal files.
        figure.savefig(temporary, format="png", dpi=FILE_DPI, metadata={"Software": None})


def save_example_figure(figure: Figure, study_name: str, name: str, *, phantom: bool) -> Figure:
    """Save a figure that shows pictures if they are phantoms; return it in any case.

    Radiographs are shown in the notebook, whose executed copy is not committed, and nowhere
    else. Arguments as in `save_figure`.
    """
    return save_figure(figure, study_name, name, phantom=True) if phantom else figure


# --- Moving ----------------------------------------------------------------------------------


def show_with_slider(
    draw: Callable[[float], Figure], value: float, what: str, *, phantom: bool
) -> Any:
    """Return a figure with a slider that redraws it in JupyterLab, and the figure alone elsewhere.

    A saved notebook and a page of the site have nothing that could draw again.

    Args:
        draw: From a value in [0, 1] to the figure.
        value: Where the slider begins, and what is drawn where there is none.
        what: The slider moves, such as `threshold`.
        phantom: Whether the data behind the figure are phantoms.
    """

    def draw_marked(value: float) -> Figure:
        figure = draw(value)
        if phantom:
            mark_phantom(figure)
        return figure

    if JUPYTER_SESSION not in os.environ:
        return draw_marked(value)
    from ipywidgets import FloatSlider, interactive  # where somebody moves it

    slider = FloatSlider(
        value, min=0, max=1, step=1 / SLIDER_STEPS, description=what, readout_format=".3f",
        continuous_update=False,
    )  # fmt: skip
    return interactive(draw_marked, {"auto_display": True}, value=slider)


# --- Input checks ----------------------------------------------------------------------------


def require_rows(table: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    """Refuse a table that is empty or lacks a column."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(f"{what} lacks the column {', '.join(missing)}; it has {list(table)}")
    if table.empty:
        raise ValueError(f"{what} has no rows, so there is nothing to plot")


def require_labels(labels: pd.Series | np.ndarray) -> None:
    """Refuse labels other than 0 and 1."""
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


# --- Small parts -----------------------------------------------------------------------------

THOUSANDS = FuncFormatter(lambda value, _: f"{value:,.0f}")


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


def grid_shape(count: int, columns: int) -> tuple[int, int]:
    """Return the rows and columns of a grid for `count` pictures, `columns` side by side."""
    columns = min(columns, count)
    return -(-count // columns), columns


def interval_lengths(value: Any, low: Any, high: Any) -> np.ndarray:
    """Return how far below and above (n,) values their intervals reach, (2, n) for error bars."""
    value, low, high = (np.asarray(part, float) for part in (value, low, high))
    # A point estimate may lie outside a percentile interval; lengths must not be negative.
    return np.stack([value - low, high - value]).clip(min=0)


def draw_intervals(
    ax: Axes, value: Any, low: Any, high: Any, positions: Any, color: str, marker: str, label: str
) -> None:
    """Draw values as markers on horizontal lines from `low` to `high`."""
    ax.errorbar(
        np.asarray(value, float), positions, xerr=interval_lengths(value, low, high), fmt=marker,
        color=color, capsize=4, elinewidth=2, label=label,
    )  # fmt: skip
