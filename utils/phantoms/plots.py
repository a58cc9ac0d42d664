"""Figures of phantoms at two sites; `python -m utils.phantoms.plots` draws the committed ones."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.common.constants import CLASS_NAMES, NORMAL, PNEUMONIA
from utils.common.figures import (
    ORANGE,
    hide_frame,
    in_house_look,
    mark_phantom,
    new_figure,
    write_figure,
)
from utils.common.paths import figures_dir
from utils.phantoms.rendering import render_phantom
from utils.phantoms.sites import SITES

FIRST_CHILD = 21_030_000
"""First patient of the committed pictures; the criteria were measured on others."""
SITE_TITLES = {
    "A": "Site A: wide frame, black air,\nsmall plain R, steep contrast, sharp",
    "B": "Site B: tight frame, gray air,\nlarge serif R, burnt-in text, soft",
}


@in_house_look
def plot_site_sheet(patients: Sequence[int]) -> Figure:
    """Show the films of each class at each site, a column for each child.

    Args:
        patients: Patient seeds, four a column: none is shown twice.
    """
    rows = [(site, label) for site in SITES for label in (NORMAL, PNEUMONIA)]
    columns, left = divmod(len(patients), len(rows))
    if left or not columns:
        raise ValueError(f"a sheet needs {len(rows)} children a column, not {len(patients)} in all")
    title = "Films of two sites: what tells them apart?"
    figure, axes = new_figure(title, (1.75 * columns + 1, 7.9), len(rows), columns)
    for row, ((site, label), line) in enumerate(zip(rows, axes, strict=True)):
        for column, ax in enumerate(line):
            etiology = "normal" if label == NORMAL else ("bacteria", "virus")[column % 2]
            patient = patients[row * columns + column]
            _show(ax, render_phantom(patient, etiology, site=site).image)
        line[0].set_ylabel(f"{CLASS_NAMES[label]}\nat site {site}")
    return figure


@in_house_look
def plot_one_child(patient: int, etiology: str) -> Figure:
    """Show one child as each site would have taken it, with the outline of the opacity.

    Args:
        patient: Patient seed.
        etiology: `bacteria` or `virus`; `normal` has no outline.
    """
    title = "One child, one opacity, two sites"
    figure, axes = new_figure(title, (9, 5.6), 1, len(SITES))
    for ax, site in zip(axes[0], SITES, strict=True):
        phantom = render_phantom(patient, etiology, size=448, site=site)
        _show(ax, phantom.image)
        if phantom.opacity_mask.any():
            ax.contour(phantom.opacity_mask, [0.5], colors=ORANGE, linewidths=1.6)
        ax.set_title(SITE_TITLES[site])
    return figure


def _show(ax: Axes, gray: np.ndarray) -> None:
    ax.imshow(gray, cmap="gray", vmin=0, vmax=255)
    hide_frame(ax)


def main() -> None:
    """Draw the pictures of `docs/phantoms.md` into `figures/phantoms`."""
    folder = figures_dir("phantoms")
    for name, figure in {
        "sites": plot_site_sheet(range(FIRST_CHILD, FIRST_CHILD + 24)),
        "one_child": plot_one_child(FIRST_CHILD + 33, "bacteria"),
    }.items():
        mark_phantom(figure)
        write_figure(figure, folder / f"{name}.png")


if __name__ == "__main__":
    main()
