"""The ablation is scored by setting, and a criterion that misranks has its regret."""

from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest

from tests.builders import make_predictions, open_small_study
from utils.common.constants import EXTERNAL_SPLIT
from utils.common.files import write_csv, write_json
from utils.common.paths import (
    external_file,
    final_name,
    held_out_file,
    predictions_file,
    results_dir,
    table_file,
)
from utils.data.index import open_study_index
from utils.data.perturbations import PERTURBATIONS
from utils.data.regions import REGIONS
from utils.evaluation.predictions import load_predictions, select_split
from utils.selection import ablation, round_two
from utils.selection.ablation import (
    ABLATION,
    CRITERIA,
    SEEDS,
    average_settings,
    judge_settings,
    predict_ablation,
    require_scored,
    score_networks,
    tabulate_criteria,
)
from utils.selection.choices import SelectionError

pytestmark = pytest.mark.slow

SETTINGS = [recipe.name.removeprefix("ablation_") for recipe in ABLATION]


def draw(seed, quality, split):
    return make_predictions(40, 2, seed, quality, split).drop(columns="split")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return what 24 networks predict: later settings are better on test, worse on validation.

    On perturbed validation they have the order of the test set.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESULTS_DIR", str(tmp_path_factory.mktemp("results")))
        for number, recipe in enumerate(ABLATION):
            for seed in SEEDS:
                name = final_name(recipe.name, seed)
                up, down = 0.5 + 0.3 * number, 3.0 - 0.3 * number
                test, plain, stressed, outside = (
                    draw(seed, quality, split)
                    for quality, split in ((up, "test"), (down, "validation"), (up, "validation"),
                                           (1.0, "external"))
                )  # fmt: skip
                both = pd.concat([plain.assign(split="validation"), test.assign(split="test")])
                columns = ["image_id", "patient_id", "split", "y_true", "probability"]
                for file, table in (
                    (predictions_file("full", name), both),
                    (external_file("full", name), outside.assign(split=EXTERNAL_SPLIT)),
                ):
                    file.parent.mkdir(parents=True, exist_ok=True)
                    write_csv(file, table[columns])
                versions = dict.fromkeys(PERTURBATIONS[1:], stressed.probability)
                held_out = plain.rename(columns={"probability": PERTURBATIONS[0]})
                file = held_out_file("full", recipe.name, "plain", seed)
                write_csv(file, held_out.assign(**versions))
                write_json(file.with_suffix(".json"), {"candidate": recipe.describe()})
        regions = [
            (f"{recipe.name}_seed{seed}", region, 0.6 + 0.01 * seed, 0.5, 0.7)
            for recipe in ABLATION for seed in SEEDS for region in REGIONS
        ]  # fmt: skip
        columns = ["model", "region", "roc_auc", "low", "high"]
        write_csv(table_file("full", "ablation_regions"), pd.DataFrame(regions, columns=columns))
        yield score_networks("full")


def test_a_row_holds_what_one_network_did(results):
    assert len(results) == 24 and results.setting.unique().tolist() == SETTINGS
    row = results.iloc[-1]
    assert (row.setting, row.seed) == ("robust", 45)
    assert row.test > row.validation and row.perturbed > row.validation
    assert row.covered_features == 3 and row["lungs only"] == pytest.approx(1.05)
    assert row.validation < row.all_versions < row.perturbed


def test_settings_are_shown_with_the_range_of_their_seeds(results):
    table = average_settings(results)
    assert list(table.index) == SETTINGS
    values = results[results.setting == "crop_08"].test
    expected = f"{values.mean():.3f} ({values.min():.3f}-{values.max():.3f})"
    assert table.loc["crop_08", "test"] == expected


def test_criteria_are_judged_by_settings(results):
    judged = judge_settings("full", results, 40, 1).set_index("criterion")
    assert list(judged.index) == list(CRITERIA) and (judged.settings == 8).all()
    means = results.groupby("setting").test.mean()
    assert means.idxmax() == "robust"
    for criterion in ("validation", "validation_accuracy", "validation_log_likelihood"):
        assert judged.spearman[criterion] < -0.9 and judged.chosen[criterion] == "no_crop"
        assert judged.regret[criterion] == pytest.approx(means.max() - means["no_crop"], abs=1e-5)
        assert 0 < judged.regret_low[criterion] < judged.regret[criterion]
        assert judged.regret[criterion] < judged.regret_high[criterion]
    for criterion in ("perturbed", "worst_perturbed"):
        assert judged.spearman[criterion] > 0.9 and judged.chosen[criterion] == "robust"
        assert judged.regret[criterion] == 0
    # A resample may choose the next best, which is worse as often as not.
    assert judged.regret_low["perturbed"] <= 0 <= judged.regret_high["perturbed"]
    kept = pd.read_csv(table_file("full", "ablation_criteria"))
    assert kept.chosen.tolist() == judged.chosen.tolist()
    shown = tabulate_criteria(kept).set_index("criterion")
    row = judged.loc["validation"]
    assert shown.regret["validation"] == (
        f"{row.regret:.3f} [{row.regret_low:.3f}, {row.regret_high:.3f}]"
    )
    assert shown["Spearman's correlation"]["validation"].startswith(f"{row.spearman:.2f} [")


def test_the_ablation_waits_for_the_scores(tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    with pytest.raises(SelectionError, match="round_two_metrics.json must be there and committed"):
        require_scored("full")
    write_json(results_dir("full") / "round_two_metrics.json", {})
    require_scored("full")
    monkeypatch.setattr(ablation, "ROOT", tmp_path)
    monkeypatch.setattr(ablation, "find_commit", lambda *files: "" if files else "abc")
    with pytest.raises(SelectionError, match="committed before the ablation"):
        require_scored("full")


def test_networks_predict_what_the_document_names(tmp_path, monkeypatch):
    study = open_small_study(tmp_path, monkeypatch)
    study = study.model_copy(update={"resamples": 20})
    tiny = [
        replace(recipe, architecture="small_cnn", size=32, epochs=1, batch_size=8)
        for recipe in (ABLATION[0], ABLATION[-1])
    ]
    for module in (ablation, round_two):
        monkeypatch.setattr(module, "SEEDS", (43,))
    monkeypatch.setattr(ablation, "ABLATION", tiny)
    monkeypatch.setattr(round_two, "find_uncommitted", lambda *files: [])
    root, index = open_study_index(study)
    record = {"dataset": {"fingerprint": round_two.fingerprint_of(study)}}
    write_json(results_dir("full") / "provenance" / "resnet50.json", record)
    images = index[index.split == "test"].assign(split=EXTERNAL_SPLIT)
    monkeypatch.setattr(ablation, "open_nih_adults", lambda: (root, images))
    write_json(results_dir("full") / "round_two_metrics.json", {})
    for recipe in tiny:
        round_two.train_network(study, recipe, 43)
    predict_ablation(study)
    table = load_predictions(predictions_file("full", final_name(tiny[0].name, 43)))
    assert set(table.split) == {"validation", "test"}
    held_out = pd.read_csv(held_out_file("full", tiny[0].name, "plain", 43))
    assert set(held_out.image_id) == set(select_split(table, "validation").image_id)
    together = held_out.merge(table, on="image_id")
    np.testing.assert_allclose(together.unchanged, together.probability, atol=0.02)
    monkeypatch.setattr(keras.models, "load_model", None)  # called again, this would fail
    predict_ablation(study)
    networks = score_networks("full")
    assert networks.setting.tolist() == ["no_crop", "robust"]
    assert networks[list(REGIONS[1:])].notna().all(axis=None)
    assert len(judge_settings("full", networks, 5, 1)) == len(CRITERIA)
