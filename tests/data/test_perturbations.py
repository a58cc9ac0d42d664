import numpy as np
import pytest

from tests.data.test_acquisition import smooth_images
from utils.data.perturbations import PERTURBATIONS, UNCHANGED, choose_partners, perturb_images

LABELS = np.array([0, 1, 1, 0, 1, 1])


@pytest.fixture(scope="module")
def images():
    return smooth_images().astype("uint8")


@pytest.mark.parametrize("change", PERTURBATIONS)
def test_a_change_is_the_same_at_every_call(images, change):
    first = perturb_images(images, LABELS, change)
    assert first.shape == images.shape and first.dtype == np.float32
    assert first.min() >= 0 and first.max() <= 255
    np.testing.assert_allclose(perturb_images(images, LABELS, change), first, atol=1e-3)
    assert (np.abs(first - images).max() > 1) == (change != UNCHANGED)


def test_partners_are_of_the_other_class(images):
    partners = choose_partners(LABELS)
    assert (LABELS[partners] == 1 - LABELS).all()
    swapped = perturb_images(images, LABELS, "histogram_swap")
    for row, partner in enumerate(partners):
        np.testing.assert_allclose(
            np.sort(swapped[row].ravel()), np.sort(images[partner].ravel()), atol=1e-3
        )


def test_bad_requests_are_refused(images):
    with pytest.raises(ValueError, match="choose one of unchanged, exposure"):
        perturb_images(images, LABELS, "rotation")
    with pytest.raises(ValueError, match="images of both"):
        perturb_images(images, np.ones(6, int), "spectrum_swap")
