"""The works that the study stands on: `docs/references.bib`, and the page that prints them."""

import re
from dataclasses import dataclass
from pathlib import Path

from utils.common.paths import ROOT

BIBLIOGRAPHY = ROOT / "docs" / "references.bib"
VENUES = ("journal", "booktitle", "publisher")
DOI = re.compile(r"https://doi\.org/(10\.\d+/[^\s)>\"\\]+)")
"""A DOI as a document links to it."""
_ENTRY = re.compile(r"@\w+\{([\w-]+),\n(.*?)\n\}", re.S)
_FIELD = re.compile(r"^  (\w+) = \{(.*)\},?$", re.M)


class ReferencesError(ValueError):
    """A file of references that cannot be read; the message names the remedy."""


@dataclass(frozen=True)
class Reference:
    """One work."""

    key: str
    authors: tuple[str, ...]
    """Family name first; the last is `others` where more are not named."""
    title: str
    venue: str
    year: int
    doi: str

    def format(self) -> str:
        """Return it as a line of a list in Markdown, with two authors at most."""
        names = [author.split(",")[0] for author in self.authors]
        named = f"{names[0]} et al." if len(names) > 2 or names[-1] == "others" else None
        return (
            f"- {named or ' and '.join(names)} ({self.year}). {self.title}. *{self.venue}*. "
            f"[doi:{self.doi}](https://doi.org/{self.doi})"
        ).replace("?. ", "? ")


def read_references(file: Path = BIBLIOGRAPHY) -> list[Reference]:
    """Read a BibTeX file that has one field a line, as ours has.

    Raises:
        ReferencesError: if an entry cannot be read, lacks a field, or shares key or DOI with
            another.
    """
    text = file.read_text(encoding="utf-8")
    references = [_read_entry(*entry, file) for entry in _ENTRY.findall(text)]
    if len(references) != text.count("@"):
        raise ReferencesError(
            f"{file}: {text.count('@')} entries, of which {len(references)} can be read; write one "
            "field a line, indented by two blanks, and the last brace alone"
        )
    for name in ("key", "doi"):
        values = [getattr(reference, name).lower() for reference in references]
        if twice := {value for value in values if values.count(value) > 1}:
            raise ReferencesError(f"{file}: {', '.join(sorted(twice))} is there twice; remove one")
    return references


def _read_entry(key: str, body: str, file: Path) -> Reference:
    fields = {name: value.strip("{}") for name, value in _FIELD.findall(body)}
    venue = next((fields[name] for name in VENUES if name in fields), None)
    missing = [name for name in ("author", "title", "year", "doi") if name not in fields]
    if missing or venue is None:
        lacking = ", ".join([*missing, *(() if venue else (" or ".join(VENUES),))])
        raise ReferencesError(f"{file}: {key} lacks {lacking}; add it, or drop the work")
    authors = tuple(fields["author"].split(" and "))
    return Reference(key, authors, fields["title"], venue, int(fields["year"]), fields["doi"])


def format_references(file: Path = BIBLIOGRAPHY) -> str:
    """Return the works as a list in Markdown, by author and year."""
    ordered = sorted(read_references(file), key=lambda each: (each.authors[0].lower(), each.year))
    return "\n".join(reference.format() for reference in ordered)
