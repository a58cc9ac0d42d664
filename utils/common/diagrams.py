"""Diagrams of the study and of a network, as vector graphics for pages that are light or dark.

`python -m utils.common.diagrams` writes them to `docs/_static`, two files each.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from utils.common.paths import ROOT

FOLDER = ROOT / "docs" / "_static"
WIDTH, MARGIN, GAP, LINE = 460, 12, 26, 20
"""Of a diagram in pixels: narrow, so that a phone shows its letters large enough."""
COLORS = {
    "light": {
        "page": "#ffffff", "text": "#14181e", "line": "#5a6270",
        "plain": "#eef1f5", "frozen": "#dce7fc", "trained": "#f8e3d0",
    },
    "dark": {
        "page": "#14181e", "text": "#f3f4f5", "line": "#9aa4b2",
        "plain": "#2a313c", "frozen": "#12305f", "trained": "#5c3310",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """A box of a diagram."""

    title: str
    lines: tuple[str, ...]
    """At most 60 characters each, which is what the box holds."""
    kind: str = "plain"
    """What its color says: `plain`, `frozen` or `trained`."""


STUDY = (
    Step("Data", ("chest radiographs of children", "or phantoms, rendered by code")),
    Step("Split", ("training and validation share no patient", "the official test set is kept")),
    Step(
        "Networks",
        ("frozen, with a new head", "fine-tuned, chosen on held-out patients"),
        "trained",
    ),
    Step("Evaluation", ("thresholds from validation", "scores on test, with intervals")),
    Step("Outside", ("adults of another hospital, other sites", "what the network looks at")),
)
RESNET50_FROZEN = (
    Step("Image", ("224 x 224 x 3, three equal gray channels",)),
    Step("ResNet50, frozen", ("weights of ImageNet, never changed here",), "frozen"),
    Step("Activations", ("7 x 7 x 2,048, computed once and cached",)),
    Step("Flatten", ("100,352 values",)),
    Step("Dense, 512 units", ("ReLU, then dropout 0.5", "most of the trained weights"), "trained"),
    Step("Dense, 128 units", ("ReLU, then dropout 0.5",), "trained"),
    Step("Dense, 2 units", ("softmax: probability of NORMAL and PNEUMONIA",), "trained"),
)
DIAGRAMS = {"study": STUDY, "resnet50_frozen": RESNET50_FROZEN}


def draw_diagram(steps: Sequence[Step], look: str) -> str:
    """Return an SVG of boxes one below another, with arrows between them.

    Args:
        steps: From top to bottom.
        look: A key of `COLORS`.
    """
    colors, parts, y = COLORS[look], [], MARGIN
    middle = WIDTH / 2
    for number, step in enumerate(steps):
        if number:
            parts.append(
                f'<path d="M{middle} {y - GAP + 3}V{y - 5}m-5 -6l5 6l5 -6" fill="none" '
                f'stroke="{colors["line"]}" stroke-width="2"/>'
            )
        height = LINE * (1 + len(step.lines)) + 14
        parts.append(
            f'<rect x="{MARGIN}" y="{y}" width="{WIDTH - 2 * MARGIN}" height="{height}" rx="8" '
            f'fill="{colors[step.kind]}" stroke="{colors["line"]}"/>'
        )
        for place, text in enumerate((step.title, *step.lines), 1):
            weight = ' font-weight="bold"' if place == 1 else ""
            parts.append(
                f'<text x="{middle}" y="{y + LINE * place + 2}"{weight}>{escape(text)}</text>'
            )
        y += height + GAP
    total = y - GAP + MARGIN
    style = f'font-family="sans-serif" font-size="16" text-anchor="middle" fill="{colors["text"]}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}" '
            f'width="{WIDTH}" height="{total}" {style}>',
            f'<rect width="{WIDTH}" height="{total}" rx="8" fill="{colors["page"]}"/>',
            *parts,
            "</svg>\n",
        ]
    )


def write_diagrams(folder: Path = FOLDER) -> list[Path]:
    """Write all diagrams in both looks and return their files, `<name>_<look>.svg`."""
    files = []
    for name, steps in DIAGRAMS.items():
        for look in COLORS:
            files.append(folder / f"{name}_{look}.svg")
            files[-1].write_text(draw_diagram(steps, look), encoding="utf-8")
    return files


def main() -> int:
    """Write the diagrams."""
    for file in write_diagrams():
        sys.stdout.write(f"{file.relative_to(ROOT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
