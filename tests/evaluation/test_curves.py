import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import precision_recall_curve, roc_curve

from utils.evaluation import curves
from utils.evaluation.curves import GRID, decision_curve, operating_points, precision_band, roc_band
from utils.evaluation.thresholds import net_benefit


def make_rows(patients: int = 60) -> pd.DataFrame:
    """Make predictions of patients with one to three images, some with equal probabilities."""
    random = np.random.default_rng(3)
    rows = pd.DataFrame({"patient_id": np.repeat(np.arange(patients), 1 + np.arange(patients) % 3)})
    rows["y_true"] = rows.patient_id % 2
    probability = random.normal(0.4 + 0.25 * rows.y_true, 0.2).clip(0, 1).round(2)
    return rows.assign(
        patient_id=rows.patient_id.map("p{:03}".format), split="test", probability=probability,
        image_id=[f"i{row:03}" for row in range(len(rows))],
    )  # fmt: skip


def scores_of(band, rows, monkeypatch):
    """Return what a band computes for rows as they are, and without the first patient."""
    weights = np.ones((2, len(rows)))
    weights[1] = rows.patient_id != "p001"
    found = []

    def look(predictions, score, *_):
        found.append(score(weights))
        return found[0][:, 0], found[0][:, 1]

    monkeypatch.setattr(curves, "bootstrap_bounds", look)
    band(rows, 1, 0)
    return found[0].T


def test_the_curve_of_each_resample_is_that_of_scikit_learn(monkeypatch):
    rows = make_rows()
    parts = rows, rows[rows.patient_id != "p001"]
    for part, sensitivity in zip(parts, scores_of(roc_band, rows, monkeypatch), strict=True):
        false_positive, true_positive, _ = roc_curve(
            part.y_true, part.probability, drop_intermediate=False
        )
        points = (GRID > 0) & (GRID < 1)
        expected = np.interp(GRID, false_positive, true_positive)
        np.testing.assert_allclose(sensitivity[points], expected[points], atol=1e-9)
    for part, found in zip(parts, scores_of(precision_band, rows, monkeypatch), strict=True):
        precision, recall, _ = precision_recall_curve(part.y_true, part.probability)
        for point in (20, 100, 137, 200):
            reached = np.flatnonzero(recall >= GRID[point] - 1e-9)[-1]
            assert found[point] == pytest.approx(precision[reached])


@pytest.mark.parametrize("band", [roc_band, precision_band])
def test_a_band_is_an_interval_over_patients(band):
    rows = make_rows()
    table = band(rows, 200, 1)
    assert list(table) == ["x", "low", "high"] and len(table) == len(GRID)
    assert (table.low <= table.high).all() and table[["low", "high"]].stack().between(0, 1).all()
    pd.testing.assert_frame_equal(table, band(rows, 200, 1))
    three_images_each = pd.concat([rows, rows, rows]).assign(
        image_id=lambda table: range(len(table))
    )
    # The same patients say no more with three copies of their images.
    np.testing.assert_allclose(band(three_images_each, 200, 1), table, atol=1e-9)
    unknown = three_images_each.assign(patient_id="")
    width = [(each.high - each.low).mean() for each in (table, band(unknown, 200, 1))]
    assert width[1] < 0.8 * width[0]


def test_an_operating_point_is_counted_and_its_ppv_is_that_of_bayes():
    rows = pd.DataFrame({"y_true": [1, 1, 0, 0, 0, 0], "probability": [0.9, 0.4, 0.6, 0.4, 0, 0]})
    points = operating_points(rows, 0.2, [0.4, 0.5, 0.95]).set_index("threshold")
    assert points.loc[0.4, ["sensitivity", "specificity"]].tolist() == [1, 0.5]
    assert points.loc[0.5, ["sensitivity", "specificity"]].tolist() == [0.5, 0.75]
    assert points.ppv[0.5] == pytest.approx(0.5 * 0.2 / (0.5 * 0.2 + 0.25 * 0.8))
    assert points.loc[0.95, ["sensitivity", "specificity"]].tolist() == [0, 1]
    assert np.isnan(points.ppv[0.95])
    assert len(operating_points(rows, 0.2)) == len(GRID)


def test_a_decision_curve_has_each_model_and_treats_all():
    rows = make_rows()
    perfect = rows.assign(probability=rows.y_true.astype(float))
    curve = decision_curve({"a": rows, "perfect": perfect}, [0.2, 0.5])
    assert list(curve) == ["threshold", "a", "perfect", "treat all"]
    share = rows.y_true.mean()
    assert curve["perfect"].tolist() == pytest.approx([share, share])
    assert curve["treat all"].tolist() == pytest.approx(
        [share - (1 - share) / 4, share - (1 - share)]
    )
    assert curve["a"][1] == pytest.approx(net_benefit(rows.y_true, rows.probability, 0.5))
