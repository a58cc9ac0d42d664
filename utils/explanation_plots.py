"""The figures of notebooks 06 and 10 on heat maps, in the look of the study's other figures."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from utils.plots import (
    HEAT,
    LOOK,
    as_pixels,
    name_outline,
    new_figure,
    outline_opacity,
    require_count,
    require_maps,
    show_picture,
)


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
    pixels = as_pixels(images)
    for method, values in maps.items():
        require_maps(values, pixels, f"{method}: maps")
    require_count(titles, len(pixels), "titles")
    with matplotlib.rc_context(LOOK):
        columns = 1 + len(maps)
        size = (2.1 * columns, 2.25 * len(pixels) + 0.9)
        figure, axes = new_figure(title, size, len(pixels), columns)
        for row, name in enumerate(titles):
            show_picture(axes[row, 0], pixels[row])
            axes[row, 0].set_ylabel(name, fontsize=10)
            for column, (method, values) in enumerate(maps.items(), start=1):
                ax, maximum = axes[row, column], values[row].max()
                note = f"max {maximum:.3g}" if maximum > 0 else "zero everywhere"
                show_picture(ax, pixels[row], f"{method}\n{note}" if row == 0 else note, 11)
                ax.imshow(values[row], cmap=HEAT, vmin=0, vmax=values.max() or 1.0)
            if masks is not None:
                outline_opacity(axes[row], masks[row])
        if masks is not None:
            name_outline(figure, axes[0, 0])
    return figure
