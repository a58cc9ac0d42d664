"""Formulas of the site: drawn by a MathJax of its own, or shown as they are written."""

import io
import tarfile
from pathlib import Path

import pytest

from utils.common.npm import NpmError
from utils.tools import mathjax
from utils.tools.mathjax import LICENSE, MEMBERS, SCRIPT, write_script


def test_the_package_is_asked_for_by_its_hash_and_its_files_are_taken(tmp_path, monkeypatch):
    asked = []

    def pack(package: str, integrity: str, folder: Path) -> Path:
        asked.append((package, integrity))
        with tarfile.open(folder / "small.tgz", "w:gz") as archive:
            for member in MEMBERS.values():
                entry = tarfile.TarInfo(member)
                entry.size = len(member)
                archive.addfile(entry, io.BytesIO(member.encode()))
        return folder / "small.tgz"

    monkeypatch.setattr(mathjax, "fetch_package", pack)
    assert write_script(tmp_path) == ""
    assert asked == [(mathjax.PACKAGE, mathjax.INTEGRITY)]
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == MEMBERS


def test_without_the_package_the_script_does_nothing_and_the_reason_is_known(tmp_path, monkeypatch):
    def refuse(*_: object) -> Path:
        raise NpmError("npm is not on the PATH")

    monkeypatch.setattr(mathjax, "fetch_package", refuse)
    assert write_script(tmp_path) == "npm is not on the PATH"
    assert [file.name for file in tmp_path.iterdir()] == [SCRIPT]
    assert (tmp_path / SCRIPT).read_text().startswith("//")


@pytest.mark.slow
def test_a_browser_draws_a_formula_and_asks_for_no_other_file(tmp_path, browser):
    if reason := write_script(tmp_path):
        pytest.skip(f"{reason}: formulas in the browser are not tested")
    assert "Apache License" in (tmp_path / LICENSE).read_text()
    formula = r"\[\operatorname{ReLU}\Big(\sum_k \alpha_k A_k\Big) \text{ in } \mathbb{R}\]"
    (tmp_path / "page.html").write_text(f'<p>{formula}</p><script src="{SCRIPT}"></script>')
    page, asked = browser.new_page(), []
    page.on("request", lambda request: asked.append(Path(request.url).name))
    page.goto((tmp_path / "page.html").as_uri())
    page.locator("mjx-container svg").wait_for()
    assert page.locator("mjx-merror").count() == 0
    assert asked == ["page.html", SCRIPT]
    page.close()
