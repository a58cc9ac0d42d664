"""The trial of precisions: pairs of heads, kept, judged by the registered bound."""

import json

import pandas as pd
import pytest

from tests.builders import build_small_backbone, open_small_study
from utils.common.paths import ROOT, models_dir, table_file
from utils.models.pretrained import Weights
from utils.training import precision_trial
from utils.training.head import Recipe, train_head
from utils.training.precision_trial import (
    BOUND,
    TRIAL,
    compare_pairs,
    is_within_bound,
    main,
    run_trial,
)

SEEDS = [42, 43, 44]


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Run in a small study with a small backbone, and list the heads that are trained."""
    open_small_study(tmp_path, monkeypatch)
    weights = Weights("resnet50", "random", "random", "0" * 64, None)
    monkeypatch.setattr(precision_trial, "resolve_study_weights", lambda *_: weights)
    monkeypatch.setattr(
        "utils.training.head.build_backbone", lambda weights, precision="": build_small_backbone()
    )
    monkeypatch.setattr(
        Recipe, "of_study", classmethod(lambda cls, study, **changes: cls(epochs=1, **changes))
    )
    trained = []

    def train(head, *arguments):
        trained.append(arguments[-1].name.removesuffix(".weights.h5"))
        return train_head(head, *arguments)

    monkeypatch.setattr(precision_trial, "train_head", train)
    return trained


@pytest.mark.slow
def test_every_seed_is_trained_in_either_precision_and_once(trained, capsys):
    table = run_trial("full")
    names = [f"{precision}_seed{seed}" for precision in ("float32", "bfloat16") for seed in SEEDS]
    assert trained == names
    assert [f"{row.precision}_seed{row.seed}" for row in table.itertuples()] == names
    # The stand-in computes alike whatever is asked: a pair differs in nothing else.
    assert (compare_pairs(table) == 0).all() and table.auc.nunique() > 1
    record = json.loads(table_file("full", TRIAL).with_suffix(".json").read_text())
    assert record["run"]["minutes"] >= 0 and record["seeds"] == SEEDS

    table_file("full", TRIAL).unlink()
    (models_dir("full") / TRIAL / "bfloat16_seed43.json").unlink()
    pd.testing.assert_frame_equal(run_trial("full"), table)
    assert trained == [*names, "bfloat16_seed43"]
    assert main([]) == 0 and len(trained) == len(names) + 1
    assert f"within {BOUND}" in capsys.readouterr().out


@pytest.mark.parametrize(("change", "within"), [(0.006, True), (-0.006, True), (0.03, False)])
def test_the_mean_decides(change, within):
    auc = [0.99, 0.98, 0.97]
    table = pd.DataFrame({
        "precision": ["float32"] * 3 + ["bfloat16"] * 3,
        "seed": SEEDS * 2,
        "auc": [*auc, auc[0] + change, *auc[1:]],
    })  # fmt: skip
    assert compare_pairs(table).tolist() == pytest.approx([change, 0, 0])
    assert is_within_bound(table) == within


def test_the_bound_is_the_registered_one():
    registered = " ".join((ROOT / "docs" / "round_two.md").read_text().split())
    assert f"paired by the seeds 42, 43 and 44 of our ResNet50, lies within {BOUND}." in registered


def test_no_data_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    assert main([]) == 1
    assert "make data" in capsys.readouterr().err
