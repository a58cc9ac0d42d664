"""From an image to the probability of PNEUMONIA: from pixels, or from files."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from utils.common.constants import IMAGE_SIZE, PNEUMONIA
from utils.common.progress import progress_bar, track
from utils.data.images import Picture, UnreadableImageError, read_picture, resize_image
from utils.models.guard import GuardedNetwork, describe
from utils.models.registry import Network

BATCH_SIZE = 64
"""Images that go through a network at once, for every committed probability. Batches of 32 and of
64 gave the same bits where it was measured, but one image alone gives other last digits, and so
does calling the network without Keras' `predict`."""
CROP = 0.07
"""Share of the side that a corner crop of test-time augmentation leaves out."""
_CROPPED = round((1 - CROP) * IMAGE_SIZE)


def run_network(
    network: Network,
    pixels: np.ndarray,
    title: str | None = None,
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Return what a network, or a part of one, makes of images, (n, outputs) float32.

    Args:
        network: From images in [0, 255].
        pixels: (n, height, width, channels) in [0, 255], as the network takes them.
        title: Of the progress bar; without one there is none.
        transform: Applied to each batch of float32 images first, to cover a region for instance.
    """
    starts = range(0, len(pixels), BATCH_SIZE)
    parts = []
    for start in starts if title is None else track(starts, title, len(starts)):
        batch = pixels[start : start + BATCH_SIZE].astype(np.float32)
        parts.append(network.predict_on_batch(transform(batch) if transform else batch))
    return np.concatenate(parts)


def predict_pixels(
    network: Network,
    pixels: np.ndarray,
    title: str | None = None,
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Return the probability of PNEUMONIA of images, (n,) float64 in [0, 1].

    Args:
        network: From images in [0, 255] to (n, 2) probabilities.
        pixels: See `run_network`, and so for the others.
        title: Of the progress bar.
        transform: Applied to each batch of images first.
    """
    return run_network(network, pixels, title, transform)[:, PNEUMONIA].astype(np.float64)


def predict_guarded(
    network: Network, pixels: np.ndarray, guarded: GuardedNetwork | None, known: np.ndarray
) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """Return the probability of PNEUMONIA of images, (n,) float64, and what a guard finds in each.

    The network runs once where it is the one whose features the guard knows.

    Args:
        network: See `predict_pixels`.
        pixels: (n, height, width, 3) in [0, 255], 64 at most, as the network takes them.
        guarded: From `guard.open_guard`; without one, nothing is found.
        known: The same images as (n, 224, 224, 3).

    Returns:
        The probabilities, and the findings of `Guard.judge`.
    """
    if guarded is None:
        return predict_pixels(network, pixels), [()] * len(pixels)
    if network is guarded.network:
        outputs, features = guarded.network.predict_with_features(pixels)
        probability = outputs[:, PNEUMONIA].astype(np.float64)
    else:
        probability = predict_pixels(network, pixels)
        features = guarded.network.measure_features(known)
    return probability, guarded.guard.judge(known, features)


def predict_files(
    network: Network,
    root: Path,
    image_ids: Sequence[str],
    title: str,
    unreadable: dict[str, str] | None = None,
    remarks: dict[str, tuple[str, ...]] | None = None,
    guarded: GuardedNetwork | None = None,
) -> np.ndarray:
    """Return the probability of PNEUMONIA of image files, (n,) float64 in [0, 1].

    Args:
        network: From (n, height, width, 3) RGB in [0, 255] to (n, 2) probabilities; images are
            brought to its height and width, 224 x 224 for those of the study.
        root: Folder of the files.
        image_ids: Their paths below it.
        title: Of the progress bar.
        unreadable: Takes the reason for each file that cannot be read, whose probability is NaN.
        remarks: Takes what was assumed in reading and what the guard finds, for files of which
            there is something to say.
        guarded: Guard that looks at the images.

    Raises:
        DatasetError: if a file cannot be read and `unreadable` is not given.
    """
    size = tuple(network.input_shape[1:3])

    def read(image_id: str) -> tuple[Picture, np.ndarray] | UnreadableImageError:
        """Return an image as the network takes it, and as the guard's network does."""
        try:
            picture = read_picture(root / image_id)
        except UnreadableImageError as error:
            if unreadable is None:
                raise
            return error
        seen = replace(picture, pixels=resize_image(picture.pixels, size))
        is_same = guarded is None or size == (IMAGE_SIZE, IMAGE_SIZE)
        return seen, seen.pixels if is_same else resize_image(picture.pixels)

    image_ids = list(image_ids)
    probability = np.full(len(image_ids), np.nan)
    with progress_bar(title, len(image_ids)) as bar, ThreadPoolExecutor() as pool:
        for start in range(0, len(image_ids), BATCH_SIZE):
            names = image_ids[start : start + BATCH_SIZE]
            pixels, known, said = {}, [], {}
            for row, content in enumerate(pool.map(read, names), start):
                if isinstance(content, UnreadableImageError):
                    unreadable[image_ids[row]] = content.reason
                    continue
                picture, as_known = content
                pixels[row], said[row] = picture.pixels, picture.remarks
                known.append(as_known)
            if pixels:
                probability[list(pixels)], findings = predict_guarded(
                    network, np.stack([*pixels.values()]), guarded, np.stack(known)
                )
                for row, found in zip(pixels, findings, strict=True):
                    said[row] += describe(found)
            if remarks is not None:
                remarks.update({image_ids[row]: words for row, words in said.items() if words})
            bar.update(len(names))
    return probability


def predict_with_crops(network: Network, pixels: np.ndarray, title: str) -> np.ndarray:
    """Return the mean probability over an image and its four corner crops, (n,) float64.

    Test-time augmentation without a flip, which would move the heart to the other side.

    Args:
        network: From (n, 224, 224, 3) RGB in [0, 255] to (n, 2) probabilities.
        pixels: (n, 224, 224, 3) in [0, 255].
        title: Of the progress bar.
    """
    corners = (0, IMAGE_SIZE - _CROPPED)
    crops = [partial(_crop, top=top, left=left) for top in corners for left in corners]
    each = [predict_pixels(network, pixels, title, transform) for transform in (None, *crops)]
    # The mean of float32, which networks give: that of float64 would have other last digits.
    return np.mean(each, axis=0, dtype=np.float32).astype(np.float64)


def _crop(images: np.ndarray, top: int, left: int) -> np.ndarray:
    import keras  # not for those who score on ONNX Runtime

    part = images[:, top : top + _CROPPED, left : left + _CROPPED]
    return keras.ops.image.resize(part, (IMAGE_SIZE, IMAGE_SIZE))
