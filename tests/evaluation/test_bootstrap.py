"""Intervals resample patients, and cover the truth as often as they say."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from tests.builders import make_predictions
from utils.evaluation.bootstrap import bounds_over_seeds, mean_interval, resample_rows
from utils.evaluation.metrics import METRICS, evaluate_predictions
from utils.evaluation.predictions import PatientsUnknown


def test_an_evaluation_is_reproducible_and_blind_to_the_order_of_rows():
    rows = make_predictions()
    result = evaluate_predictions(rows, 0.4, 200, 7)
    assert list(result) == list(METRICS)
    assert all(entry["low"] <= entry["value"] <= entry["high"] for entry in result.values())
    assert result == evaluate_predictions(rows.sample(frac=1, random_state=3), 0.4, 200, 7)
    assert result["roc_auc"] != evaluate_predictions(rows, 0.4, 200, 8)["roc_auc"]


def test_copies_of_a_patients_images_add_no_certainty():
    rows = make_predictions(images=1)
    copies = pd.concat(
        [rows.assign(image_id=rows.image_id + str(copy)) for copy in range(4)], ignore_index=True
    )
    single = evaluate_predictions(rows, 0.4, 300, 0)
    assert evaluate_predictions(copies, 0.4, 300, 0) == single
    # Drawn image by image, the same copies pretend to four times the evidence.
    pretended = evaluate_predictions(copies, 0.4, 300, 0, level="image")["roc_auc"]
    honest = single["roc_auc"]
    assert pretended["high"] - pretended["low"] < 0.7 * (honest["high"] - honest["low"])


def test_an_interval_agrees_with_a_plain_loop_over_patients():
    rows = make_predictions(patients=12, images=3)
    random = np.random.default_rng(5)
    images = {name: part.to_numpy() for name, part in rows.groupby("patient_id").groups.items()}
    negative = [name for name in images if name.endswith("normal")]
    positive = [name for name in images if not name.endswith("normal")]
    values = []
    for _ in range(300):
        drawn = [*random.choice(negative, len(negative)), *random.choice(positive, len(positive))]
        resample = rows.loc[np.concatenate([images[name] for name in drawn])]
        values.append(roc_auc_score(resample.y_true, resample.probability))
    auc = evaluate_predictions(rows, 0.5, 2000, 0)["roc_auc"]
    assert [auc["low"], auc["high"]] == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=0.02)


@pytest.mark.slow
def test_intervals_cover_the_truth_about_as_often_as_they_say():
    # Normal scores one standard deviation apart: the true AUC is Phi(1 / sqrt(2 + 2 * 0.09)).
    truth = norm.cdf(1 / np.sqrt(2 * (1 + 0.3**2)))
    covered = 0
    for seed in range(40):
        metrics = evaluate_predictions(make_predictions(30, 2, seed, quality=1.0), 0.5, 150, seed)
        covered += metrics["roc_auc"]["low"] <= truth <= metrics["roc_auc"]["high"]
    assert 0.87 <= covered / 40 <= 0.99


def test_a_perfect_model_has_the_exact_interval_of_its_smaller_class():
    rows = make_predictions()
    auc = evaluate_predictions(rows.assign(probability=rows.y_true.astype(float)), 0.5, 50, 0)
    assert auc["roc_auc"] == pytest.approx({"value": 1.0, "low": 0.025 ** (1 / 20), "high": 1.0})


def test_an_interval_of_the_mean_draws_patients():
    random = np.random.default_rng(0)
    values = np.repeat(random.normal(0.3, 0.1, 20), 5)  # five equal images of each patient
    patients = np.repeat([f"person-{number}-virus" for number in range(20)], 5)
    interval = mean_interval(values, patients, 500, seed=1)
    assert interval["value"] == pytest.approx(values.mean())
    assert interval["low"] < interval["value"] < interval["high"]
    by_patient = interval["high"] - interval["low"]
    by_image = mean_interval(values, np.arange(100).astype(str), 500, seed=1)
    # Equal images of a patient tell nothing new: the interval is about sqrt(5) times as wide.
    assert 1.6 < by_patient / (by_image["high"] - by_image["low"]) < 3
    assert mean_interval(values, patients, 500, seed=1) == interval
    with_zero_maps = mean_interval(
        np.append(values, [np.nan] * 3), np.append(patients, ["person-0-virus"] * 3), 500, seed=1
    )
    assert with_zero_maps == pytest.approx(interval)
    with pytest.raises(ValueError, match="at least two patients; 1"):
        mean_interval(values[:5], patients[:5], 10, seed=1)


def test_rows_are_drawn_in_sequence_by_class_and_patient():
    rows = make_predictions(patients=3, images=2).sample(frac=1, random_state=0)
    names = np.unique(rows.patient_id)
    groups = [[name for name in names if name.endswith("normal") == normal] for normal in (1, 0)]
    stream, same = np.random.default_rng(5), np.random.default_rng(5)
    for positions in resample_rows(rows, 4, stream):
        expected = [name for group in groups for name in same.choice(group, len(group))]
        assert rows.patient_id.iloc[positions].tolist() == np.repeat(expected, 2).tolist()
    assert stream.random() == same.random(), "nothing else was drawn from the stream"
    with pytest.raises(PatientsUnknown, match="patient_id is empty"):
        resample_rows(rows.assign(patient_id=""), 4, stream)


@pytest.mark.slow
def test_seeds_that_differ_widen_an_interval():
    rows = make_predictions(patients=30)
    labels, probability = rows.y_true.to_numpy(), rows.probability.to_numpy()

    def measure(shifts):
        def score(drawn_rows, drawn_seeds):
            mean = np.mean([shifts[number] for number in drawn_seeds])
            return [roc_auc_score(labels[drawn_rows], probability[drawn_rows]) + mean]

        (low,), (high,) = bounds_over_seeds(rows, len(shifts), score, 400, 0)
        return low, high

    alike, apart = measure([0, 0, 0]), measure([-0.2, 0, 0.2])
    auc = evaluate_predictions(rows, 0.5, 2000, 0)["roc_auc"]
    assert alike == pytest.approx((auc["low"], auc["high"]), abs=0.02)
    assert apart[1] - apart[0] > 1.5 * (alike[1] - alike[0])
    assert apart == measure([-0.2, 0, 0.2])
