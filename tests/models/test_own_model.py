"""A model that somebody brings is asked as it wants to be, or refused by what it lacks."""

import logging

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from utils.data.images import resize_image
from utils.explanation.heat_maps import explain_images
from utils.models.own_model import OwnModelError, open_own_model
from utils.models.registry import ModelError, OwnScorer, choose_model

RNG = np.random.default_rng(0)
IMAGES = np.stack([RNG.integers(0, high, (32, 24, 3), np.uint8) for high in (25, 100, 255)])


def base(shape):
    return keras.Sequential(
        [keras.Input(shape), layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization()]
    )


def sequential(shape=(32, 24, 3), units=1, activation="sigmoid", first=(), last=()):
    return keras.Sequential(
        [
            keras.Input(shape), *first, layers.Conv2D(4, 3, activation="relu"),
            layers.GlobalAveragePooling2D(), layers.Dense(units, activation=activation), *last,
        ]
    )  # fmt: skip


def functional(units=2, activation="softmax"):
    image = keras.Input((32, 24, 3))
    x = layers.GlobalAveragePooling2D()(base((32, 24, 3))(image, training=False))
    return keras.Model(image, layers.Dense(units, activation=activation)(x))


def nested_twice():
    inner = keras.Sequential([keras.Input((32, 24, 3)), base((32, 24, 3)), layers.ReLU()])
    head = keras.Sequential([layers.GlobalAveragePooling2D(), layers.Dense(1, "sigmoid")])
    return keras.Sequential([keras.Input((32, 24, 3)), inner, head])


def split_output(activation):
    layer = layers.Softmax() if activation == "softmax" else layers.Activation(activation)
    return sequential(units=2 if activation == "softmax" else 1, activation=None, last=[layer])


def randomize(model):
    """Give every weight a value of its own, so that a mix-up shows."""
    model.set_weights([RNG.uniform(0.05, 0.2, weight.shape) for weight in model.get_weights()])
    return model


MODELS = {
    "sequential": (sequential, "0..1"),
    "functional": (functional, "0..1"),
    "transfer": (lambda: functional(1, "sigmoid"), "0..1"),
    "nested twice": (nested_twice, "0..1"),
    "rescaling": (lambda: sequential(first=[layers.Rescaling(1 / 255)]), "0..255"),
    "softmax layer": (lambda: split_output("softmax"), "0..1"),
    "activation layer": (lambda: split_output("sigmoid"), "0..1"),
    "gray": (lambda: sequential((32, 24, 1)), "0..1"),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_it_says_what_it_says_by_itself(tmp_path, name, suffix):
    build, scale = MODELS[name]
    model = randomize(build())
    file = tmp_path / f"mine{suffix}"
    model.save(file)
    network, assumed = open_own_model(file)
    pixels = IMAGES.astype(np.float32)
    own = pixels.mean(-1, keepdims=True) if name == "gray" else pixels
    expected = model.predict_on_batch(own / (255 if scale == "0..1" else 1))[:, -1]
    found = network.predict_on_batch(pixels)
    assert network.input_shape == (None, 32, 24, 3) and found.shape == (3, 2)
    np.testing.assert_allclose(found[:, 1], expected, atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    assert np.ptp(expected) > 0.001, "images must differ for the model"
    assert f"pixels from {scale.replace('..', ' to ')} (assumed" in " ".join(assumed)
    maps = explain_images(network, pixels)
    assert maps.shape == (3, 32, 24)


@pytest.mark.parametrize("scale", ["0..255", "0..1", "-1..1"])
def test_scale_and_positive_change_what_is_assumed(tmp_path, scale):
    file = tmp_path / "mine.keras"
    for model in (sequential(), functional()):
        randomize(model).save(file)
        pixels = IMAGES.astype(np.float32)
        wanted = {"0..255": pixels, "0..1": pixels / 255, "-1..1": pixels / 127.5 - 1}[scale]
        expected = model.predict_on_batch(wanted)[:, -1]
        told = {positive: open_own_model(file, scale, positive) for positive in "01"}
        np.testing.assert_allclose(told["1"][0].predict_on_batch(pixels)[:, 1], expected, atol=1e-5)
        np.testing.assert_allclose(told["0"][0].predict_on_batch(pixels)[:, 0], expected, atol=1e-5)
        assert "as told" in " ".join(told["1"][1])
        assert "POSITIVE=1" in " ".join(told["0"][1]) and "POSITIVE=0" in " ".join(told["1"][1])


def test_what_is_assumed_is_said_on_the_terminal(tmp_path, caplog):
    file = tmp_path / "mine.keras"
    sequential().save(file)
    scorer = choose_model("full", str(file))
    assert isinstance(scorer, OwnScorer) and (scorer.threshold, scorer.temperature) == (0.5, 1.0)
    with caplog.at_level(logging.WARNING):
        scorer.load()
    for words in ("32 x 24 pixels", "SCALE=", "probability of PNEUMONIA", "POSITIVE=0", "0.5 on"):
        assert words in caplog.text


def two_inputs():
    first, second = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    x = layers.Flatten()(layers.Add()([first, second]))
    return keras.Model([first, second], layers.Dense(1, "sigmoid")(x))


REFUSED = {
    "three classes": (lambda: sequential(units=3, activation="softmax"), r"gives \(None, 3\)"),
    "logits": (lambda: sequential(units=1, activation=None), "with activation linear"),
    "two sigmoids": (lambda: sequential(units=2), r"\(None, 2\) with activation sigmoid"),
    "one softmax": (lambda: sequential(units=1, activation="softmax"), "activation softmax"),
    "any size": (lambda: sequential((None, None, 3)), r"takes \(None, None, None, 3\)"),
    "channels": (lambda: sequential((32, 24, 4)), "takes .* 4.*what fits is one input"),
    "flat": (lambda: keras.Sequential([keras.Input((9,)), layers.Dense(1, "sigmoid")]), "takes"),
    "two inputs": (two_inputs, r"takes \(None, 8, 8, 3\), \(None, 8, 8, 3\)"),
    "no dense": (
        lambda: keras.Sequential([keras.Input((8, 8, 3)), layers.GlobalMaxPooling2D(),
                                  layers.Dense(1), layers.ReLU(), layers.Activation("sigmoid")]),
        "a Dense layer at the end",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_shapes_that_do_not_fit_are_named(tmp_path, name):
    build, reason = REFUSED[name]
    build().save(tmp_path / "mine.keras")
    with pytest.raises(OwnModelError, match=f"mine.keras .*{reason}"):
        open_own_model(tmp_path / "mine.keras")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_code_in_a_file_is_not_run(tmp_path, suffix):
    model = sequential(first=[layers.Lambda(lambda x: x * 2)])
    model.save(tmp_path / f"mine{suffix}")
    with pytest.raises(OwnModelError, match="it holds Python code .*which is not run"):
        open_own_model(tmp_path / f"mine{suffix}")


def test_files_that_hold_no_model_are_refused_by_what_they_are(tmp_path):
    (tmp_path / "text.keras").write_text("not a model")
    (tmp_path / "cut.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    (tmp_path / "mine.onnx").write_bytes(b"")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    sequential().save_weights(tmp_path / "mine.weights.h5")
    for name, reason in {
        "text.keras": "damaged, or no model of Keras", "cut.h5": "damaged, or no model of Keras",
        "mine.onnx": r"is no \.keras or \.h5", "empty.h5": "it holds weights alone; save the whole",
        "mine.weights.h5": "it holds weights alone", "gone.keras": "there is no file .*gone.keras",
    }.items():  # fmt: skip
        with pytest.raises(ModelError, match=reason):
            choose_model("full", str(tmp_path / name)).load()


def test_weights_of_a_training_that_diverged_are_refused(tmp_path):
    model = sequential()
    model.layers[-1].set_weights([np.full((4, 1), np.nan), np.zeros(1)])
    model.save(tmp_path / "m.keras")
    with pytest.raises(OwnModelError, match="m.keras holds weights that are no numbers"):
        open_own_model(tmp_path / "m.keras")


def test_wrong_words_are_refused():
    with pytest.raises(ModelError, match=r"SCALE=1 is none of 0\.\.255, 0\.\.1, -1\.\.1"):
        choose_model("full", "mine.keras", "1").load()
    with pytest.raises(ModelError, match="POSITIVE=2 is neither 0 nor 1"):
        choose_model("full", "mine.keras", None, "2").load()
    with pytest.raises(ModelError, match="SCALE= and POSITIVE= describe a model of your own"):
        choose_model("full", "small", "0..1")
    with pytest.raises(ModelError, match="no model 'vgg'; known are .*small.*MODEL=./mine.keras"):
        choose_model("full", "vgg")


def test_images_can_have_the_models_own_size():
    assert resize_image(IMAGES[0, ..., 0], (32, 24)).shape == (32, 24, 3)
    assert resize_image(IMAGES[0], (10, 20)).shape == (10, 20, 3)
