"""Letters on a film: lead markers and burnt-in text, in faces that every machine has."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_OVERSAMPLING = 4
"""Letters are drawn that many times as large and averaged down, so that edges are smooth."""


@dataclass(frozen=True)
class Lettering:
    """A few letters on a film; places and heights are shares of the image's side, 0 to 1."""

    text: str
    face: str
    """A font that matplotlib brings, such as `DejaVuSans` or `STIXGeneral`."""
    left: float
    top: float
    height: float
    """Of a capital."""
    narrowing: float
    """Width over that of the face: films that were not square are stored as squares."""
    tilt: float
    """Degrees, counterclockwise."""


def draw_lettering(letters: Sequence[Lettering], size: int) -> np.ndarray:
    """Draw letters on an empty image; return the share of each pixel that a letter covers.

    Args:
        letters: To draw.
        size: Side of the image in pixels.

    Returns:
        An image (size, size) float64 in [0, 1].
    """
    # Where scores alone are computed there is no matplotlib, and no phantom at a site.
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    side = size * _OVERSAMPLING
    drawn = Image.new("L", (side, side))
    for each in letters:
        # Layout by Pillow itself, which is the same everywhere.
        layout = ImageFont.Layout.BASIC
        # A capital is about 0.7 of the size by which a font is called.
        font = ImageFont.truetype(folder / f"{each.face}.ttf", each.height * side / 0.7,
                                  layout_engine=layout)  # fmt: skip
        tile = Image.new("L", [int(end) + 1 for end in font.getbbox(each.text)[2:]])
        ImageDraw.Draw(tile).text((0, 0), each.text, fill=255, font=font)
        tile = tile.crop(tile.getbbox())
        width = max(round(tile.width * each.narrowing), 1)
        tile = tile.resize((width, tile.height)).rotate(
            each.tilt, Image.Resampling.BICUBIC, expand=True
        )
        drawn.paste(255, (round(each.left * side), round(each.top * side)), tile)
    return np.asarray(drawn.reduce(_OVERSAMPLING), dtype=float) / 255
