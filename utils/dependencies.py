"""Say which of our modules each notebook uses, as prerequisites for the Makefile.

`python -m utils.dependencies` prints one Make rule a notebook. It runs before anything is
installed, so it needs the standard library alone.
"""

import ast
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("utils", "exercises")


def imported_modules(code: str, file: Path) -> set[str]:
    """Name the modules of `PACKAGES` that the code of a file imports, such as `utils.plots`.

    Raises:
        SyntaxError: if it is not Python; the error names the file.
    """
    names = set()
    for node in ast.walk(ast.parse(code, str(file))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    parts = [name.split(".") for name in names]
    return {".".join(part[:2]) for part in parts if part[0] in PACKAGES and len(part) > 1}


def notebook_code(notebook: Path) -> str:
    """Return a notebook's code cells as one text, without lines that only IPython understands."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return "\n".join(line for line in code.splitlines() if not line.lstrip().startswith(("%", "!")))


def modules_used(notebook: Path, root: Path) -> list[Path]:
    """List the modules that a notebook imports, directly or through other modules, sorted."""
    used: set[Path] = set()
    waiting = imported_modules(notebook_code(notebook), notebook)
    while waiting:
        file = root / f"{waiting.pop().replace('.', '/')}.py"
        # `from utils import name` may name something that is no module.
        if file.is_file() and file not in used:
            used.add(file)
            waiting |= imported_modules(file.read_text(encoding="utf-8"), file)
    return sorted(used)


def make_rules(root: Path = ROOT) -> str:
    """Return one rule a notebook of `root`: its executed copy needs the modules that it uses."""
    rules = []
    for notebook in sorted((root / "notebooks").glob("[0-9]*.ipynb")):
        modules = modules_used(notebook, root)
        names = " ".join(file.relative_to(root).as_posix() for file in modules)
        rules.append(f"$(EXECUTED_DIR)/{notebook.name}: {names}\n")
    return "".join(rules)


if __name__ == "__main__":
    sys.stdout.write(make_rules())
