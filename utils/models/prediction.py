"""From an image to the probability of PNEUMONIA."""

from pathlib import Path

import keras
import numpy as np
import pandas as pd

from utils.common.constants import IMAGE_SIZE, PNEUMONIA
from utils.common.progress import track
from utils.data.images import load_images


def predict_images(network: keras.Model, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
    """Return the probability of PNEUMONIA, (n,) float64, of images as the network takes them."""
    probabilities = network.predict(
        images.astype(np.float32), batch_size=batch_size, verbose=0
    )  # fmt: skip
    return probabilities[:, PNEUMONIA].astype(np.float64)


_AT_ONCE = 64
CROP = 0.07
"""Share of the side that a corner crop of test-time augmentation leaves out."""


def predict_files(network: keras.Model, root: Path, images: pd.DataFrame, title: str) -> np.ndarray:
    """Return the probability of PNEUMONIA of image files, (n,) float64 in [0, 1].

    Args:
        network: From (n, 224, 224, 3) RGB in [0, 255] to (n, 2) probabilities.
        root: Root of the data set.
        images: Rows of the image index.
        title: Of the progress bar.
    """
    return run_on_files(network, root, images, title)[:, PNEUMONIA].astype(np.float64)


def run_on_files(network: keras.Model, root: Path, images: pd.DataFrame, title: str) -> np.ndarray:
    """Return what a network, or a part of one, makes of image files, (n, outputs) float32.

    Args:
        network: From (n, 224, 224, 3) RGB in [0, 255].
        root: Root of the data set.
        images: Rows of the image index.
        title: Of the progress bar.
    """
    pixels = load_images(root, images.image_id)
    starts = range(0, len(pixels), _AT_ONCE)
    parts = [
        network.predict_on_batch(pixels[start : start + _AT_ONCE].astype(np.float32))
        for start in track(starts, title, len(starts))
    ]
    return np.concatenate(parts)


def predict_with_crops(network: keras.Model, pixels: np.ndarray, title: str) -> np.ndarray:
    """Return the mean probability over an image and its four corner crops, (n,) float64.

    Test-time augmentation without a flip, which would move the heart to the other side.

    Args:
        network: From (n, 224, 224, 3) RGB in [0, 255] to (n, 2) probabilities.
        pixels: (n, 224, 224, 3) in [0, 255].
        title: Of the progress bar.
    """
    side = round((1 - CROP) * IMAGE_SIZE)
    rest = IMAGE_SIZE - side
    probabilities = []
    starts = range(0, len(pixels), _AT_ONCE)
    for start in track(starts, title, len(starts)):
        part = pixels[start : start + _AT_ONCE].astype(np.float32)
        views = [part] + [
            keras.ops.image.resize(
                part[:, top : top + side, left : left + side], (IMAGE_SIZE, IMAGE_SIZE)
            )
            for top in (0, rest) for left in (0, rest)
        ]  # fmt: skip
        probabilities.append(
            np.mean([network.predict_on_batch(view)[:, PNEUMONIA] for view in views], axis=0)
        )
    return np.concatenate(probabilities).astype(np.float64)
