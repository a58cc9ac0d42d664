"""How an image file is read: every pixel that the study uses comes through here."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from utils.common.constants import IMAGE_SIZE
from utils.common.progress import track

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")
IMAGE_FORMATS = ("JPEG", "PNG")
"""What a file may hold, whatever its name says; no other decoder of Pillow is let near it."""


class DatasetError(ValueError):
    """A data set that cannot be used as it is; the message names the file and the remedy."""


def read_image(path: Path | BinaryIO) -> np.ndarray:
    """Read a PNG or JPEG image as (height, width) or (height, width, 3) uint8 in [0, 255].

    16-bit images are scaled to 8 bits, and transparency is dropped.

    Args:
        path: A file, or its content as a stream.

    Raises:
        DatasetError: if the file is truncated or no image.
    """
    try:
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            image.load()
            if image.mode in ("I;16", "I;16B", "I;16L", "I"):
                eight_bits = np.round(np.asarray(image).astype(np.float32) / 257)
                return eight_bits.clip(0, 255).astype(np.uint8)
            return np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        message = f"{path} cannot be read as an image ({error}); fetch it again"
        raise DatasetError(message) from error


def pixel_sha256(pixels: np.ndarray) -> str:
    """Return the SHA-256 of an image's shape and pixels, however its file is encoded."""
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def load_image(path: Path | BinaryIO, size: int = IMAGE_SIZE) -> np.ndarray:
    """Read an image as (size, size, 3) uint8 RGB in [0, 255], resized without keeping aspect.

    Every image of the study goes through here: of training, `make predict` and `make demo`.
    """
    image = Image.fromarray(read_image(path)).convert("RGB")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def load_images(root: Path, image_ids: Sequence[str], size: int = IMAGE_SIZE) -> np.ndarray:
    """Read images as (n, size, size, 3) uint8 RGB in [0, 255], in the order of `image_ids`."""
    images = np.empty((len(image_ids), size, size, 3), np.uint8)
    with ThreadPoolExecutor() as pool:
        pixels = pool.map(lambda image_id: load_image(root / image_id, size), image_ids)
        for row, image in enumerate(track(pixels, "reading images", len(image_ids))):
            images[row] = image
    return images
