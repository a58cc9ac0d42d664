"""Packages of the npm registry, fetched by npm and known by their hash."""

import base64
import hashlib
import shutil
import subprocess
from pathlib import Path

SECONDS = 900
_PACK = (
    "npm", "pack", "--loglevel=error", "--prefer-offline",
    # By default npm asks a registry that is not there for more than a minute.
    "--fetch-retries=1", "--fetch-retry-mintimeout=2000",
)  # fmt: skip


class NpmError(RuntimeError):
    """A package that cannot be had; the message says why."""


def fetch_package(package: str, integrity: str, folder: Path) -> Path:
    """Fetch a package with npm, from its cache where that has it.

    Args:
        package: Name and version, `name@1.0.4`.
        integrity: Of its archive, as the registry and lock files of npm state it: `sha512-` and the
            digest in base64.
        folder: That is to hold the archive.

    Returns:
        The archive, a `.tgz`.

    Raises:
        NpmError: if npm is missing or fails, or the archive is another one.
    """
    if shutil.which("npm") is None:
        raise NpmError("npm is not on the PATH")
    command = [*_PACK, "--pack-destination", str(folder), package]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS)
    except (subprocess.SubprocessError, OSError) as error:
        detail = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise NpmError(f"npm pack failed: {detail[0] if detail else error}") from error
    archives = list(folder.glob("*.tgz"))
    if len(archives) != 1 or measure_integrity(archives[0]) != integrity:
        raise NpmError(f"npm: {package} does not have the expected SHA-512")
    return archives[0]


def measure_integrity(file: Path) -> str:
    """Return the SHA-512 of a file as npm writes it."""
    with open(file, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha512").digest()
    return f"sha512-{base64.b64encode(digest).decode()}"
