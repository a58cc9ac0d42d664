"""The augmentation of the published baseline, drawn per image: a copy is the same everywhere.

Ranges and geometry are those of Keras' `ImageDataGenerator`, which the baseline used. Its own
draws depend on the position of an image in a batch; ours depend on the image, the seed and the
number of the copy alone, so that it can be cached, computed anywhere, and computed again.

Random crops are not part of it: part of a radiograph, enlarged, as networks for ImageNet are
trained on. A crop changes how tightly the chest is framed and where it lies, and leaves out markers
and borders; Szegedy et al. 2015 trained on crops of 8% to 100% of the area.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import keras
import numpy as np
from PIL import Image

from utils.common.constants import IMAGE_SIZE

ASPECT = (3 / 4, 4 / 3)
"""Smallest and largest width of a crop over its height."""
_TRIES = 10


@dataclass(frozen=True)
class AugmentationRanges:
    """How far each transform may go; the defaults are the recipe of the published baseline.

    Its README names no ranges for shear and brightness; those are ours.
    """

    rotation: float = 30.0
    """Degrees, drawn from [-rotation, rotation]."""
    width_shift: float = 0.2
    """Fraction of the image width, to either side."""
    height_shift: float = 0.2
    """Fraction of the image height, up or down."""
    zoom: tuple[float, float] = (0.8, 1.2)
    """Factors on each axis; above 1 the image shrinks and its edge pixels are repeated."""
    shear: float = 10.0
    """Degrees."""
    brightness: tuple[float, float] = (0.8, 1.2)
    """Factors on the pixel values."""
    horizontal_flip: bool = True


PUBLISHED_RANGES = AugmentationRanges()


@dataclass(frozen=True)
class Augmentation:
    """One drawn transform; the defaults change nothing."""

    rotation: float = 0.0
    width_shift: float = 0.0
    height_shift: float = 0.0
    zoom_x: float = 1.0
    zoom_y: float = 1.0
    shear: float = 0.0
    brightness: float = 1.0
    horizontal_flip: bool = False


IDENTITY = Augmentation()


def draw_augmentation(
    image_sha256: str, seed: int, copy: int, ranges: AugmentationRanges = PUBLISHED_RANGES
) -> Augmentation:
    """Draw the transform of one copy of one image, uniformly within `ranges`.

    Args:
        image_sha256: Hash of the image's pixels: the image is known by what it shows.
        seed: The study's seed.
        copy: Number of the augmented copy, from 0.
        ranges: How far each transform may go.
    """
    digest = hashlib.sha256(f"{image_sha256}:{seed}:{copy}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest, "big"))
    # Every quantity is drawn whatever the ranges are: closing one leaves the others as they were.
    rotation, width_shift, height_shift, shear = random.uniform(-1, 1, 4)
    zoom_x, zoom_y = random.uniform(*ranges.zoom, 2)
    brightness = random.uniform(*ranges.brightness)
    return Augmentation(
        rotation=rotation * ranges.rotation,
        width_shift=width_shift * ranges.width_shift,
        height_shift=height_shift * ranges.height_shift,
        zoom_x=zoom_x,
        zoom_y=zoom_y,
        shear=shear * ranges.shear,
        brightness=brightness,
        horizontal_flip=ranges.horizontal_flip and random.random() < 0.5,
    )


def draw_single_transform(transform: str, image_sha256: str, seed: int, copy: int) -> Augmentation:
    """Draw a copy in which only `transform` acts: for showing one transform at a time.

    Raises:
        ValueError: if `transform` is none of the field names of `AugmentationRanges`.
    """
    known = [field.name for field in fields(AugmentationRanges)]
    if transform not in known:
        raise ValueError(f"unknown transform {transform!r}; choose one of {', '.join(known)}")
    full = asdict(draw_augmentation(image_sha256, seed, copy))
    names = ("zoom_x", "zoom_y") if transform == "zoom" else (transform,)
    return Augmentation(**{name: full[name] for name in names})


def affine_matrix(augmentation: Augmentation, size: int) -> np.ndarray:
    """Return the (3, 3) matrix from output to input pixel coordinates (x, y, 1).

    Composed as in `ImageDataGenerator`: rotation, shift, shear and zoom about the center, then
    the flip.
    """
    angle, shear = np.deg2rad(augmentation.rotation), np.deg2rad(augmentation.shear)
    rotate = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    shift = np.eye(3)
    shift[:2, 2] = augmentation.width_shift * size, augmentation.height_shift * size
    slant = np.array([[1, -np.sin(shear), 0], [0, np.cos(shear), 0], [0, 0, 1]])
    zoom = np.diag([augmentation.zoom_x, augmentation.zoom_y, 1])
    center = np.eye(3)
    center[:2, 2] = size / 2 - 0.5
    matrix = center @ rotate @ shift @ slant @ zoom @ np.linalg.inv(center)
    if augmentation.horizontal_flip:
        matrix = matrix @ np.array([[-1, 0, size - 1], [0, 1, 0], [0, 0, 1]])
    return matrix


def augment_images(images: np.ndarray, augmentations: Sequence[Augmentation]) -> np.ndarray:
    """Apply one drawn transform to each image.

    Args:
        images: (n, size, size, 3) in [0, 255].
        augmentations: One for each image.

    Returns:
        (n, size, size, 3) float32 in [0, 255]; pixels from outside repeat the nearest edge.
    """
    if len(images) != len(augmentations):
        raise ValueError(f"{len(images)} images but {len(augmentations)} augmentations")
    matrices = [affine_matrix(augmentation, images.shape[1]) for augmentation in augmentations]
    transforms = np.stack([np.append(matrix[:2].ravel(), [0, 0]) for matrix in matrices])
    moved = keras.ops.image.affine_transform(
        images.astype(np.float32), transforms.astype(np.float32),
        interpolation="bilinear", fill_mode="nearest", data_format="channels_last",
    )  # fmt: skip
    factors = np.array([augmentation.brightness for augmentation in augmentations], np.float32)
    return np.clip(keras.ops.convert_to_numpy(moved) * factors[:, None, None, None], 0, 255)


def share_from_outside(augmentation: Augmentation, size: int = IMAGE_SIZE) -> float:
    """Return the share of an augmented image, 0 to 1, that shows repeated edge pixels."""
    y, x = np.mgrid[:size, :size]
    points = np.stack([x.ravel(), y.ravel(), np.ones(size * size)])
    source_x, source_y, _ = affine_matrix(augmentation, size) @ points
    # Half a pixel of slack: the edge pixel itself reaches that far.
    inside = (np.abs(source_x - (size - 1) / 2) <= size / 2) & (
        np.abs(source_y - (size - 1) / 2) <= size / 2
    )
    return float(1 - inside.mean())


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
