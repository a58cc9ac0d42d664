import json

import keras
import numpy as np
import pytest

from tests.builders import open_small_study
from utils import finalists
from utils.candidates import Candidate
from utils.dataset import load_images
from utils.evaluation import load_predictions
from utils.finalists import average_networks, final_name, train_final
from utils.networks import build_network
from utils.paths import dataset_dir, models_dir, predictions_dir, results_dir

SMALL = Candidate("small", "small_cnn", 32, ("exposure",), epochs=1, batch_size=8)


@pytest.fixture
def study(tmp_path, monkeypatch):
    return open_small_study(tmp_path, monkeypatch)


@pytest.mark.slow
def test_a_finalist_predicts_once(study, monkeypatch):
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

    def refuse(*arguments, **options):
        raise AssertionError("trained again")

    monkeypatch.setattr(finalists, "train_candidate", refuse)
    before = file.read_bytes()
    train_final(study, SMALL, 43)
    assert file.read_bytes() == before
    with pytest.raises(AssertionError, match="trained again"):
        train_final(study, SMALL, 44)


def test_an_ensemble_is_the_mean_of_its_members():
    members = [build_network("small_cnn", size, seed, full_size=True)
               for size, seed in ((32, 1), (48, 2))]  # fmt: skip
    images = np.random.default_rng(0).uniform(0, 255, (3, 224, 224, 3)).astype("float32")
    together = average_networks(members, "ensemble").predict(images, verbose=0)
    apart = np.mean([member.predict(images, verbose=0) for member in members], axis=0)
    np.testing.assert_allclose(together, apart, atol=1e-6)
    assert together.shape == (3, 2)
