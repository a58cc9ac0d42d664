from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import ops

from utils.data import acquisition
from utils.data.acquisition import (
    SPECTRUM_BANDS,
    TRANSFORMS,
    HistogramTransfer,
    RandomExposure,
    RandomFrame,
    _band_strength,
    _frequency_bands,
    build_augmentation,
    draw_examples,
    transfer_histogram,
    transfer_spectrum,
)

SIZE = 32
NUMBERS = [transform.number for transform in TRANSFORMS.values()]


def smooth_images(count=6, seed=0):
    """Return gray images with structure at several scales, well inside the range."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(60, 180, (count, 4, 4, 1)).astype("float32")
    images = keras.ops.convert_to_numpy(ops.image.resize(coarse, (SIZE, SIZE)))
    return (images + random.normal(0, 6, images.shape)).clip(0, 255).astype("float32")


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_acts_in_training_alone_and_repeats_with_its_seed(name):
    images = smooth_images()
    augmentation = build_augmentation([name], SIZE, seed=3)
    assert np.array_equal(ops.convert_to_numpy(augmentation(images, training=False)), images)
    first = ops.convert_to_numpy(augmentation(images, training=True))
    assert first.shape == images.shape and np.isfinite(first).all()
    assert first.min() >= -1e-3 and first.max() <= 255.001
    again = build_augmentation([name], SIZE, seed=3)(images, training=True)
    np.testing.assert_allclose(ops.convert_to_numpy(again), first, atol=1e-3)
    rounds = [ops.convert_to_numpy(augmentation(images, training=True)) for _ in range(4)]
    assert any(np.abs(each - images).max() > 1 for each in (first, *rounds))


def test_every_image_has_draws_of_its_own():
    flat = np.full((8, SIZE, SIZE, 1), 120, "float32")
    exposed = ops.convert_to_numpy(RandomExposure(1)(flat, training=True))
    assert len(np.unique(exposed[:, 0, 0, 0].round(2))) > 4
    framed = ops.convert_to_numpy(RandomFrame(1)(flat, training=True))
    assert len({int((image == 120).sum()) for image in framed}) > 4
    assert (framed[:, 8:24, 8:24] == 120).all(), "the center is never covered"


def test_a_share_of_the_images_is_left_as_it_is():
    images = smooth_images(200)
    changed = ops.convert_to_numpy(HistogramTransfer(5, 0.5)(images, training=True))
    same = np.isclose(changed, images).all((1, 2, 3)).mean()
    assert 0.35 < same < 0.65


def test_a_histogram_is_carried_over_and_the_order_of_pixels_kept():
    images, partners = smooth_images(3, 0), smooth_images(3, 1)
    result = ops.convert_to_numpy(transfer_histogram(images, partners))
    for changed, own, other in zip(result, images, partners, strict=True):
        np.testing.assert_allclose(np.sort(changed.ravel()), np.sort(other.ravel()))
        # Equal pixels may change places among themselves.
        assert (np.diff(changed.ravel()[np.argsort(own.ravel())]) >= 0).all()


def test_the_strength_of_each_finer_band_is_carried_over():
    images, partners = smooth_images(3, 0), smooth_images(3, 1) * 0.5
    bands = _frequency_bands(SIZE, SIZE)
    result = transfer_spectrum(images, partners)
    got, own, wanted = (
        ops.convert_to_numpy(_band_strength(ops.convert_to_tensor(each), bands))
        for each in (result, images, partners)
    )
    # Neighboring bands overlap, so a band's gain reaches a little into the next one.
    np.testing.assert_allclose(got[:, 2:], wanted[:, 2:], rtol=0.25)
    assert np.abs(np.log(got / wanted))[:, 2:].mean() < np.abs(np.log(own / wanted))[:, 2:].mean()
    means = ops.convert_to_numpy(result).mean((1, 2, 3))
    np.testing.assert_allclose(means, images.mean((1, 2, 3)), rtol=1e-3)


def test_bands_share_every_frequency_but_the_mean():
    bands = ops.convert_to_numpy(_frequency_bands(SIZE, SIZE))
    assert bands.shape == (SPECTRUM_BANDS, SIZE, SIZE)
    total = bands.sum(0)
    assert total[0, 0] == 0
    np.testing.assert_allclose(np.delete(total.ravel(), 0), 1, rtol=1e-5)


def test_an_unknown_transform_is_refused():
    with pytest.raises(ValueError, match=r"\['clahe'\]; choose of flip"):
        build_augmentation(["clahe", "flip"], SIZE, 1)


def test_examples_show_one_transform_each():
    images = np.random.default_rng(0).uniform(50, 200, (4, 32, 32, 1))
    examples = draw_examples(images, ["exposure", "frame"], 1)
    assert list(examples) == ["exposure", "frame"]
    for changed in examples.values():
        assert changed.shape == (4, 32, 32, 3)
        np.testing.assert_array_equal(changed[..., 0], changed[..., 2])
        assert np.abs(changed[..., :1] - images).max() > 10
    np.testing.assert_array_equal(draw_examples(images, ["frame"], 1)["frame"], examples["frame"])


def test_a_transform_that_is_inserted_leaves_the_others_as_they_are(monkeypatch):
    images = smooth_images()

    def draw_all():
        return {
            name: ops.convert_to_numpy(build_augmentation([name], SIZE, 3)(images, training=True))
            for name in TRANSFORMS
        }

    before = draw_all()
    longer = dict(list(TRANSFORMS.items())[:5])
    longer["new"] = replace(TRANSFORMS["noise"], number=max(NUMBERS) + 1)
    monkeypatch.setattr(acquisition, "TRANSFORMS", longer | TRANSFORMS)
    assert list(acquisition.TRANSFORMS)[5] == "new"
    for name, after in draw_all().items():
        np.testing.assert_allclose(after, before[name], atol=1e-3, err_msg=name)


def test_every_transform_has_a_number_of_its_own():
    assert len(set(NUMBERS)) == len(NUMBERS)
    assert all(0 <= number < 1000 for number in NUMBERS), "seeds of two studies must not meet"
    committed = (
        "flip", "rotation", "shift", "zoom", "reference_rotation", "reference_shift",
        "reference_zoom", "exposure", "spectrum", "spectrum_transfer", "histogram_transfer",
        "resample", "noise", "frame",
    )  # fmt: skip
    kept = {name: TRANSFORMS[name].number for name in committed}
    assert kept == {name: number for number, name in enumerate(committed)}
