"""Held-out radiographs as another site might have acquired them: perturbed validation."""

from collections.abc import Callable

import keras
import numpy as np

from utils.common.constants import NORMAL, PNEUMONIA
from utils.data.acquisition import (
    WHITE,
    RandomExposure,
    RandomFrame,
    RandomNoise,
    RandomResample,
    RandomSpectrum,
    transfer_histogram,
    transfer_spectrum,
)

UNCHANGED = "unchanged"
SEED = 2024
"""Of every perturbation: candidates of one input size are scored on the same pixels. Perturbations
act on the reduced image, so a small input loses more to `resolution` and `noise` than a large one.
"""
_AT_ONCE = 64

_DRAWN = {
    "exposure": RandomExposure,
    "sharpness": RandomSpectrum,
    "resolution": RandomResample,
    "noise": RandomNoise,
    "frame": RandomFrame,
}
_SWAPPED: dict[str, Callable] = {
    "histogram_swap": transfer_histogram,
    "spectrum_swap": transfer_spectrum,
}
PERTURBATIONS = (UNCHANGED, *_DRAWN, *_SWAPPED)
"""Names of all perturbations; the last two give each radiograph the histogram or the sharpness of
one of the other class."""


def perturb_images(images: np.ndarray, labels: np.ndarray, perturbation: str) -> np.ndarray:
    """Perturb held-out images in one way, the same at every call.

    Args:
        images: (n, size, size, 1) uint8 gray in [0, 255].
        labels: (n,) 0 or 1; they say whose histogram or sharpness an image is given.
        perturbation: One of `PERTURBATIONS`.

    Returns:
        (n, size, size, 1) float32 in [0, 255].

    Raises:
        ValueError: if the perturbation is unknown, or a swap finds one class alone.
    """
    if perturbation == UNCHANGED:
        return images.astype(np.float32)
    if perturbation not in PERTURBATIONS:
        raise ValueError(
            f"there is no perturbation {perturbation!r}; choose one of {', '.join(PERTURBATIONS)}"
        )
    layer = _DRAWN[perturbation](SEED) if perturbation in _DRAWN else None
    partners = None if layer else choose_partners(labels)
    changed = np.empty(images.shape, np.float32)
    for start in range(0, len(images), _AT_ONCE):
        rows = np.arange(start, min(start + _AT_ONCE, len(images)))
        part = keras.ops.convert_to_tensor(images[rows].astype(np.float32))
        if layer:
            result = layer.change(part)
        else:
            other = images[partners[rows]].astype(np.float32)
            result = _SWAPPED[perturbation](part, keras.ops.convert_to_tensor(other))
        changed[rows] = np.clip(keras.ops.convert_to_numpy(result), 0, WHITE)
    return changed


def choose_partners(labels: np.ndarray) -> np.ndarray:
    """Return for each image the row of one of the other class, drawn with a fixed seed.

    Raises:
        ValueError: if there is one class alone.
    """
    labels = np.asarray(labels)
    rows = {label: np.flatnonzero(labels == label) for label in (NORMAL, PNEUMONIA)}
    if not all(len(of_class) for of_class in rows.values()):
        raise ValueError("a swap between the classes needs images of both")
    random = np.random.default_rng(SEED)
    partners = np.empty(len(labels), int)
    for label, own in rows.items():
        partners[own] = random.choice(rows[1 - label], len(own))
    return partners
