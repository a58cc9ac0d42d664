"""The packages of `utils/`: imports run one way, and each is small enough to be read."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from utils.common.paths import ROOT
from utils.tools.dependencies import find_module, imported_names

MAX_LINES, MAX_MODULES = 450, 15
MAY_IMPORT: dict[str, set[str]] = {
    "common": set(),
    "phantoms": {"common"},
    "evaluation": {"common"},
}
for package, left in (
    ("data", {"phantoms"}),
    ("models", {"data", "evaluation"}),
    ("training", {"models"}),
    ("shortcuts", {"training"}),
    ("selection", {"shortcuts"}),
    ("explanation", {"selection"}),
    ("benchmark", {"training"}),
    ("tools", {"explanation", "benchmark"}),
):
    MAY_IMPORT[package] = left.union(*(MAY_IMPORT[name] for name in left))
"""What stands left of each package in the order in which a newcomer reads them."""
MODULES = sorted((ROOT / "utils").glob("*/[!_]*.py"))


def package_of(file: Path) -> str:
    return file.parent.name


def imports_of(file: Path) -> list[Path]:
    """List the modules of utils/ that a module imports."""
    names = imported_names(file.read_text(encoding="utf-8"), file)
    found = {find_module(name, ROOT) for name in names}
    return sorted(file for file in found if file is not None)


def find_forbidden(package: str, imported: list[Path]) -> list[str]:
    """Name the imports of a package that do not stand left of it."""
    allowed = MAY_IMPORT[package] | {package}
    return [f"{package} imports {package_of(each)}/{each.name}" for each in imported
            if package_of(each) not in allowed]  # fmt: skip


def test_every_module_lies_in_a_known_package():
    assert {package_of(file) for file in MODULES} == MAY_IMPORT.keys()
    assert [file.name for file in (ROOT / "utils").glob("*.py")] == ["__init__.py"]


def test_imports_run_one_way():
    assert [
        found for file in MODULES for found in find_forbidden(package_of(file), imports_of(file))
    ] == []


def test_no_import_runs_in_a_circle():
    graph = {file: imports_of(file) for file in MODULES}
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


def test_figures_are_drawn_by_notebooks_and_the_bench_alone():
    drawing = [
        file for file in MODULES
        if any(each.name == "plots.py" for each in imports_of(file))
        and package_of(file) != "benchmark"
    ]  # fmt: skip
    assert drawing == []


def test_an_arrow_that_runs_back_is_noticed():
    metrics = ROOT / "utils" / "evaluation" / "metrics.py"
    assert find_forbidden("models", [metrics]) == []
    assert find_forbidden("data", [metrics]) == ["data imports evaluation/metrics.py"]
    assert find_forbidden("tools", MODULES) == []


def test_notebooks_exercises_and_demo_leave_commands_alone():
    files = [*(ROOT / "exercises").glob("*.py"), *(ROOT / "demo").glob("*.py")]
    forbidden = {"tools", "benchmark"}
    for file in files:
        assert not forbidden & {package_of(each) for each in imports_of(file)}, file.name


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_can_be_read(package):
    modules = [file for file in MODULES if package_of(file) == package]
    assert len(modules) <= MAX_MODULES
    lines = {file.name: len(file.read_text(encoding="utf-8").splitlines()) for file in modules}
    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}
    body = ast.parse((ROOT / "utils" / package / "__init__.py").read_text()).body
    assert len(body) == 1 and isinstance(body[0], ast.Expr), "a docstring, and no re-export"
