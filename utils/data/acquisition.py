"""Augmentation that makes the habits of acquisition worthless: exposure, sharpness, borders.

Notebook 01 measures that on the training folder brightness, sharpness and a frame without any lung
tell the classes apart. A network is not kept from using them by rotating images; it is by seeing
each radiograph under other exposures, sharpness and frames, best of all under those of a
radiograph of the other class.

Geometry comes from Keras' preprocessing layers. What Keras has not, or has for whole batches or
narrow ranges alone, is here, as layers that draw again for every image of a batch, act in training
only, and carry the state of their random numbers, so that an interrupted training is resumed
exactly. All take and return (n, height, width, 1) float32 in [0, 255].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers, ops

WHITE = 255.0
SPECTRUM_BANDS = 8
"""Bands of spatial frequency whose gain is drawn, from the whole image to single pixels."""


class _RandomLayer(layers.Layer):
    """A layer that acts in training only, with random numbers of its own."""

    def __init__(self, seed: int, share: float = 1.0, **options: object) -> None:
        """Take a seed, and the share of the images that are changed."""
        super().__init__(**options)
        self._share = share
        self.seed_generator = keras.random.SeedGenerator(seed)

    def uniform(self, images: keras.KerasTensor, low: float, high: float) -> keras.KerasTensor:
        """Draw one number an image, (n, 1, 1, 1)."""
        shape = (ops.shape(images)[0], 1, 1, 1)
        return keras.random.uniform(shape, low, high, seed=self.seed_generator)

    def partners(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """Return the batch in another order: for each image one of the others."""
        return ops.take(
            images, keras.random.shuffle(ops.arange(ops.shape(images)[0]),
                                         seed=self.seed_generator), axis=0,
        )  # fmt: skip

    def call(self, images: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """Change a share of the images in training, none otherwise."""
        if not training:
            return images
        chosen = self.uniform(images, 0, 1) < self._share
        return ops.where(chosen, ops.clip(self.change(images), 0, WHITE), images)

    def change(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """Return all images changed."""
        raise NotImplementedError


class RandomExposure(_RandomLayer):
    """Change brightness and contrast as tube voltage and exposure do, and gamma as a display does.

    Gamma is drawn from [1 / 2, 2] evenly on a logarithmic scale, the window's width from
    [0.6, 1.4] of the full range and its center by up to a fifth of it.
    """

    def change(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """Return (255 (x / 255) ^ gamma - center) contrast + center + shift."""
        gamma = ops.exp2(self.uniform(images, -1, 1))
        curved = WHITE * ops.power(ops.clip(images, 0, WHITE) / WHITE, gamma)
        contrast = self.uniform(images, 0.6, 1.4)
        shift = self.uniform(images, -0.2, 0.2) * WHITE
        return (curved - WHITE / 2) * contrast + WHITE / 2 + shift


class RandomSpectrum(_RandomLayer):
    """Blur or sharpen: multiply each band of spatial frequency by a factor of its own.

    Factors are drawn evenly on a logarithmic scale from [1 / 4, 4] for the finest band and
    proportionally less toward the coarse ones; the mean stays as it is.
    """

    def change(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """Return the images filtered in the frequency domain."""
        bands = _frequency_bands(images.shape[1], images.shape[2])
        count = ops.shape(images)[0]
        draws = keras.random.uniform(
            (count, SPECTRUM_BANDS), -2, 2, seed=self.seed_generator
        ) * ops.linspace(0.0, 1.0, SPECTRUM_BANDS)
        gains = ops.exp2(ops.tensordot(draws, bands, axes=1))
        return _filter(images, gains)


class SpectrumTransfer(_RandomLayer):
    """Give an image the sharpness of another one: the strength of each band of frequency.

    The positions of edges (the phases) stay; after Yang and Soatto 2020, by bands instead of single
    frequencies, so that no anatomy is carried over.
    """

    def change(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """Return the images with the band strengths of their partners."""
        return transfer_spectrum(images, self.partners(images))


class HistogramTransfer(_RandomLayer):
    """Give an image the histogram of another one: the darkest pixel its darkest, and so on."""

    def change(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """Return the images with the sorted pixels of their partners, in their own order."""
        return transfer_histogram(images, self.partners(images))


class RandomResample(_RandomLayer):
    """Lose resolution: halve or quarter the size and enlarge again."""

    def change(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """Return the images at a half or a quarter of their resolution."""
        height, width = images.shape[1], images.shape[2]
        half, quarter = (
            ops.image.resize(
                ops.image.resize(images, (height // part, width // part), antialias=True),
                (height, width),
            )
            for part in (2, 4)
        )
        return ops.where(self.uniform(images, 0, 1) < 0.5, half, quarter)


class RandomNoise(_RandomLayer):
    """Add noise of a few photons: a standard deviation from [0, 15] for each image."""

    def change(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """Return the images with noise."""
        noise = keras.random.normal(ops.shape(images), seed=self.seed_generator)
        return images + self.uniform(images, 0, 15) * noise


class RandomFrame(_RandomLayer):
    """Cover a frame with one gray; each side's width is drawn, up to a seventh of the image."""

    def change(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """Return the images behind a frame."""
        height, width = images.shape[1], images.shape[2]
        y = ops.reshape(ops.arange(height, dtype="float32") / height, (1, -1, 1, 1))
        x = ops.reshape(ops.arange(width, dtype="float32") / width, (1, 1, -1, 1))
        top, bottom, left, right = (self.uniform(images, 0, 1 / 7) for _ in range(4))
        inside = ops.logical_and(
            ops.logical_and(y >= top, y < 1 - bottom), ops.logical_and(x >= left, x < 1 - right)
        )
        gray = self.uniform(images, 0, WHITE)
        return ops.where(inside, images, gray)


def transfer_histogram(images: keras.KerasTensor, partners: keras.KerasTensor) -> keras.KerasTensor:
    """Return images with the sorted pixels of their partners, in the order of their own."""
    positions = images.shape[1] * images.shape[2]
    ranks = ops.argsort(ops.argsort(ops.reshape(images, (-1, positions)), axis=1), axis=1)
    sorted_partners = ops.sort(ops.reshape(partners, (-1, positions)), axis=1)
    return ops.reshape(ops.take_along_axis(sorted_partners, ranks, axis=1), ops.shape(images))


def transfer_spectrum(images: keras.KerasTensor, partners: keras.KerasTensor) -> keras.KerasTensor:
    """Return images with the strength of their partners in every band but the coarsest.

    The coarsest band is the exposure's and the chest's, not the sharpness's.
    """
    bands = _frequency_bands(images.shape[1], images.shape[2])
    wanted = ops.log(_band_strength(partners, bands)) - ops.log(_band_strength(images, bands))
    finer = ops.cast(ops.arange(SPECTRUM_BANDS) > 0, "float32")
    return _filter(images, ops.exp(ops.tensordot(wanted * finer, bands, axes=1)))


def _frequency_bands(height: int, width: int) -> keras.KerasTensor:
    """Return (bands, height, width) weights that sum to 1 at each frequency but the mean's.

    Bands are triangles, evenly spaced in the logarithm of the frequency.
    """
    y = ops.minimum(ops.arange(height), height - ops.arange(height))
    x = ops.minimum(ops.arange(width), width - ops.arange(width))
    radius = ops.sqrt(
        ops.square(ops.cast(y, "float32") / height)[:, None]
        + ops.square(ops.cast(x, "float32") / width)[None, :]
    )
    lowest = 1 / max(height, width)
    octaves = ops.log(ops.maximum(radius, lowest) / lowest) / ops.log(0.5 / lowest)
    position = ops.minimum(octaves, 1.0) * (SPECTRUM_BANDS - 1)
    centers = ops.reshape(ops.arange(SPECTRUM_BANDS, dtype="float32"), (-1, 1, 1))
    weights = ops.maximum(0.0, 1.0 - ops.abs(position[None] - centers))
    return weights * ops.cast(radius > 0, "float32")[None]


def _transform(images: keras.KerasTensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    flat = images[..., 0]
    return ops.fft2((flat, ops.zeros_like(flat)))


def _filter(images: keras.KerasTensor, gains: keras.KerasTensor) -> keras.KerasTensor:
    """Multiply the frequencies of (n, h, w, 1) images by (n, h, w) gains."""
    real, imaginary = _transform(images)
    filtered, _ = ops.ifft2((real * gains, imaginary * gains))
    return filtered[..., None]


def _band_strength(images: keras.KerasTensor, bands: keras.KerasTensor) -> keras.KerasTensor:
    """Return the root mean square of each image in each band, (n, bands)."""
    real, imaginary = _transform(images)
    power = ops.square(real) + ops.square(imaginary)
    total = ops.tensordot(power, bands, axes=((1, 2), (1, 2)))
    return ops.sqrt(total / ops.sum(bands, axis=(1, 2))) + 1e-3


# ---- sets of transforms


@dataclass(frozen=True)
class Transform:
    """One random transform of the table below."""

    number: int
    """Its own in the table, 0 to 999: part of its seed, wherever in the table it stands."""
    build: Callable[[int], layers.Layer]
    """From a seed to the layer that transforms."""


TRANSFORMS = {
    "flip": Transform(0, lambda seed: layers.RandomFlip("horizontal", seed=seed)),
    "rotation": Transform(
        1, lambda seed: layers.RandomRotation(15 / 360, fill_mode="nearest", seed=seed)
    ),
    "shift": Transform(
        2, lambda seed: layers.RandomTranslation(0.1, 0.1, fill_mode="nearest", seed=seed)
    ),
    "zoom": Transform(
        3, lambda seed: layers.RandomZoom((-0.2, 0.1), fill_mode="nearest", seed=seed)
    ),
    "reference_rotation": Transform(
        4, lambda seed: layers.RandomRotation(30 / 360, fill_mode="nearest", seed=seed)
    ),
    "reference_shift": Transform(
        5, lambda seed: layers.RandomTranslation(0.2, 0.2, fill_mode="nearest", seed=seed)
    ),
    "reference_zoom": Transform(
        6, lambda seed: layers.RandomZoom((-0.2, 0.2), (-0.2, 0.2), fill_mode="nearest", seed=seed)
    ),
    "brightness": Transform(
        14, lambda seed: layers.RandomBrightness(0.3, value_range=(0, WHITE), seed=seed)
    ),
    "contrast": Transform(
        15, lambda seed: layers.RandomContrast(0.3, value_range=(0, WHITE), seed=seed)
    ),
    "exposure": Transform(7, lambda seed: RandomExposure(seed, 0.8)),
    "spectrum": Transform(8, lambda seed: RandomSpectrum(seed, 0.8)),
    "spectrum_transfer": Transform(9, lambda seed: SpectrumTransfer(seed, 0.5)),
    "histogram_transfer": Transform(10, lambda seed: HistogramTransfer(seed, 0.5)),
    "resample": Transform(11, lambda seed: RandomResample(seed, 0.3)),
    "noise": Transform(12, lambda seed: RandomNoise(seed, 0.5)),
    "frame": Transform(13, lambda seed: RandomFrame(seed, 0.5)),
}
"""Every transform by its name, in the order in which they are applied.

A new one stands where it is to be applied and takes the next free number; the numbers of the
others stay, and with them what committed candidates were trained on."""

MILD_GEOMETRY = ("rotation", "shift", "zoom")
PHOTOMETRIC = ("brightness", "contrast", "exposure", "spectrum", "noise")
STRONG_GEOMETRY = ("flip", "reference_rotation", "reference_shift", "reference_zoom")


def build_augmentation(names: Sequence[str], size: int, seed: int) -> keras.Model:
    """Build a model that augments in training and changes nothing otherwise.

    Args:
        names: Of `TRANSFORMS`; they are applied in the order of that table.
        size: Side of the images, in pixels.
        seed: Of the random numbers; each transform has its own.

    Returns:
        From and to (n, size, size, 1) float32 in [0, 255].

    Raises:
        ValueError: if a name is unknown.
    """
    unknown = [name for name in names if name not in TRANSFORMS]
    if unknown:
        raise ValueError(f"unknown transforms {unknown}; choose of {', '.join(TRANSFORMS)}")
    images = keras.Input((size, size, 1), name="gray")
    x = images
    for name, transform in TRANSFORMS.items():
        if name in names:
            x = transform.build(seed * 1000 + transform.number)(x)
    return keras.Model(images, x, name="augmentation")


def draw_examples(images: np.ndarray, names: Sequence[str], seed: int) -> dict[str, np.ndarray]:
    """Return what each transform alone makes of some images in training.

    Transforms that change a share of the images leave the others as they are.

    Args:
        images: (n, size, size, 1) in [0, 255]; those that take something over from another
            image take it from one of these.
        names: Of `TRANSFORMS`.
        seed: Of the random numbers.

    Returns:
        For each name (n, size, size, 3) float32 in [0, 255].
    """
    return {
        name: np.repeat(
            build_augmentation([name], images.shape[1], seed)(
                images.astype(np.float32), training=True
            ),
            3, axis=-1,
        )
        for name in names
    }  # fmt: skip
