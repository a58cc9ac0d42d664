"""The static site: built once without a network, whole, searchable, and with no loose end."""

import html
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from nbformat import NotebookNode

from tests.test_notebooks import cells_of, pictures_of, read_committed, texts_of
from tests.test_repository import make_targets
from utils.common.constants import DISCLAIMER
from utils.common.paths import ROOT
from utils.tools.site import (
    SiteError,
    build_site,
    find_broken_links,
    find_loaded_from_elsewhere,
    main,
    read_page,
    read_site,
)

NO_NETWORK = """
import socket

def refuse(self, address):
    if self.family != socket.AF_UNIX:
        raise AssertionError(f"the build asks {address}")

socket.socket.connect = socket.socket.connect_ex = refuse
"""
FRONT = "docs/index.html"
NOTEBOOKS = sorted(file.stem for file in (ROOT / "notebooks").glob("[0-9]*.ipynb"))


def text_of(page: Path) -> str:
    """Return the text of a page, without tags and runs of blanks."""
    body = re.sub(r"(?s)<(script|style).*?</\1>", " ", page.read_text(encoding="utf-8"))
    return " ".join(without_tags(body).split())


def without_tags(text: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", text))


# ---- the built site


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site as `make site` does, by a Python that can open no connection."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(NO_NETWORK)
    environment = {key: value for key, value in os.environ.items() if key != "GITHUB_REPOSITORY"}
    offline = {"npm_config_offline": "true", "npm_config_cache": str(folder / "npm")}
    built = subprocess.run(
        [sys.executable, "-m", "utils.tools.site", str(folder / "html")],
        cwd=ROOT,
        env=environment | offline | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    assert "!!! try.html was LEFT OUT of the site: npm" in built.stderr
    assert "!!! MathJax was LEFT OUT, formulas show their source: npm" in built.stderr
    return folder / "html"


@pytest.mark.slow
def test_site_has_its_pages(site):
    documents = [file.relative_to(ROOT).as_posix() for file in ROOT.glob("*.md")]
    documents += ["data/README.md", "data/nih_adults.md", "models/README.md"]
    documents += ["results/full/README.md", "utils/README.md"]
    documents += [f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md")]
    pages = [f"notebooks/{name}.html" for name in NOTEBOOKS]
    pages += [document.replace(".md", ".html") for document in documents]
    modules = [
        file.relative_to(ROOT).with_suffix("") for file in (ROOT / "utils").rglob("[!_]*.py")
    ]
    pages += [f"docs/api/{'.'.join(module.parts)}.html" for module in modules]
    wanted = ["index.html", "search.html", *pages]
    assert [page for page in wanted if not (site / page).is_file()] == []
    front = site / FRONT
    linked = {(front.parent / urlsplit(link).path).resolve() for link in read_page(front).links}
    linked.add(front)  # which calls itself #
    assert [page for page in pages if "/api/" not in page and site / page not in linked] == []


@pytest.mark.slow
def test_every_page_leads_to_the_one_that_runs_the_model_and_says_if_it_was_left_out(site):
    """`tests/test_try_it.py` tests it where it was not."""
    pages = [file for file in read_site(site).pages if file.parent != site]
    assert len(pages) > 50
    for file in [*pages, site / "README.html"]:
        address = os.path.relpath(site / "try.html", file.parent)
        link = f'<a href="{address}">Try it in your browser</a> (left out)'
        assert link in file.read_text(encoding="utf-8"), file
    assert "the model in your browser (left out)" in text_of(site / FRONT)
    assert "left out when the site was built" in text_of(site / "try.html")


@pytest.mark.slow
def test_root_of_the_site_leads_to_its_front_page(site):
    root = (site / "index.html").read_text(encoding="utf-8")
    assert f'<meta http-equiv="refresh" content="0; url={FRONT}">' in root
    assert f'href="{FRONT}"' in root  # for those whose browser does not follow


@pytest.mark.slow
def test_every_page_says_that_it_is_no_medical_device(site):
    assert [page for page in read_site(site).pages if DISCLAIMER not in text_of(page)] == []


@pytest.mark.slow
def test_notebooks_are_in_order_and_as_they_were_saved(site):
    front = (site / FRONT).read_text(encoding="utf-8")
    places = [front.index(f'href="../notebooks/{name}.html"') for name in NOTEBOOKS]
    assert places == sorted(places)
    for name in NOTEBOOKS:
        page, notebook = site / "notebooks" / f"{name}.html", read_committed(name)
        shown = text_of(page)
        printed = [text for cell in cells_of(notebook, "code") for text in list_displayed(cell)]
        assert [text for text in printed if " ".join(text.split()) not in shown] == []
        pictures = re.findall(r'<img [^>]*src="\.\./_images/', page.read_text(encoding="utf-8"))
        drawn = sum(cell.source.count("![") for cell in cells_of(notebook, "markdown"))
        assert len(pictures) == len(pictures_of(notebook)) + drawn


def list_displayed(cell):
    """Return the texts that a code cell shows on a page: the HTML of an output that has it."""
    texts = []
    for output in cell.outputs:
        shown = output.get("data", {}).get("text/html")
        alone = NotebookNode(outputs=[output])
        texts += texts_of(alone) if shown is None else [without_tags(shown)]
    return texts


@pytest.mark.slow
def test_formulas_are_left_to_the_script_of_the_site(site):
    """`tests/tools/test_mathjax.py` tests the script."""
    page = (site / "notebooks" / "06_grad_cam.html").read_text(encoding="utf-8")
    assert re.search(r'<div class="math[^>]*>\s*\\\[\\alpha_k = \\frac', page)
    assert re.search(r'<script defer="defer" src="\.\./_static/mathjax\.js', page)
    assert (site / "_static" / "mathjax.js").read_text().startswith("//")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "shown"),
    [
        ("README.html", "by number alone, 320 of the 624 test images"),
        ("data/README.html", "74.3% 74.0% 62.5%"),
        ("notebooks/09_outside_validation.html", "AUC of 0.974 [0.962, 0.984], our ResNet50"),
        ("notebooks/12_trusting_heat_maps.html", "0.28 (16 pairs)"),
    ],
)
def test_keys_of_numbers_are_not_seen(site, page, shown):
    assert shown in text_of(site / page)
    assert not re.search(r"(\d\d_\w+|\.json|\.csv)/[^`\s]+-->", text_of(site / page))


@pytest.mark.slow
def test_functions_have_their_descriptions(site):
    shown = text_of(site / "docs" / "api" / "utils.data.index.html")
    assert (
        "Read family, patient number and etiology from a file name of Kaggle’s or Mendeley’s."
        in shown
    )
    assert "Raises" in shown
    assert "_scan_pixels" not in shown
    # What stands before a colon is no type.
    assert "Series of patient numbers: person, IM, NORMAL2-IM or MENDELEY, which" in shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("word", "page"),
    [("epoch", "notebooks/07_fine_tuning"), ("dropout", "notebooks/04_resnet50_training")],
)
def test_search_knows_a_word(site, word, page):
    """Sphinx' index maps the stem of a word to the numbers of pages."""
    script = (site / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(script.removeprefix("Search.setIndex(").removesuffix(")"))
    numbers = index["terms"][word]
    assert page in [index["docnames"][number] for number in numbers]


@pytest.mark.slow
def test_site_stands_alone_and_a_loose_end_is_noticed_in_a_copy(site, tmp_path):
    assert find_broken_links(read_site(site)) == []
    assert find_loaded_from_elsewhere(read_site(site)) == []
    copy = shutil.copytree(site, tmp_path / "copy")
    page = copy / "docs" / "glossary.html"
    text = page.read_text(encoding="utf-8")
    whole = 'href="../notebooks/06_grad_cam.html#how-it-works"'
    assert whole in text
    page.write_text(text.replace(whole, whole.replace("how-it", "why-it")), encoding="utf-8")
    complaint = "docs/glossary.html: ../notebooks/06_grad_cam.html#why-it-works"
    assert find_broken_links(read_site(copy)) == [f"{complaint} leads to no such heading"]
    page.write_text(text.replace("<img ", '<img src="https://host/a.png"><img ', 1) + "<img >")
    (copy / "index.html").write_text('<script src="//host/a.js"></script>')
    found = find_loaded_from_elsewhere(read_site(copy))
    assert found[-1].startswith("index.html: <script> loads //host/a.js")
    (copy / "notebooks" / "06_grad_cam.html").unlink()
    assert any("leads to no file" in complaint for complaint in find_broken_links(read_site(copy)))


@pytest.mark.slow
def test_build_leaves_nothing_in_the_repository(site):
    status = subprocess.run(
        ["git", "status", "--porcelain", "--ignored", "docs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if status.returncode != 0:
        pytest.skip("this is no git checkout")
    assert "docs/api/" not in status.stdout


# ---- a build of two pages


@pytest.fixture
def small_root(tmp_path, monkeypatch):
    """Write a repository of two pages with the settings of the real one."""
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    monkeypatch.setenv("npm_config_offline", "true")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    root = tmp_path / "root"
    (root / "docs").mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "conf.py", root / "docs")
    shutil.copytree(ROOT / "docs" / "_static", root / "docs" / "_static")
    (root / "LICENSE").write_text("MIT License")
    (root / "docs" / "index.md").write_text(
        "# Front\n\n```{toctree}\n/README\n```\n\n"
        "[read](../README.md#two-words), [license](../LICENSE)\n"
    )
    (root / "README.md").write_text("# Read\n\n## Two words\n\nText.\n")
    return root


@pytest.mark.slow
def test_small_site_is_built(small_root, tmp_path):
    build_site(tmp_path / "site", small_root)
    front = (tmp_path / "site" / FRONT).read_text(encoding="utf-8")
    assert 'href="../README.html#two-words"' in front
    assert re.search(r'href="../_downloads/\w+/LICENSE"', front)


@pytest.mark.slow
def test_a_box_of_a_notebook_holds_markdown(small_root, tmp_path):
    with (small_root / "README.md").open("a") as page:
        page.write('\n<div class="alert alert-info">\n\n**Tip** $a_b$\n\n</div>\n\nAfter.\n')
    build_site(tmp_path / "site", small_root)
    page = (tmp_path / "site" / "README.html").read_text(encoding="utf-8")
    (box,) = re.findall(r'(?s)<div class="alert alert-info">(.*?)</div>', page)
    assert "<strong>Tip</strong>" in box and r"\(a_b\)</span>" in box and "After" not in box


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[x](nothing.md)", "Sphinx has warned"),
        ("[x](README.md#nothing)", "Sphinx has warned"),
        ("![x](https://host/badge.svg)", "<img> loads https://host/badge.svg"),
        ('<a href="nothing.html">x</a>', "nothing.html leads to no file"),
        ('<a href="#nothing">x</a>', "#nothing leads to no such heading"),
        ('<script src="https://host/a.js"></script>', "<script> loads https://host/a.js"),
    ],
)
def test_wrong_page_fails_and_leaves_the_last_good_site(small_root, tmp_path, text, reason):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("the last good one")
    with (small_root / "README.md").open("a") as page:
        page.write(f"\n{text}\n")
    with pytest.raises(SiteError, match=re.escape(reason)):
        build_site(tmp_path / "site", small_root)
    assert (tmp_path / "site" / "index.html").read_text() == "the last good one"
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".site")] == []


# ---- the checks, on pages written by hand


def write_pages(folder: Path, **pages: str) -> Path:
    folder.mkdir()
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text)
    return folder


@pytest.mark.parametrize(
    "link",
    [
        "b.html", "b.html#here", "#top", "#", "b.html?x=1#here", "https://host/x", "mailto:a@b",
        "a%20b.txt",
    ],
)  # fmt: skip
def test_good_link_is_left_alone(tmp_path, link):
    site = write_pages(tmp_path / "s", index=f'<p id="top"><a href="{link}">', b='<a name="here">')
    (site / "a b.txt").touch()
    assert find_broken_links(read_site(site)) == []


@pytest.mark.parametrize(
    ("link", "complaint"),
    [
        ("c.html", "no file"),
        ("b.html#there", "no such heading"),
        ("#there", "no such heading"),
        ("folder/", "no file"),
        ("../outside.txt", "out of the site"),
    ],
)
def test_broken_link_is_noticed(tmp_path, link, complaint):
    (tmp_path / "outside.txt").touch()
    site = write_pages(tmp_path / "s", index=f'<a href="{link}">', b='<a name="here">')
    (found,) = find_broken_links(read_site(site))
    assert found.startswith(f"index.html: {link} ")
    assert complaint in found


def test_missing_picture_is_noticed(tmp_path):
    site = write_pages(tmp_path / "s", index='<img src="a.png">')
    assert find_broken_links(read_site(site)) == ["index.html: a.png leads to no file"]


@pytest.mark.parametrize(
    "tag",
    [
        '<script src="https://host/a.js"></script>', '<link href="//host/a.css" rel="stylesheet">',
        '<img src="http://host/a.png">', '<iframe src="https://host/"></iframe>',
        '<img srcset="a.png 1x, https://host/a.png 2x">', '<video poster="https://host/a.png">',
    ],
)  # fmt: skip
def test_what_is_loaded_from_elsewhere_is_noticed(tmp_path, tag):
    (found,) = find_loaded_from_elsewhere(read_site(write_pages(tmp_path / "s", index=tag)))
    assert "host/" in found


@pytest.mark.parametrize("style", ["@import 'https://host/a.css';", "p {src: url(//host/a.woff)}"])
def test_style_that_loads_from_elsewhere_is_noticed(tmp_path, style):
    site = write_pages(tmp_path / "s", index="")
    (site / "a.css").write_text(style)
    assert len(find_loaded_from_elsewhere(read_site(site))) == 1


def test_folder_without_a_site_is_refused(tmp_path):
    with pytest.raises(SiteError, match=r"no index\.html; build the site with `make site`"):
        read_site(tmp_path)


def test_command_says_what_is_wrong(tmp_path, monkeypatch, capsys):
    def refuse(site: Path) -> None:
        raise SiteError("a.html: b.html leads to no file")

    monkeypatch.setattr("utils.tools.site.build_site", refuse)
    assert main([str(tmp_path / "site")]) == 1
    assert "b.html leads to no file" in capsys.readouterr().err


# ---- what the site shows, and how it is published


def test_results_page_shows_every_published_curve():
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^\]]+\]\(\.\./figures/full/([^)]+)\)", page)
    assert sorted(shown) == sorted(file.name for file in (ROOT / "figures" / "full").glob("*.png"))


def test_address_of_the_repository_is_that_of_the_workflow_or_none(monkeypatch):
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    options = runpy.run_path(str(ROOT / "docs" / "conf.py"))["html_theme_options"]
    assert not {"repository_url", "launch_buttons"} & options.keys()
    monkeypatch.setenv("GITHUB_REPOSITORY", "somebody/study")
    monkeypatch.setenv("GITHUB_REF_NAME", "main")
    options = runpy.run_path(str(ROOT / "docs" / "conf.py"))["html_theme_options"]
    assert options["repository_url"] == "https://github.com/somebody/study"
    assert options["repository_branch"] == "main"
    assert options["launch_buttons"]["binderhub_url"] == "https://mybinder.org"


def read_workflow() -> dict:
    text = (ROOT / ".github" / "workflows" / "site.yml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def test_workflow_publishes_what_make_builds():
    jobs = read_workflow()["jobs"]
    (command,) = [step["run"] for step in jobs["build"]["steps"] if "run" in step]
    target = re.fullmatch(r"make ([a-z-]+) PYTHON=python", command)[1]
    assert target in make_targets()
    folder = jobs["build"]["steps"][-1]["with"]["path"]
    assert f"utils.tools.site {folder}\n" in (ROOT / "Makefile").read_text()
    assert jobs["publish"]["needs"] == "build"


def test_workflow_runs_on_main_with_no_more_rights_than_it_needs():
    workflow = read_workflow()
    # YAML 1.1 reads the key `on` as true.
    assert workflow[True]["push"] == {"branches": ["main"]}
    assert workflow["permissions"] == {"contents": "read"}
    assert "permissions" not in workflow["jobs"]["build"]
    rights = {"pages": "write", "id-token": "write"}
    assert workflow["jobs"]["publish"]["permissions"] == rights


def test_workflow_pins_the_official_actions():
    text = (ROOT / ".github" / "workflows" / "site.yml").read_text(encoding="utf-8")
    used = re.findall(r"uses: (.+)", text)
    pinned = [re.fullmatch(r"actions/([\w-]+)@[0-9a-f]{40} # v\d+\.\d+\.\d+", use) for use in used]
    assert all(pinned), used
    names = {match[1] for match in pinned}
    assert {"configure-pages", "upload-pages-artifact", "deploy-pages"} <= names


# ---- Binder


def test_binder_installs_the_repository_after_its_packages(tmp_path):
    script = ROOT / "binder" / "postBuild"
    assert os.access(script, os.X_OK)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" > "{tmp_path}/asked"\n')
    python.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    subprocess.run([script], cwd=ROOT, env=os.environ | {"PATH": path}, check=True)
    assert (tmp_path / "asked").read_text() == (
        "-m pip install --no-deps --no-build-isolation --editable .\n"
    )


def test_binder_takes_the_environment_of_the_root():
    """Binder reads the folder `binder` alone, or `.binder`; another Python if none is named."""
    text = (ROOT / "binder" / "environment.yml").read_text()
    assert text == (ROOT / "environment.yml").read_text()
    assert not (ROOT / ".binder").exists()
    beside = (ROOT / "binder" / "requirements.lock").read_text().splitlines()
    assert beside[1:] == ["-r ../requirements.lock"]
    environment = yaml.safe_load(text)
    (python,) = [part for part in environment["dependencies"] if str(part).startswith("python")]
    assert re.fullmatch(r"python=3\.(11|12|13)", python)
