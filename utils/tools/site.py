"""Build the static site of README, notebooks and documents, and check what was built.

`make site` runs `python -m utils.tools.site build/site`. Sphinx reads the committed pages, with the
settings in `docs/conf.py`; notebooks are shown as they were saved and never run. Then every link
within the site must lead somewhere, and no page may load anything from elsewhere: a page opens
without a network, and tells nobody that it was read.
"""

import argparse
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.cmd.build import build_main

from utils.common.paths import ROOT

LOADING_ATTRIBUTES = ("src", "href", "srcset", "data", "poster")
"""Attributes by which a tag other than `a` makes a browser fetch something."""
STATIC = "_static"
LOADING_STYLE = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)""", re.I)


class SiteError(ValueError):
    """A site that cannot be built or checked; the message names the remedy."""


@dataclass
class Page:
    """What one HTML page offers and asks for."""

    anchors: set[str] = field(default_factory=set)
    """Values of `id`, and of `name` of an `a`."""
    links: list[str] = field(default_factory=list)
    """Targets of `a`."""
    loaded: list[tuple[str, str]] = field(default_factory=list)
    """Tag and address of what the browser fetches to show the page."""


@dataclass(frozen=True)
class Site:
    """A built site as it was read."""

    folder: Path
    pages: dict[Path, Page]
    """By file."""

    def name(self, file: Path) -> str:
        """Return the path of a file below the site."""
        return str(file.relative_to(self.folder))


class _PageReader(HTMLParser):
    """Collect anchors, links and loaded addresses of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.page = Page()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        if "id" in values:
            self.page.anchors.add(values["id"])
        if tag == "a":
            if "name" in values:
                self.page.anchors.add(values["name"])
            if "href" in values:
                self.page.links.append(values["href"])
            return
        for name in LOADING_ATTRIBUTES:
            if name == "srcset":
                addresses = [part.split()[0] for part in values.get(name, "").split(",") if part]
            else:
                addresses = [values[name]] if name in values else []
            self.page.loaded += [(tag, address) for address in addresses]


def read_page(file: Path) -> Page:
    """Read anchors, links and loaded addresses of an HTML file."""
    reader = _PageReader()
    reader.feed(file.read_text(encoding="utf-8"))
    return reader.page


def read_site(folder: Path) -> Site:
    """Read all pages below a folder.

    Raises:
        SiteError: if there is no `index.html`, so that nothing would be checked.
    """
    folder = folder.resolve()
    if not (folder / "index.html").is_file():
        raise SiteError(f"{folder} holds no index.html; build the site with `make site`")
    # What themes keep among their static files are templates, not pages.
    files = [file for file in sorted(folder.rglob("*.html")) if STATIC not in file.parts]
    return Site(folder, {file: read_page(file) for file in files})


def find_loaded_from_elsewhere(site: Site) -> list[str]:
    """Name what pages and style sheets fetch from other servers to be shown; links may lead there.

    Returns:
        One complaint an address, none where the site stands alone.
    """
    found = [
        f"{site.name(file)}: <{tag}> loads {address}; keep a copy in the site"
        for file, page in site.pages.items()
        for tag, address in page.loaded
        if urlsplit(address).netloc
    ]
    for file in sorted(site.folder.rglob("*.css")):
        for address in LOADING_STYLE.findall(file.read_text(encoding="utf-8")):
            found.append(f"{site.name(file)}: loads {address}; keep a copy in the site")
    return found


def find_broken_links(site: Site) -> list[str]:
    """Name the links, and the loaded files, of which the site has no such file or no such anchor.

    Returns:
        One complaint an address, none where every one leads somewhere.
    """
    found = []
    for file, page in site.pages.items():
        for address in dict.fromkeys([*page.links, *(address for _, address in page.loaded)]):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            if not target.is_relative_to(site.folder):
                found.append(f"{site.name(file)}: {address} leads out of the site")
            elif not target.is_file():
                found.append(f"{site.name(file)}: {address} leads to no file")
            elif (
                parts.fragment
                and target in site.pages
                and unquote(parts.fragment) not in site.pages[target].anchors
            ):
                found.append(f"{site.name(file)}: {address} leads to no such heading")
    return found


def build_site(site: Path, root: Path = ROOT) -> None:
    """Build the site from scratch and put it in place of the one before.

    Args:
        site: Folder that is to hold it. What is there stays until the new site is checked.
        root: Repository whose pages are taken.

    Raises:
        SiteError: if Sphinx warns of anything, a link leads nowhere or a page loads something from
            elsewhere; Sphinx has then said what, and complaints of ours are in the message.
    """
    functions = root / "docs" / "api"  # autosummary writes there, one page a module
    site.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=site.parent, prefix=f".{site.name}.") as scratch:
        built = Path(scratch) / "html"
        shutil.rmtree(functions, ignore_errors=True)
        try:
            status = build_main(
                ["--fail-on-warning", "--keep-going", "--quiet", "-c", str(root / "docs"),
                 "-d", str(Path(scratch) / "doctrees"), str(root), str(built)]
            )  # fmt: skip
        finally:
            shutil.rmtree(functions, ignore_errors=True)
        if status != 0:
            raise SiteError("Sphinx has warned, see above; correct the page that it names")
        pages = read_site(built)
        if found := find_broken_links(pages) + find_loaded_from_elsewhere(pages):
            raise SiteError("\n".join(found))
        if site.exists():
            shutil.rmtree(site)
        built.rename(site)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m utils.tools.site", description=__doc__)
    parser.add_argument("site", type=Path, help="folder that is to hold the site")
    site = parser.parse_args(argv).site.resolve()
    try:
        build_site(site)
    except SiteError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"The site is built: {site / 'index.html'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
