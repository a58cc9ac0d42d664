"""The lists of reporting guidelines answer every item once, and their links lead somewhere."""

import re
from collections import Counter

import pytest

from tests.test_glossary import read_sections, slug
from utils.common.paths import ROOT

ITEMS = {
    "claim.md": [str(number) for number in range(1, 45)],
    "tripod_ai.md": """
        1 2 3a 3b 3c 4 5a 5b 6a 6b 6c 7 8a 8b 8c 9a 9b 9c 10 11 12a 12b 12c 12d 12e 12f 12g 13 14
        15 16 17 18a 18b 18c 18d 18e 18f 19 20a 20b 20c 21 22 23a 23b 24 25 26 27a 27b 27c
    """.split(),
}
"""Documents of docs/, and the numbers that the guideline gives to its items."""
ROW = re.compile(
    r"^\| (?P<item>\d+[a-z]?) \| (?P<asked>[^|]+) \| (?P<answer>[^|]+) \|$", re.MULTILINE
)
LINK = re.compile(r"\]\((?!https?:)(?P<file>[^)#]*)#?(?P<anchor>[^)]*)\)")
NO_ANSWER = re.compile(r"\*\*Not (reported|applicable)\*\*")


def read(document: str) -> str:
    return (ROOT / "docs" / document).read_text(encoding="utf-8")


def find_wrong_links(text: str) -> list[str]:
    """Name the links of a document in docs/ that lead to no file or to no heading."""
    wrong = []
    for link in LINK.finditer(text):
        file = (ROOT / "docs" / link["file"]).resolve()
        if not file.is_file() or not file.is_relative_to(ROOT):
            wrong.append(f"{link['file']} is no file")
        elif link["anchor"]:
            headings = map(slug, read_sections(file.relative_to(ROOT).as_posix()))
            if link["anchor"] not in headings:
                wrong.append(f"{link['file']} has no heading #{link['anchor']}")
    return wrong


@pytest.mark.parametrize("document", ITEMS)
def test_every_item_is_there_once_and_in_order(document):
    assert [row["item"] for row in ROW.finditer(read(document))] == ITEMS[document]


def test_no_row_is_overlooked():
    for document in ITEMS:
        text = read(document)
        lines = [line for line in text.splitlines() if line.startswith("|")]
        heads = Counter(lines)["|---|---|---|"]
        assert len(lines) - 2 * heads == len(ROW.findall(text)), document


def test_every_answer_has_a_link_or_says_that_there_is_none():
    rows = list(ROW.finditer(read("tripod_ai.md")))
    bare = [row for row in rows if not LINK.search(row["answer"])]
    assert [row["item"] for row in bare if not NO_ANSWER.match(row["answer"])] == []


@pytest.mark.parametrize("document", ITEMS)
def test_links_lead_to_files_and_headings(document):
    text = read(document)
    assert len(LINK.findall(text)) > 5
    assert find_wrong_links(text) == []


@pytest.mark.parametrize(
    "link", ["[a](nothing.md)", "[a](claim.md#nothing)", "[a](../notebooks)", "[a](../README.md#x)"]
)  # fmt: skip
def test_a_wrong_link_is_found(link):
    assert len(find_wrong_links(f"as in {link}, and [b](claim.md), [c](https://host/x)")) == 1
