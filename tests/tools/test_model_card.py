import pytest

from tests.selection.test_comparison import CHOICES, models  # noqa: F401
from utils.common.files import write_json
from utils.evaluation.calibration import evaluate_calibration
from utils.evaluation.intervals import with_null
from utils.selection.comparison import score_final_models
from utils.selection.round_two_scores import METRICS_FILE
from utils.tools.model_card import card_blocks


@pytest.fixture
def folders(tmp_path, models):  # noqa: F811
    results, shipped = tmp_path / "results", tmp_path / "models"
    write_json(results / "choices.json", CHOICES)
    first = score_final_models(models, 50, 0)
    write_json(results / "final_metrics.json", with_null(first))
    calibration = evaluate_calibration(models["a"].mean, 50, 0)
    kinds = {"as_is": calibration, "prevalence_corrected": calibration}
    second = first["a"] | {"calibration": {"test": kinds}}
    write_json(
        results / METRICS_FILE,
        with_null({"models": {"released": second, "ensemble_two": second, "other": {}}}),
    )
    record = {
        "sha256": "abc", "threshold": 0.4, "seed": 42, "weights": "ImageNet",
        "candidate": {"name": "a", "architecture": "small_cnn", "size": 64},
    }  # fmt: skip
    released = record | {"sha256": "def", "threshold": 0.5}
    write_json(shipped / "models.json", {"released": released, "small": record})
    rates = "flagged,low,high,constant,foreign,pose,right"
    (results / "guard.csv").write_text(
        f"images,kind,n,{rates}\n"
        "validation,upright,200,0.03,0.011,0.064,0,0.02,0.01,\n"
        "test,upright,100,0.05,0.016,0.113,0,0.03,0.02,\n"
        "validation,negative,200,0.995,0.972,1.0,0,0.2,0.99,0.985\n"
        "test,negative,100,1.0,0.964,1.0,0,0.2,0.99,0.97\n"
        "foreign,noise,30,1.0,0.884,1.0,0.1,0.8,0.2,\n"
    )
    for number in (1, 2):
        write_json(results / f"screening/a/block{number}_seed42.json", {"minutes": 30.0})
    write_json(results / "provenance/final/a_seed42.json", {"training_minutes": 120.0})
    return results, shipped


def test_the_card_says_what_the_results_say(folders):
    blocks = card_blocks(*folders)
    assert "`ensemble`, the mean probability of `b`, `a`" in blocks["card-model"]
    assert "Threshold 0.450" in blocks["card-model"] and "`abc`" in blocks["card-model"]
    assert "Threshold 0.5, SHA-256 `def`" in blocks["card-model"]
    for name in ("card-results", "card-subgroups", "card-failures"):
        rows = [line.split(" | ")[0] for line in blocks[name].splitlines()[2:]]
        assert [*dict.fromkeys(rows)] == ["| released", "| ensemble_two", "| ensemble", "| a"]
    assert blocks["card-subgroups"].count("| virus |") == 4
    assert blocks["card-calibration-two"].count(", test |") == 2
    assert blocks["card-calibration"].count("| test |") == 2
    assert (
        "2 training runs on folds took 1.0 hours and 1 final runs 2.0 hours" in blocks["card-cost"]
    )
    assert "0.06 kWh" in blocks["card-cost"]
    guard = blocks["card-guard"].splitlines()
    assert guard[0].endswith("| validation (200) | test (100) | right remark, validation |")
    assert guard[2] == "| as they are | 3.0% [1.1%, 6.4%] | 5.0% [1.6%, 11.3%] |  |"
    assert guard[3] == "| negative | 99.5% [97.2%, 100.0%] | 100.0% [96.4%, 100.0%] | 98.5% |"
    assert guard[-1] == "| noise (30) | 100.0% [88.4%, 100.0%] | 90.0% |"


@pytest.mark.parametrize("file", ["final_metrics.json", METRICS_FILE])
def test_without_the_scores_of_both_rounds_there_is_no_card(folders, file):
    results, shipped = folders
    (results / file).unlink()
    with pytest.raises(FileNotFoundError, match=file):
        card_blocks(results, shipped)
