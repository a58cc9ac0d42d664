"""`utils.dependencies`: the modules that a notebook uses, directly or not."""

from pathlib import Path

import pytest

from tests.small_notebooks import code_cell, markdown_cell, write_notebook
from utils.dependencies import imported_modules, make_rules, modules_used


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("import utils.plots", {"utils.plots"}),
        ("import utils.plots as p, numpy", {"utils.plots"}),
        ("from utils.plots import plot_roc", {"utils.plots"}),
        ("from utils import plots, facts", {"utils.plots", "utils.facts"}),
        ("def f():\n    from utils.plots import x", {"utils.plots"}),
        ("from exercises import evaluation as exercises", {"exercises.evaluation"}),
        ("import utils\nimport utility.plots\nfrom . import plots", set()),
    ],
)
def test_every_way_to_import_counts(code, modules):
    # Names that `from utils.plots import x` brings are no modules.
    assert imported_modules(code, Path("x.py")) == modules


def test_syntax_error_names_the_file():
    with pytest.raises(SyntaxError, match=r"broken\.py"):
        imported_modules("import", Path("broken.py"))


def test_modules_are_followed_through_modules_of_both_packages(tmp_path):
    for name, code in {
        "utils/a": "from utils.b import x",
        "utils/b": "from utils import a, c",
        "utils/c": "",
        "utils/d": "",
        "utils/unused": "",
        "exercises/a": "from utils.d import x\nfrom exercises.checking import y",
        "exercises/checking": "",
    }.items():
        file = tmp_path / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(code)
    notebook = write_notebook(
        tmp_path / "notebooks" / "01_x.ipynb",
        markdown_cell("import utils.unused"),
        code_cell("%matplotlib inline\n!ls\nfrom exercises import a\nfrom utils.a import x"),
    )
    names = [
        "exercises/a.py", "exercises/checking.py",
        "utils/a.py", "utils/b.py", "utils/c.py", "utils/d.py",
    ]  # fmt: skip
    used = modules_used(notebook, tmp_path)
    assert [file.relative_to(tmp_path).as_posix() for file in used] == names
    assert make_rules(tmp_path) == f"$(EXECUTED_DIR)/01_x.ipynb: {' '.join(names)}\n"
