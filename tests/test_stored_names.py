"""The table of stored names and the words that are displayed for them names what there is."""

import re
import subprocess

import pytest

from utils.common.names import DISPLAYED
from utils.common.paths import ROOT

TABLE = (ROOT / "results" / "full" / "README.md").read_text(encoding="utf-8")
STORED = re.findall(r"^\| `(\w+)` \| [^|`]+ \|$", TABLE, re.MULTILINE)


def test_the_table_is_found():
    assert {"small", "views", "screening"} <= set(STORED)


def test_models_are_displayed_as_the_table_says():
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|`]+) \|$", TABLE, re.MULTILINE))
    assert {rows[re.sub(r"_seed\d+$", "", name)] for name in DISPLAYED} == set(DISPLAYED.values())


@pytest.mark.parametrize("name", STORED)
def test_a_name_of_the_table_is_stored_somewhere(name):
    listed = subprocess.run(
        ["git", "ls-files", "results", "models"], cwd=ROOT, capture_output=True, text=True
    )
    if re.search(rf"\b{name}\b", listed.stdout):
        return
    # The layers of the shipped model have the names that its code gives them.
    places = ["results", "models", "studies", "utils/models/architectures.py"]
    found = subprocess.run(
        ["git", "grep", "-qw", name, "--", *places, ":!*.md"], cwd=ROOT, check=False
    )
    assert found.returncode == 0, f"nothing is stored as {name!r}: take it off the table"
