"""Networks are flat graphs with the published baseline's parameters and preprocessing."""

import re
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest

from utils.common.study import load_study
from utils.explanation.heat_maps import default_layer
from utils.models.backbones import (
    SplitError,
    build_backbone,
    build_head,
    count_parameters,
    join,
    preprocess_images,
    split_model,
)
from utils.models.catalogue import BACKBONES, BackboneFacts, Preprocessing
from utils.models.export import export_model
from utils.models.weights import resolve_weights


@pytest.fixture(scope="module")
def resnet50():
    return build_backbone(resolve_weights("resnet50", "random", seed=1))


# Two networks that the study does not have, whose pixels are scaled in other ways.
MOBILENET = BackboneFacts(
    name="mobilenet",
    keras_name="MobileNetV2",
    url="https://example.org/mobilenet_v2/mobilenet_v2_notop.h5",
    md5="0" * 32,
    preprocessing=Preprocessing(bgr=False, scale=1 / 127.5, offset=(-1.0, -1.0, -1.0)),
    block_end=r"block_\d+_add",
    gradcam_layer="out_relu",
)
DEVIATIONS = (0.229, 0.224, 0.225)
DENSENET = replace(
    MOBILENET,
    name="densenet",
    keras_name="DenseNet121",
    preprocessing=Preprocessing(
        bgr=False,
        scale=tuple(1 / (255 * deviation) for deviation in DEVIATIONS),
        offset=tuple(
            -mean / deviation
            for mean, deviation in zip((0.485, 0.456, 0.406), DEVIATIONS, strict=True)
        ),
    ),
)


@pytest.mark.parametrize("facts", [*BACKBONES.values(), MOBILENET, DENSENET], ids=lambda f: f.name)
def test_preprocessing_is_keras_own(facts):
    images = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype("float32")
    inputs = keras.Input((8, 8, 3))
    outputs = preprocess_images(inputs, facts.preprocessing)
    written = keras.Model(inputs, outputs).to_json()
    ours = keras.models.model_from_json(written).predict(images, verbose=0)
    module = sys.modules[getattr(keras.applications, facts.keras_name).__module__]
    np.testing.assert_allclose(ours, module.preprocess_input(images.copy()), atol=1e-4)


@pytest.mark.slow
def test_a_new_backbone_is_one_entry(monkeypatch):
    monkeypatch.setitem(BACKBONES, MOBILENET.name, MOBILENET)
    backbone = build_backbone(resolve_weights("mobilenet", "random", seed=1))
    assert backbone.name == "mobilenet" and backbone.output_shape == (None, 7, 7, 1280)
    model = join(backbone, build_head(backbone.output_shape[1:], seed=1))
    assert default_layer(model) == "out_relu"
    with pytest.raises(SplitError, match="choose the end of a block: block_2_add, block_4_add"):
        split_model(model, "nothing")


@pytest.mark.slow
@pytest.mark.parametrize("facts", BACKBONES.values(), ids=lambda facts: facts.name)
def test_every_entry_names_layers_and_a_key_that_exist(facts):
    backbone = build_backbone(resolve_weights(facts.name, "random"))
    assert backbone.name == facts.name
    names = [layer.name for layer in backbone.layers]
    assert facts.gradcam_layer in names
    assert any(re.fullmatch(facts.block_end, name) for name in names)
    assert hasattr(load_study("sample"), facts.copies_key)


def test_resnet50_has_the_parameters_of_the_published_baseline(resnet50):
    head = build_head(resnet50.output_shape[1:], seed=1)
    counts = count_parameters(join(resnet50, head))
    assert counts == {"total": 75_034_370, "trainable": 51_446_658, "frozen": 23_587_712}


def test_the_graph_is_flat(resnet50):
    model = join(resnet50, build_head(resnet50.output_shape[1:], seed=1))
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    assert model.get_layer("conv5_block3_out").output.shape == (None, 7, 7, 2048)


@pytest.mark.slow
def test_the_cut_is_an_argument(resnet50):
    weights = resolve_weights("resnet50", "random", seed=1)
    backbone, _ = split_model(build_backbone(weights), "conv4_block6_out")
    assert backbone.output_shape == (None, 14, 14, 1024)
    assert build_backbone(resolve_weights("vgg19", "random")).output_shape == (None, 7, 7, 512)


def test_head_weights_depend_on_the_seed_alone():
    kernels = [build_head((2, 2, 3), s).get_weights()[0] for s in (1, 1, 2)]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])


LOAD = """
import sys, keras, numpy as np
model = keras.models.load_model(sys.argv[1], safe_mode=True)
images = np.random.default_rng(0).uniform(0, 255, (2, 224, 224, 3)).astype("float32")
np.save(sys.argv[2], model.predict(images, verbose=0))
assert "utils" not in sys.modules
"""


@pytest.mark.slow
def test_the_export_loads_where_only_keras_is(resnet50, tmp_path):
    head = build_head(resnet50.output_shape[1:], seed=1)
    head.compile("adam", "sparse_categorical_crossentropy")
    exported = export_model(join(resnet50, head), tmp_path / "model.keras")
    assert not exported.compiled
    command = [sys.executable, "-c", LOAD, str(tmp_path / "model.keras"), str(tmp_path / "p.npy")]
    subprocess.run(command, check=True, cwd=tmp_path, env={"PATH": "", "HOME": str(tmp_path)})
    images = np.random.default_rng(0).uniform(0, 255, (2, 224, 224, 3)).astype("float32")
    expected = join(resnet50, head).predict(images, verbose=0)
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), expected, atol=1e-5)
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-5)


CUTS = ("conv3_block4_out", "conv4_block6_out", "conv5_block3_out")


@pytest.mark.slow
@pytest.mark.parametrize("split_layer", CUTS)
def test_a_model_cut_anywhere_is_still_the_model(resnet50, split_layer):
    model = join(resnet50, build_head(resnet50.output_shape[1:], seed=1))
    backbone, head = split_model(model, split_layer)
    images = np.random.default_rng(0).uniform(0, 255, (2, 224, 224, 3)).astype("float32")
    activations = backbone.predict(images, verbose=0)
    np.testing.assert_allclose(
        head.predict(activations, verbose=0), model.predict(images, verbose=0), atol=1e-5
    )
    assert backbone.layers[-1].name == split_layer
    assert not backbone.trainable_variables
    frozen = [layer for layer in head.layers if layer.weights and not layer.trainable]
    assert all(isinstance(layer, keras.layers.BatchNormalization) for layer in frozen)
    assert len(head.trainable_variables) >= 6


@pytest.mark.slow
def test_training_the_tail_trains_the_model(resnet50):
    model = join(resnet50, build_head(resnet50.output_shape[1:], seed=1))
    _, head = split_model(model, "conv5_block2_out")
    layer = model.get_layer("conv5_block3_3_conv")
    normalization = model.get_layer("conv5_block3_3_bn")
    before, statistics = layer.kernel.numpy(), normalization.get_weights()
    head.compile("sgd", "sparse_categorical_crossentropy")
    head.train_on_batch(np.ones((2, 7, 7, 2048), "float32"), np.array([0, 1]))
    assert np.abs(layer.kernel.numpy() - before).max() > 0
    for old, new in zip(
        statistics, model.get_layer("conv5_block3_3_bn").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(old, new)


def test_cuts_that_are_none_are_refused_with_those_that_are(resnet50):
    model = join(resnet50, build_head(resnet50.output_shape[1:], seed=1))
    for split_layer, reason in [
        ("conv4_block6_2_conv", "a connection goes around"),
        ("conv9_block1_out", "has no layer"),
        ("dropout_512", "belongs to the head"),
    ]:
        with pytest.raises(SplitError, match=f"{reason}.*conv4_block6_out"):
            split_model(model, split_layer)


@pytest.mark.slow
def test_a_lower_precision_keeps_weights_and_meaning(resnet50):
    weights = resolve_weights("resnet50", "random", seed=1)
    reduced = build_backbone(weights, precision="bfloat16")
    assert reduced.layers[-1].dtype_policy.name == "mixed_bfloat16"
    assert all(variable.dtype == "float32" for variable in reduced.weights)
    assert keras.config.dtype_policy().name == "float32"
    images = np.random.default_rng(0).uniform(0, 255, (2, 224, 224, 3)).astype("float32")
    full = resnet50.predict(images, verbose=0)
    close = reduced.predict(images, verbose=0).astype("float32")
    # He's random weights let rounding grow from layer to layer; ImageNet's stay within 3 %.
    assert not np.array_equal(close, full)
    assert np.corrcoef(close.ravel(), full.ravel())[0, 1] > 0.95
