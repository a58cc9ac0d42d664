"""`utils.tools.dependencies`: the modules that a notebook uses, directly or not."""

from pathlib import Path

import pytest

from tests.small_notebooks import code_cell, markdown_cell, write_notebook
from utils.tools.dependencies import (
    NothingFound,
    count_lines,
    imported_names,
    main,
    make_rules,
    modules_used,
)


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("import utils.plots", {"utils.plots"}),
        ("import utils.plots as p, numpy", {"utils.plots"}),
        ("from utils.plots import plot_roc", {"utils.plots.plot_roc"}),
        ("from utils.data import plots as p", {"utils.data.plots"}),
        ("from utils.data.plots import plot_split", {"utils.data.plots.plot_split"}),
        ("from utils import plots, facts", {"utils.plots", "utils.facts"}),
        ("def f():\n    from utils.plots import x", {"utils.plots.x"}),
        ("from exercises import evaluation as exercises", {"exercises.evaluation"}),
        ("import utils\nimport utility.plots\nfrom . import plots", set()),
    ],
)
def test_every_way_to_import_counts(code, modules):
    assert imported_names(code, Path("x.py")) == modules


def test_syntax_error_names_the_file():
    with pytest.raises(SyntaxError, match=r"broken\.py"):
        imported_names("import", Path("broken.py"))


def test_modules_are_followed_through_modules_of_both_packages(tmp_path):
    for name, code in {
        "utils/a/plots": "from utils.b.plots import x",
        "utils/b/plots": "from utils.a import plots\nfrom utils.c import plots as p, tables",
        "utils/c/plots": "",
        "utils/c/tables": "",
        "utils/d": "",
        "utils/a/unused": "",
        "exercises/a": "from utils.d import x\nfrom exercises.checking import y",
        "exercises/checking": "",
    }.items():
        file = tmp_path / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code)
    notebook = write_notebook(
        tmp_path / "notebooks" / "01_x.ipynb",
        markdown_cell("import utils.a.unused"),
        code_cell("%matplotlib inline\n!ls\nfrom exercises import a\nfrom utils.a.plots import x"),
    )
    names = [
        "exercises/a.py", "exercises/checking.py",
        "utils/a/plots.py", "utils/b/plots.py", "utils/c/plots.py", "utils/c/tables.py",
        "utils/d.py",
    ]  # fmt: skip
    used = modules_used(notebook, tmp_path)
    assert [file.relative_to(tmp_path).as_posix() for file in used] == names
    assert make_rules([notebook], tmp_path) == f"$(EXECUTED_DIR)/01_x.ipynb: {' '.join(names)}\n"
    (tmp_path / "utils" / "d.py").write_text("x = 1\n" * 7)
    assert count_lines([notebook], tmp_path).split() == "01_x 10 lines in 5 modules".split()


def test_notebook_without_a_module_behind_it_is_an_error_and_no_empty_rule(tmp_path, capsys):
    code = "from utils.a.plots import x"  # which is not there
    notebook = write_notebook(tmp_path / "01_x.ipynb", code_cell(code))
    with pytest.raises(NothingFound, match=r"01_x\.ipynb imports no module of utils"):
        make_rules([notebook], tmp_path)
    assert main([str(notebook)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "take it off the Makefile's list" in printed.err
