"""Settings of the static site that `make site` builds with Sphinx.

The source directory is the repository's root, so that links between README, notebooks and
documents lead to the same places here as they do on a code host.
"""

import os
import tomllib

from sphinx.application import Sphinx

# Before the descriptions of functions are collected, which loads TensorFlow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from utils.common.constants import DISCLAIMER
from utils.common.paths import ROOT

_project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
project = _project["description"]
author = "The authors of pneumonia-xray-study"
release = _project["version"]
html_title = project

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "demo.try_it",
    "utils.tools.mathjax",
]

# What is a page. Everything else that a page links to is copied beside it as a download.
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "MODEL_CARD.md",
    "data/README.md",
    "data/nih_adults.md",
    "models/README.md",
    "results/full/README.md",
    "utils/README.md",
    "docs/**",
    "notebooks/[0-9]*.ipynb",
    "exercises/solutions/[0-9]*.md",
]
# Folders that need not be searched for pages.
exclude_patterns = [".*", "build", "docs/_*", "figures", "tests"]
# Whole, because Sphinx looks for it below this folder and autosummary below the root.
templates_path = [str(ROOT / "docs" / "_templates")]

# Notebooks are shown as they are committed, and headings get the anchors that a code host gives.
nb_execution_mode = "off"
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
# `utils.tools.mathjax` fetches version 3. Its menu would load what the site does not have.
mathjax3_config = {"options": {"enableMenu": False}}

# A single backtick in a docstring is code, as in Markdown.
default_role = "literal"
autodoc_member_order = "bysource"
# matplotlib writes a method `set` into every class that is derived from its own, and the values of
# constants may be pages long.
autodoc_default_options = {"exclude-members": "set", "no-value": True}

html_theme = "sphinx_book_theme"
html_theme_options = {
    "announcement": DISCLAIMER,
    "navbar_persistent": [],  # a second search field, above the one of the sidebar
}
html_sidebars = {
    "**": [
        "navbar-logo.html", "icon-links.html", "search-button-field.html", "try_it.html",
        "sbt-sidebar-nav.html",
    ]
}  # fmt: skip
# A site is entered at its root: a page there leads on to the front page.
html_additional_pages = {"index": "front.html"}
html_static_path = ["_static"]
html_css_files = ["narrow.css", "boxes.css"]

# On GitHub the build knows the address of its repository, and with it each notebook gets a button
# that opens it in Binder. Elsewhere there is no address, and no button.
if _repository := os.environ.get("GITHUB_REPOSITORY"):
    html_theme_options |= {
        "repository_url": f"https://github.com/{_repository}",
        "repository_branch": os.environ.get("GITHUB_REF_NAME", "HEAD"),
        "use_repository_button": True,
        "launch_buttons": {
            "binderhub_url": "https://mybinder.org",
            "notebook_interface": "jupyterlab",
        },
    }

_written: dict[str, list[str]] = {}


def _keep_text_of_attribute(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    if what in ("attribute", "data", "property"):
        _written[name] = lines.copy()


def _restore_text_of_attribute(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    lines[:] = _written.pop(name, lines)


def setup(app: Sphinx) -> None:
    """Keep napoleon, whose turn is at 500, from reading `text: more` at an attribute as a type."""
    app.connect("autodoc-process-docstring", _keep_text_of_attribute, priority=400)
    app.connect("autodoc-process-docstring", _restore_text_of_attribute, priority=600)
