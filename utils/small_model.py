"""Make an exported model small enough to be committed."""

import json
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np

from utils.common.files import write_atomically

LARGEST_BYTES = 10_000_000
"""Of a file that the repository carries."""


class TooLargeError(ValueError):
    """A model that does not become small enough."""


def shrink_model(model: keras.Model, file: Path) -> int:
    """Write a model with weights rounded to half precision, compressed; return its bytes.

    The file stays an ordinary float32 `.keras` file, which loads wherever Keras does: rounded
    weights end in zeros, and the archive's compression leaves the zeros out.

    Args:
        model: To write; its weights are rounded in place.
        file: `.keras` file to write, atomically.

    Raises:
        TooLargeError: if the file would be larger than 10 MB, or a weight overflows.
    """
    for variable in model.weights:
        value = keras.ops.convert_to_numpy(variable)
        with np.errstate(over="ignore"):
            rounded = value.astype(np.float16).astype(value.dtype)
        if np.issubdtype(value.dtype, np.floating):
            if not np.isfinite(rounded).all():
                raise TooLargeError(
                    f"{variable.path} holds {np.abs(value).max():.3g}, more than half precision can"
                )
            variable.assign(rounded)
    with write_atomically(file) as temporary:
        plain = temporary.with_name(f"plain-{temporary.name}")
        try:
            model.save(plain)
            with (
                zipfile.ZipFile(plain) as source,
                zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target,
            ):
                for name in source.namelist():
                    # One date for all entries: the same model gives the same file.
                    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    if name == "metadata.json":
                        target.writestr(entry, _without_date(source.read(name)))
                        continue
                    with source.open(name) as content, target.open(entry, "w") as copy:
                        shutil.copyfileobj(content, copy)
        finally:
            plain.unlink(missing_ok=True)
        size = temporary.stat().st_size
        if size > LARGEST_BYTES:
            raise TooLargeError(
                f"{file.name} takes {size / 1e6:.1f} MB, more than the "
                f"{LARGEST_BYTES / 1e6:.0f} MB that the repository carries; take a smaller network"
            )
    return size


def _without_date(metadata: bytes) -> str:
    """Return Keras' metadata of a file without the moment of saving."""
    return json.dumps(json.loads(metadata) | {"date_saved": ""}, sort_keys=True)
