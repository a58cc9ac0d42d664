"""The references: one BibTeX file, its page, and the works that notebooks cite."""

import re

import pytest

from tests.test_notebooks import NAMES, cells_of, read_committed
from utils.common.paths import ROOT
from utils.tools.references import DOI, ReferencesError, format_references, read_references
from utils.tools.report import REFERENCES, find_drift, render_references

ENTRY = """@article{doe2020,
  author = {Doe, Jane and Roe, Richard},
  title = {{Who saw it?}},
  journal = {Journal of X},
  year = {2020},
  doi = {10.1/Ab}
}
"""
DOCUMENTS = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")})


def test_page_prints_the_file():
    text = REFERENCES.read_text(encoding="utf-8")
    assert find_drift(text, ROOT, render_references, "references.md") == []
    assert len(DOI.findall(text)) == len(read_references()) > 30


def find_unlisted(text: str) -> list[str]:
    """Return the DOIs of a text that the file of references lacks."""
    listed = {reference.doi.lower() for reference in read_references()}
    return [doi for doi in DOI.findall(text) if doi.lower() not in listed]


@pytest.mark.parametrize("name", NAMES)
def test_every_work_that_a_notebook_cites_is_listed(name):
    cells = cells_of(read_committed(name), "markdown")
    assert find_unlisted("\n".join(cell.source for cell in cells)) == []


def test_every_work_that_a_document_cites_is_listed():
    texts = {file.name: file.read_text(encoding="utf-8") for file in DOCUMENTS}
    unlisted = {name: found for name, text in texts.items() if (found := find_unlisted(text))}
    assert unlisted == {} and len(texts) > 10


def test_a_work_that_is_not_listed_is_noticed():
    text = "[a](https://doi.org/10.1109/CVPR.2016.90) and (https://doi.org/10.1/none)."
    assert find_unlisted(text) == ["10.1/none"]


def test_a_line_names_authors_year_title_venue_and_doi(tmp_path):
    file = tmp_path / "a.bib"
    file.write_text(ENTRY)
    line = "(2020). Who saw it? *Journal of X*. [doi:10.1/Ab](https://doi.org/10.1/Ab)"
    assert format_references(file) == f"- Doe and Roe {line}"
    file.write_text(ENTRY.replace("Roe, Richard", "others"))
    assert format_references(file) == f"- Doe et al. {line}"
    file.write_text(ENTRY.replace(" and Roe, Richard", ""))
    assert format_references(file) == f"- Doe {line}"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (ENTRY + ENTRY.replace("10.1/Ab", "10.1/b"), "doe2020 is there twice"),
        (ENTRY + ENTRY.replace("doe2020", "roe2020").replace("Ab", "aB"), "10.1/ab is there twice"),
        (re.sub(r".*doi.*\n", "", ENTRY), "doe2020 lacks doi"),
        (ENTRY.replace("journal", "note"), "doe2020 lacks journal or booktitle or publisher"),
        (ENTRY.replace("\n}", "}"), "1 entries, of which 0 can be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path, text, complaint):
    file = tmp_path / "a.bib"
    file.write_text(text)
    with pytest.raises(ReferencesError, match=complaint):
        read_references(file)
