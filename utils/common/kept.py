"""Tables that are expensive to make: kept with what they were made from, and made again else."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from utils.common.files import file_sha256, read_json, write_csv, write_json
from utils.common.paths import predictions_dir


def keep_table(
    file: Path, made_from: Mapping[str, Any], make: Callable[[], pd.DataFrame]
) -> pd.DataFrame:
    """Return a table that was made from the same inputs, or make and write it.

    What it was made from lies beside it, `<name>.json`, and is written last: a table without it
    is not trusted.

    Args:
        file: CSV file of the table.
        made_from: Everything that the table depends on, as JSON can hold it.
        make: Makes the table; called only where it is missing or was made from something else.

    Returns:
        The table as read back from the file, the same whether it was just made or not.
    """
    record = file.with_suffix(".json")
    if not (file.is_file() and record.is_file() and read_json(record) == dict(made_from)):
        record.unlink(missing_ok=True)
        write_csv(file, make())
        write_json(record, dict(made_from))
    return pd.read_csv(file)


def prediction_hashes(study: str, models: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of each model's prediction file: what the model was, to the digit.

    Args:
        study: Name of the study.
        models: Names of models that have predicted.
    """
    return {name: file_sha256(predictions_dir(study) / f"{name}.csv") for name in models}
