"""Metrics from prediction files: right numbers, honest intervals, frozen thresholds."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from utils.common.constants import PREDICTION_COLUMNS
from utils.common.files import write_json
from utils.common.paths import metrics_file
from utils.evaluation.metrics import (
    METRICS,
    _Scorer,
    compute_metrics,
    evaluate_by_etiology,
    evaluate_predictions,
    paired_difference,
)
from utils.evaluation.predictions import (
    PatientsUnknown,
    PredictionsError,
    average_by_patient,
    load_predictions,
    load_study_predictions,
    select_split,
)
from utils.evaluation.study_metrics import evaluate_study, write_chosen_model, write_metrics
from utils.evaluation.tables import REPORTED_ROW, format_interval, metrics_table
from utils.evaluation.thresholds import choose_threshold, choose_validation_threshold

HEADER = "image_id,patient_id,split,y_true,probability\n"
ROW = "test/NORMAL/IM-0001-0001.jpeg,IM-1-normal,test,0,0.25\n"


def make_predictions(
    patients: int = 20, images: int = 2, seed: int = 0, quality: float = 1.5, split: str = "test"
) -> pd.DataFrame:
    """Make predictions of `patients` normal, bacterial and viral patients each."""
    random = np.random.default_rng(seed)
    rows = []
    for etiology, family in (("normal", "IM"), ("bacteria", "person"), ("virus", "person")):
        label = int(etiology != "normal")
        for number in range(patients):
            severity = random.normal(quality * label)
            for image in range(images):
                score = severity + random.normal(scale=0.3)
                rows.append(
                    (
                        f"{split}/{family}-{number}-{etiology}-{image}.jpeg",
                        f"{family}-{number}-{etiology}",
                        split,
                        label,
                        round(float(norm.cdf(score - quality / 2)), 2),  # rounded: ties
                    )
                )
    return pd.DataFrame(rows, columns=list(PREDICTION_COLUMNS))


def make_study(patients: int = 15, seed: int = 0, quality: float = 1.5) -> pd.DataFrame:
    """Make the predictions of one model for both scored splits."""
    return pd.concat(
        [
            make_predictions(patients, seed=seed, quality=quality, split="validation"),
            make_predictions(patients, seed=seed + 1, quality=quality, split="test"),
        ],
        ignore_index=True,
    )


def without_patients(predictions: pd.DataFrame) -> pd.DataFrame:
    return predictions.assign(patient_id="")


# ---- reading


def test_probabilities_are_read_to_the_last_digit(tmp_path):
    predictions = make_predictions()
    predictions["probability"] = np.random.default_rng(0).random(len(predictions))
    predictions.to_csv(tmp_path / "model.csv", index=False)
    pd.testing.assert_frame_equal(
        load_predictions(tmp_path / "model.csv"), predictions, check_exact=True
    )


def test_unknown_patients_are_read_as_empty(tmp_path):
    without_patients(make_predictions()).to_csv(tmp_path / "model.csv", index=False)
    assert set(load_predictions(tmp_path / "model.csv").patient_id) == {""}


def test_the_predictions_of_a_study_are_found_by_model(tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    folder = tmp_path / "tiny" / "predictions"
    folder.mkdir(parents=True)
    make_predictions().to_csv(folder / "vgg19.csv", index=False)
    assert list(load_study_predictions("tiny", ["vgg19"])) == ["vgg19"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "columns are missing"),
        (HEADER, "no predictions"),
        ("image_id,split,y_true,probability\n", "columns are image_id,split,y_true,probability"),
        ("split,image_id,patient_id,y_true,probability\n", "instead of image_id,patient_id"),
        (HEADER + ROW.replace(",test,", ",val,"), r"line 2: split is 'val'"),
        (HEADER + ROW + ROW, r"line 3: image_id .* already in line 2"),
        (HEADER + ROW.replace(",0,", ",2,"), r"line 2: y_true is '2'"),
        (HEADER + ROW.replace(",0,", ",,"), r"line 2: y_true is ''"),
        (HEADER + ROW.replace("0.25", "1.01"), r"line 2: probability is '1.01'"),
        (HEADER + ROW.replace("0.25", "-0.1"), r"line 2: probability is '-0.1'"),
        (HEADER + ROW.replace("0.25", "nan"), r"line 2: probability is 'nan'"),
        (HEADER + ROW.replace("0.25", ""), r"line 2: probability is ''"),
        (HEADER + ROW.replace("0.25", "high"), r"line 2: probability is 'high'"),
        (HEADER + ROW.replace("0.25", "0.25,7"), r"line 2: 6 values instead of 5"),
        (HEADER + ROW.replace(",0.25", ""), r"line 2: 4 values instead of 5"),
        (HEADER + ROW[ROW.index(",") :], r"line 2: image_id is empty"),
        (HEADER + ROW + "b.jpeg,,test,1,0.5\n", r"'b.jpeg': patient_id is empty here"),
    ],
)
def test_a_damaged_file_is_refused_by_file_row_and_remedy(tmp_path, text, named):
    file = tmp_path / "model.csv"
    file.write_text(text)
    with pytest.raises(PredictionsError, match=named) as error:
        load_predictions(file)
    assert "model.csv" in str(error.value)
    assert "write the file anew" in str(error.value)


def test_selecting_a_split_that_is_not_there_is_an_error():
    with pytest.raises(PredictionsError, match="'validation', only for test"):
        select_split(make_predictions(), "validation")


# ---- threshold


@pytest.mark.parametrize(
    ("negatives", "positives", "threshold"),
    [
        ([0.1, 0.2], [0.6, 0.8], 0.4),  # perfect: the middle of the gap
        ([0.1, 0.5], [0.2, 0.9], 0.7),  # (0.5, 0.9] is wider than (0.1, 0.2]
        ([0.1, 0.8], [0.6, 0.9], 0.35),  # (0.1, 0.6] is wider than (0.8, 0.9]
        ([0.1, 0.4, 0.9], [0.4, 0.6, 0.8], 0.35),  # (0.1, 0.4] and (0.4, 0.6] are one range
        ([0.3, 0.3], [0.3, 0.3], 0.5),  # nothing is better than anything else
        ([1.0, 1.0], [0.0, 0.0], 0.0),  # upside down: call everyone sick
    ],
)
def test_the_threshold_is_the_middle_of_the_widest_tie(negatives, positives, threshold):
    y_true = np.array([0] * len(negatives) + [1] * len(positives))
    chosen = choose_threshold(y_true, np.array(negatives + positives))
    assert chosen == pytest.approx(threshold)


def test_neighbouring_cuts_of_equal_worth_are_one_range():
    # One sick and one healthy image share 0.5: crossing it leaves J as it is.
    y_true = np.array([0, 0, 1, 1])
    assert choose_threshold(y_true, np.array([0.1, 0.5, 0.5, 0.9])) == pytest.approx(0.5)


def test_equally_wide_ranges_give_the_lower_threshold():
    y_true = np.array([0, 1, 0, 1])
    assert choose_threshold(y_true, np.array([0.25, 0.5, 0.625, 0.875])) == 0.375


def test_between_neighbouring_floats_the_threshold_still_parts_the_classes():
    low, high = 0.5, np.nextafter(0.5, 1)
    assert choose_threshold(np.array([0, 1]), np.array([low, high])) == high


@pytest.mark.parametrize("seed", range(5))
def test_no_cut_point_has_a_larger_youden_index(seed):
    random = np.random.default_rng(seed)
    y_true = random.integers(0, 2, 60)
    probability = np.round((random.random(60) + 0.5 * y_true) / 1.5, 1)
    false_rate, true_rate, _ = roc_curve(y_true, probability)
    values = compute_metrics(y_true, probability, choose_threshold(y_true, probability))
    youden = values["sensitivity"] + values["specificity"] - 1
    assert youden == pytest.approx((true_rate - false_rate).max())


def test_the_threshold_of_a_model_ignores_test():
    study = make_study()
    turned = study.assign(
        probability=study.probability.where(study.split == "validation", 1 - study.probability)
    )
    assert choose_validation_threshold(study) == choose_validation_threshold(turned)
    with pytest.raises(PredictionsError, match="'validation'"):
        choose_validation_threshold(study[study.split == "test"])


def test_a_threshold_needs_both_classes():
    with pytest.raises(PredictionsError, match="0 NORMAL and 2 PNEUMONIA"):
        choose_threshold(np.array([1, 1]), np.array([0.1, 0.2]))


# ---- metrics


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
            "ppv": precision_score(y_true, called, sample_weight=weight, zero_division=0),
            "npv": precision_score(
                y_true, called, pos_label=0, sample_weight=weight, zero_division=0
            ),
            "specificity_at_95": specificity_where_most_are_found(y_true, probability, weight),
        }
        assert dict(zip(METRICS, column, strict=True)) == pytest.approx(expected, abs=1e-12)


def specificity_where_most_are_found(y_true, probability, weight):
    """Try every threshold from above, and stop where 95 % of the sick are found."""
    sick, healthy = weight * y_true, weight * (1 - y_true)
    for cut in np.unique(probability)[::-1]:
        called = probability >= cut
        if sick[called].sum() >= 0.95 * sick.sum() - 1e-9:
            return 1 - healthy[called].sum() / healthy.sum()
    raise AssertionError("at the lowest threshold everybody is called sick")


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
    assert values["specificity_at_95"] == 0.5, "all six are found from 0.3 on, with two alarms"


def test_the_chosen_model_stays_when_metrics_are_written_again(tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    write_metrics("sample", {"models": {}})
    assert "chosen_model" not in json.loads(metrics_file("sample").read_text())
    write_chosen_model("sample", "ensemble")
    write_metrics("sample", {"models": {"resnet50": {}}})
    content = json.loads(metrics_file("sample").read_text())
    assert content == {"models": {"resnet50": {}}, "chosen_model": "ensemble"}


# ---- intervals


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
    healthy = [name for name in images if name.endswith("normal")]
    sick = [name for name in images if not name.endswith("normal")]
    values = []
    for _ in range(300):
        drawn = [*random.choice(healthy, len(healthy)), *random.choice(sick, len(sick))]
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


def test_a_perfect_model_has_an_interval_without_width():
    rows = make_predictions()
    auc = evaluate_predictions(rows.assign(probability=rows.y_true.astype(float)), 0.5, 50, 0)
    assert auc["roc_auc"] == {"value": 1.0, "low": 1.0, "high": 1.0}


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


# ---- differences


def test_a_model_does_not_differ_from_itself():
    rows = make_predictions()
    shuffled = rows.sample(frac=1, random_state=1)
    assert paired_difference(rows, shuffled, 50, 0) == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_pairing_sees_a_small_steady_difference():
    better = make_predictions(30, quality=1.5)
    worse = better.copy()
    # Every tenth sick patient's images are pulled down: worse in every resample with any of them.
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
    relabelled = rows.assign(y_true=rows.y_true.where(rows.index != 3, 1 - rows.y_true))
    with pytest.raises(PredictionsError, match=f"disagree .* '{rows.image_id[3]}'"):
        paired_difference(rows, relabelled, 20, 0)


# ---- etiologies


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


# ---- a study


@pytest.fixture(scope="module")
def study_metrics():
    models = {"vgg19": make_study(quality=0.8), "resnet50": make_study(quality=2.0)}
    return evaluate_study(models, resamples=60, seed=42)


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


# ---- tables


def test_numbers_are_formatted_for_reading():
    interval = {"value": 0.95649, "low": -0.0001, "high": 0.97}
    assert format_interval(interval) == "0.956 [0.000, 0.970]"
    assert format_interval(interval, digits=2, signed=True) == "+0.96 [+0.00, +0.97]"


def test_a_table_has_a_row_a_model(study_metrics):
    table = metrics_table(study_metrics, "test", metrics=["roc_auc", "sensitivity"])
    assert list(table.columns) == ["ROC-AUC", "sensitivity"]
    assert list(table.index) == ["vgg19", "resnet50"]
    expected = format_interval(study_metrics["models"]["vgg19"]["test"]["roc_auc"])
    assert table.loc["vgg19", "ROC-AUC"] == expected


def test_the_reference_stands_beside_the_models(study_metrics):
    table = metrics_table(study_metrics, "test", with_reported=True)
    assert table.loc[REPORTED_ROW, "ROC-AUC"] == "0.97"
    assert table.loc[REPORTED_ROW, "accuracy at 0.5"] == "0.89"
    assert table.loc[REPORTED_ROW, "sensitivity"] == "–"
    with pytest.raises(ValueError, match="test by image"):
        metrics_table(study_metrics, "validation", with_reported=True)


def test_other_sections_make_tables_too(study_metrics):
    etiologies = metrics_table(study_metrics, "test", "by_etiology")
    assert list(etiologies.index)[:2] == ["vgg19, bacteria", "vgg19, virus"]
    differences = metrics_table(study_metrics, "test", "differences", ["roc_auc"])
    assert differences.loc["resnet50 - vgg19", "ROC-AUC"].startswith("+")
    with pytest.raises(ValueError, match="'train'"):
        metrics_table(study_metrics, "train")
