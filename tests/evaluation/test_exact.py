"""Intervals without width are exact ones, and what has no value is said to have none."""

import json
import math

import numpy as np
import pytest
from scipy.stats import binomtest

from tests.builders import make_predictions, make_study, without_patients
from utils.common.paths import metrics_file, published_results_dir
from utils.evaluation.exact import warn_of_few
from utils.evaluation.intervals import with_null
from utils.evaluation.metrics import METRICS, evaluate_images, evaluate_predictions
from utils.evaluation.study_metrics import evaluate_study, write_metrics
from utils.evaluation.tables import UNDEFINED, format_interval, format_range


def exact(successes: int, trials: int) -> tuple[float, float]:
    interval = binomtest(successes, trials).proportion_ci(0.95, method="exact")
    return interval.low, interval.high


def bounds(metrics, name):
    return metrics[name]["low"], metrics[name]["high"]


def score(y_true, probability, threshold=0.5):
    return evaluate_images(np.array(y_true), np.array(probability, float), threshold, 200, 1)


def test_three_right_images_of_each_class_prove_little():
    metrics = score([0] * 3 + [1] * 4, [0.1, 0.2, 0.3, 0.7, 0.8, 0.9, 0.95])
    expected = {
        "accuracy_at_0.5": (7, 7), "accuracy_at_threshold": (7, 7), "sensitivity": (4, 4),
        "specificity": (3, 3), "sensitivity_at_0.5": (4, 4), "specificity_at_0.5": (3, 3),
        "ppv": (4, 4), "npv": (3, 3), "specificity_at_95": (3, 3), "roc_auc": (3, 3),
    }  # fmt: skip
    for name, counts in expected.items():
        assert metrics[name]["value"] == 1
        assert bounds(metrics, name) == pytest.approx(exact(*counts)), name
    for name in METRICS.keys() - expected.keys():
        assert format_interval(metrics[name]) == "1.000 [undefined]", name
    assert format_interval(metrics["roc_auc"]) == "1.000 [0.292, 1.000]"


def test_an_auc_of_zero_has_the_mirrored_interval():
    metrics = score([1, 1, 1, 0, 0], [0.1, 0.2, 0.3, 0.7, 0.8])
    assert metrics["roc_auc"]["value"] == 0
    assert bounds(metrics, "roc_auc") == pytest.approx(exact(0, 2))
    tied = score([1, 1, 1, 0, 0], [0.5] * 5)
    assert format_interval(tied["roc_auc"]) == "0.500 [0.500, 0.500]"


def test_what_nobody_is_called_has_no_predictive_value():
    metrics = score([0] * 3 + [1] * 3, [0.6, 0.7, 0.8, 0.7, 0.8, 0.9], 0.1)
    assert math.isnan(metrics["npv"]["value"]) and format_interval(metrics["npv"]) == UNDEFINED
    assert metrics["specificity"]["value"] == 0
    assert bounds(metrics, "specificity") == pytest.approx(exact(0, 3))
    assert metrics["ppv"]["value"] == 0.5 and bounds(metrics, "ppv") == pytest.approx(exact(3, 6))


def test_intervals_with_width_are_those_of_the_bootstrap():
    predictions = without_patients(make_predictions())
    metrics = evaluate_images(
        predictions.y_true.to_numpy(), predictions.probability.to_numpy(), 0.5, 200, 1
    )
    ordered = predictions.assign(image_id=[f"{row:09}" for row in range(len(predictions))])
    assert metrics == evaluate_predictions(ordered, 0.5, 200, 1, level="image")
    assert all(metrics[name]["low"] < metrics[name]["high"] for name in METRICS)


def test_resamples_in_which_a_metric_has_no_value_are_left_out():
    metrics = score([0] * 8 + [1] * 8, [0.1] + [0.9] * 7 + [0.9] * 8)
    assert metrics["npv"]["value"] == 1
    # All resamples that call anybody NORMAL agree, on one image.
    assert bounds(metrics, "npv") == pytest.approx(exact(1, 1))


@pytest.mark.parametrize(("label", "defined"), [(0, "specificity"), (1, "sensitivity")])
def test_one_class_alone_has_its_share_of_right_answers(label, defined):
    metrics = score([label] * 4, [0.2, 0.4, 0.6, 0.8])
    assert metrics[defined]["value"] == 0.5
    assert bounds(metrics, defined) == pytest.approx(exact(2, 4))
    others = METRICS.keys() - {defined, f"{defined}_at_0.5"}
    assert {format_interval(metrics[name]) for name in others} == {UNDEFINED}


def test_a_single_image_of_a_class_is_enough_for_values():
    metrics = score([0, 1, 1, 1], [0.3, 0.2, 0.6, 0.9])
    assert metrics["roc_auc"]["value"] == pytest.approx(2 / 3)
    assert format_interval(metrics["roc_auc"]) == "0.667 [undefined]"
    assert bounds(metrics, "sensitivity") == pytest.approx(exact(2, 3))


def test_a_patient_counts_once_however_many_images():
    predictions = make_predictions(patients=3, images=4)
    perfect = predictions.assign(probability=predictions.y_true * 0.8 + 0.1)
    metrics = evaluate_predictions(perfect, 0.5, 50, 1)
    assert bounds(metrics, "sensitivity") == pytest.approx(exact(6, 6))
    assert bounds(metrics, "specificity") == pytest.approx(exact(3, 3))
    assert bounds(metrics, "roc_auc") == pytest.approx(exact(3, 3))
    halves = perfect.assign(
        probability=np.where(predictions.image_id.str.endswith(("0.jpeg", "1.jpeg")), 0.9, 0.1)
    )
    metrics = evaluate_predictions(halves, 0.5, 50, 1)
    assert format_interval(metrics["sensitivity"]) == "0.500 [undefined]", "one half of each"


def test_what_is_undefined_is_null_in_json(tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    study = make_study()
    changed = study.assign(probability=study.probability.clip(0.6, 1))
    rows = changed.assign(probability=changed.probability.where(changed.split == "validation", 1.0))
    metrics = evaluate_study({"a": study, "b": rows}, 20, 1)
    write_metrics("full", metrics)
    written = json.loads(metrics_file("full").read_text())
    assert written["models"]["b"]["test"]["npv"] == {"value": None, "low": None, "high": None}
    assert format_interval(written["models"]["b"]["test"]["npv"]) == UNDEFINED
    assert with_null({"a": [1.5, float("nan")], "b": ("x", 2)}) == {"a": [1.5, None], "b": ["x", 2]}


def test_undefined_values_are_said_in_ranges_too():
    assert format_range([0.5, float("nan")]) == UNDEFINED


def test_few_images_get_a_sentence():
    assert warn_of_few(np.repeat([0, 1], [20, 20])) == []
    few = warn_of_few(np.repeat([0, 1], [3, 20]))
    assert len(few) == 1 and few[0].startswith("3 NORMAL images are few (fewer than 20)")
    assert "no PNEUMONIA image" in warn_of_few(np.zeros(30, int))[0]


def test_committed_metrics_have_intervals_with_width():
    """So that none of them changes with how those without width are made."""
    found = []

    def look(content, path=""):
        if isinstance(content, dict) and {"value", "low", "high"} <= content.keys():
            found.append(path)
            assert content["low"] < content["high"], path
        elif isinstance(content, dict):
            for key, value in content.items():
                look(value, f"{path}/{key}")

    for name in ("metrics", "final_metrics"):
        look(json.loads((published_results_dir() / f"{name}.json").read_text()))
    assert len(found) > 300
