"""From pixels or from files, the same image has the same probability, to the last digit."""

from functools import partial

import keras
import numpy as np
import pytest
from PIL import Image

from tests.ten_crops import predict_ten_crops
from utils.data.images import DatasetError, load_images
from utils.data.regions import cover_region
from utils.models import prediction
from utils.models.architectures import build_network
from utils.models.export import with_ten_crops
from utils.models.prediction import predict_files, predict_pixels, run_network

COUNT = 5


@pytest.fixture(scope="module")
def network():
    return build_network("small_cnn", 32, seed=1, full_size=True)


@pytest.fixture
def small_batches(monkeypatch):
    """Let five images be two batches and a rest."""
    monkeypatch.setattr(prediction, "BATCH_SIZE", 2)


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for number in range(COUNT):
        pixels = random.integers(0, 256, (40, 60), np.uint8) // (number + 1)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return tmp_path


NAMES = [f"{number}.png" for number in range(COUNT)]


def test_batches_of_pixels_are_those_of_keras_predict(network, folder, small_batches):
    pixels = load_images(folder, NAMES)
    outputs = run_network(network, pixels)
    expected = network.predict(pixels.astype("float32"), batch_size=2, verbose=0)
    np.testing.assert_array_equal(outputs, expected)
    probability = predict_pixels(network, pixels, "with a bar")
    np.testing.assert_array_equal(probability, expected[:, 1])
    assert probability.dtype == np.float64


def test_files_are_read_in_their_order(network, folder, small_batches):
    names = NAMES[::-1]
    probability = predict_files(network, folder, names, "files")
    np.testing.assert_array_equal(probability, predict_pixels(network, load_images(folder, names)))
    assert len(set(probability)) == COUNT


def test_a_change_is_made_before_the_network_sees_a_batch(network, folder, small_batches):
    pixels = load_images(folder, NAMES)
    transform = partial(cover_region, region="lungs removed")
    covered = predict_pixels(network, pixels, transform=transform)
    np.testing.assert_array_equal(covered, predict_pixels(network, transform(pixels)))
    assert (covered != predict_pixels(network, pixels)).all()


def test_a_file_that_cannot_be_read_has_a_reason_and_no_probability(network, folder, small_batches):
    # One batch with a file that can be read and one that cannot, and one with none at all.
    for name in ("1.png", "2.png", "3.png"):
        (folder / name).write_text("no image")
    unreadable: dict[str, str] = {}
    probability = predict_files(network, folder, NAMES, "files", unreadable)
    assert list(unreadable) == ["1.png", "2.png", "3.png"]
    assert "no image of a known kind" in unreadable["1.png"]
    np.testing.assert_array_equal(np.isnan(probability), [False, True, True, True, False])
    with pytest.raises(DatasetError, match="1.png cannot be read"):
        predict_files(network, folder, NAMES, "files")


def test_the_features_of_a_part_of_a_network_are_its_outputs(network, folder):
    part = keras.Model(network.inputs, network.get_layer("mean_over_places").output)
    assert run_network(part, load_images(folder, NAMES)).shape == (COUNT, 256)


@pytest.mark.slow
def test_ten_crops_of_arrays_are_those_of_the_graph(network):
    random = np.random.default_rng(0)
    pixels = random.uniform(0, 255, (3, 28, 28, 3)).repeat(8, axis=1).repeat(8, axis=2)
    graph = with_ten_crops(network)
    expected = predict_pixels(graph, pixels)
    trained = graph.get_layer(network.name)
    np.testing.assert_allclose(predict_ten_crops(trained, pixels), expected, atol=1e-5)
    gray = pixels.mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(predict_ten_crops(trained, gray), expected, atol=1e-5)
    assert np.abs(predict_pixels(network, pixels) - expected).max() > 1e-4, "crops change nothing"
    mirrored = predict_ten_crops(trained, pixels[:, :, ::-1])
    np.testing.assert_allclose(mirrored, expected, atol=1e-5)
