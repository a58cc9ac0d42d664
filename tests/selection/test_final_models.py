import json
from dataclasses import replace

import keras
import numpy as np
import pytest

from tests.builders import build_small_backbone, open_small_study
from utils.common.paths import dataset_dir, final_name, models_dir, predictions_dir, results_dir
from utils.common.provenance import write_provenance
from utils.data.images import load_images
from utils.data.index import build_index, describe_dataset
from utils.evaluation.predictions import load_predictions
from utils.models.architectures import build_network
from utils.models.export import average_networks
from utils.models.prediction import predict_with_crops
from utils.models.pretrained import Weights
from utils.models.recipe import Candidate
from utils.models.registry import choose_model
from utils.selection import final_models
from utils.selection.final_models import (
    predict_test_with_crops,
    read_finished_aucs,
    train_baseline,
    train_final,
    train_final_models,
)

SMALL = Candidate("small", "small_cnn", 32, ("exposure",), epochs=1, batch_size=8)


@pytest.fixture
def study(tmp_path, monkeypatch):
    return open_small_study(tmp_path, monkeypatch)


@pytest.mark.slow
def test_a_finalist_predicts_once(study):
    train_final(study, SMALL, 43)
    name = final_name("small", 43)
    file = predictions_dir("full") / f"{name}.csv"
    predictions = load_predictions(file)
    assert set(predictions.split) == {"validation", "test"}

    exported = keras.models.load_model(models_dir("full") / f"{name}.keras", compile=False)
    rows = predictions[predictions.split == "test"].head(5)
    pixels = load_images(dataset_dir("chest_xray"), rows.image_id).astype("float32")
    again = exported.predict(pixels, verbose=0)[:, 1]
    np.testing.assert_allclose(again, rows.probability, atol=1e-5)

    record = json.loads((results_dir("full") / "provenance" / f"{name}.json").read_text())
    assert record["seed"] == 43 and record["weights"]["description"] == "random"
    assert record["dataset"]["split"] == "patient-level split"

    # A rebuilt finalist is compared with what it said before; the file is not touched.
    before = file.read_bytes()
    (models_dir("full") / f"{name}.keras").unlink()
    rebuilt = train_final(study, SMALL, 43)
    assert rebuilt is not None and 0 <= rebuilt.mean <= rebuilt.largest < 1e-3
    assert rebuilt.auc == pytest.approx(rebuilt.committed_auc, abs=0.01)
    assert "validation probabilities are 0.000 from the committed ones on average" in str(rebuilt)
    assert file.read_bytes() == before and (models_dir("full") / f"{name}.keras").is_file()
    assert (results_dir("full") / "screening" / "small" / "plain_seed43.csv").is_file()


@pytest.mark.slow
def test_the_chosen_model_is_built_and_found(study, monkeypatch):
    larger = replace(SMALL, name="larger", size=48)
    choices = {
        "single": "small", "members": ["larger", "small"], "chosen": "ensemble", "rule": "the rule",
        "thresholds": {"small": 0.5, "larger": 0.5, "ensemble": 0.25},
    }  # fmt: skip
    study = study.model_copy(update={"final_seeds": [42]})
    train_final_models(study, choices, [SMALL, larger], controls=["never compared"])
    scorer = choose_model("full", "ensemble")
    assert scorer.name == "ensemble" and scorer.threshold == 0.25
    rows = load_predictions(predictions_dir("full") / "final/small_seed42.csv").head(4)
    others = load_predictions(predictions_dir("full") / "final/larger_seed42.csv").head(4)
    pixels = load_images(dataset_dir("chest_xray"), rows.image_id).astype("float32")
    together = scorer.load().predict(pixels, verbose=0)[:, 1]
    expected = (rows.probability + others.probability) / 2
    np.testing.assert_allclose(together, expected, atol=1e-5)

    crops = predict_test_with_crops(study, choices)
    assert set(crops.split) == {"test"} and crops.probability.between(0, 1).all()
    reached = read_finished_aucs(study, [SMALL, larger, replace(SMALL, epochs=2)], 42)
    assert set(reached) == {"small", "larger"} and 0 <= reached["small"] <= 1

    def refuse(*arguments, **options):
        raise AssertionError("trained again")

    monkeypatch.setattr(final_models, "train_final", refuse)
    train_final_models(study, choices, [SMALL, larger])
    (models_dir("full") / "final/small_seed42.keras").unlink()
    monkeypatch.setattr(final_models, "build_chosen", refuse)
    train_final_models(study, choices, [SMALL, larger])


def test_crops_keep_a_flat_image_and_notice_a_corner():
    image = keras.Input((224, 224, 3))
    brightness = keras.layers.GlobalAveragePooling2D()(image)
    share = keras.layers.Lambda(lambda x: x[:, :2] / 255)(brightness)
    network = keras.Model(image, share)
    flat = np.full((2, 224, 224, 3), 51.0)
    np.testing.assert_allclose(predict_with_crops(network, flat, "flat"), 0.2, atol=1e-5)
    corner = flat.copy()
    corner[0, :16, :16] = 255
    cropped = predict_with_crops(network, corner, "corner")
    whole = network.predict(corner.astype("float32"), verbose=0)[:, 1]
    assert cropped[0] < whole[0] - 5e-4 and cropped[1] == pytest.approx(0.2, abs=1e-5)


@pytest.mark.slow
def test_our_resnet50_is_trained_with_another_seed_once(study, tmp_path, monkeypatch):
    monkeypatch.setenv("ACTIVATION_CACHE_DIR", str(tmp_path / "cache"))
    weights = Weights("resnet50", "random", "random", "0" * 64, None, seed=1)
    monkeypatch.setattr(final_models, "resolve_study_weights", lambda *given: weights)
    monkeypatch.setattr(
        "utils.training.head.build_backbone", lambda weights: build_small_backbone()
    )
    study = study.model_copy(update={"views": 1, "epochs": 2, "batch_size": 8})
    root = dataset_dir("chest_xray")
    index = build_index(root, study.seed, study.validation_fraction)
    write_provenance(
        "full",
        "resnet50",
        dataset=describe_dataset(root, index),
        weights=weights.provenance(),
        recipe={},
        minutes=1.0,
    )
    train_baseline(study, "resnet50", 43)
    file = predictions_dir("full") / "final/resnet50_seed43.csv"
    assert set(load_predictions(file).split) == {"validation", "test"}
    before = file.stat().st_mtime_ns
    train_baseline(study, "resnet50", 43)
    assert file.stat().st_mtime_ns == before
    train_baseline(study.model_copy(update={"epochs": 1}), "resnet50", 43)
    assert file.stat().st_mtime_ns != before, "another recipe is trained again"


def test_an_ensemble_is_the_mean_of_its_members():
    members = [build_network("small_cnn", size, seed, full_size=True)
               for size, seed in ((32, 1), (48, 2))]  # fmt: skip
    images = np.random.default_rng(0).uniform(0, 255, (3, 224, 224, 3)).astype("float32")
    together = average_networks(members, "ensemble").predict(images, verbose=0)
    apart = np.mean([member.predict(images, verbose=0) for member in members], axis=0)
    np.testing.assert_allclose(together, apart, atol=1e-6)
    assert together.shape == (3, 2)
