"""Tables of metrics say what was measured, and what others reported."""

import pytest

from utils.evaluation.tables import (
    PUBLISHED,
    REPORTED_ROW,
    format_interval,
    metrics_table,
    published_table,
)


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


def test_the_published_baseline_stands_next_to_the_models(study_metrics):
    table = metrics_table(study_metrics, "test", with_reported=True)
    assert table.loc[REPORTED_ROW, "ROC-AUC"] == "0.97"
    assert table.loc[REPORTED_ROW, "accuracy at 0.5"] == "0.89"
    assert table.loc[REPORTED_ROW, "sensitivity"] == "–"
    with pytest.raises(ValueError, match="per image on test only"):
        metrics_table(study_metrics, "validation", with_reported=True)


def test_other_sections_make_tables_too(study_metrics):
    etiologies = metrics_table(study_metrics, "test", "by_etiology")
    assert list(etiologies.index)[:2] == ["vgg19, bacteria", "vgg19, virus"]
    differences = metrics_table(study_metrics, "test", "differences", ["roc_auc"])
    assert differences.loc["resnet50 - vgg19", "ROC-AUC"].startswith("+")
    with pytest.raises(ValueError, match="'train'"):
        metrics_table(study_metrics, "train")


def test_what_others_reported_is_a_table():
    table = published_table()
    assert list(table.columns) == ["ROC-AUC", "accuracy", "official test set"]
    assert [(name, *row) for name, *row in table.itertuples()] == list(PUBLISHED)
    chosen_elsewhere = table[table["official test set"] != "yes"]
    assert len(chosen_elsewhere) == 1 and "Rahman" in chosen_elsewhere.index[0]
