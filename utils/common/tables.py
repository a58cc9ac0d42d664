"""Show a table in a notebook, and keep it as it was displayed, so that a text can quote it."""

import re
from html import escape

import pandas as pd
from IPython.display import display

from utils.common.files import write_atomically
from utils.common.paths import table_file

COLUMNS = 4
"""As many as fit beside each other on a page; the others of a table are folded away."""


class ShownTable:
    """A table as a page shows it: text on a terminal, HTML in JupyterLab and on the site."""

    def __init__(self, table: pd.DataFrame) -> None:
        """Take a table that is rounded and formatted as it is to be shown."""
        self._table = table

    def __repr__(self) -> str:
        """Return the table as pandas prints it."""
        return self._table.to_string(index=_has_names(self._table))

    def _repr_html_(self) -> str:
        """Return the first columns, and the whole table to fold out where there are more."""
        cells = _as_displayed(self._table)
        html = _to_html(cells.iloc[:, :COLUMNS])
        if folded := [str(column) for column in cells.columns[COLUMNS:]]:
            whole = _to_html(cells)
            summary = escape(f"All columns, also: {', '.join(folded)}")
            html += f"\n<details><summary>{summary}</summary>\n{whole}\n</details>"
        return html


def show_table(table: pd.DataFrame, study_name: str, name: str) -> None:
    """Show a table to the reader of a notebook, and keep it; see `write_table`."""
    write_table(table, study_name, name)
    display(ShownTable(table))


def write_table(table: pd.DataFrame, study_name: str, name: str) -> None:
    """Write a table, each cell as it is displayed, to `results/<study>/tables/<name>.csv`.

    Args:
        table: Rounded and formatted as it is shown. Names in its index are shown and written as
            the first columns, numbers of rows are not.
        study_name: Study of the results.
        name: Number of the notebook and a word, such as `09_scores`.
    """
    with write_atomically(table_file(study_name, f"tables/{name}")) as temporary:
        _as_displayed(table).to_csv(temporary, index=_has_names(table))


def _has_names(table: pd.DataFrame) -> bool:
    return not pd.api.types.is_integer_dtype(table.index)


def _to_html(cells: pd.DataFrame) -> str:
    """Return cells as HTML with a line for each row: saved notebooks are compared line by line."""
    html = cells.to_html(index=_has_names(cells), border=0)
    return re.sub(r"\n\s*(?=<t[hd]|</tr)", "", html)


def _as_displayed(table: pd.DataFrame) -> pd.DataFrame:
    cells = {column: _display(table[[column]]) for column in table}
    return pd.DataFrame(cells, index=table.index)


def _display(column: pd.DataFrame) -> list[str]:
    """Return the cells of one column as `to_string` formats them, which depends on all of them."""
    if column.empty:
        return []
    return [line.strip() for line in column.to_string(index=False, header=False).split("\n")]
