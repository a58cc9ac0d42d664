"""Write files whole or not at all, and fingerprint them."""

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` and rename it to `path` on success.

    A reader sees the old file or the new one, never a half-written one; after an error the
    temporary file is removed and `path` is as it was. The temporary name keeps the suffix,
    because Keras and others choose a format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically; refuse NaN, which is not JSON."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write a table without its index, atomically."""
    with write_atomically(path) as temporary:
        frame.to_csv(temporary, index=False)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
