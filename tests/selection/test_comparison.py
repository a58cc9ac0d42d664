import numpy as np
import pandas as pd
import pytest

from tests.builders import make_study
from utils.common.files import write_csv
from utils.common.paths import predictions_dir
from utils.evaluation.delong import delong_difference
from utils.evaluation.metrics import compute_metrics
from utils.evaluation.predictions import average_predictions, select_split
from utils.evaluation.thresholds import choose_validation_threshold
from utils.selection.comparison import (
    FinalModel,
    calibration_table,
    difference_table,
    error_table,
    etiology_table,
    final_names,
    goal_table,
    judge_criteria,
    measure_calibration_of,
    prevalence_table,
    read_final_models,
    read_without_labels,
    reliability_curves,
    score_final_models,
    score_table,
    seed_table,
)

CHOICES = {
    "single": "a", "members": ["b", "a"], "chosen": "ensemble",
    "thresholds": {"a": 0.4, "b": 0.5, "ensemble": 0.45},
}  # fmt: skip


def redrawn(quality, seed):
    """Return predictions of the same images by another model."""
    return make_study(quality=1.5, seed=0).assign(
        probability=make_study(quality=quality, seed=seed).probability
    )


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    folder = predictions_dir("full")
    for number, name in enumerate(("vgg19", "resnet50", "final/resnet50_seed43")):
        write_csv(folder / f"{name}.csv", redrawn(1.0, 10 * number))
    for number, name in enumerate(("a", "b")):
        for seed in (42, 43):
            write_csv(folder / f"final/{name}_seed{seed}.csv", redrawn(3.0, seed + 100 * number))
    return read_final_models("full", CHOICES, [42, 43])


def test_all_finished_models_are_read(models):
    assert list(models) == ["vgg19", "resnet50", "a", "b", "ensemble"]
    assert [len(model.seeds) for model in models.values()] == [1, 2, 2, 2, 2]
    assert models["ensemble"].threshold == 0.45
    assert models["resnet50"].threshold == choose_validation_threshold(models["resnet50"].mean)
    for seed in (0, 1):
        expected = (models["a"].seeds[seed].probability.to_numpy()
                    + models["b"].seeds[seed].probability.to_numpy()) / 2  # fmt: skip
        by_image = models["ensemble"].seeds[seed].set_index("image_id").probability
        order = models["a"].seeds[seed].image_id
        np.testing.assert_allclose(by_image[order], expected)
    assert final_names(CHOICES) == ["a", "b"]


def test_a_mean_needs_the_same_images(models):
    table = models["a"].seeds[0]
    shuffled = table.sample(frac=1, random_state=0)
    np.testing.assert_allclose(
        average_predictions([table, shuffled]).set_index("image_id").probability[table.image_id],
        table.probability,
    )
    with pytest.raises(ValueError, match="different images"):
        average_predictions([table, table.iloc[1:]])


@pytest.mark.slow
def test_scores_are_those_of_the_mean_and_of_each_seed(models):
    scores = score_final_models(models, 50, 0)
    test = select_split(models["a"].mean, "test")
    expected = compute_metrics(test.y_true.to_numpy(), test.probability.to_numpy(), 0.4)
    assert scores["a"]["test"]["ppv"]["value"] == pytest.approx(expected["ppv"])
    assert len(scores["a"]["seeds"]) == 2
    assert "difference" not in scores["resnet50"]
    difference = scores["ensemble"]["difference"]
    assert difference["roc_auc"]["low"] > 0, "these two differ beyond doubt"
    delong = delong_difference(
        test.y_true, select_split(models["ensemble"].mean, "test").probability,
        select_split(models["resnet50"].mean, "test").probability,
    )  # fmt: skip
    assert difference["roc_auc_delong"] == pytest.approx(delong)
    assert difference["roc_auc"]["value"] == pytest.approx(delong["value"])


@pytest.mark.slow
def test_tables_say_what_was_scored(models):
    scores = score_final_models(models, 50, 0)
    seeds = seed_table(scores)
    assert seeds.loc["vgg19", "seeds"] == 1 and "(" not in seeds.loc["vgg19", "ROC-AUC"]
    values = [seed["roc_auc"] for seed in scores["a"]["seeds"]]
    assert seeds.loc["a", "ROC-AUC"] == (
        f"{np.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})"
    )
    assert score_table(scores, ["roc_auc", "npv"]).columns.tolist() == ["ROC-AUC", "NPV"]
    assert difference_table(scores).index.tolist() == ["vgg19", "a", "b", "ensemble"]
    assert etiology_table(scores).index[:2].tolist() == ["vgg19, bacteria", "vgg19, virus"]


def test_criteria_are_judged_by_the_order_of_finished_models():
    criteria = pd.DataFrame({
        "candidate": list("abcdef"), "right": [1, 2, 3, 4, 5, 6.0], "wrong": [5, 4, 3, 2, 1, 0.0],
        "some": [1, 2, 4, 3, 5, None],
    })  # fmt: skip
    reached = {"a": 0.9, "b": 0.91, "c": 0.93, "d": 0.94, "e": 0.95}
    judged = judge_criteria(criteria, reached).set_index("criterion")
    assert judged.spearman.tolist() == pytest.approx([1, -1, 0.9])
    assert judged.models.tolist() == [5, 5, 5], "f was not finished"
    assert np.isnan(judged.low["right"])
    assert judged.low["some"] < 0.9 < judged.high["some"] < 1


def test_one_member_is_no_ensemble(models):
    alone = read_final_models("full", CHOICES | {"members": []}, [42])
    assert list(alone) == ["vgg19", "resnet50", "a"]
    assert isinstance(alone["a"], FinalModel)


def test_temperature_is_fitted_on_validation_and_judged_on_both(models):
    mean = models["resnet50"].mean
    pushed = 0.5 + 0.49 * np.sign(mean.probability - 0.5)  # far too sure
    sure = {"a": FinalModel("a", 0.5, (mean.assign(probability=pushed),))}
    scores = {name: {"calibration": measure_calibration_of(each)} for name, each in sure.items()}
    table = calibration_table(scores).set_index("split")
    assert table.index.tolist() == ["validation", "test"]
    assert (table.temperature > 1).all() and table.temperature.nunique() == 1
    assert table.brier_after["validation"] < table.brier_before["validation"]
    assert table.brier_with_bias["validation"] < table.brier_before["validation"]
    curves = reliability_curves(sure["a"])
    assert sum(count for *_, count in curves["test"]) == (models["a"].mean.split == "test").sum()


def test_prevalence_moves_the_predictive_values():
    scored = {"test": {"sensitivity": {"value": 0.9}, "specificity": {"value": 0.8}}}
    table = prevalence_table(scored, [0.05, 0.5])
    assert table.PPV.tolist() == pytest.approx([0.045 / (0.045 + 0.19), 0.45 / 0.55])
    assert table.NPV[0] > table.NPV[1]


def test_unlabeled_images_need_two_seeds(models):
    table = read_without_labels(models).set_index("model")
    assert table.index.tolist() == ["resnet50", "a", "b", "ensemble"]
    assert table.agreement.between(0.5, 1).all() and table.estimated.between(0, 1).all()
    test = select_split(models["a"].mean, "test")
    expected = compute_metrics(test.y_true.to_numpy(), test.probability.to_numpy(), 0.4)
    assert table.observed["a"] == pytest.approx(expected["accuracy_at_threshold"])


def test_two_models_rank_nothing():
    criteria = pd.DataFrame({"candidate": ["a", "b"], "block": [0.9, 0.95]})
    assert np.isnan(judge_criteria(criteria, {"a": 0.9, "b": 0.8}).spearman[0])


def test_goals_are_met_by_values_not_by_intervals():
    def interval(value):
        return {"value": value, "low": value - 0.1, "high": value + 0.1}

    scored = {
        "test": {
            "roc_auc": interval(0.986), "accuracy_at_threshold": interval(0.9449),
            "specificity_at_95": interval(0.91),
        },
        "difference": {"roc_auc": {"value": 0.02, "low": -0.001, "high": 0.041}},
        "calibration": {"validation": {"ece_after": 0.051, "ece_with_bias": 0.05}},
    }  # fmt: skip
    table = goal_table(scored)
    assert table.met.tolist() == [True, False, True, False, False, True]
    assert table.reached[3] == "+0.020 [-0.001, +0.041]"


def test_errors_are_counted_by_group(models):
    mean = models["a"].mean
    rows = mean.assign(probability=np.where(mean.y_true == 1, 0.9, 0.1))
    test = rows.index[rows.split == "test"]
    positive = rows.loc[test].index[rows.loc[test].patient_id.str.endswith("virus")]
    rows.loc[positive[0], "probability"] = 1e-6  # wrong with high confidence
    rows.loc[positive[1], "probability"] = 0.499  # wrong
    table = error_table(FinalModel("a", 0.5, (rows,))).set_index("group")
    assert table.images.sum() == len(test)
    assert table.wrong.sum() == 2 and table["wrong with high confidence"].sum() == 1
    assert table.wrong[table.index.str.endswith("virus")].sum() == 2
