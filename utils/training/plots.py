"""The figures of notebooks 03 and 04: training curves, and the cost of cached augmented copies."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.common.figures import (
    GRAY,
    GREEN,
    PURPLE,
    VERMILION,
    in_house_look,
    legend_above,
    new_figure,
    require_rows,
)


@in_house_look
def plot_history(history: pd.DataFrame, title: str = "Training") -> Figure:
    """Plot loss and accuracy of a training, the kept epoch and where the learning rate was reduced.

    Args:
        history: From `head.train_head`, one row per epoch.
        title: Title of the figure.
    """
    columns = ("epoch", "loss", "val_loss", "accuracy", "val_accuracy", "learning_rate")
    require_rows(history, columns, "the history")
    best = history.loc[history.val_loss.idxmin()]
    drops = history.epoch[history.learning_rate.diff() < 0] - 0.5
    figure, axes = new_figure(title, (11, 5), 1, 2)
    for ax, metric in zip(axes[0], ("loss", "accuracy"), strict=True):
        ax.plot(history.epoch, history[metric], "--s", color=GRAY, label="training")
        ax.plot(history.epoch, history[f"val_{metric}"], "-o", color=GREEN, label="validation")
        for number, drop in enumerate(drops):
            label = "learning rate reduced" if number == 0 else None
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
    axes[0, 1].set_ylabel("proportion of images")
    legend_above(figure, axes[0, 0])
    return figure


@in_house_look
def plot_copies_cost(costs: pd.DataFrame) -> Figure:
    """Plot what a fixed number of augmented copies costs against a fresh copy every epoch.

    Args:
        costs: From `augmented_copies.summarize_copies_cost`, one row per number of copies.
    """
    metrics = {"loss": "validation loss", "auc": "validation ROC-AUC"}
    ends = ("mean", "min", "max")
    columns = ["views", "epochs", *(f"{metric}_{end}" for metric in metrics for end in ends)]
    require_rows(costs, columns, "the table of costs")
    costs = costs.sort_values("views")
    positions = np.arange(len(costs))
    figure, axes = new_figure("Fixed versus fresh augmented copies", (11, 4.6), 1, 2)
    for ax, (metric, title) in zip(axes[0], metrics.items(), strict=True):
        mean = costs[f"{metric}_mean"].to_numpy()
        lengths = np.stack([mean - costs[f"{metric}_min"], costs[f"{metric}_max"] - mean])
        ax.errorbar(
            positions, mean, yerr=lengths.clip(min=0), fmt="o-", color=GREEN, ecolor=GRAY,
            capsize=5,
            elinewidth=2, label="mean and range of the seeds",
        )  # fmt: skip
        ax.set_xticks(
            positions,
            [
                f"{row.views}\n(fresh)" if row.views == row.epochs else f"{row.views}"
                for row in costs.itertuples()
            ],
        )
        ax.set(title=title, xlabel="augmented copies of each image", xlim=(-0.4, len(costs) - 0.6))
        ax.grid(axis="y")
        ax.margins(y=0.15)
    legend_above(figure, axes[0, 0])
    return figure
