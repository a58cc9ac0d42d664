"""The two figures of `make bench`, in the look of the study's other figures."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.benchmark.summary import CONTENDERS
from utils.common.figures import (
    BLUE,
    GRAY,
    GREEN,
    ORANGE,
    VERMILION,
    in_house_look,
    mark_phantom,
    new_figure,
    write_figure,
)
from utils.common.paths import figures_dir

LABELS = {
    "reference_loop": "ImageDataGenerator,\nthrough the frozen base",
    "tf_data_loop": "tf.data and layers,\nthrough the frozen base",
    "bottleneck_once": "features once,\nno augmentation",
    "ours_cold": "ours,\ncache empty",
    "ours_warm": "ours,\ncache full",
}


@in_house_look
def plot_contenders(record: dict[str, Any]) -> Figure:
    """Plot the seconds and the validation AUC of each loop, with the ceilings of a cache.

    Args:
        record: A benchmark's record.
    """
    epochs, images = record["settings"]["epochs"], sum(record["images"].values())
    figure, ((left, right),) = new_figure(
        f"{epochs} epochs on {images:,} {_data(record)}: time and validation AUC",
        (12, 5.4), 1, 2,
    )  # fmt: skip
    positions = np.arange(len(CONTENDERS))[::-1]
    contenders = [record["contenders"][name] for name in CONTENDERS]
    colors = [GREEN if name.startswith("ours") else GRAY for name in CONTENDERS]
    bars = left.barh(positions, [of["seconds"] for of in contenders], 0.62, color=colors)
    left.bar_label(bars, fmt="{:,.0f} s", padding=4)
    ceilings, ours = [record["ceiling"][name] for name in ("cold", "warm")], positions[-2:]
    lines = left.plot([ceilings] * 2, [ours - 0.38, ours + 0.38], color=VERMILION, lw=3)
    lines[-1].set_label("ceiling of any such cache")
    left.legend(loc="lower right")
    left.set_yticks(positions, [LABELS[name] for name in CONTENDERS])
    left.margins(x=0.22)
    left.set(xlabel=f"seconds for {epochs} epochs", xlim=(0, None))
    left.xaxis.set_major_formatter("{x:,.0f}")
    aucs = [of["validation_auc"] for of in contenders]
    seeds = record["ours_seeds"]["validation_auc"]
    right.scatter(aucs, positions, s=90, c=colors, zorder=3)
    right.plot([seeds["min"], seeds["max"]], [positions[-1]] * 2, color=GREEN, lw=3)
    right.annotate(
        f"{len(seeds['values'])} seeds", (seeds["mean"], positions[-1]), (0, -20),
        textcoords="offset points", ha="center", color=GREEN,
    )  # fmt: skip
    right.set_yticks(positions, [""] * len(positions))
    lowest = min(*aucs, seeds["min"])
    right.set(
        xlabel="validation AUC of the best epoch", ylim=left.get_ylim(),
        xlim=(lowest - max(0.01, 0.15 * (1 - lowest)), 1.0),
    )  # fmt: skip
    right.xaxis.set_major_locator(MaxNLocator(5))
    right.grid(axis="x")
    return figure


@in_house_look
def plot_scaling(record: dict[str, Any]) -> Figure:
    """Plot predicted and measured seconds, and peak memory, by the number of images.

    Args:
        record: A benchmark's record.
    """
    sizes = pd.DataFrame(record["cost_per_image"]["sizes"])
    images, gigabytes = sizes.images, sizes.peak_mb / 1000
    figure, ((left, right),) = new_figure(
        f"Cost per image, from {min(images):,} to {max(images):,} {_data(record)}",
        (12, 5), 1, 2,
    )  # fmt: skip
    for part, what, color, marker in (
        ("fill_seconds", "filling the cache, one copy", BLUE, "o"),
        ("train_seconds", f"{record['settings']['size_epochs']} epochs of training", ORANGE, "s"),
    ):
        predicted, measured = sizes[f"predicted_{part}"], sizes[part]
        left.plot(images, predicted, "--", color=color, label=f"{what}: predicted")
        left.plot(images, measured, marker, color=color, ms=9, label=f"{what}: measured")
    left.set(xlabel="images", ylabel="seconds", xlim=(0, None), ylim=(0, None))
    left.legend(loc="upper left")
    right.plot(images, gigabytes, "o-", color=GREEN)
    right.set(
        xlabel="images", ylabel="peak anonymous memory (GB)", xlim=(0, None),
        ylim=(0, 1.25 * max(gigabytes)),
    )  # fmt: skip
    for ax in (left, right):
        ax.grid()
        ax.xaxis.set_major_formatter("{x:,.0f}")
    return figure


def _data(record: dict[str, Any]) -> str:
    return "phantoms" if record["phantom"] else "radiographs"


def save_bench_figure(figure: Figure, name: str, phantom: bool) -> Path:
    """Save a figure as `figures/bench/<name>.png`, marked where it is made from phantoms."""
    if phantom:
        mark_phantom(figure)
    file = figures_dir("bench") / f"{name}.png"
    write_figure(figure, file)
    return file
