"""Show a table in a notebook, and keep it as it was displayed, so that a text can quote it."""

import pandas as pd

from utils.common.files import write_atomically
from utils.common.paths import table_file


def show_table(table: pd.DataFrame, study_name: str, name: str) -> None:
    """Print a table for the reader of a notebook, and keep it; see `write_table`."""
    write_table(table, study_name, name)
    print(table.to_string(index=_has_names(table)))


def write_table(table: pd.DataFrame, study_name: str, name: str) -> None:
    """Write a table, each cell as it is displayed, to `results/<study>/tables/<name>.csv`.

    Args:
        table: Rounded and formatted as it is shown. Names in its index are shown and written as
            the first columns, numbers of rows are not.
        study_name: Study of the results.
        name: Number of the notebook and a word, such as `09_scores`.
    """
    cells = {column: _display(table[[column]]) for column in table}
    with write_atomically(table_file(study_name, f"tables/{name}")) as temporary:
        pd.DataFrame(cells, index=table.index).to_csv(temporary, index=_has_names(table))


def _has_names(table: pd.DataFrame) -> bool:
    return not pd.api.types.is_integer_dtype(table.index)


def _display(column: pd.DataFrame) -> list[str]:
    """Return the cells of one column as `to_string` formats them, which depends on all of them."""
    if column.empty:
        return []
    return [line.strip() for line in column.to_string(index=False, header=False).split("\n")]
