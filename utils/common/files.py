"""Write files whole or not at all, and fingerprint them."""

import glob
import hashlib
import json
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

logger = logging.getLogger(__name__)


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` and rename it to `path` on success.

    A reader sees the old file or the new one, never a half-written one; after an error the
    temporary file is removed and `path` is as it was. The temporary name keeps every suffix,
    because Keras and others choose a format by them: `.weights.h5` is not `.h5`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files of `write_atomically(path)` that killed runs have left.

    Only for a file that one process at a time writes: a temporary file may be in use.
    """
    for file in path.parent.glob(f".{'[0-9a-f]' * 8}.{glob.escape(path.name)}"):
        file.unlink(missing_ok=True)


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


class StaleResultError(RuntimeError):
    """A kept result that would be made again where that is not allowed."""


def find_changed_inputs(record: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[str]:
    """Name the inputs that a record does not name with the same value, sorted.

    Only what `inputs` names is compared, in mappings within it too: minutes, notes and keys of
    other versions may stand in a record. Where a list of names is wanted and the record has a
    mapping, its keys are compared. An input that can read its own record (a `from_record` of its
    class) is compared as that reads it, so that a field it has gained counts with its default.
    """
    return sorted(name for name, value in inputs.items() if not _is_same(record.get(name), value))


def _is_same(recorded: Any, value: Any) -> bool:
    if recorded is None:
        return value is None
    if hasattr(value, "from_record"):
        return type(value).from_record(recorded) == value
    if isinstance(value, Mapping):
        return isinstance(recorded, Mapping) and not find_changed_inputs(recorded, value)
    if isinstance(value, list | tuple):
        return list(recorded) == list(value)
    return recorded == value


def is_made_from(record_file: Path, inputs: Mapping[str, Any], *files: Path) -> bool:
    """Say whether a result is there and was made from these inputs.

    Args:
        record_file: JSON file that says what it was made from, written after the result.
        inputs: What it has to be made from; see `find_changed_inputs`.
        files: Of the result.
    """
    return all(file.is_file() for file in (record_file, *files)) and not find_changed_inputs(
        read_json(record_file), inputs
    )


def cached_table(
    file: Path,
    inputs: Mapping[str, Any],
    make: Callable[[], pd.DataFrame],
    notes: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Return a table that was made from the same inputs, or make and write it.

    What it was made from lies beside it, `<name>.json`, and is written last: a table without it
    is not trusted. `REMAKE_TABLES=0` forbids to make a table again that is there.

    Args:
        file: CSV file of the table.
        inputs: Everything that the table depends on: what JSON can hold, or has `describe`.
        make: Makes the table; called only where it is missing or was made from something else.
        notes: Recorded beside the inputs, but never compared.

    Returns:
        The table as read back from the file, the same whether it was just made or not.

    Raises:
        StaleResultError: if it would have to be made again and that is forbidden.
    """
    record_file = file.with_suffix(".json")
    if not is_made_from(record_file, inputs, file):
        if file.is_file():
            _announce_remaking(file, record_file, inputs)
        record_file.unlink(missing_ok=True)
        write_csv(file, make())
        write_json(record_file, describe_inputs(inputs) | dict(notes or {}))
    return pd.read_csv(file)


def _announce_remaking(file: Path, record_file: Path, inputs: Mapping[str, Any]) -> None:
    """Say why a table is made again, or refuse it where `REMAKE_TABLES=0`."""
    changed = find_changed_inputs(read_json(record_file), inputs) if record_file.is_file() else []
    reason = f"its record names other {', '.join(changed)}" if changed else "it has no record"
    if os.environ.get("REMAKE_TABLES") == "0":
        raise StaleResultError(
            f"{file} would be made again: {reason}; restore it with git, or make it again on "
            "purpose with the command that results/full/README.md names"
        )
    logger.warning("%s is made again: %s", file, reason)


def describe_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return inputs as JSON can hold them: those that can `describe` themselves do."""
    return {
        name: value.describe() if hasattr(value, "describe") else value
        for name, value in inputs.items()
    }
