"""Random crops: part of a radiograph, enlarged, as networks for ImageNet are trained on.

A crop changes how tightly the chest is framed and where it lies, and leaves out markers and
borders; Szegedy et al. 2015 trained on crops of 8% to 100% of the area.
"""

import math

import numpy as np
from PIL import Image

ASPECT = (3 / 4, 4 / 3)
"""Smallest and largest width of a crop over its height."""
_TRIES = 10


def draw_box(side: int, smallest: float, random: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw a random part of a square image: left, upper, right, lower, in pixels.

    The share of the area is drawn evenly, the aspect evenly on a logarithmic scale, and the
    position evenly. A box that does not fit is drawn again; after ten, the whole image is taken.

    Args:
        side: Of the image, in pixels.
        smallest: Least share of the area, above 0; at 1 no box but the whole image fits.
        random: Source of the draws.
    """
    low, high = (math.log(aspect) for aspect in ASPECT)
    for _ in range(_TRIES):
        area = random.uniform(smallest, 1) * side**2
        aspect = math.exp(random.uniform(low, high))
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < width <= side and 0 < height <= side:
            left, upper = (int(random.integers(side - part + 1)) for part in (width, height))
            return left, upper, left + width, upper + height
    return 0, 0, side, side


def crop_images(
    images: np.ndarray, size: int, smallest: float, random: np.random.Generator
) -> np.ndarray:
    """Return a random crop of each image, (n, size, size, 1) float32 in [0, 255].

    Each is cut from the image and resized in one step, so that a small crop of a large image is
    as sharp as the image allows.

    Args:
        images: (n, side, side, 1) uint8 gray in [0, 255].
        size: Side of the crops after resizing, in pixels.
        smallest: Least share of the area that a crop keeps, above 0 to 1; see `draw_box`.
        random: Source of the draws.
    """
    crops = np.empty((len(images), size, size, 1), np.float32)
    for row, image in enumerate(images[..., 0]):
        box = draw_box(len(image), smallest, random)
        resized = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box=box)
        crops[row, ..., 0] = np.asarray(resized)
    return crops
