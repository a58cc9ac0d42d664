"""Augmented copies are reproducible; the geometry is that of Keras' ImageDataGenerator.

Random crops keep what they say, and a whole image is resized the same way.
"""

import numpy as np
import pytest
from keras.src.legacy.preprocessing.image import ImageDataGenerator
from PIL import Image

from utils.data.augmentation import (
    ASPECT,
    IDENTITY,
    PUBLISHED_RANGES,
    Augmentation,
    affine_matrix,
    augment_images,
    crop_images,
    draw_augmentation,
    draw_box,
    draw_single_transform,
)

SIZE = 64


@pytest.fixture
def image() -> np.ndarray:
    """A smooth test image, so that interpolation differs little between libraries."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    channels = [120 + 100 * np.sin(5 * x + k) * np.cos(4 * y - k) for k in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def test_a_view_depends_on_image_seed_and_number_alone():
    first = draw_augmentation("a", seed=1, copy=0)
    assert first == draw_augmentation("a", seed=1, copy=0)
    others = [("b", 1, 0), ("a", 2, 0), ("a", 1, 1)]
    assert all(first != draw_augmentation(*other) for other in others)


def test_draws_stay_within_the_ranges_and_fill_them():
    draws = [draw_augmentation(str(number), 0, 0) for number in range(2000)]
    rotations = np.array([draw.rotation for draw in draws])
    assert np.abs(rotations).max() <= PUBLISHED_RANGES.rotation
    assert rotations.min() < -29 and rotations.max() > 29
    for name, (low, high) in {
        "width_shift": (-0.2, 0.2), "height_shift": (-0.2, 0.2), "zoom_x": (0.8, 1.2),
        "zoom_y": (0.8, 1.2), "shear": (-10, 10), "brightness": (0.8, 1.2),
    }.items():  # fmt: skip
        values = np.array([getattr(draw, name) for draw in draws])
        assert low <= values.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < values.max() <= high
    assert 0.45 < np.mean([draw.horizontal_flip for draw in draws]) < 0.55


def test_the_identity_changes_nothing(image):
    np.testing.assert_allclose(augment_images(image[None], [IDENTITY])[0], image, atol=1e-3)


@pytest.mark.parametrize("number", range(6))
def test_geometry_is_that_of_image_data_generator(image, number):
    drawn = draw_augmentation("image", 7, number)
    expected = ImageDataGenerator(fill_mode="nearest").apply_transform(
        image,
        {
            "theta": drawn.rotation, "tx": drawn.width_shift * SIZE,
            "ty": drawn.height_shift * SIZE, "shear": drawn.shear,
            "zx": drawn.zoom_x, "zy": drawn.zoom_y,
            "flip_horizontal": drawn.horizontal_flip, "brightness": drawn.brightness,
        },
    )  # fmt: skip
    # Keras' brightness passes through 8-bit pixels, which ours does not: up to two gray levels.
    assert np.abs(augment_images(image[None], [drawn])[0] - expected).max() < 2.5


def test_a_flip_mirrors_and_a_shift_moves(image):
    flipped = augment_images(image[None], [Augmentation(horizontal_flip=True)])[0]
    np.testing.assert_allclose(flipped, image[:, ::-1], atol=1e-3)
    shifted = augment_images(image[None], [Augmentation(width_shift=0.25)])[0]
    np.testing.assert_allclose(shifted[:, : SIZE * 3 // 4], image[:, SIZE // 4 :], atol=1e-3)


def test_brightness_is_clipped_to_the_pixel_range(image):
    bright = augment_images(image[None] + 60, [Augmentation(brightness=1.2)])[0]
    assert bright.max() == 255 and bright.min() >= 0


def test_single_transforms_leave_the_others_alone():
    only = draw_single_transform("rotation", "image", 0, 0)
    assert only.rotation != 0
    assert Augmentation(rotation=only.rotation) == only
    zoom = draw_single_transform("zoom", "image", 0, 0)
    assert zoom.zoom_x != zoom.zoom_y and zoom.rotation == 0
    with pytest.raises(ValueError, match="'twist'; choose one of rotation"):
        draw_single_transform("twist", "image", 0, 0)


def test_the_center_stays_under_rotation():
    matrix = affine_matrix(Augmentation(rotation=30, zoom_x=1.2, zoom_y=0.8, shear=5), SIZE)
    center = np.array([(SIZE - 1) / 2, (SIZE - 1) / 2, 1])
    np.testing.assert_allclose(matrix @ center, center)


def test_each_image_needs_its_augmentation(image):
    with pytest.raises(ValueError, match="1 images but 2 augmentations"):
        augment_images(image[None], [IDENTITY, IDENTITY])


@pytest.mark.parametrize("smallest", [0.08, 0.5, 0.8])
def test_boxes_keep_the_share_of_the_area_and_the_aspect(smallest):
    random = np.random.default_rng(0)
    boxes = np.array([draw_box(224, smallest, random) for _ in range(2000)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    share = width * height / 224**2
    assert smallest - 0.01 < share.min() < smallest + 0.02 and share.max() <= 1
    aspect = width / height
    assert aspect.min() > ASPECT[0] * 0.97 and aspect.max() < ASPECT[1] * 1.03
    assert aspect.max() > 1.2 and aspect.min() < 0.85
    # Boxes lie everywhere in the image, and nowhere outside it.
    assert boxes.min() == 0 and boxes.max() == 224
    center = (boxes[:, 0] + boxes[:, 2]) / 2
    assert abs(center.mean() - 112) < 4


def test_nothing_but_the_whole_image_fits_at_1():
    random = np.random.default_rng(1)
    assert {draw_box(224, 1.0, random) for _ in range(500)} == {(0, 0, 224, 224)}


def test_crops_are_cut_and_resized_in_one_step():
    ramp = np.tile(np.arange(224, dtype=np.uint8)[None, :, None], (224, 1, 1))
    images = np.stack([ramp] * 64)
    crops = crop_images(images, 32, 0.08, np.random.default_rng(2))
    assert crops.shape == (64, 32, 32, 1) and crops.dtype == np.float32
    # On a ramp a crop spans its own part of the gray values: each image another one.
    spans = np.ptp(crops[..., 0], axis=(1, 2))
    assert spans.min() < 90 < 150 < spans.max() and len({tuple(c[0, :, 0]) for c in crops}) > 60
    again = crop_images(images, 32, 0.08, np.random.default_rng(2))
    assert np.array_equal(crops, again)

    whole = crop_images(images[:1], 32, 1.0, np.random.default_rng(3))[0, ..., 0]
    expected = Image.fromarray(ramp[..., 0]).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(whole, np.asarray(expected))
