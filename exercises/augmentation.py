"""Exercises of notebook 02: milder ranges, a tutorial's preprocessing, a thousand flips."""

from collections.abc import Callable, Sequence

import numpy as np

from exercises.checking import WrongAnswer, call, exercise, read_range
from utils.data.augmentation import AugmentationRanges, draw_augmentation, share_from_outside
from utils.models.backbones import preprocess_array

MOST_FROM_OUTSIDE = 0.05
"""Of the pixels of the median image."""
IMAGES_MEASURED = 100
"""Training images of which one view each is measured: seconds, however large the data set is."""
LEAST = {"rotation": 1.0, "width_shift": 0.01, "height_shift": 0.01, "shear": 0.5}
"""Below these, in degrees and fractions, a transform may as well be left out."""
LEAST_SPREAD = 0.02
"""Of the factors of zoom and brightness, from the lowest to the highest."""

FLIPS = 1000
WIDEST = 100
"""Of the predicted range of mirrored images: three standard deviations to either side are 95."""


@exercise
def check_milder_ranges(ranges: AugmentationRanges, image_keys: Sequence[str], seed: int) -> str:
    """Check ranges that keep the edge out of the image, with every transform still at work.

    Args:
        ranges: In the median image at most `MOST_FROM_OUTSIDE` may come from outside.
        image_keys: `pixel_sha256` of the training images; the first hundred are measured.
        seed: The study's seed.
    """
    if not isinstance(ranges, AugmentationRanges):
        raise WrongAnswer(
            "the answer is an `augmentation.AugmentationRanges(...)`, or `replace(ranges, ...)`, "
            f"not a {type(ranges).__name__}"
        )
    closed = [name for name, least in LEAST.items() if abs(getattr(ranges, name)) < least]
    for name in ("zoom", "brightness"):
        factors = getattr(ranges, name)
        try:
            lowest, highest = factors
        except TypeError:
            raise WrongAnswer(
                f"{name} is a pair of factors, such as (0.9, 1.1), not {factors!r}"
            ) from None
        if highest - lowest < LEAST_SPREAD:
            closed.append(name)
    if closed:
        raise WrongAnswer(
            f"{', '.join(closed)} no longer acts. Without transforms nothing comes from outside, "
            "and nothing is learned from it either: keep each of them, within smaller ranges"
        )
    outside = np.median([
        share_from_outside(draw_augmentation(key, seed, 0, ranges))
        for key in image_keys[:IMAGES_MEASURED]
    ])  # fmt: skip
    if outside > MOST_FROM_OUTSIDE:
        raise WrongAnswer(
            f"in the median image {outside:.0%} still come from outside. Close one range at a "
            "time: which of rotation, shift and zoom pulls in most of the edge?"
        )
    return (
        f"in the median image {outside:.1%} of the pixels come from outside, with all seven at work"
    )


@exercise
def check_tutorial_preprocessing(prepare: Callable[[np.ndarray], np.ndarray]) -> str:
    """Check a repaired preprocessing on small images of known colours.

    Args:
        prepare: From (n, h, w, 3) RGB in [0, 255] to what ResNet50 expects; right within 0.01.
    """
    images = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 3)).astype(np.float32)
    images[0] = (255, 0, 0)  # the first image is red
    images[1, 0, 0], images[1, 0, 1] = 0, 255
    expected = preprocess_array(images)
    prepared = np.asarray(call(prepare, images.copy()))
    if prepared.shape != images.shape:
        raise WrongAnswer(
            f"images of shape {images.shape} come out as {prepared.shape}; the shape must stay"
        )
    black, white = prepared[1, 0, 0], prepared[1, 0, 1]
    if (apart := np.abs(white - black).max()) < 10:
        raise WrongAnswer(
            f"black and white come out {apart:.2f} apart. ImageNet's mean of about 110 belongs to "
            "pixels of which range? Subtracted from others, all images look alike"
        )
    if np.allclose(prepared, expected, atol=0.01):
        return "pixels stay between 0 and 255, and the channels are turned round once, inside"
    if np.allclose(prepared, preprocess_array(images[..., ::-1]), atol=0.01):
        raise WrongAnswer(
            "a red image has its high value where blue should be. How often are the channels "
            "turned round on the way to the network, and who does it?"
        )
    if prepared.min() >= 0:
        raise WrongAnswer(
            "no value is below 0, so no mean was subtracted. Which function of this notebook does "
            "that?"
        )
    raise WrongAnswer(
        f"black becomes {', '.join(f'{value:.1f}' for value in black)}. Compare it with what the "
        "notebook prints for black, channel by channel"
    )


@exercise
def check_thousand_flips(mirrored: tuple[float, float], image_key: str, seed: int) -> str:
    """Check a prediction: a range for how many of a thousand views are mirrored.

    Args:
        mirrored: Lowest and highest number expected; at most `WIDEST` apart.
        image_key: `pixel_sha256` of the image.
        seed: The study's seed.
    """
    low, high = read_range(mirrored, "the range", 0, FLIPS)
    if high - low > WIDEST:
        raise WrongAnswer(
            f"a range {high - low:.0f} wide is safe and says little. The number of heads in n "
            "tosses has a standard deviation of sqrt(n) / 2; most draws lie within two of them"
        )
    count = sum(draw_augmentation(image_key, seed, copy).horizontal_flip for copy in range(FLIPS))
    if not low <= count <= high:
        raise WrongAnswer(
            f"the number lies {'above' if count > high else 'below'} your range, and predictions "
            "may be wrong. Each view tosses a fair coin: how many heads do you expect in "
            f"{FLIPS} tosses, and how far from that would not surprise you?"
        )
    return f"{count} of {FLIPS:,} views are mirrored, as a fair coin would have it"
