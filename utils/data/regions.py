"""Parts of a radiograph: its border, a template of the lungs, images of which one is covered."""

import numpy as np

_LUNGS = ((0.31, 0.47, 0.17, 0.30), (0.69, 0.47, 0.17, 0.30))
"""Center and half axes of each lung, as shares of width and height: a template, not a
segmentation. It is the same for all images, so it misses rotated and very small chests."""
REGIONS = ("whole image", "border covered", "lungs only", "lungs removed")
FRAME = 1 / 8


def inside_frame(size: int, margin: float) -> np.ndarray:
    """Return (size, size) bool: what a frame of some share leaves over."""
    position = (np.arange(size) + 0.5) / size
    kept = (position >= margin) & (position < 1 - margin)
    return kept[:, None] & kept[None, :]


def lung_template(size: int) -> np.ndarray:
    """Return (size, size) bool: where the lungs of a well placed chest lie."""
    position = (np.arange(size) + 0.5) / size
    y, x = position[:, None], position[None, :]
    mask = np.zeros((size, size), bool)
    for center_x, center_y, half_x, half_y in _LUNGS:
        mask |= ((x - center_x) / half_x) ** 2 + ((y - center_y) / half_y) ** 2 <= 1
    return mask


def cover_region(images: np.ndarray, region: str) -> np.ndarray:
    """Replace what is not wanted by the image's own mean, so that exposure stays as it is.

    Args:
        images: (n, size, size, channels) in [0, 255].
        region: One of `REGIONS`.

    Returns:
        float32 images of the same shape.

    Raises:
        ValueError: if the region is unknown.
    """
    size = images.shape[1]
    masks = {
        "whole image": np.ones((size, size), bool),
        "border covered": inside_frame(size, FRAME),
        "lungs only": lung_template(size),
        "lungs removed": ~lung_template(size),
    }
    if region not in masks:
        raise ValueError(f"there is no region {region!r}; choose one of {', '.join(REGIONS)}")
    images = images.astype(np.float32)
    mean = images.mean((1, 2), keepdims=True)
    return np.where(masks[region][None, :, :, None], images, mean)
