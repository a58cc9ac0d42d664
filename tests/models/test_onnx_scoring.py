"""The shipped network says on ONNX Runtime what it says in Keras."""

import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest

from tests.models.test_onnx_export import assert_is_grad_cam
from utils.common.constants import PNEUMONIA
from utils.common.files import file_sha256, read_json
from utils.common.paths import ROOT
from utils.common.study import load_study
from utils.data.download import fetch
from utils.data.images import load_image, load_images
from utils.data.index import build_index
from utils.models import registry
from utils.models.export import without_ten_crops
from utils.models.onnx_export import build_onnx
from utils.models.onnx_scoring import OnnxNetwork
from utils.models.prediction import predict_pixels, run_network
from utils.models.registry import PHANTOMS, SHIPPED, ModelError, open_shipped_model
from utils.tools.foreign import make_foreign_images

TOLERANCE = 1e-4
CAUSES = re.compile("^(CI|.*TELEMETRY.*|GITHUB_.*|TF_BUILD|.*_CI|.*UNIT_TESTS)$")
"""Variables for which ONNX Runtime reports nothing."""


@pytest.fixture(scope="module")
def shipped() -> OnnxNetwork:
    return open_shipped_model().open()


@pytest.fixture(scope="module")
def network():
    return open_shipped_model().load()


@pytest.fixture(scope="module")
def whole(network):
    """Return the network without its ten crops, by whose features maps and guard go."""
    return without_ten_crops(network)


@pytest.fixture(scope="module")
def phantoms() -> np.ndarray:
    return np.stack([load_image(file) for file in sorted(PHANTOMS.rglob("*.jpeg"))])


@pytest.mark.slow
def test_onnx_runtime_keeps_no_record_of_who_scores_and_reports_to_nobody(tmp_path):
    code = "from utils.models.registry import open_shipped_model; open_shipped_model().open()"
    # Its telemetry stands still in workflows, where it would hide that it was left on.
    left = {key: value for key, value in os.environ.items() if not CAUSES.search(key)}
    homes = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "TMPDIR", "USERPROFILE"), str(tmp_path))
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=left | homes, check=True)
    assert list(tmp_path.rglob("*")) == []


def test_the_record_is_that_of_the_file():
    record = read_json(SHIPPED / registry.RECORD)["released"]["onnx"]
    file = SHIPPED / record["file"]
    assert file == open_shipped_model().onnx
    assert (record["sha256"], record["bytes"]) == (file_sha256(file), file.stat().st_size)
    assert record["bytes"] <= 10_000_000
    model = onnx.load(file)
    (opset,) = model.opset_import
    assert opset.version == record["opset"] <= 18
    assert record["producer"] == f"{model.producer_name}, {model.producer_version}"


@pytest.mark.slow
def test_the_file_is_written_again_from_the_keras_file(whole):
    """Weights and nodes, whatever the version of onnx and the last digits of resizing."""
    committed, again = (
        onnx.load(open_shipped_model().onnx).graph,
        build_onnx(whole, crops=True).graph,
    )
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
def test_plain_probabilities_of_phantoms_are_those_of_the_whole_image(shipped, whole, phantoms):
    expected = predict_pixels(whole, phantoms)
    found = predict_pixels(open_shipped_model().open(plain=True), phantoms)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    assert np.abs(found - predict_pixels(shipped, phantoms)).max() > 100 * TOLERANCE


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
def test_the_class_activation_map_is_grad_cam_of_the_whole_image(
    shipped, whole, phantoms, class_index
):
    assert_is_grad_cam(shipped, whole, phantoms.astype(np.float32), class_index)


@pytest.mark.slow
def test_features_are_those_of_keras(shipped, whole, phantoms):
    """By which the guard judges, also of images that are unlike any radiograph."""
    known = keras.Model(whole.inputs, whole.get_layer("mean_over_places").output)
    foreign = make_foreign_images()
    for images in (phantoms, foreign["photographs"], foreign["noise"]):
        np.testing.assert_allclose(
            shipped.measure_features(images), run_network(known, images), atol=1e-3
        )


@pytest.mark.slow
def test_one_run_gives_the_same_probabilities_and_features_to_the_bit(shipped, phantoms):
    images = np.concatenate([phantoms, 255 - phantoms])
    probabilities, features = shipped.predict_with_features(images)
    np.testing.assert_array_equal(probabilities, shipped.predict_on_batch(images))
    np.testing.assert_array_equal(features, shipped.measure_features(images))
    assert np.ptp(probabilities) > 0.1


def test_a_file_that_is_not_the_recorded_one_is_refused(tmp_path, monkeypatch):
    for file in SHIPPED.iterdir():
        if file.is_file():
            (tmp_path / file.name).symlink_to(file)
    monkeypatch.setattr(registry, "SHIPPED", tmp_path)
    assert open_shipped_model().onnx == tmp_path / "released.onnx"
    (tmp_path / "released.onnx").unlink()
    with pytest.raises(ModelError, match="released.onnx is missing; restore it: git checkout"):
        open_shipped_model()
    (tmp_path / "released.onnx").write_bytes(b"something else")
    with pytest.raises(ModelError, match="released.onnx is not the file that was recorded"):
        open_shipped_model()
