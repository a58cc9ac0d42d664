"""Round two trains what its document registered, and its records say so."""

import re
from dataclasses import replace

import keras
import pytest

from tests.builders import open_small_study
from utils.common.files import file_sha256, read_json
from utils.common.paths import model_file, provenance_file
from utils.models.architectures import ARCHITECTURES
from utils.selection import round_two
from utils.selection.round_two import ABLATION, REGISTERED, SEEDS, SIZES, train_network

TINY = replace(
    SIZES[0], name="tiny", architecture="small_cnn", size=32, epochs=1, batch_size=8
)  # fmt: skip


def test_recipes_are_those_of_the_document():
    text = " ".join(REGISTERED.read_text(encoding="utf-8").split())
    for recipe in SIZES:
        assert recipe.architecture == "efficientnet_lite0" in ARCHITECTURES
        assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (24, 32, 5e-4)
        assert (recipe.weight_decay, recipe.label_smoothing, recipe.dropout) == (1e-4, 0.05, 0.3)
        assert recipe.class_weights and recipe.trained_statistics and not recipe.averaging
        assert recipe.first_trained == "all" and recipe.bottom_rate == 1 and not recipe.gradual
        assert recipe.smallest_crop == 0.08 and not recipe.mixup and not recipe.equalized
    assert {recipe.size for recipe in SIZES} == {96, 128} and SIZES[0].size == 128
    assert SEEDS == (43, 44, 45) and "**Seeds** 43, 44 and 45" in text
    assert "Exactly 24 epochs" in text and "peak learning rate of 5e-4" in text

    rows = dict(re.findall(r"\| `(\w+)` \| (.+?) \|", text.split("controlled ablation")[-1]))
    assert list(rows) == [recipe.name.removeprefix("ablation_") for recipe in ABLATION]
    for recipe, crop in zip(ABLATION, rows.values(), strict=True):
        least = "none" if recipe.smallest_crop == 1 else f"{recipe.smallest_crop:.0%} to 100%"
        assert crop == least
        assert (recipe.size, recipe.epochs) == (64, 16)
        assert ("flip" in recipe.transforms) == (recipe.name != "ablation_robust")


@pytest.mark.slow
def test_a_network_is_trained_once_and_says_what_was_registered(tmp_path, monkeypatch):
    study = open_small_study(tmp_path, monkeypatch)
    train_network(study, TINY, 43)
    name = "final/tiny_seed43"
    record = read_json(provenance_file(study.study, name))
    assert record["registered"]["sha256"] == file_sha256(REGISTERED)
    assert record["registered"]["document"] == "docs/round_two.md"
    assert record["recipe"]["smallest_crop"] == 0.08 and record["seed"] == 43
    network = keras.models.load_model(model_file(study.study, name), compile=False)
    assert network.input_shape == (None, 224, 224, 3)
    assert not list(model_file(study.study, name).parent.glob("*.state"))

    monkeypatch.setattr(round_two, "train_candidate", None)  # called again, this would fail
    train_network(study, TINY, 43)
    with pytest.raises(TypeError):
        train_network(study, replace(TINY, epochs=2), 43)
