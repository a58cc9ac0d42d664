import numpy as np
import pandas as pd
import pytest

from utils.shortcuts.leakage import (
    IMAGES,
    PATIENTS,
    best_epoch,
    claim_table,
    draw_official_validation,
    score_epochs,
    split_images_at_random,
)


@pytest.fixture(scope="module")
def images():
    return pd.DataFrame({
        "image_id": [f"image{row}" for row in range(400)],
        "patient_id": [f"patient{row // 4}" for row in range(400)],
        "label": np.arange(400) // 4 % 4 > 0,
    }).astype({"label": int})  # fmt: skip


def count_shared_patients(images, held_out):
    patients = images.patient_id.to_numpy()
    return len(set(patients[held_out]) & set(patients[~held_out]))


def test_a_flawed_split_shares_patients(images):
    held_out = split_images_at_random(images, 0.15, seed=1)
    assert held_out.sum() == 60
    assert images.label[held_out].mean() == pytest.approx(images.label.mean())
    assert np.array_equal(held_out, split_images_at_random(images, 0.15, seed=1))
    assert not np.array_equal(held_out, split_images_at_random(images, 0.15, seed=2))
    assert count_shared_patients(images, held_out) > 30
    whole = images.patient_id.isin([f"patient{number}" for number in range(15)]).to_numpy()
    assert count_shared_patients(images, whole) == 0


def predicted(right):
    """Return 100 probabilities of which the first `right` are on the right side of 0.5."""
    rows = np.arange(100)
    correct = rows < right
    return np.where((rows % 2 == 1) == correct, 0.9, 0.1)


@pytest.fixture(scope="module")
def scores():
    """Return three epochs: held-out accuracy peaks in the second, test accuracy in the third."""
    labels = {part: np.arange(100) % 2 for part in ("held out", "test")}
    tables = []
    for split, bonus in ((PATIENTS, 0), (IMAGES, 6)):
        epochs = [
            {"held out": predicted(held_out + bonus), "test": predicted(test)}
            for held_out, test in ((60, 50), (80, 60), (70, 72))
        ]
        tables.append(score_epochs(split, epochs, labels))
    return pd.concat(tables, ignore_index=True)


@pytest.fixture(scope="module")
def validation():
    return pd.DataFrame({"y_true": np.arange(100) % 2, "probability": predicted(80)})


def test_each_rule_claims_what_it_saw(scores, validation):
    table = claim_table(scores, validation, seed=1).set_index("rule")
    assert table.epoch.to_dict() == {
        "patients kept apart": 2, "images split at random": 2, "16 validation images": 2,
        "the epoch that is best on test": 3,
    }  # fmt: skip
    assert table["claimed accuracy"]["patients kept apart"] == "0.800"
    assert table["claimed accuracy"]["images split at random"] == "0.860"
    assert table["claimed accuracy"]["the epoch that is best on test"] == "0.720"
    assert table["accuracy on test"]["patients kept apart"] == pytest.approx(0.6)
    low, high = map(float, table["claimed accuracy"]["16 validation images"].split(" to "))
    assert 0.5 < low < 0.8 < high <= 1, "16 images say little"


def test_scores_are_those_of_every_epoch(scores):
    assert len(scores) == 12
    assert best_epoch(scores, PATIENTS, "held out") == 2
    assert best_epoch(scores, PATIENTS, "test") == 3
    assert scores.auc.between(0, 1).all()


def test_draws_are_eight_of_each_class(validation):
    draws = draw_official_validation(validation, seed=3)
    assert np.array_equal(draws, draw_official_validation(validation, seed=3))
    assert set(np.round(draws * 16, 9) % 1) == {0.0}
    assert draws.mean() == pytest.approx(0.8, abs=0.02)
