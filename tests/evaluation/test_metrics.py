"""Metrics of predictions: the right numbers, per image, per patient, by etiology, in pairs."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from tests.builders import make_predictions, make_study, without_patients
from utils.common.constants import PREDICTION_COLUMNS
from utils.evaluation.metrics import (
    METRICS,
    _Scorer,
    compute_metrics,
    evaluate_by_etiology,
    evaluate_predictions,
    paired_difference,
    predictive_values,
)
from utils.evaluation.predictions import PatientsUnknown, PredictionsError, average_by_patient


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("digits", [1, 2, 16])
def test_weighted_metrics_are_those_of_scikit_learn(threshold, digits):
    random = np.random.default_rng(digits)
    y_true = random.integers(0, 2, 80)
    probability = np.round(np.clip(random.normal(0.4 + 0.2 * y_true, 0.2), 0, 1), digits)
    weights = random.multinomial(80, np.full(80, 1 / 80), size=5)
    scored = _Scorer(y_true, probability, threshold)(weights)
    for column, weight in zip(scored.T, weights, strict=True):
        called, half = probability >= threshold, probability >= 0.5
        expected = {
            "accuracy_at_0.5": accuracy_score(y_true, half, sample_weight=weight),
            "accuracy_at_threshold": accuracy_score(y_true, called, sample_weight=weight),
            "weighted_f1": f1_score(y_true, half, average="weighted", sample_weight=weight),
            "roc_auc": roc_auc_score(y_true, probability, sample_weight=weight),
            "average_precision": average_precision_score(y_true, probability, sample_weight=weight),
            "sensitivity": recall_score(y_true, called, sample_weight=weight),
            "specificity": recall_score(y_true, called, pos_label=0, sample_weight=weight),
            "sensitivity_at_0.5": recall_score(y_true, half, sample_weight=weight),
            "specificity_at_0.5": recall_score(y_true, half, pos_label=0, sample_weight=weight),
            "ppv": precision_score(y_true, called, sample_weight=weight, zero_division=np.nan),
            "npv": precision_score(
                y_true, called, pos_label=0, sample_weight=weight, zero_division=np.nan
            ),
            "specificity_at_95": specificity_at_high_sensitivity(y_true, probability, weight),
        }
        assert dict(zip(METRICS, column, strict=True)) == pytest.approx(
            expected, abs=1e-12, nan_ok=True
        )


def specificity_at_high_sensitivity(y_true, probability, weight):
    """Try every threshold from above, and stop at a sensitivity of 95%."""
    positive, negative = weight * y_true, weight * (1 - y_true)
    for cut in np.unique(probability)[::-1]:
        predicted = probability >= cut
        if positive[predicted].sum() >= 0.95 * positive.sum() - 1e-9:
            return 1 - negative[predicted].sum() / negative.sum()
    raise AssertionError("at the lowest threshold everybody is predicted positive")


def test_equal_weights_give_the_point_values():
    rows = make_predictions()
    y_true, probability = rows.y_true.to_numpy(), rows.probability.to_numpy()
    scored = _Scorer(y_true, probability, 0.4)(np.ones((1, len(rows)), int))[:, 0]
    expected = compute_metrics(y_true, probability, 0.4)
    assert dict(zip(METRICS, scored, strict=True)) == pytest.approx(expected, abs=1e-12)


def test_known_confusions():
    y_true = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
    probability = np.array([0.1, 0.2, 0.5, 0.6, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
    values = compute_metrics(y_true, probability, 0.7)
    assert values["accuracy_at_0.5"] == 0.7  # 0.5 itself counts as PNEUMONIA
    assert values["sensitivity_at_0.5"] == pytest.approx(5 / 6)
    assert values["specificity_at_0.5"] == 0.5
    assert values["accuracy_at_threshold"] == 0.8
    assert values["sensitivity"] == pytest.approx(4 / 6)
    assert values["specificity"] == 1.0
    assert values["ppv"] == 1.0
    assert values["npv"] == pytest.approx(4 / 6)
    assert values["specificity_at_95"] == 0.5, (
        "all six are positive from 0.3 on, with two false positives"
    )


def test_what_prevalence_does():
    positive, negative = predictive_values(0.9, 0.9, 0.5)
    assert positive == pytest.approx(0.9) and negative == pytest.approx(0.9)
    positive, negative = predictive_values(0.9, 0.9, 0.01)
    assert positive == pytest.approx(1 / 12, rel=1e-3) and negative > 0.998
    assert np.isnan(predictive_values(0.0, 1.0, 0.3)[0])
    with pytest.raises(ValueError, match="prevalence is between 0 and 1, not 3"):
        predictive_values(0.9, 0.9, 3)


def test_by_patient_the_mean_probability_counts_once():
    rows = pd.DataFrame(
        [
            ("a", "IM-1-normal", "test", 0, 0.1),
            ("b", "IM-1-normal", "test", 0, 0.5),
            ("c", "IM-2-normal", "test", 0, 0.2),
            ("d", "person-1-virus", "test", 1, 0.4),
            ("e", "person-2-virus", "test", 1, 0.25),
            ("f", "person-2-virus", "test", 1, 0.75),
        ],
        columns=list(PREDICTION_COLUMNS),
    )
    patients = average_by_patient(rows).set_index("patient_id")
    assert patients.probability.to_dict() == pytest.approx(
        {"IM-1-normal": 0.3, "IM-2-normal": 0.2, "person-1-virus": 0.4, "person-2-virus": 0.5}
    )
    result = evaluate_predictions(rows, 0.35, 20, 0, unit="patient")
    assert result["accuracy_at_threshold"]["value"] == 1.0
    assert result["accuracy_at_0.5"]["value"] == 0.75
    assert evaluate_predictions(rows, 0.35, 20, 0)["accuracy_at_threshold"]["value"] < 0.7


def test_without_patients_nothing_is_said_by_patient():
    rows = without_patients(make_predictions())
    for call in (
        lambda: evaluate_predictions(rows, 0.5, 20, 0),
        lambda: evaluate_predictions(rows, 0.5, 20, 0, unit="patient", level="image"),
        lambda: paired_difference(rows, rows, 20, 0),
        lambda: evaluate_by_etiology(rows, 0.5, 20, 0),
        lambda: average_by_patient(rows),
    ):
        with pytest.raises(PatientsUnknown, match="image-level split"):
            call()
    result = evaluate_predictions(rows, 0.5, 20, 0, level="image")
    assert result["roc_auc"]["low"] < result["roc_auc"]["high"]


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"threshold": 1.2}, ValueError, "1.2"),
        ({"resamples": 0}, ValueError, "resamples"),
        ({"unit": "child"}, ValueError, "'child'"),
        ({"level": "child"}, ValueError, "'child'"),
        ({"predictions": make_study()}, PredictionsError, "test, validation"),
        ({"predictions": make_predictions().query("y_true == 1")}, PredictionsError, r"\[1\]"),
        ({"predictions": make_predictions(1)}, PredictionsError, "two patients of each class"),
        (
            {"predictions": make_predictions().assign(patient_id="IM-1-normal")},
            PredictionsError,
            "'IM-1-normal' has images of both classes",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused(change, error, named):
    arguments = {"predictions": make_predictions(), "threshold": 0.5, "resamples": 20, "seed": 0}
    with pytest.raises(error, match=named):
        evaluate_predictions(**arguments | change)


def test_a_model_does_not_differ_from_itself():
    rows = make_predictions()
    shuffled = rows.sample(frac=1, random_state=1)
    assert paired_difference(rows, shuffled, 50, 0) == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_pairing_sees_a_small_steady_difference():
    better = make_predictions(30, quality=1.5)
    worse = better.copy()
    # Scores of every tenth patient with pneumonia are lowered: worse in every resample with one.
    missed = better.patient_id.str.contains("[05]-(?:bacteria|virus)", regex=True)
    worse.loc[missed, "probability"] *= 0.3
    difference = paired_difference(better, worse, 400, 0)
    assert difference["low"] > 0
    first, second = (evaluate_predictions(rows, 0.5, 400, 0) for rows in (better, worse))
    assert difference["value"] == pytest.approx(
        first["roc_auc"]["value"] - second["roc_auc"]["value"], abs=1e-9
    )
    unpaired = first["roc_auc"]["high"] - second["roc_auc"]["low"]
    assert difference["high"] < unpaired
    swapped = paired_difference(worse, better, 400, 0)
    assert swapped["low"] == pytest.approx(-difference["high"], abs=1e-9)


def test_metrics_at_the_threshold_use_each_models_own():
    rows = make_predictions()
    accuracy = paired_difference(
        rows, rows, 50, 0, metric="accuracy_at_threshold", thresholds=(0.5, 1.0)
    )
    values = [
        compute_metrics(rows.y_true.to_numpy(), rows.probability.to_numpy(), cut)
        for cut in (0.5, 1.0)
    ]
    expected = values[0]["accuracy_at_threshold"] - values[1]["accuracy_at_threshold"]
    assert accuracy["value"] == pytest.approx(expected)
    with pytest.raises(ValueError, match="pass `thresholds`"):
        paired_difference(rows, rows, 50, 0, metric="sensitivity")
    with pytest.raises(ValueError, match="unknown metric 'auc'"):
        paired_difference(rows, rows, 50, 0, metric="auc")


def test_models_of_different_images_are_not_compared():
    rows = make_predictions()
    with pytest.raises(PredictionsError, match="1 images have a prediction of one model only"):
        paired_difference(rows, rows.iloc[1:], 20, 0)
    relabeled = rows.assign(y_true=rows.y_true.where(rows.index != 3, 1 - rows.y_true))
    with pytest.raises(PredictionsError, match=f"disagree .* '{rows.image_id[3]}'"):
        paired_difference(rows, relabeled, 20, 0)


def test_each_etiology_is_held_against_all_normals():
    rows = make_predictions()
    rows.loc[rows.patient_id.str.endswith("virus"), "probability"] = 0.0
    rows.loc[rows.patient_id.str.endswith("bacteria"), "probability"] = 1.0
    result = evaluate_by_etiology(rows, 0.5, 50, 0)
    assert list(result) == ["bacteria", "virus"]
    assert result["bacteria"]["sensitivity"]["value"] == 1.0
    assert result["virus"]["sensitivity"]["value"] == 0.0
    normal = rows[rows.y_true == 0]
    specificity = (normal.probability < 0.5).mean()
    for metrics in result.values():
        assert metrics["specificity"]["value"] == pytest.approx(specificity)


def test_an_unknown_etiology_is_named():
    rows = make_predictions()
    rows.loc[rows.patient_id == "person-3-virus", "patient_id"] = "person-3-fungus"
    with pytest.raises(PredictionsError, match="'person-3-fungus'"):
        evaluate_by_etiology(rows, 0.5, 20, 0)
