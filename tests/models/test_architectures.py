import subprocess
import sys

import keras
import numpy as np
import pytest

from utils.data.splits import reduce_images
from utils.models import architectures
from utils.models.architectures import ARCHITECTURES, NetworkError, build_network, load_pretrained
from utils.models.export import export_full_size, export_model
from utils.models.weights import load_backbone_weights, resolve_weights


@pytest.mark.parametrize(
    "architecture",
    [name if name == "small_cnn" else pytest.param(name, marks=pytest.mark.slow)
     for name in ARCHITECTURES],
)  # fmt: skip
def test_the_full_graph_gives_what_the_reduced_one_does(architecture, tmp_path):
    images = np.random.default_rng(1).integers(0, 256, (2, 224, 224, 1), np.uint8)
    images = np.repeat(images, 3, axis=-1)
    network = build_network(architecture, 64, seed=1, dropout=0.1)
    full = export_full_size(network, tmp_path / "full.keras")
    assert full.name == architecture and full.get_layer("dropout").rate == 0.1
    reduced = network.predict(reduce_images(images, 64).astype("float32"), verbose=0)
    assert reduced.shape == (2, 2)
    np.testing.assert_allclose(reduced.sum(1), 1, rtol=1e-5)
    # Gray values are rounded for training; the exported graph keeps the fractions.
    difference = full.predict(images.astype("float32"), verbose=0) - reduced
    assert np.abs(difference).max() < 0.05


def test_the_same_seed_gives_the_same_network():
    first, second = (build_network("small_cnn", 32, seed=5) for _ in range(2))
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        assert np.array_equal(a, b)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(NetworkError, match="choose one of resnet50, efficientnet_lite0"):
        build_network("alexnet", 64, 1)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["resnet50", "hybrid_vit"])
def test_pretrained_layers_are_loaded_by_their_names(architecture, monkeypatch):
    weights = resolve_weights("resnet50", "random", seed=7)
    monkeypatch.setattr(architectures, "resolve_weights", lambda backbone: weights)
    network = build_network(architecture, 32, seed=1)
    assert load_pretrained(network, architecture) == (
        f"random (seed 7) (random, {weights.sha256[:12]})"
    )
    resnet = keras.applications.ResNet50(weights=None, include_top=False)
    load_backbone_weights(resnet, weights)
    kernels = [model.get_layer("conv3_block4_3_conv").kernel for model in (network, resnet)]
    np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, kernels))


def test_a_network_without_pretrained_weights_keeps_its_own():
    network = build_network("plain_vit", 32, seed=1)
    before = network.get_weights()
    assert load_pretrained(network, "plain_vit") == "random"
    assert all(map(np.array_equal, before, network.get_weights()))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["hybrid_vit", "efficientnet_lite0"])
def test_an_exported_network_loads_where_only_keras_is(architecture, tmp_path):
    file = tmp_path / "model.keras"
    export_model(build_network(architecture, 64, seed=1, full_size=True), file)
    code = (
        "import keras, sys, numpy as np\n"
        f"model = keras.models.load_model({str(file)!r}, compile=False, safe_mode=True)\n"
        "assert 'utils' not in sys.modules\n"
        "print(model.predict(np.zeros((1, 224, 224, 3), 'float32'), verbose=0).shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "(1, 2)"
