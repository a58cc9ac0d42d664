"""The committed results of the full study are complete, and no broken model's."""

import pandas as pd
import pytest

from utils.common.files import read_json
from utils.common.paths import predictions_file, provenance_file, published_results_dir, table_file
from utils.common.provenance import read_provenance
from utils.common.study import load_study
from utils.evaluation.metrics import compute_metrics
from utils.evaluation.predictions import (
    average_predictions,
    list_models,
    load_predictions,
    select_split,
)
from utils.evaluation.thresholds import choose_validation_threshold
from utils.evaluation.two_sites import count_flips, list_measures, measure_models
from utils.models.catalogue import BACKBONES
from utils.selection import ablation, comparison, rule, two_sites
from utils.selection import candidates as candidate_list
from utils.selection.choices import ENSEMBLE_TWO, RELEASED, round_two_networks
from utils.selection.round_two_scores import HEADLINE, METRICS_FILE, read_models

MODELS = list_models(published_results_dir())
STUDY = load_study("full")


@pytest.fixture(scope="module")
def metrics():
    return read_json(published_results_dir() / "metrics.json")


@pytest.mark.parametrize("model", MODELS)
def test_predictions_cover_the_held_out_images(model):
    file = published_results_dir() / "predictions" / f"{model}.csv"
    predictions = load_predictions(file)
    assert predictions.groupby("split").size().to_dict() == {"test": 624, "validation": 811}
    assert predictions.groupby("split").patient_id.nunique().to_dict() == {
        "test": 428, "validation": 540
    }  # fmt: skip


def test_metrics_are_those_of_the_predictions(metrics):
    predictions = {
        model: load_predictions(published_results_dir() / "predictions" / f"{model}.csv")
        for model in MODELS
    }
    for model, rows in predictions.items():
        threshold = choose_validation_threshold(rows)
        assert metrics["thresholds"][model] == threshold
        for split in ("validation", "test"):
            part = select_split(rows, split)
            values = compute_metrics(part.y_true, part.probability, threshold)
            stored = metrics["models"][model][split]
            assert {name: stored[name]["value"] for name in values} == pytest.approx(values)


@pytest.mark.parametrize(
    ("model", "split", "metric", "band"),
    [
        ("resnet50", "test", "roc_auc", (0.95, 0.98)),
        ("resnet50", "validation", "roc_auc", (0.985, 1.0)),
        ("resnet50", "test", "accuracy_at_0.5", (0.78, 0.93)),
        ("vgg19", "validation", "roc_auc", (0.90, 1.0)),
        ("vgg19", "test", "roc_auc", (0.80, 0.98)),
    ],
)
def test_metrics_lie_in_a_band_that_a_broken_model_leaves(metrics, model, split, metric, band):
    value = metrics["models"][model][split][metric]
    assert band[0] <= value["value"] <= band[1]
    assert value["low"] < value["value"] < value["high"]


@pytest.mark.parametrize("model", MODELS)
def test_provenance_names_study_data_and_weights(model):
    record = read_provenance(published_results_dir(), model)
    assert record["dataset"]["images"] == {"train": 4405, "validation": 811, "test": 624}
    assert record["dataset"]["split"] == "patient-level split"
    assert len(record["weights"]["sha256"]) == 64
    assert record["recipe"]["seed"] == STUDY.seed
    assert record["recipe"]["epochs"] == STUDY.epochs
    assert record["recipe"]["views"] == getattr(STUDY, BACKBONES[model].copies_key)


def test_both_networks_are_published():
    assert {"resnet50", "vgg19"} <= set(MODELS)


def test_the_weights_of_vgg19_are_named_for_what_they_are():
    weights = read_provenance(published_results_dir(), "vgg19")["weights"]
    assert weights["description"] in ("ImageNet", "ImageNet blocks 1-3, random blocks 4-5")
    assert (weights["banner"] == "") == (weights["description"] == "ImageNet")


def test_resnet50_was_trained_on_imagenet_weights():
    assert (
        read_provenance(published_results_dir(), "resnet50")["weights"]["description"] == "ImageNet"
    )


# ---- notebooks 08 and 09


@pytest.fixture(scope="module")
def choices():
    return read_json(published_results_dir() / "choices.json")


@pytest.mark.slow
def test_choices_are_those_of_the_held_out_predictions(choices):
    """The rule, applied again to the committed predictions of the second round."""
    names = [row["candidate"] for row in choices["compared"]]
    again = rule.make_choices(
        published_results_dir() / "screening",
        [candidate_list.find_candidate(name) for name in names],
        STUDY.second_round_folds,
        [STUDY.seed],
    )
    assert again == choices


def test_every_chosen_model_has_predicted_with_every_seed(choices):
    final = published_results_dir() / "predictions" / "final"
    for name in comparison.final_names(choices):
        for seed in STUDY.final_seeds:
            rows = load_predictions(final / f"{name}_seed{seed}.csv")
            assert rows.groupby("split").size().to_dict() == {"test": 624, "validation": 811}


@pytest.mark.slow
def test_final_metrics_are_those_of_the_predictions(choices, monkeypatch):
    monkeypatch.setenv("RESULTS_DIR", str(published_results_dir().parent))
    models = comparison.read_final_models("full", choices, STUDY.final_seeds)
    stored = read_json(published_results_dir() / "final_metrics.json")
    assert list(stored) == list(models)
    for name, model in models.items():
        assert stored[name]["threshold"] == model.threshold
        errors = comparison.error_table(model)
        errors = errors.rename(columns={comparison.WRONG_AND_SURE: "sure and wrong"})
        assert stored[name]["errors"] == errors.to_dict("records")
        # The fit ends where it no longer gains, on some processors earlier than on others.
        calibration = comparison.measure_calibration_of(model)
        for key, value in stored[name]["calibration"].items():
            assert value == pytest.approx(calibration[key], abs=2e-3), key
        test = select_split(model.mean, "test")
        values = compute_metrics(test.y_true, test.probability, model.threshold)
        found = {metric: stored[name]["test"][metric]["value"] for metric in values}
        assert found == pytest.approx(values)


def test_the_chosen_model_leaves_the_band_of_a_broken_one(choices):
    stored = read_json(published_results_dir() / "final_metrics.json")
    chosen = stored[choices["chosen"]]
    assert 0.96 <= chosen["test"]["roc_auc"]["value"] <= 0.985
    assert chosen["difference"]["roc_auc"]["low"] < chosen["difference"]["roc_auc"]["value"]
    assert chosen["test"]["sensitivity"]["value"] > 0.97


# ---- round two

ROUND_TWO = published_results_dir() / METRICS_FILE
scored = pytest.mark.skipif(not ROUND_TWO.is_file(), reason="round two is not scored yet")


@pytest.fixture
def published(monkeypatch):
    monkeypatch.setenv("RESULTS_DIR", str(published_results_dir().parent))


@scored
@pytest.mark.usefixtures("published")
def test_round_two_is_scored_from_its_predictions():
    stored = read_json(ROUND_TWO)["models"]
    tables = read_models("full")
    assert stored.keys() == tables.keys()
    for name, table in tables.items():
        for split in ("validation", "test"):
            rows = select_split(table, split)
            values = compute_metrics(rows.y_true, rows.probability, stored[name]["threshold"])
            found = {metric: stored[name][split][metric]["value"] for metric in values}
            assert found == pytest.approx(values, nan_ok=True)
    for name in HEADLINE:
        final = comparison.FinalModel(name, stored[name]["threshold"], (tables[name],))
        again = comparison.score_subgroups(final, 2, 0)
        assert stored[name]["errors"] == again["errors"]
        for kind, metrics in again["by_etiology"].items():
            found = stored[name]["by_etiology"][kind]["roc_auc"]["value"]
            assert found == pytest.approx(metrics["roc_auc"]["value"])


@pytest.mark.usefixtures("published")
def test_two_sites_are_measured_from_their_predictions():
    names = [name.removeprefix("final/") for name in round_two_networks()]
    tables = two_sites.read_tables(names)
    stored = pd.read_csv(two_sites.result_file("full", "measures"))
    found = list_measures(measure_models(tables, two_sites.SEEDS, 2, 0))
    pd.testing.assert_frame_equal(
        found.drop(columns=["low", "high"]), stored.drop(columns=["low", "high"])
    )
    flips = pd.read_csv(two_sites.result_file("full", "flips")).astype({"seed": "Int64"})
    pd.testing.assert_frame_equal(count_flips(tables, two_sites.SEEDS), flips)
    questions = pd.read_csv(two_sites.result_file("full", "questions"))
    asked = questions[["measure", "model", "minus"]].astype(object).where(questions.notna(), None)
    assert [*map(tuple, asked.to_numpy())] == [question[:3] for question in two_sites.QUESTIONS]
    assert (questions.high > questions.value).all() and (questions.low < questions.value).all()


@pytest.mark.usefixtures("published")
def test_the_ablation_is_scored_from_its_predictions(monkeypatch):
    monkeypatch.setattr(ablation, "write_csv", lambda file, table: None)
    stored = pd.read_csv(table_file("full", "ablation"))
    pd.testing.assert_frame_equal(ablation.score_networks("full"), stored)
    assert stored.groupby("setting").size().eq(3).all() and stored.setting.nunique() == 8
    judged = ablation.judge_settings("full", stored, 2, STUDY.seed)
    kept = pd.read_csv(table_file("full", "ablation_criteria"))
    same = ["criterion", "settings", "spearman", "low", "high", "chosen", "regret"]
    pd.testing.assert_frame_equal(judged[same], kept[same])


@scored
@pytest.mark.usefixtures("published")
def test_round_two_is_averaged_from_its_networks():
    networks = [load_predictions(predictions_file("full", name)) for name in round_two_networks()]
    for table in networks:
        assert table.groupby("split").size().to_dict() == {
            "train": 4405, "validation": 811, "test": 624,
        }  # fmt: skip
    expected = average_predictions(networks, in_log_odds=True).probability
    found = load_predictions(predictions_file("full", ENSEMBLE_TWO)).probability
    assert found.to_numpy() == pytest.approx(expected.to_numpy(), abs=1e-12)
    released = load_predictions(predictions_file("full", RELEASED))
    assert released.probability.to_numpy() == pytest.approx(networks[0].probability.to_numpy())


@scored
@pytest.mark.usefixtures("published")
def test_round_two_predicted_once_as_registered():
    for name in round_two_networks():
        trained = read_json(provenance_file("full", name))
        assert trained["registered"]["document"] == "docs/round_two.md"
        for end, way in (("", "ten crops"), ("_plain", "whole image")):
            file = predictions_file("full", name + end).with_suffix(".json")
            predicted = read_json(file)
            assert predicted["test_time"] == way and len(predicted["network_sha256"]) == 64
