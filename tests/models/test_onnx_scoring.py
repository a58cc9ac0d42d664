"""The shipped network says on ONNX Runtime what it says in Keras, and so does its detector."""

import os
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.models.test_onnx_export import assert_is_grad_cam
from utils.common.constants import PNEUMONIA
from utils.common.files import file_sha256, read_json
from utils.common.study import load_study
from utils.data.download import fetch
from utils.data.images import load_image, load_images
from utils.data.index import build_index
from utils.models import registry
from utils.models.guard import build_feature_model, load_detector, make_out_of_distribution_images
from utils.models.onnx_export import build_onnx
from utils.models.onnx_scoring import OnnxNetwork
from utils.models.prediction import predict_pixels, run_network
from utils.models.registry import DETECTOR_FILE, PHANTOMS, SHIPPED, ModelError, open_shipped_model

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def shipped() -> OnnxNetwork:
    return open_shipped_model().open()


@pytest.fixture(scope="module")
def network():
    return open_shipped_model().load()


@pytest.fixture(scope="module")
def phantoms() -> np.ndarray:
    return np.stack([load_image(file) for file in sorted(PHANTOMS.rglob("*.jpeg"))])


def test_the_record_is_that_of_the_file():
    record = read_json(SHIPPED / registry.RECORD)["small"]["onnx"]
    file = SHIPPED / record["file"]
    assert file == open_shipped_model().onnx
    assert (record["sha256"], record["bytes"]) == (file_sha256(file), file.stat().st_size)
    assert record["bytes"] <= 10_000_000
    model = onnx.load(file)
    (opset,) = model.opset_import
    assert opset.version == record["opset"] <= 18
    assert record["producer"] == f"{model.producer_name}, {model.producer_version}"


@pytest.mark.slow
def test_the_file_is_written_again_from_the_keras_file(network):
    """Weights and nodes, whatever the version of onnx and the last digits of resizing."""
    committed, again = onnx.load(open_shipped_model().onnx).graph, build_onnx(network).graph
    assert [node.op_type for node in committed.node] == [node.op_type for node in again.node]
    for there, here in zip(committed.initializer, again.initializer, strict=True):
        there, here = (onnx.numpy_helper.to_array(each) for each in (there, here))
        assert there.dtype == here.dtype
        np.testing.assert_allclose(there, here, atol=1e-6 if there.dtype == np.float32 else 0)


@pytest.mark.slow
def test_phantoms_have_the_same_probabilities(shipped, network, phantoms):
    expected = predict_pixels(network, phantoms)
    np.testing.assert_allclose(predict_pixels(shipped, phantoms), expected, atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.skipif("XRAY_ARCHIVE" not in os.environ, reason="XRAY_ARCHIVE names no archive")
def test_radiographs_of_validation_have_the_same_probabilities(shipped, network, tmp_path):
    fetch(tmp_path / "chest_xray", archive=Path(os.environ["XRAY_ARCHIVE"]))
    study = load_study("full")
    index = build_index(tmp_path / "chest_xray", study.seed, study.validation_fraction)
    names = index[index.split == "validation"].image_id
    assert len(names) > 700
    pixels = load_images(tmp_path / "chest_xray", names)
    expected = predict_pixels(network, pixels)
    assert np.ptp(expected) > 0.9
    np.testing.assert_allclose(predict_pixels(shipped, pixels), expected, atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("class_index", [0, PNEUMONIA])
def test_the_class_activation_map_is_grad_cam(shipped, network, phantoms, class_index):
    assert_is_grad_cam(shipped, network, phantoms.astype(np.float32), class_index)


@pytest.mark.slow
def test_the_detector_judges_by_the_same_features(shipped, network, phantoms):
    detector = load_detector(SHIPPED / DETECTOR_FILE)
    keras_features = partial(run_network, build_feature_model(network))
    for images in (phantoms, *make_out_of_distribution_images().values()):
        expected, found = (
            detector.measure_distance(measure(images))
            for measure in (keras_features, shipped.measure_features)
        )
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)
        assert ((found > detector.limit) == (expected > detector.limit)).all()


def test_a_file_that_is_not_the_recorded_one_is_refused(tmp_path, monkeypatch):
    for file in SHIPPED.iterdir():
        if file.is_file():
            (tmp_path / file.name).symlink_to(file)
    monkeypatch.setattr(registry, "SHIPPED", tmp_path)
    assert open_shipped_model().onnx == tmp_path / "shipped.onnx"
    (tmp_path / "shipped.onnx").unlink()
    with pytest.raises(ModelError, match="shipped.onnx is missing; restore it: git checkout"):
        open_shipped_model()
    (tmp_path / "shipped.onnx").write_bytes(b"something else")
    with pytest.raises(ModelError, match="shipped.onnx is not the file that was recorded"):
        open_shipped_model()
