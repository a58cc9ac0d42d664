"""`utils.dependencies`: the modules that a notebook uses, directly or not."""

from pathlib import Path

import pytest

from tests.small_notebooks import code_cell, markdown_cell, write_notebook
from utils.dependencies import imported_modules, make_rules, modules_used


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("import utils.plots", {"plots"}),
        ("import utils.plots as p, numpy", {"plots"}),
        ("from utils.plots import plot_roc", {"plots"}),
        ("from utils import plots, facts", {"plots", "facts"}),
        ("def f():\n    from utils.plots import x", {"plots"}),
        ("import utils\nimport utility.plots\nfrom . import plots", set()),
    ],
)
def test_every_way_to_import_counts(code, modules):
    # Names that `from utils.plots import x` brings are no modules of utils.
    assert imported_modules(code, Path("x.py")) == modules


def test_syntax_error_names_the_file():
    with pytest.raises(SyntaxError, match=r"broken\.py"):
        imported_modules("import", Path("broken.py"))


def test_modules_are_followed_through_modules(tmp_path):
    package = tmp_path / "utils"
    package.mkdir()
    for name, code in {
        "a": "from utils.b import x",
        "b": "from utils import a, c",
        "c": "",
    }.items():
        (package / f"{name}.py").write_text(code)
    (package / "unused.py").write_text("")
    notebook = write_notebook(
        tmp_path / "notebooks" / "01_x.ipynb",
        markdown_cell("import utils.unused"),
        code_cell("%matplotlib inline\n!ls\nfrom utils.a import x"),
    )
    assert [file.name for file in modules_used(notebook, package)] == ["a.py", "b.py", "c.py"]
    assert make_rules(tmp_path) == (
        "$(EXECUTED_DIR)/01_x.ipynb: utils/a.py utils/b.py utils/c.py\n"
    )
