"""ONNX files say what the Keras networks say that they were written from."""

from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from tf_keras_vis.gradcam import Gradcam
from tf_keras_vis.utils.scores import CategoricalScore

from utils.common.constants import PNEUMONIA
from utils.common.files import file_sha256
from utils.explanation.heat_maps import build_explainer, build_score_model, default_layer
from utils.models import onnx_export
from utils.models.architectures import build_network
from utils.models.export import TEN_CROPS, TooLargeError, shrink_model, with_ten_crops
from utils.models.onnx_export import ExportError, build_onnx, export_onnx
from utils.models.onnx_scoring import FEATURES, PROBABILITIES, OnnxNetwork, resize_matrix

TOLERANCE = 1e-4


def draw_images(count: int, seed: int = 0) -> np.ndarray:
    """Return coarse noise in color: fine noise is gray to a network that reduces it."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (count, 28, 28, 3)).astype(np.float32)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def build_rounded(architecture: str, size: int, folder: Path) -> keras.Model:
    """Return a network with random weights, those of normalization too, in half precision."""
    network = build_network(architecture, size, seed=1, full_size=True)
    random = np.random.default_rng(2)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            gamma, beta = (random.uniform(-0.5, 0.5, each.shape) for each in (gamma, beta))
            layer.set_weights([1 + gamma, beta, mean, variance])
            layer.momentum = 0
    network(draw_images(8, seed=3), training=True)  # sets mean and variance
    last = network.get_layer("probabilities")
    features = keras.Model(network.inputs, last.input).predict_on_batch(draw_images(5))
    # Scores of about 1 and on both sides of 0: a network that always says the same tests nothing.
    kernel = random.normal(size=last.kernel.shape)
    kernel /= (features @ kernel).std(axis=0)
    last.set_weights([kernel, -(features @ kernel).mean(axis=0)])
    shrink_model(network, folder / "rounded.keras")
    return network


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> keras.Model:
    return build_rounded("small_cnn", 32, tmp_path_factory.mktemp("small"))


def assert_same(file: Path, network: keras.Model, layer: str, images: np.ndarray) -> None:
    """Assert that a file answers as its network, and gives out the feature map of a layer."""
    opened = OnnxNetwork(file)
    expected = network.predict_on_batch(images)
    assert np.ptp(expected[:, PNEUMONIA]) > 100 * TOLERANCE, "a constant would do"
    np.testing.assert_allclose(opened.predict_on_batch(images), expected, atol=TOLERANCE)
    features = keras.Model(network.inputs, network.get_layer(layer).output)
    (found,) = opened._run(images, [FEATURES])
    expected = features.predict_on_batch(images)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE * expected.max())
    np.testing.assert_allclose(
        opened.measure_features(images), expected.mean(axis=(1, 2)), atol=TOLERANCE * expected.max()
    )


@pytest.mark.slow
@pytest.mark.parametrize("size", [56, 224])
def test_an_untrained_network_is_written_as_it_is(size, tmp_path):
    network = build_rounded("small_cnn", size, tmp_path)
    record = export_onnx(network, tmp_path / "a.onnx")
    assert_same(tmp_path / "a.onnx", network, "stage4_2_relu", draw_images(5))
    assert record["sha256"] == file_sha256(tmp_path / "a.onnx")
    assert record["bytes"] == (tmp_path / "a.onnx").stat().st_size


@pytest.mark.slow
def test_sides_that_strides_do_not_divide_are_padded_as_keras_does(tmp_path):
    network = build_rounded("efficientnet_lite0", 100, tmp_path)
    export_onnx(network, tmp_path / "a.onnx")
    assert_same(tmp_path / "a.onnx", network, "head_relu", draw_images(5))


@pytest.mark.parametrize("count", [1, 4, 9])
def test_any_number_of_images_is_scored_and_each_as_if_alone(small, count, tmp_path):
    export_onnx(small, tmp_path / "a.onnx")
    opened, images = OnnxNetwork(tmp_path / "a.onnx"), draw_images(9)
    together = opened.predict_on_batch(images)[:count]
    np.testing.assert_allclose(opened.predict_on_batch(images[:count]), together, atol=1e-6)
    assert opened.measure_features(images[:count]).shape == (count, 256)


def test_the_file_is_what_others_can_open(small):
    model = build_onnx(small)
    assert [output.name for output in model.graph.output] == [PROBABILITIES, FEATURES]
    (opset,) = model.opset_import
    assert opset.domain == "" and opset.version <= 18
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "n"
    large = [each for each in model.graph.initializer if np.prod(each.dims) > 32 * 224]
    assert large and {each.data_type for each in large} == {onnx.TensorProto.FLOAT16}
    again = build_onnx(small)
    assert again.SerializeToString(deterministic=True) == model.SerializeToString(
        deterministic=True
    )


@pytest.mark.parametrize(("source", "target"), [(224, 128), (192, 128), (224, 96), (224, 100),
                                                (192, 224), (4, 224), (224, 224)])  # fmt: skip
def test_resizing_is_that_of_tensorflow(source, target):
    images = np.random.default_rng(0).uniform(0, 255, (2, source, source, 1)).astype(np.float32)
    expected = tf.image.resize(images, (target, target), antialias=True).numpy()[..., 0]
    matrix = resize_matrix(source, target)
    # TensorFlow places the centers of pixels in single precision.
    np.testing.assert_allclose(matrix @ images[..., 0] @ matrix.T, expected, atol=5e-3)


# ---- what is refused


def test_a_layer_without_a_translation_is_named():
    network = build_network("plain_vit", 32, seed=1, full_size=True)
    network.set_weights([np.zeros(weights.shape) for weights in network.get_weights()])
    with pytest.raises(ExportError, match="layer 'vit_tokens', a Reshape, has no translation"):
        build_onnx(network)


def test_weights_that_would_be_rounded_are_refused(tmp_path):
    network = build_network("small_cnn", 32, seed=1, full_size=True)
    with pytest.raises(ExportError, match="not exact in half precision; round them first"):
        export_onnx(network, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_answers_otherwise_is_not_written(small, tmp_path, monkeypatch):
    monkeypatch.setitem(
        onnx_export._WRITERS, keras.layers.ReLU, lambda graph, layer, x: graph.add("Abs", x)
    )
    with pytest.raises(ExportError, match="differs from small_cnn by"):
        export_onnx(small, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_too_large_is_not_written(small, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "LARGEST_BYTES", 1000)
    with pytest.raises(TooLargeError, match="take a smaller network"):
        export_onnx(small, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


# ---- ten crops


def test_ten_crops_are_corners_and_center_each_as_it_is_and_mirrored():
    plain = [crop[:3] for crop in TEN_CROPS[:5]]
    assert plain == [(0, 0, 192), (0, 32, 192), (32, 0, 192), (32, 32, 192), (16, 16, 192)]
    assert [crop[:3] for crop in TEN_CROPS[5:]] == plain
    assert [crop[3] for crop in TEN_CROPS] == 5 * [False] + 5 * [True]


def average_by_hand(network: keras.Model, images: np.ndarray) -> np.ndarray:
    """Return the probability of PNEUMONIA whose log-odds are the mean over ten crops."""
    trained = keras.Model(network.get_layer("reduce").output, network.outputs[0])
    log_odds = []
    for top, left in ((0, 0), (0, 32), (32, 0), (32, 32), (16, 16)):
        crop = images.mean(axis=-1, keepdims=True)[:, top : top + 192, left : left + 192]
        for view in (crop, crop[:, :, ::-1]):
            size = trained.input_shape[1:3]
            pair = trained.predict_on_batch(tf.image.resize(view, size, antialias=True))
            log_odds.append(np.log(pair[:, 1]) - np.log(pair[:, 0]))
    return 1 / (1 + np.exp(-np.mean(log_odds, axis=0)))


def test_ten_crops_are_averaged_in_log_odds(small, tmp_path):
    images = draw_images(5)
    cropped = with_ten_crops(small)
    expected = average_by_hand(small, images)
    assert np.abs(expected - small.predict_on_batch(images)[:, 1]).max() > 0.01
    np.testing.assert_allclose(cropped.predict_on_batch(images)[:, 1], expected, atol=TOLERANCE)
    cropped.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras", compile=False, safe_mode=True)
    np.testing.assert_array_equal(loaded.predict_on_batch(images), cropped.predict_on_batch(images))


@pytest.mark.slow
def test_the_file_of_ten_crops_answers_so_and_gives_features_of_the_whole_image(small, tmp_path):
    images = draw_images(5)
    export_onnx(small, tmp_path / "whole.onnx")
    record = export_onnx(small, tmp_path / "crops.onnx", crops=True)
    whole, crops = (OnnxNetwork(tmp_path / f"{name}.onnx") for name in ("whole", "crops"))
    np.testing.assert_allclose(
        crops.predict_on_batch(images), with_ten_crops(small).predict_on_batch(images),
        atol=TOLERANCE,
    )  # fmt: skip
    np.testing.assert_allclose(
        crops.measure_features(images), whole.measure_features(images), rtol=1e-4
    )
    plain = OnnxNetwork(tmp_path / "crops.onnx", plain=True).predict_on_batch(images)
    np.testing.assert_allclose(plain, small.predict_on_batch(images), atol=TOLERANCE)
    assert np.abs(plain - crops.predict_on_batch(images)).max() > 100 * TOLERANCE
    assert crops.ten_crops and not whole.ten_crops
    whole_bytes = (tmp_path / "whole.onnx").stat().st_size
    assert record["bytes"] - whole_bytes < 1_100_000, "equal matrices are held once"
    # What a released file of ten crops holds is enough to write it again.
    held = with_ten_crops(small).get_layer(small.name)
    assert export_onnx(held, tmp_path / "again.onnx", crops=True)["sha256"] == record["sha256"]


# ---- class activation maps


@pytest.mark.parametrize("class_index", [0, 1])
def test_the_class_activation_map_is_grad_cam_of_the_class_score(small, class_index, tmp_path):
    export_onnx(small, tmp_path / "a.onnx")
    images = draw_images(4)
    assert_is_grad_cam(OnnxNetwork(tmp_path / "a.onnx"), small, images, class_index)


def assert_is_grad_cam(
    opened: OnnxNetwork, network: keras.Model, images: np.ndarray, class_index: int
) -> None:
    grad_cam = Gradcam(build_score_model(network))(
        CategoricalScore([class_index] * len(images)), images, expand_cam=False,
        normalize_cam=False, seek_penultimate_conv_layer=False,
        penultimate_layer=default_layer(network),
    )  # fmt: skip
    expected = np.asarray(grad_cam)
    found = opened.map_class(images, class_index)
    assert found.shape == expected.shape and (expected > 0).any()
    scale = expected.max(axis=(1, 2), keepdims=True)
    highest = np.where(scale > 0, scale, 1)
    np.testing.assert_allclose(found / highest, expected / highest, atol=1e-3)
    np.testing.assert_allclose(
        opened.explain(images, class_index), build_explainer(network)(images, class_index),
        atol=1e-3 * expected.max(),
    )  # fmt: skip
