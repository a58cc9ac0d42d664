"""A table that is shown is kept as it was displayed."""

import re

import numpy as np
import pandas as pd
import pytest

from utils.common.paths import table_file
from utils.common.tables import ShownTable, show_table, write_table

SCORES = pd.DataFrame(
    {
        "AUC": ["0.970 [0.960, 0.980]", "–"],
        "loss": [0.1, 0.123],
        "images": [624, 16],
        "met": [True, False],
    },
    index=["a, all", "b"],
)


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))


def read(name):
    return table_file("full", f"tables/{name}").read_text(encoding="utf-8").splitlines()


def test_a_table_is_printed_as_pandas_prints_it(capsys):
    show_table(SCORES, "full", "01_scores")
    assert capsys.readouterr().out == f"{SCORES.to_string()}\n"
    numbered = SCORES.reset_index(drop=True).sort_values("loss", ascending=False)
    show_table(numbered, "full", "01_scores")
    assert capsys.readouterr().out == f"{numbered.to_string(index=False)}\n"


def test_a_notebook_shows_four_columns_and_folds_the_others_away():
    (shown,) = read_tables(SCORES)
    assert shown[0] == ["", *SCORES]
    assert shown[2] == ["b", "–", "0.123", "16", "False"], "cells are those of the text"
    wide = SCORES.assign(**{"a < b": [1, 2], "note": ["x & y", ""]})
    shown, whole = read_tables(wide)
    assert shown[0] == ["", *SCORES] and whole[0] == ["", *SCORES, "a &lt; b", "note"]
    assert shown[1] == whole[1][:5] and whole[1][5:] == ["1", "x &amp; y"]
    html = ShownTable(wide)._repr_html_()
    assert "<details><summary>All columns, also: a &lt; b, note</summary>" in html
    assert html.count("<details>") == html.count("</details>") == 1
    (numbered,) = read_tables(SCORES.reset_index(drop=True))
    assert numbered[0] == list(SCORES)


def read_tables(table):
    """Return the cells of each table of the HTML, by row."""
    parts = ShownTable(table)._repr_html_().split("</table>")[:-1]
    return [
        [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in part.split("</tr>")[:-1]]
        for part in parts
    ]


def test_cells_are_written_as_they_are_displayed(capsys):
    show_table(SCORES, "full", "01_scores")
    assert read("01_scores") == [
        ",AUC,loss,images,met",
        '"a, all","0.970 [0.960, 0.980]",0.100,624,True',
        "b,–,0.123,16,False",
    ]
    show_table(SCORES.reset_index(drop=True), "full", "01_scores")
    assert read("01_scores")[0] == "AUC,loss,images,met"


def test_a_table_may_be_written_for_a_figure_alone(capsys):
    rows = pd.MultiIndex.from_tuples([("a", 1), ("a", 2)], names=["map", "step"])
    write_table(pd.DataFrame({"x": [1.0, np.nan]}, index=rows), "full", "01_figure")
    assert read("01_figure") == ["map,step,x", "a,1,1.0", "a,2,NaN"]
    write_table(pd.DataFrame({"x": ["", ""]}, index=["a", "b"]), "full", "01_blank")
    assert read("01_blank") == [",x", "a,", "b,"]
    write_table(SCORES[:0], "full", "01_empty")
    assert read("01_empty") == [",AUC,loss,images,met"]
    assert capsys.readouterr().out == ""
