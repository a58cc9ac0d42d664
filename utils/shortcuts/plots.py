"""Figures about shortcuts."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from utils.common.constants import SCORED_SPLITS
from utils.common.figures import (
    GRAY,
    SPLIT_MARKERS,
    draw_intervals,
    in_house_look,
    legend_above,
    new_figure,
    require_rows,
)
from utils.shortcuts.pixel_baselines import BASELINES


@in_house_look
def plot_baseline_scores(scores: pd.DataFrame) -> Figure:
    """Plot the ROC-AUC of the pixel baselines with their intervals.

    Args:
        scores: From `pixel_baselines.score_pixel_baselines`, one row per baseline.
    """
    metric = "roc_auc"
    columns = [f"{split}_{metric}{end}" for split in SCORED_SPLITS for end in ("", "_low", "_high")]
    require_rows(scores, columns, "the table of baselines")
    figure, ((ax,),) = new_figure("ROC-AUC of the pixel baselines", (9, 1.6 + 0.85 * len(scores)))
    positions = np.arange(len(scores))
    for number, split in enumerate(SCORED_SPLITS):
        name = f"{split}_{metric}"
        color = (GRAY, "black")[number]
        draw_intervals(
            ax, scores[name], scores[f"{name}_low"], scores[f"{name}_high"],
            positions + (number - 0.5) * 0.3, color, SPLIT_MARKERS[split], split,
        )  # fmt: skip
    ax.axvline(0.5, color=GRAY, lw=1.4, ls=":", label="chance")
    ax.set_yticks(positions, [BASELINES.get(name, name) for name in scores.index])
    ax.invert_yaxis()
    ax.grid(axis="x")
    ax.set_xlabel("ROC-AUC, 95% confidence interval")
    legend_above(figure, ax)
    return figure
