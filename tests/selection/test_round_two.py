"""Round two trains what its document registered, and its records say so."""

import re
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest

from tests.builders import open_small_study
from tests.ten_crops import predict_ten_crops
from utils.common.files import file_sha256, read_json, write_json
from utils.common.paths import (
    choices_file,
    external_file,
    final_name,
    model_file,
    predictions_file,
    provenance_file,
    table_file,
)
from utils.data.images import load_images
from utils.data.index import open_study_index
from utils.evaluation.predictions import load_predictions, log_odds
from utils.models.architectures import ARCHITECTURES, build_network
from utils.models.export import export_model
from utils.selection import round_two
from utils.selection.choices import (
    ENSEMBLE,
    ENSEMBLE_TWO,
    RELEASED,
    ROUND_TWO_RECIPES,
    WHOLE_IMAGE,
    SelectionError,
    round_two_networks,
)
from utils.selection.round_two import (
    ABLATION,
    REGISTERED,
    SEEDS,
    SIZES,
    predict_external,
    predict_study,
    train_network,
)

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
    assert ROUND_TWO_RECIPES == tuple(recipe.name for recipe in SIZES)
    assert "**`released`**: 128 pixels, seed 43" in text
    assert round_two_networks()[0] == "final/lite0_128_crops_seed43"
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


# ---- predictions


NAMES = round_two_networks()[:2]


def export_tiny(name, seed):
    network = build_network("small_cnn", 32, seed, full_size=True)
    export_model(network, model_file("full", name))


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Return a study with two tiny untrained networks in place of six, and an external test."""
    study = open_small_study(tmp_path, monkeypatch)
    monkeypatch.setattr(round_two, "round_two_networks", lambda: NAMES)
    for seed, name in enumerate(NAMES):
        export_tiny(name, seed)
    monkeypatch.setattr(round_two, "require_trained", lambda *given: None)
    monkeypatch.setattr(round_two, "find_uncommitted", lambda *files: [])
    root, index = open_study_index(study)
    images = index[index.split == "test"].assign(split="external")
    monkeypatch.setattr(round_two, "open_nih_adults", lambda: (root, images))
    return study


@pytest.mark.slow
def test_every_network_predicts_once_by_ten_crops_and_by_the_whole_image(study, monkeypatch):
    predict_study(study)
    root, index = open_study_index(study)
    name = NAMES[1]
    file = predictions_file("full", name)
    table = load_predictions(file)
    assert table.split.value_counts().to_dict() == index.split.value_counts().to_dict()
    network = keras.models.load_model(model_file("full", name), compile=False)
    pixels = load_images(root, table.image_id)
    whole = load_predictions(predictions_file("full", name + WHOLE_IMAGE))
    np.testing.assert_allclose(network.predict(pixels, verbose=0)[:, 1], whole.probability,
                               atol=1e-5)  # fmt: skip
    trained = build_network("small_cnn", 32, 0)
    trained.set_weights(network.get_weights())
    by_hand = predict_ten_crops(trained, pixels.astype(np.float32))
    np.testing.assert_allclose(by_hand, table.probability, atol=1e-5)
    record = read_json(file.with_suffix(".json"))
    assert record["network_sha256"] == file_sha256(model_file("full", name))
    assert record["test_time"] == "ten crops" and record["images"]["test"] == 16
    assert record["registered"]["sha256"] == file_sha256(REGISTERED)

    odds = [log_odds(load_predictions(predictions_file("full", each)).probability)
            for each in NAMES]  # fmt: skip
    ensemble = load_predictions(predictions_file("full", ENSEMBLE_TWO))
    np.testing.assert_allclose(log_odds(ensemble.probability), np.mean(odds, axis=0), atol=1e-9)
    released = load_predictions(predictions_file("full", RELEASED))
    first = load_predictions(predictions_file("full", NAMES[0]))
    np.testing.assert_allclose(released.probability, first.probability, atol=1e-15)
    assert table_file("full", "identical_images").is_file()

    # What is there is never predicted again, and needs neither data nor commit.
    files = sorted(file.parent.glob("*.csv"))
    before = [file.stat().st_mtime_ns for file in files]
    monkeypatch.setattr(round_two, "open_study_index", None)
    monkeypatch.setattr(round_two, "find_uncommitted", lambda *files: ["utils"])
    predict_study(study)
    assert [file.stat().st_mtime_ns for file in files] == before and len(files) == 4


@pytest.mark.slow
def test_another_network_does_not_predict_a_second_time(study):
    predict_study(study)
    name = NAMES[1]
    export_tiny(name, seed=9)
    with pytest.raises(SelectionError, match="predicted by another network than .* each predicts"):
        predict_study(study)
    model_file("full", name).unlink()
    predict_study(study)


def test_what_is_not_committed_predicts_nothing(study, monkeypatch):
    monkeypatch.setattr(round_two, "find_uncommitted", lambda *files: ["utils/a.py"])
    with pytest.raises(SelectionError, match="utils/a.py must be committed before"):
        predict_study(study)
    assert not predictions_file("full", "final/x").parent.is_dir()


def test_no_network_predicts_before_all_are_trained(study, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(round_two, "find_uncommitted", lambda *files: [])
    monkeypatch.setattr(round_two, "is_trained", lambda study, recipe, seed: seed != 45)
    with pytest.raises(SelectionError, match="final/lite0_128_crops_seed45, final/lite0_96_crops"):
        round_two.require_trained(study, SIZES)


@pytest.mark.slow
def test_the_external_test_is_predicted_by_both_rounds_and_by_pixels(study, monkeypatch, caplog):
    choices = {"single": "one", "members": ["one", "other"]}
    write_json(choices_file("full"), choices)
    predict_external(study)
    table = load_predictions(external_file("full", ENSEMBLE_TWO), ("external",))
    assert len(table) == 16 and external_file("full", RELEASED).is_file()
    assert external_file("full", "small").is_file()
    assert "round one's ensemble cannot predict the external test" in caplog.text
    assert not external_file("full", ENSEMBLE).is_file()
    for fitted in round_two.FITTED:
        load_predictions(external_file("full", f"pixels/{fitted}_thumbnail"), ("external",))

    for name in ("one", "other"):
        for seed in study.final_seeds:
            export_tiny(final_name(name, seed), seed)
    monkeypatch.setattr(round_two, "load_pixel_features", None)  # called again, this would fail
    predict_external(study)
    parts = [load_predictions(external_file("full", final_name(name, seed)), ("external",))
             for name in choices["members"] for seed in study.final_seeds]  # fmt: skip
    ensemble = load_predictions(external_file("full", ENSEMBLE), ("external",))
    expected = np.mean([part.probability for part in parts], axis=0)
    np.testing.assert_allclose(ensemble.probability, expected, atol=1e-12)


def test_the_released_network_alone_is_trained_where_it_is_asked_for(monkeypatch):
    trained = []
    monkeypatch.setattr(round_two, "train_network", lambda study, *given: trained.append(given))
    monkeypatch.setattr(round_two, "predict_study", None)
    monkeypatch.setattr(sys, "argv", ["round_two", "--only", "released"])
    round_two.main()
    assert trained == [(SIZES[0], 43)]
