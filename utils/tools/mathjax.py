"""MathJax of the site: fetched from npm when Sphinx builds, and served by the site itself.

An extension of Sphinx, which `make site` runs. Where npm cannot fetch MathJax, formulas stay as
they are written, and the build says so.
"""

import sys
import tarfile
import tempfile
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

from utils.common.npm import NpmError, fetch_package

PACKAGE = "mathjax@3.2.2"
INTEGRITY = (
    "sha512-Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/"
    "O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw=="
)
SCRIPT, LICENSE = "mathjax.js", "mathjax-LICENSE"
MEMBERS = {SCRIPT: "package/es5/tex-svg-full.js", LICENSE: "package/LICENSE"}
"""Files of the package that the site needs; this script holds its fonts and loads nothing."""


def write_script(folder: Path) -> str:
    """Write the script that pages with formulas load.

    Args:
        folder: Of static files.

    Returns:
        Why MathJax could not be had, and the script does nothing; empty where it is MathJax.
    """
    try:
        with tempfile.TemporaryDirectory() as scratch:
            with tarfile.open(fetch_package(PACKAGE, INTEGRITY, Path(scratch))) as archive:
                for name, member in MEMBERS.items():
                    (folder / name).write_bytes(archive.extractfile(member).read())
    except NpmError as error:
        (folder / SCRIPT).write_text("// Left out when the site was built.\n", encoding="utf-8")
        return str(error)
    return ""


def setup(app: Sphinx) -> None:
    """Let pages load MathJax from the site."""
    # Lives as long as the application, which copies the static files at the end of the build.
    scratch = tempfile.TemporaryDirectory()

    def add_script(app: Sphinx, config: Config) -> None:
        reason = write_script(Path(scratch.name))
        config.html_static_path.append(scratch.name)
        config.mathjax_path = SCRIPT
        if reason:
            sys.stderr.write(f"!!! MathJax was LEFT OUT, formulas show their source: {reason}\n")

    app.connect("config-inited", add_script)
    app.connect("build-finished", lambda app, error: scratch.cleanup())
