"""Prediction files are checked row by row, and splits taken from them."""

import numpy as np
import pandas as pd
import pytest

from tests.builders import make_predictions, without_patients
from utils.evaluation.predictions import (
    PredictionsError,
    average_predictions,
    list_models,
    load_predictions,
    load_study_predictions,
    select_split,
)

HEADER = "image_id,patient_id,split,y_true,probability\n"
ROW = "test/NORMAL/IM-0001-0001.jpeg,IM-1-normal,test,0,0.25\n"


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
    assert "write the file again" in str(error.value)


def test_another_hospital_is_read_by_who_asks_for_it(tmp_path):
    file = tmp_path / "model.csv"
    file.write_text(HEADER + ROW.replace(",test,", ",external,"))
    with pytest.raises(PredictionsError, match="split is 'external'"):
        load_predictions(file)
    assert set(load_predictions(file, ("external",)).split) == {"external"}
    file.write_text(HEADER + ROW)
    with pytest.raises(PredictionsError, match="split is 'test', not one of external"):
        load_predictions(file, ("external",))


def test_models_without_provenance_are_not_listed(tmp_path):
    for file in ("predictions/resnet50.csv", "predictions/ensemble_two.csv",
                 "provenance/resnet50.json", "provenance/minutes.json"):  # fmt: skip
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    assert list_models(tmp_path) == ["resnet50"]


def test_log_odds_are_averaged_where_asked():
    tables = [make_predictions(2).assign(probability=value) for value in (0.5, 0.9)]
    assert average_predictions(tables).probability.unique() == pytest.approx([0.7])
    mean = average_predictions(tables, in_log_odds=True).probability.unique()
    assert mean == pytest.approx([0.75])  # odds of 1 and 9 have the geometric mean 3
    sure = [table.assign(probability=value) for table, value in zip(tables, (0, 1), strict=True)]
    assert average_predictions(sure, in_log_odds=True).probability.unique() == pytest.approx([0.5])


def test_selecting_a_split_that_is_not_there_is_an_error():
    with pytest.raises(PredictionsError, match="'validation', only for test"):
        select_split(make_predictions(), "validation")
