"""Another hospital: pairs that are alike, aligned predictions, thresholds from local normals."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from tests.builders import make_predictions
from utils.evaluation.external import (
    CALIPER,
    align_predictions,
    draw_local_normals,
    match_classes,
    measure_imbalance,
    score_external,
    threshold_for_rate,
)
from utils.evaluation.predictions import from_log_odds, log_odds
from utils.evaluation.tables import external_table, remedy_table

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images():
    """Return images of which those with pneumonia are brighter, by one standard deviation."""
    random = np.random.default_rng(0)
    y_true = np.repeat([0, 1], (180, 110))
    return pd.DataFrame({
        "image_id": [f"{number:03}" for number in random.permutation(290)],
        "y_true": y_true,
        "mean": 100 + 20 * (random.normal(size=290) + y_true),
        "spread": 50 + 5 * random.normal(size=290),
    })  # fmt: skip


def test_matched_classes_are_as_many_and_alike(images):
    matched = match_classes(images)
    kept = images[matched]
    assert kept.y_true.value_counts().nunique() == 1 and 70 <= kept.y_true.sum() < 110
    scale = images[["mean", "spread"]].std()
    assert measure_imbalance(images, scale)["mean"] > 0.7
    assert abs(measure_imbalance(kept, scale)["mean"]) < CALIPER / 2
    assert abs(roc_auc_score(kept.y_true, kept["mean"]) - 0.5) < 0.06
    again = images.sample(frac=1, random_state=3)
    assert set(again.image_id[match_classes(again)]) == set(kept.image_id)


def test_classes_without_overlap_have_no_pairs(images):
    apart = images.assign(mean=images["mean"] + 1000 * images.y_true)
    assert not match_classes(apart).any()


def test_alignment_undoes_any_shift_that_keeps_the_order():
    random = np.random.default_rng(1)
    known = from_log_odds(random.normal(0, 2, 4000))
    shifted = from_log_odds(0.6 * log_odds(known) + 1.5)
    np.testing.assert_allclose(align_predictions(shifted, known), known, atol=1e-9)
    other = from_log_odds(0.6 * random.normal(0, 2, 4000) + 1.5)
    aligned = align_predictions(other, known)
    for share in (0.1, 0.5, 0.9):
        assert np.quantile(aligned, share) == pytest.approx(np.quantile(known, share), abs=0.01)
    assert (np.argsort(aligned, kind="stable") == np.argsort(other, kind="stable")).all()


def test_alignment_to_another_prevalence_weighs_the_reference():
    random = np.random.default_rng(2)

    def draw(share, count=6000):
        y_true = random.random(count) < share
        return y_true, from_log_odds(random.normal(np.where(y_true, 2, -2), 1))

    (known, reference), (new, shifted) = draw(0.75), draw(0.4)
    shifted = from_log_odds(log_odds(shifted) + 1)
    truth = np.mean((shifted >= from_log_odds(1.0)) == new)
    weights = np.where(known, 0.4 / 0.75, 0.6 / 0.25)
    with_weights = np.mean((align_predictions(shifted, reference, weights) >= 0.5) == new)
    without = np.mean((align_predictions(shifted, reference) >= 0.5) == new)
    assert with_weights == pytest.approx(truth, abs=0.01)
    assert without < truth - 0.2, "where prevalence differs, alignment alone does harm"


def test_a_threshold_lets_as_many_normals_through_as_said():
    random = np.random.default_rng(3)
    normals = random.random(100)
    threshold = threshold_for_rate(normals, 0.1)
    assert (normals >= threshold).sum() == 10
    assert threshold_for_rate(np.full(50, 0.3), 0.1) > 0.3, "equal ones stay below together"
    assert (normals >= threshold_for_rate(normals, 0)).sum() == 0


def test_local_normals_are_drawn_by_patient():
    rows = make_predictions(patients=30, images=3)
    drawn = rows.iloc[draw_local_normals(rows, 40, seed=1)]
    assert len(drawn) == 40 and (drawn.y_true == 0).all()
    assert (drawn.groupby("patient_id").size() < 3).sum() == 1, "only the last one is cut"
    shuffled = rows.sample(frac=1, random_state=2)
    again = shuffled.iloc[draw_local_normals(shuffled, 40, seed=1)]
    assert list(again.image_id) == list(drawn.image_id)
    assert set(drawn.image_id) != set(rows.iloc[draw_local_normals(rows, 40, seed=2)].image_id)
    with pytest.raises(ValueError, match="100 local normals are wanted, and there are 90"):
        draw_local_normals(rows, 100, seed=1)


@pytest.fixture(scope="module")
def scores():
    rows = make_predictions(patients=30, split="external")
    known = make_predictions(patients=30, seed=1, quality=3, split="validation")
    sure = rows.assign(probability=from_log_odds(log_odds(rows.probability) + 2))
    random = np.random.default_rng(0)
    gray = pd.DataFrame({
        "image_id": rows.image_id, "mean": random.normal(100, 20, len(rows)),
        "spread": random.normal(50, 5, len(rows)),
    })  # fmt: skip
    blind = rows.assign(probability=0.5)
    return score_external(
        {"honest": rows, "sure": sure}, {"honest": known, "sure": known},
        {"honest": 0.2, "sure": 0.2}, gray, {"within": {"thumbnail": blind}}, 0.74, 50, 7,
        local_normals=21,
    )  # fmt: skip


def test_models_are_scored_on_all_and_on_matched_images(scores):
    assert scores["images"]["all"] == 180 and 80 < scores["images"]["matched"] <= 120
    assert scores["matching"]["pairs"] * 2 == scores["images"]["matched"]
    honest, sure = scores["models"]["honest"], scores["models"]["sure"]
    assert honest["all"]["roc_auc"] == sure["all"]["roc_auc"]
    assert sure["all"]["specificity_at_0.5"]["value"] < honest["all"]["specificity_at_0.5"]["value"]
    intercepts = [
        each["calibration"]["as_is"]["intercept"]["value"] for each in (honest, sure)
    ]  # fmt: skip
    assert intercepts[1] < intercepts[0] - 1
    for remedy in ("aligned", "local_threshold"):
        specificity = [each["uses_new_site"][remedy]["specificity"] for each in (honest, sure)]
        assert specificity[0]["value"] == pytest.approx(specificity[1]["value"], abs=1e-6)
    local = sure["uses_new_site"]["local_threshold"]
    assert local["images"] == 158, "patients of two images are left out whole"
    assert local["specificity"]["value"] > 0.7
    assert local["specificity_of_draws"]["low"] < local["specificity_of_draws"]["high"]


def test_tables_name_every_model_and_remedy(scores):
    table = external_table(scores)
    assert list(table.index) == ["honest", "sure", "thumbnail, within"]
    assert table.loc["thumbnail, within", "ROC-AUC"] == "0.500 [0.500, 0.500]"
    assert table.loc["thumbnail, within", "slope"] == "–"
    remedies = remedy_table(scores)
    assert len(remedies) == 8 and "sure, aligned at known prevalence" in remedies.index
