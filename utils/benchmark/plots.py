"""The two figures of `make bench`, in the look of the study's other figures."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.benchmark.summary import CONTENDERS
from utils.common.figures import (
    BLUE,
    FILE_DPI,
    GRAY,
    GREEN,
    ORANGE,
    VERMILION,
    in_house_look,
    mark_phantom,
    new_figure,
)
from utils.common.files import write_atomically
from utils.common.paths import figures_dir

LABELS = {
    "reference_loop": "ImageDataGenerator,\nthrough the frozen base",
    "tf_data_loop": "tf.data and layers,\nthrough the frozen base",
    "bottleneck_once": "features once,\nno augmentation",
    "ours_cold": "ours,\ncache empty",
    "ours_warm": "ours,\ncache full",
}


def _data(record: dict[str, Any]) -> str:
    images = sum(record["images"].values())
    return f"{images:,} {'phantoms' if record['phantom'] else 'radiographs'}"


@in_house_look
def plot_contenders(record: dict[str, Any]) -> Figure:
    """Plot the seconds and the validation AUC of each loop, with the ceilings of a cache.

    Args:
        record: A benchmark's record.
    """
    epochs = record["settings"]["epochs"]
    figure, ((left, right),) = new_figure(
        f"{epochs} epochs on {_data(record)}: seconds paid, quality reached", (12, 5.4), 1, 2
    )
    places = np.arange(len(CONTENDERS))[::-1]
    contenders = [record["contenders"][name] for name in CONTENDERS]
    colours = [GREEN if name.startswith("ours") else GRAY for name in CONTENDERS]
    seconds = [contender["seconds"] for contender in contenders]
    bars = left.barh(places, seconds, 0.62, color=colours)
    texts = [
        f"{contender['seconds']:,.0f} s" + (" (extrapolated)" * contender["extrapolated"])
        for contender in contenders
    ]
    left.bar_label(bars, texts, padding=4)
    for name, place in zip(CONTENDERS, places, strict=True):
        if name.startswith("ours"):
            ceiling = record["ceiling"][name.removeprefix("ours_")]
            line = left.plot(
                [ceiling, ceiling], [place - 0.38, place + 0.38], color=VERMILION, lw=3
            )[0]
    line.set_label("ceiling of any such cache")
    left.legend(loc="lower right")
    left.set_yticks(places, [LABELS[name] for name in CONTENDERS])
    left.margins(x=0.22)
    left.set(xlabel=f"seconds for {epochs} epochs", xlim=(0, None))
    aucs = [contender["validation_auc"] for contender in contenders]
    right.scatter(aucs, places, s=90, c=colours, zorder=3)
    seeds = record["ours_seeds"]["validation_auc"]
    right.plot([seeds["min"], seeds["max"]], [places[-1]] * 2, color=GREEN, lw=3)
    right.annotate(
        f"{len(seeds['values'])} seeds", (seeds["mean"], places[-1]), (0, -20),
        textcoords="offset points", ha="center", color=GREEN,
    )  # fmt: skip
    right.set_yticks(places, [""] * len(places))
    right.set_ylim(left.get_ylim())
    right.grid(axis="x")
    right.set_xlabel("validation AUC of the best epoch")
    lowest = min(*aucs, seeds["min"])
    right.xaxis.set_major_locator(MaxNLocator(5))
    left.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    right.set_xlim(lowest - max(0.01, 0.15 * (1 - lowest)), 1.0)
    return figure


@in_house_look
def plot_scaling(record: dict[str, Any]) -> Figure:
    """Plot predicted against measured seconds, and peak memory, by the number of images.

    Args:
        record: A benchmark's record.
    """
    cost = record["cost_per_image"]
    rows = cost["sizes"]
    images = [row["images"] for row in rows]
    figure, ((left, right),) = new_figure(
        f"What an image costs, from {min(images):,} to {max(images):,} "
        f"{'phantoms' if record['phantom'] else 'radiographs'}", (12, 5), 1, 2,
    )  # fmt: skip
    for part, what, colour, marker in (
        ("fill", "filling the cache, one view", BLUE, "o"),
        ("train", f"{cost['epochs']} epochs of training", ORANGE, "s"),
    ):
        left.plot(
            images, [row[f"predicted_{part}_seconds"] for row in rows], "--", color=colour,
            label=f"{what}: predicted",
        )  # fmt: skip
        left.plot(
            images, [row[f"{part}_seconds"] for row in rows], marker, color=colour, ls="none",
            ms=9, label=f"{what}: measured",
        )  # fmt: skip
    left.set(xlabel="images", ylabel="seconds", xlim=(0, None), ylim=(0, None))
    left.legend(loc="upper left")
    right.plot(images, [row["peak_mb"] / 1000 for row in rows], "o-", color=GREEN)
    right.set(
        xlabel="images", ylabel="peak anonymous memory (GB)", xlim=(0, None),
        ylim=(0, 1.25 * max(row["peak_mb"] for row in rows) / 1000),
    )  # fmt: skip
    for ax in (left, right):
        ax.grid()
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return figure


def save_bench_figure(figure: Figure, name: str, phantom: bool) -> Path:
    """Save a figure as `figures/bench/<name>.png`, marked where it is made from phantoms."""
    if phantom:
        mark_phantom(figure)
    file = figures_dir("bench") / f"{name}.png"
    with write_atomically(file) as temporary:
        figure.savefig(temporary, format="png", dpi=FILE_DPI, metadata={"Software": None})
    return file
