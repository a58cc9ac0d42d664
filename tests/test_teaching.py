"""The lecturer's page says what was measured, and its plans add up."""

import re

import nbformat
import pytest

from utils.common.files import read_json
from utils.common.paths import ROOT

PAGE = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
PAGE = re.sub("<!--.*?-->", "", PAGE)
ROW = re.compile(
    r"^\| \[(?P<number>\d\d)\]\(\.\./notebooks/(?P<name>\w+)\.ipynb\) "
    r"\| (?P<sample>[^|]+) \| (?P<real>[^|]+) \|",
    re.MULTILINE,
)
ROWS = [match.groupdict() for match in ROW.finditer(PAGE)]


def read_opening(name: str) -> str:
    """Return what a notebook says it takes."""
    opening = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells[0].source
    stated = re.search(r"^- run time: (.+)$|^\| \*\*Running\*\* \| (.+) \|$", opening, re.MULTILINE)
    return stated[1] or stated[2]


def test_path_begins_with_the_first_notebook_and_leaves_none_out():
    names = sorted(file.stem for file in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
    assert len(ROWS) >= 7
    assert [row["name"] for row in ROWS] == names[: len(ROWS)]
    assert all(row["name"].startswith(row["number"]) for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_minutes_are_those_that_were_measured(row):
    stated = read_opening(row["name"])
    assert stated.startswith(row["sample"])
    measured = read_json(ROOT / "results" / "full" / "provenance" / "minutes.json")
    if row["name"] in measured:
        assert row["real"] == f"{measured[row['name']]:.1f}"
    else:
        assert row["real"] in stated


@pytest.mark.parametrize(("heading", "total"), [("90 minutes", 90), ("Half a day: 240 min", 240)])
def test_minutes_of_a_plan_add_up(heading, total):
    plan = PAGE.split(f"### {heading}")[1].split("\n### ")[0]
    assert sum(int(minutes) for minutes in re.findall(r"^\| (\d+) \|", plan, re.MULTILINE)) == total


def test_term_has_its_weeks():
    plan = PAGE.split("### A term: 12 weeks")[1].split("\n## ")[0]
    weeks = [int(week) for week in re.findall(r"^\| (\d+) \|", plan, re.MULTILINE)]
    assert weeks == list(range(1, 13))


def test_files_and_names_to_edit_exist():
    """What the page tells to edit for another data set is there."""
    for file in re.findall(r"`((?:utils|studies)/[\w.]+)`", PAGE):
        assert (ROOT / file).is_file(), file
    for name, file in {
        "def parse_name": "utils/data/index.py",
        "ETIOLOGIES =": "utils/common/constants.py",
        "CLASS_NAMES =": "utils/common/constants.py",
        "dataset_name:": "utils/common/study.py",
        "ABOUT_chest_xray :=": "Makefile",
    }.items():
        assert name in (ROOT / file).read_text(encoding="utf-8"), name
        assert name.removeprefix("def ").split(" ")[0].rstrip(":") in PAGE
