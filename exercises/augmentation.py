"""Exercises of notebook 02: milder ranges, a tutorial's preprocessing, a thousand flips."""

from collections.abc import Callable, Sequence

import numpy as np

from exercises.checking import WrongAnswer, call, exercise, read_range
from utils.data.augmentation import AugmentationRanges, draw_augmentation, share_from_outside
from utils.models.backbones import preprocess_array

MOST_FROM_OUTSIDE = 0.05
"""Largest accepted proportion of the pixels of the median image."""
IMAGES_MEASURED = 100
"""Training images measured, one augmented copy each: seconds, however large the data set is."""
LEAST = {"rotation": 1.0, "width_shift": 0.01, "height_shift": 0.01, "shear": 0.5}
"""Below these, in degrees or fractions, a transform counts as switched off."""
LEAST_SPREAD = 0.02
"""Smallest accepted spread of the factors of zoom and brightness, highest minus lowest."""

FLIPS = 1000
WIDEST = 100
"""Largest accepted width of the prediction: three standard deviations on each side are 95."""


@exercise
def check_milder_ranges(ranges: AugmentationRanges, image_keys: Sequence[str], seed: int) -> str:
    """Check ranges that keep repeated edge pixels rare, with every transform still active.

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
            "but the augmentation is gone, too: keep each transform, with a smaller range"
        )
    outside = np.median([
        share_from_outside(draw_augmentation(key, seed, 0, ranges))
        for key in image_keys[:IMAGES_MEASURED]
    ])  # fmt: skip
    if outside > MOST_FROM_OUTSIDE:
        raise WrongAnswer(
            f"in the median image {outside:.0%} of the pixels still come from outside. Set one "
            "range to zero at a time: which of rotation, shift and zoom contributes most?"
        )
    return f"in the median image {outside:.1%} of the pixels come from outside, and all seven act"


@exercise
def check_tutorial_preprocessing(prepare: Callable[[np.ndarray], np.ndarray]) -> str:
    """Check a corrected preprocessing on small images of known colors.

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
            f"images of shape {images.shape} come out as {prepared.shape}; keep the shape"
        )
    black, white = prepared[1, 0, 0], prepared[1, 0, 1]
    if (apart := np.abs(white - black).max()) < 10:
        raise WrongAnswer(
            f"black and white come out {apart:.2f} apart. ImageNet's mean of about 110 belongs to "
            "pixels in which range? Subtracted from any others, it makes all images look alike"
        )
    if np.allclose(prepared, expected, atol=0.01):
        return "pixels go in between 0 and 255, and the channel order is reversed once, inside"
    if np.allclose(prepared, preprocess_array(images[..., ::-1]), atol=0.01):
        raise WrongAnswer(
            "a red image has its high value where blue should be. How many times is the channel "
            "order reversed on the way to the network, and where?"
        )
    if prepared.min() >= 0:
        raise WrongAnswer(
            "no value is below 0, so no mean was subtracted. Which function in this notebook does "
            "that?"
        )
    raise WrongAnswer(
        f"black becomes {', '.join(f'{value:.1f}' for value in black)}. Compare it with what the "
        "notebook prints for black, channel by channel"
    )


@exercise
def check_thousand_flips(mirrored: tuple[float, float], image_key: str, seed: int) -> str:
    """Check a prediction: a range for how many of a thousand augmented copies are mirrored.

    Args:
        mirrored: Lowest and highest number expected; at most `WIDEST` apart.
        image_key: `pixel_sha256` of the image.
        seed: The study's seed.
    """
    low, high = read_range(mirrored, "the range", 0, FLIPS)
    if high - low > WIDEST:
        raise WrongAnswer(
            f"a range {high - low:.0f} wide is safe but says little. The number of heads in n "
            "tosses has a standard deviation of sqrt(n) / 2; most results lie within two of these"
        )
    count = sum(draw_augmentation(image_key, seed, copy).horizontal_flip for copy in range(FLIPS))
    if not low <= count <= high:
        raise WrongAnswer(
            f"the number lies {'above' if count > high else 'below'} your range; a prediction may "
            "be wrong. Each copy is like the toss of a fair coin: how many heads do you expect in "
            f"{FLIPS:,} tosses, and how large a deviation would not surprise you?"
        )
    return f"{count} of {FLIPS:,} copies are mirrored, as expected of a fair coin"
