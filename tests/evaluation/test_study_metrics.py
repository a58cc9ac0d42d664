"""The metrics of a study are those of its parts, in the form that others read."""

import json

import pytest

from tests.builders import make_predictions, make_study, without_patients
from utils.common.files import write_json
from utils.common.paths import metrics_file
from utils.evaluation.metrics import (
    METRICS,
    evaluate_by_etiology,
    evaluate_predictions,
    paired_difference,
)
from utils.evaluation.predictions import PatientsUnknown, PredictionsError, select_split
from utils.evaluation.study_metrics import evaluate_study, write_chosen_model, write_metrics
from utils.evaluation.tables import metrics_table
from utils.evaluation.thresholds import choose_validation_threshold


def test_the_chosen_model_stays_when_metrics_are_written_again(tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    write_metrics("sample", {"models": {}})
    assert "chosen_model" not in json.loads(metrics_file("sample").read_text())
    write_chosen_model("sample", "ensemble")
    write_metrics("sample", {"models": {"resnet50": {}}})
    content = json.loads(metrics_file("sample").read_text())
    assert content == {"models": {"resnet50": {}}, "chosen_model": "ensemble"}


def test_a_study_has_the_form_that_others_read(study_metrics, tmp_path):
    write_json(tmp_path / "metrics.json", study_metrics)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics == study_metrics
    assert set(metrics["models"]) == set(metrics["thresholds"]) == {"vgg19", "resnet50"}
    for section in ("models", "by_patient"):
        for splits in metrics[section].values():
            assert set(splits) == {"validation", "test"}
            for values in splits.values():
                assert set(values) == set(METRICS)
                assert all(set(entry) == {"value", "low", "high"} for entry in values.values())
    assert metrics["split"] == "patient-level split"
    assert metrics["intervals"]["resampled"] == "patients"
    assert metrics["counts"]["test"] == {
        "images": 90, "NORMAL": 30, "PNEUMONIA": 60, "patients": 45,
    }  # fmt: skip
    assert set(metrics["differences"]) == {"resnet50 - vgg19"}


def test_a_study_agrees_with_its_parts(study_metrics):
    resnet50, vgg19 = (make_study(quality=quality) for quality in (2.0, 0.8))
    cut = study_metrics["thresholds"]["resnet50"]
    assert cut == choose_validation_threshold(resnet50)
    test = select_split(resnet50, "test")
    assert study_metrics["models"]["resnet50"]["test"] == evaluate_predictions(test, cut, 60, 42)
    by_patient = evaluate_predictions(test, cut, 60, 42, unit="patient")
    assert study_metrics["by_patient"]["resnet50"]["test"] == by_patient
    assert study_metrics["by_etiology"]["resnet50"]["test"] == evaluate_by_etiology(
        test, cut, 60, 42
    )
    thresholds = (cut, study_metrics["thresholds"]["vgg19"])
    differences = study_metrics["differences"]["resnet50 - vgg19"]["test"]
    for metric in ("roc_auc", "sensitivity"):
        assert differences[metric] == paired_difference(
            test, select_split(vgg19, "test"), 60, 42, metric, thresholds
        )


def test_without_patients_a_study_says_so():
    metrics = evaluate_study({"vgg19": without_patients(make_study())}, resamples=30, seed=0)
    assert metrics["split"] == "image-level split"
    assert metrics["intervals"]["resampled"] == "images"
    assert "patients" not in metrics["counts"]["test"]
    assert not {"by_patient", "by_etiology"} & metrics.keys()
    with pytest.raises(PatientsUnknown, match="image-level split"):
        metrics_table(metrics, "test", "by_patient")


def test_a_study_of_mixed_or_missing_models_is_refused():
    with pytest.raises(PredictionsError, match="at least one model"):
        evaluate_study({}, 30, 0)
    mixed = {"vgg19": make_study(), "resnet50": without_patients(make_study())}
    with pytest.raises(PredictionsError, match="not for resnet50"):
        evaluate_study(mixed, 30, 0)
    with pytest.raises(PredictionsError, match="'validation'"):
        evaluate_study({"vgg19": make_predictions()}, 30, 0)
