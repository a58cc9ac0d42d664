"""Round two is scored from prediction files alone, each number as an independent count has it."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from tests.builders import make_predictions
from utils.common.constants import EXTERNAL_SPLIT
from utils.common.files import write_csv, write_json
from utils.common.paths import ROOT, choices_file, external_file, predictions_file, table_file
from utils.evaluation import external
from utils.evaluation.predictions import from_log_odds, log_odds
from utils.evaluation.tables import (
    calibration_table,
    goals_table,
    models_table,
    resampled_seeds_table,
)
from utils.selection import round_two_scores
from utils.selection.choices import (
    ENSEMBLE,
    ENSEMBLE_TWO,
    RELEASED,
    WHOLE_IMAGE,
    round_two_networks,
)
from utils.selection.round_two_scores import (
    FITTED,
    PIXELS,
    read_scores,
    score_external_set,
    score_round_two,
)

pytestmark = pytest.mark.slow

CHOICES = {
    "single": "one", "members": ["one", "other"], "thresholds": {"one": 0.3, "ensemble": 0.2},
}  # fmt: skip


def write_models(splits, file_of, quality):
    """Write predictions of six networks, what is averaged of them, and round one's."""

    def make(seed, quality):
        return pd.concat([
            make_predictions(12, 3, seed + 10 * number, quality, split)
            for number, split in enumerate(splits)
        ], ignore_index=True)  # fmt: skip

    networks = {name: make(seed, quality) for seed, name in enumerate(round_two_networks())}
    tables = {}
    for name, table in networks.items():
        tables[name] = table
        blurred = from_log_odds(log_odds(table.probability) / 2 - 0.3)
        tables[name + WHOLE_IMAGE] = table.assign(probability=blurred)
    first = next(iter(networks.values()))
    odds = np.mean([log_odds(table.probability) for table in networks.values()], axis=0)
    tables[ENSEMBLE_TWO] = first.assign(probability=from_log_odds(odds))
    tables[RELEASED] = first
    for name in ("one", "other"):
        for seed in (42, 43, 44):
            tables[f"final/{name}_seed{seed}"] = make(seed, 0.3)
    tables[ENSEMBLE] = tables["small"] = tables["final/small"] = make(7, 0.5)
    for name, table in tables.items():
        file = file_of("full", name)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_csv(file, table)
    return tables


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESULTS_DIR", str(folder))
        write_json(choices_file("full"), CHOICES)
        tables = write_models(("train", "validation", "test"), predictions_file, 1.2)
        predictions_file("full", ENSEMBLE).unlink()
        test = tables[RELEASED]
        test = test[test.split == "test"]
        known = (test.y_true == 1) & test.image_id.str.contains("virus")
        write_csv(table_file("full", "known_numbers"), test[["image_id"]].assign(known=known))
        identical = test[["image_id"]].iloc[[0, 3, 5]].assign(duplicate_group=[1, 1, 2])
        write_csv(table_file("full", "identical_images"), identical)
        outside = write_models((EXTERNAL_SPLIT,), external_file, 1.0)
        images = outside[RELEASED]
        random = np.random.default_rng(0)
        gray = images[["image_id"]].assign(
            mean=random.normal(100, 20, len(images)), spread=random.normal(50, 5, len(images))
        )
        write_csv(external_file("full", "gray"), gray)
        for fitted in FITTED:
            for kind in PIXELS:
                file = external_file("full", f"pixels/{fitted}_{kind}")
                file.parent.mkdir(exist_ok=True)
                write_csv(file, images.assign(probability=random.random(len(images))))
        yield tables, score_round_two("full", 60, 1)


def select(table, split="test"):
    return table[table.split == split]


def test_the_primary_numbers_are_those_of_the_files(results):
    tables, scores = results
    test = select(tables[ENSEMBLE_TWO])
    auc = roc_auc_score(test.y_true, test.probability)
    accuracy = accuracy_score(test.y_true, test.probability >= 0.5)
    goals = {(goal["model"], goal["metric"]): goal for goal in scores["goals"]}
    for metric, value, least in (("roc_auc", auc, 0.988), ("accuracy_at_0.5", accuracy, 0.95)):
        goal = goals[ENSEMBLE_TWO, metric]
        assert goal["reached"]["value"] == pytest.approx(value)
        assert goal["least_met"] == (value >= least) and goal["least"] == least
    assert scores["models"][ENSEMBLE_TWO]["threshold"] == 0.5
    assert scores["models"][ENSEMBLE]["threshold"] == 0.2
    assert scores["models"]["small"]["threshold"] == 0.3
    assert read_scores("full") == scores


def test_models_of_several_networks_are_averaged_in_log_odds(results):
    tables, scores = results
    for end in ("", WHOLE_IMAGE):
        parts = [select(tables[f"final/lite0_96_crops_seed{seed}{end}"]) for seed in (43, 44, 45)]
        mean = np.mean([log_odds(part.probability) for part in parts], axis=0)
        mean, y_true = from_log_odds(mean), parts[0].y_true
        expected = accuracy_score(y_true, mean >= 0.5), roc_auc_score(y_true, mean)
        scored = scores["models"][f"lite0_96_crops{end}"]["test"]
        found = scored["accuracy_at_0.5"]["value"], scored["roc_auc"]["value"]
        assert found == pytest.approx(expected, abs=1e-9)


def test_goals_are_those_of_the_document():
    text = " ".join((ROOT / "docs" / "round_two.md").read_text(encoding="utf-8").split())
    for row in (
        "| `ensemble_two`, test ROC-AUC (primary) | 0.993 | 0.988 |",
        "| `ensemble_two`, test accuracy at 0.5 (primary) | 0.962 | 0.950 |",
        "sensitivity 0.97 together with specificity 0.90 |",
        "| `released`, test ROC-AUC | | 0.985 |", "| `released`, test accuracy at 0.5 | | 0.945 |",
    ):  # fmt: skip
        assert row in text
    assert [goal[2:] for goal in round_two_scores.GOALS] == [
        (0.993, 0.988), (0.962, 0.95), (None, 0.97), (None, 0.9), (None, 0.985), (None, 0.945),
    ]  # fmt: skip


def test_readings_leave_out_what_they_say(results):
    tables, scores = results
    scored = scores["models"][ENSEMBLE_TWO]
    test = select(tables[ENSEMBLE_TWO])
    assert scored["test"]["images"] == len(test) == 108
    assert scored["identical_once"]["images"] == 107
    assert scored["number_not_in_training"]["images"] == 72
    assert scored["number_known"]["images"] == 72
    known = test[~test.image_id.str.contains("bacteria")]
    expected = roc_auc_score(known.y_true, known.probability)
    assert scored["number_known"]["roc_auc"]["value"] == pytest.approx(expected)


def test_calibration_is_corrected_for_the_training_patients_prevalence(results):
    tables, scores = results
    assert scores["prevalence"]["training_patients"] == pytest.approx(2 / 3)
    lines = scores["models"][ENSEMBLE_TWO]["calibration"]["test"]
    before, after = (lines[kind] for kind in ("as_is", "prevalence_corrected"))
    shift = before["intercept"]["value"] - after["intercept"]["value"]
    assert shift == pytest.approx(np.log(2), abs=1e-6)
    assert before["slope"]["value"] == pytest.approx(after["slope"]["value"])
    assert before["slope"]["low"] < before["slope"]["value"] < before["slope"]["high"]


def test_seeds_and_patients_are_resampled_together(results):
    tables, scores = results
    seeds = scores["seeds"]
    of_seeds = seeds["lite0_128_crops"]["roc_auc"]["of_seeds"]
    for seed, found in zip((43, 44, 45), of_seeds, strict=True):
        test = select(tables[f"final/lite0_128_crops_seed{seed}"])
        assert found == pytest.approx(roc_auc_score(test.y_true, test.probability))
    both = seeds["lite0_128_crops"]["roc_auc"]["both"]
    assert both["value"] == pytest.approx(np.mean(of_seeds))
    assert both["low"] < both["value"] < both["high"]
    test = select(tables[ENSEMBLE_TWO])
    ensemble = seeds[ENSEMBLE_TWO]["roc_auc"]["both"]["value"]
    assert ensemble == pytest.approx(roc_auc_score(test.y_true, test.probability))
    assert set(seeds) == {
        name + end for name in (ENSEMBLE_TWO, "lite0_128_crops", "lite0_96_crops")
        for end in ("", WHOLE_IMAGE)
    }  # fmt: skip


def test_differences_are_paired_and_the_curve_is_drawn(results):
    tables, scores = results
    difference = scores["differences"][f"{ENSEMBLE_TWO} - {ENSEMBLE}"]["roc_auc"]
    models = scores["models"]
    expected = models[ENSEMBLE_TWO]["test"]["roc_auc"]["value"]
    expected -= models[ENSEMBLE]["test"]["roc_auc"]["value"]
    assert difference["value"] == pytest.approx(expected) and difference["low"] > 0
    half = next(row for row in scores["decision_curve"] if row["threshold"] == 0.5)
    test = select(tables[ENSEMBLE_TWO])
    positive = test.probability >= 0.5
    by_hand = (positive & (test.y_true == 1)).mean() - (positive & (test.y_true == 0)).mean()
    assert half[f"{ENSEMBLE_TWO}, as_is"] == pytest.approx(by_hand)
    assert half["treat all"] == pytest.approx(1 / 3)


def test_tables_are_made_for_reading(results):
    scores = results[1]
    goals = goals_table(scores)
    assert len(goals) == 6 and goals["goal"].iloc[2] == "–"
    models = models_table(scores, ["roc_auc", "ppv"])
    assert list(models.columns) == ["images", "ROC-AUC", "PPV"] and "shipped" in models.index
    assert len(models_table(scores, ["roc_auc"], "number_known")) == 4
    calibration = calibration_table(scores)
    assert len(calibration) == 4 * 2
    row = calibration.loc["released, test"]
    found = scores["models"]["released"]["calibration"]["test"]
    assert row["ECE, corrected"] == f"{found['prevalence_corrected']['ece']:.3f}"
    assert row.intercept != row["intercept, corrected"]
    assert "(" in resampled_seeds_table(scores).loc["lite0_96_crops", "ROC-AUC"]


@pytest.mark.usefixtures("results")
def test_the_external_test_is_scored_beside_it(monkeypatch):
    monkeypatch.setattr(external, "DRAWS", 10)
    scores = score_external_set("full", 50, 1, local_normals=20)
    assert list(scores["models"]) == [ENSEMBLE_TWO, RELEASED, ENSEMBLE, "small"]
    assert scores["models"][RELEASED]["round_one_threshold"] == 0.3
    assert scores["models"][ENSEMBLE_TWO]["round_one_threshold"] == 0.2
    assert scores["not_predicted"] == []
    assert set(scores["pixel_baselines"]) == {"training_folder", "within"}
    external_file("full", ENSEMBLE).unlink()
    assert score_external_set("full", 20, 1, 20)["not_predicted"] == [ENSEMBLE]


def test_scoring_loads_no_tensorflow():
    code = (
        "import sys, utils.selection.round_two_scores, utils.evaluation.external\n"
        "sys.exit('keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
