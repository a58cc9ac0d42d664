"""Notebooks of a few cells that the tests build themselves."""

from pathlib import Path

import nbformat
from nbformat import NotebookNode, v4


def code_cell(source: str, *tags: str, stdout: str = "") -> NotebookNode:
    """Build a code cell, with saved text output where there is some."""
    outputs = [v4.new_output("stream", name="stdout", text=stdout)] if stdout else []
    return v4.new_code_cell(source, metadata={"tags": list(tags)} if tags else {}, outputs=outputs)


def markdown_cell(source: str) -> NotebookNode:
    """Build a markdown cell."""
    return v4.new_markdown_cell(source)


def build_notebook(*cells: NotebookNode) -> NotebookNode:
    """Build a notebook whose code cells are counted from 1, as if it had been run."""
    for count, cell in enumerate((c for c in cells if c.cell_type == "code"), start=1):
        cell.execution_count = count
    return v4.new_notebook(cells=list(cells))


def write_notebook(path: Path, *cells: NotebookNode) -> Path:
    """Write such a notebook to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(build_notebook(*cells), path)
    return path
