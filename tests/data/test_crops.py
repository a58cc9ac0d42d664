"""Random crops keep what they say, and a whole image is resized the same way."""

import numpy as np
import pytest
from PIL import Image

from utils.data.crops import ASPECT, crop_images, draw_box


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
