"""The figures of notebooks 06 and 10 on heat maps, in the look of the study's other figures."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from utils.plots import HEAT, LOOK, SKY, legend_above, new_figure


def plot_methods(
    images: np.ndarray,
    maps: Mapping[str, np.ndarray],
    titles: Sequence[str],
    masks: np.ndarray | None = None,
    title: str = "Heat maps by five methods",
) -> Figure:
    """Show each image in a row beside its maps by several methods, or of several layers.

    Their units differ, so that every column has a scale of its own, from 0 to its largest value;
    within a column heights compare. A map that is zero everywhere is said to be so.

    Args:
        images: (n, h, w, 3) in [0, 255].
        maps: (n, h, w) each, not negative, by the title of their column.
        titles: A title for each image.
        masks: (n, h, w) bool; where given, their outlines are drawn.
        title: Of the figure.
    """
    shape = np.shape(images)[:3]
    for method, values in maps.items():
        if np.shape(values) != shape:
            raise ValueError(f"{method}: maps {np.shape(values)} do not fit images {shape}")
        if not (np.isfinite(values).all() and np.min(values) >= 0):
            raise ValueError(f"{method}: maps must be finite and not negative")
    if len(titles) != len(images):
        raise ValueError(f"{len(images)} images but {len(titles)} titles")
    with matplotlib.rc_context(LOOK):
        columns = 1 + len(maps)
        size = (2.1 * columns, 2.25 * len(images) + 0.9)
        figure, axes = new_figure(title, size, len(images), columns)
        for ax in axes.flat:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        for row, name in enumerate(titles):
            pixels = np.clip(images[row], 0, 255).astype(np.uint8)
            axes[row, 0].imshow(pixels)
            axes[row, 0].set_ylabel(name, fontsize=10)
            for column, (method, values) in enumerate(maps.items(), start=1):
                ax, maximum = axes[row, column], values[row].max()
                ax.imshow(pixels)
                ax.imshow(values[row], cmap=HEAT, vmin=0, vmax=values.max() or 1.0)
                note = f"max {maximum:.3g}" if maximum > 0 else "zero everywhere"
                ax.set_title(f"{method}\n{note}" if row == 0 else note, fontsize=11)
            if masks is not None and np.any(masks[row]):
                for ax in axes[row]:
                    ax.contour(np.asarray(masks[row], float), [0.5], colors=[SKY], linewidths=1.4)
        if masks is not None:
            axes[0, 0].plot([], [], color=SKY, label="outline of the known opacity")
            legend_above(figure, axes[0, 0])
    return figure
