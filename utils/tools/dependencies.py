"""Say which of our modules each notebook uses, as prerequisites for the Makefile.

`python -m utils.tools.dependencies NOTEBOOK ...` prints one Make rule a notebook, with `--lines`
how many lines of code it stands on. It runs before anything is installed, so it needs the standard
library alone.
"""

import ast
import json
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("utils", "exercises")


class NothingFound(ValueError):
    """A notebook without a module behind it, which Make would never run again."""


def imported_names(code: str, file: Path) -> set[str]:
    """Return what the code of a file imports from `PACKAGES`, such as `utils.data.plots`.

    Whether the last part of a name is a module or something in it is left open.

    Raises:
        SyntaxError: if it is not Python; the error names the file.
    """
    names = set()
    for node in ast.walk(ast.parse(code, str(file))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name for name in names if name.split(".")[0] in PACKAGES and "." in name}


def find_module(name: str, root: Path) -> Path | None:
    """Return the file of the module that a dotted name leads to, None where it is a package."""
    parts = name.split(".")
    for length in range(len(parts), 1, -1):
        file = root.joinpath(*parts[:length]).with_suffix(".py")
        if file.is_file():
            return file
    return None


def notebook_code(notebook: Path) -> str:
    """Return a notebook's code cells as one text, without lines that only IPython understands."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return "\n".join(line for line in code.splitlines() if not line.lstrip().startswith(("%", "!")))


def modules_used(notebook: Path, root: Path) -> list[Path]:
    """List the modules that a notebook imports, directly or through other modules, sorted.

    Raises:
        NothingFound: if there is none: either it uses nothing of ours, or it is not understood.
    """
    used: set[Path] = set()
    waiting = imported_names(notebook_code(notebook), notebook)
    while waiting:
        file = find_module(waiting.pop(), root)
        if file is not None and file not in used:
            used.add(file)
            waiting |= imported_names(file.read_text(encoding="utf-8"), file)
    if not used:
        raise NothingFound(
            f"{notebook} imports no module of {' or '.join(PACKAGES)} below {root}, so make would "
            "not know when to run it again; import one there, or take it off the Makefile's list"
        )
    return sorted(used)


def make_rules(notebooks: Sequence[Path], root: Path = ROOT) -> str:
    """Return one rule a notebook: its executed copy needs the modules that it uses."""
    rules = []
    for notebook in notebooks:
        modules = modules_used(notebook, root)
        names = " ".join(file.relative_to(root).as_posix() for file in modules)
        rules.append(f"$(EXECUTED_DIR)/{notebook.name}: {names}\n")
    return "".join(rules)


def count_lines(notebooks: Sequence[Path], root: Path = ROOT) -> str:
    """Return a line a notebook: the lines and the modules of `utils` that it stands on."""
    lines = []
    for notebook in notebooks:
        modules = [
            file for file in modules_used(notebook, root) if file.is_relative_to(root / "utils")
        ]
        count = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in modules)
        lines.append(f"{notebook.stem:24} {count:7,} lines in {len(modules):2} modules\n")
    return "".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Print rules or lines of the notebooks that the command line names; return the exit status."""
    notebooks = [Path(argument) for argument in arguments if argument != "--lines"]
    try:
        sys.stdout.write((count_lines if "--lines" in arguments else make_rules)(notebooks))
    except (NothingFound, OSError, SyntaxError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
