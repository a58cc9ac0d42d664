"""Every term of the glossary stands where its link says, and in no notebook before."""

import re
from dataclasses import dataclass

import nbformat
import pytest

from utils.common.paths import ROOT

GLOSSARY = ROOT / "docs" / "glossary.md"
ENTRY = re.compile(
    r"## (?P<term>.+)\n\n(?P<text>(?:.+\n)+)\n"
    r"First used(?: as (?P<forms>\*.+\*))?: \[(?P<label>.+)\]\((?P<page>[^#)]+)#(?P<anchor>[^)]+)\)"
)
MAX_SENTENCES = 3


@dataclass(frozen=True)
class Entry:
    """One term of the glossary, and where it is said to be used first."""

    term: str
    text: str
    forms: tuple[str, ...]
    """The words that count as its use: those quoted, else the term itself."""
    label: str
    page: str
    """Path of the notebook or document, from the root."""
    anchor: str


def read_entries(text: str) -> list[Entry]:
    """Read the entries of a glossary; fail where a section is none."""
    sections = [f"## {part.strip()}" for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]]
    entries = []
    for section in sections:
        match = ENTRY.fullmatch(section)
        assert match, f"no entry with its `First used` line: {section[:60]!r}"
        page = (GLOSSARY.parent / match["page"]).resolve().relative_to(ROOT).as_posix()
        forms = re.findall(r"\*(.+?)\*", match["forms"] or "") or [match["term"]]
        entries.append(
            Entry(match["term"], match["text"], tuple(forms), match["label"], page, match["anchor"])
        )
    return entries


def slug(heading: str) -> str:
    """Return the anchor that a code host, and MyST, give to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def split_sections(text: str) -> dict[str, str]:
    """Return the sections of a Markdown text by their headings, without code and comments."""
    prose = re.sub(r"^```.*?^```|<!--.*?-->", "", text, flags=re.MULTILINE | re.DOTALL)
    parts = re.split(r"^#+ (.+)$", prose, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def read_sections(page: str) -> dict[str, str]:
    """Return the sections of a notebook's Markdown cells, or of a document, by their headings.

    The roadmap of a notebook and its last line, which name other ones, use no term.
    """
    file = ROOT / page
    assert file.is_file(), f"there is no {page}"
    if file.suffix != ".ipynb":
        return split_sections(file.read_text(encoding="utf-8"))
    cells = nbformat.read(file, as_version=4).cells
    text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return split_sections(
        re.sub(r"^(Next[:,]|\| \*\*Roadmap\*\*) .+$", "", text, flags=re.MULTILINE)
    )


NOTEBOOKS = {
    file.relative_to(ROOT).as_posix(): read_sections(file.relative_to(ROOT).as_posix())
    for file in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
}
ENTRIES = read_entries(GLOSSARY.read_text(encoding="utf-8"))


def is_used(forms: tuple[str, ...], text: str) -> bool:
    """Tell whether a text has one of the forms as a whole word, in the singular or the plural."""
    flowing = " ".join(text.split())
    return any(
        re.search(rf"(?<!\w){re.escape(form)}(s|es)?(?!\w)", flowing, re.IGNORECASE)
        for form in forms
    )


def check_first_use(entry: Entry, notebooks: dict[str, dict[str, str]]) -> list[str]:
    """Say what is wrong with the link of an entry, and where it should lead."""
    used_in = [
        (page, heading)
        for page, sections in notebooks.items()
        for heading, text in sections.items()
        if is_used(entry.forms, f"{heading}\n{text}")
    ]
    if used_in and used_in[0][0] != entry.page:
        page, heading = used_in[0]
        return [f"{entry.term} is used before: link it to {page}#{slug(heading)}"]
    sections = notebooks.get(entry.page) or read_sections(entry.page)
    anchors = {slug(heading): heading for heading in sections}
    if entry.anchor not in anchors:
        return [f"{entry.term}: {entry.page} has no heading #{entry.anchor}"]
    heading = anchors[entry.anchor]
    found = []
    if not is_used(entry.forms, f"{heading}\n{sections[heading]}"):
        found.append(f"{entry.term}: none of {entry.forms} stands under {heading!r}")
    if not entry.label.endswith(f", {heading}"):
        found.append(f"{entry.term}: the link says {entry.label!r}, the heading is {heading!r}")
    if entry.page in notebooks and not entry.label.startswith(f"{entry.page.split('/')[1][:2]}, "):
        found.append(f"{entry.term}: the link says {entry.label!r}, the notebook is {entry.page}")
    return found


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.term)
def test_first_use_is_where_the_link_says(entry):
    assert check_first_use(entry, NOTEBOOKS) == []


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.term)
def test_entry_is_short(entry):
    sentences = re.findall(r"[.?!](?=\s)", entry.text)
    assert 1 <= len(sentences) <= MAX_SENTENCES


def test_terms_are_in_order_and_there_once():
    terms = [entry.term.lower() for entry in ENTRIES]
    assert terms == sorted(set(terms))


def test_all_sections_of_the_notebooks_are_told_apart():
    """A second heading of the same name would have another anchor."""
    for page in NOTEBOOKS:
        cells = nbformat.read(ROOT / page, as_version=4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        assert len(set(headings)) == len(headings), page


# ---- the check itself

SMALL = {
    "notebooks/01_a.ipynb": {"One": "Nothing of it.", "Two": "A folder."},
    "notebooks/02_b.ipynb": {"Why fold?": "Three\nblock folds.", "More": "Nothing."},
}


def entry_for(page: str, anchor: str, label: str, form: str = "block fold") -> Entry:
    return Entry("Fold", "A part.", (form,), label, page, anchor)


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        (entry_for("notebooks/02_b.ipynb", "why-fold", "02, Why fold?"), ""),
        (entry_for("notebooks/02_b.ipynb", "fold", "02, Why fold?"), "no heading #fold"),
        (entry_for("notebooks/02_b.ipynb", "more", "02, More"), "stands under 'More'"),
        (entry_for("notebooks/02_b.ipynb", "why-fold", "02, More"), "the heading is 'Why fold?'"),
        (entry_for("notebooks/02_b.ipynb", "why-fold", "01, Why fold?"), "notebook is"),
        (entry_for("notebooks/01_a.ipynb", "two", "01, Two"), "02_b.ipynb#why-fold"),
        (entry_for("README.md", "layout", "README, Layout"), "02_b.ipynb#why-fold"),
        (entry_for("notebooks/02_b.ipynb", "why-fold", "02, Why fold?", "nothing"), "01_a.ipynb#"),
        (entry_for("README.md", "layout", "README, Layout", "zebra"), "stands under 'Layout'"),
    ],
)
def test_wrong_first_use_is_noticed(entry, complaint):
    found = check_first_use(entry, SMALL)
    assert complaint in "".join(found)
    assert bool(found) == bool(complaint)


@pytest.mark.parametrize("text", ["## A\n\nNo link.\n", "## A\n\nFirst used: [01, B](b.ipynb#b)\n"])
def test_section_that_is_no_entry_is_noticed(text):
    with pytest.raises(AssertionError, match="no entry"):
        read_entries(text)
