"""The cost of fixed augmented copies is measured once for each row, and resumed."""

import pandas as pd
import pytest

from tests.builders import build_small_backbone, write_dataset
from utils.common.paths import results_dir, table_file
from utils.common.study import load_study
from utils.training import augmented_copies
from utils.training.augmented_copies import measure_copies_cost, summarize_copies_cost


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setenv("ACTIVATION_CACHE_DIR", str(tmp_path / "cache"))
    root = write_dataset(tmp_path / "data", range(1, 21))
    monkeypatch.setattr("utils.data.index.open_dataset", lambda name: root)
    monkeypatch.setattr(augmented_copies, "resolve_study_weights", lambda name, study: None)
    monkeypatch.setattr(
        "utils.training.head.build_backbone", lambda weights: build_small_backbone()
    )
    monkeypatch.setattr(augmented_copies, "SEEDS", (1, 2))
    return load_study("sample").model_copy(update={"epochs": 2, "batch_size": 8})


@pytest.mark.slow
def test_rows_are_measured_once(study, monkeypatch):
    trained = []
    train = augmented_copies.train_plainly
    monkeypatch.setattr(
        augmented_copies, "train_plainly", lambda *given: trained.append(given) or train(*given)
    )
    rows = measure_copies_cost(study, 12, (1, 2))
    assert len(trained) == 4 and set(rows.views) == {1, 2} and set(rows.images) == {12}
    file = table_file("sample", augmented_copies.TABLE)
    pd.read_csv(file).iloc[:-1].to_csv(file, index=False)
    again = measure_copies_cost(study, 12, (1, 2))
    assert len(trained) == 5, "only the row that was lost is trained again"
    pd.testing.assert_frame_equal(again, rows, check_dtype=False, rtol=1e-4)
    summary = summarize_copies_cost(results_dir("sample"))
    assert list(summary.views) == [1, 2]
    assert (summary.loss_min <= summary.loss_mean).all()
