"""The zip or folder that a data set comes in: what it holds, and how it is unpacked."""

import hashlib
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from utils.common.constants import CLASS_NAMES
from utils.common.progress import track
from utils.data.checks import FOLDERS, FetchError, Report, raise_if_refused, some
from utils.data.images import IMAGE_SUFFIXES

# Reasons for which an entry of an archive is left out; each is listed in the report.
METADATA = "metadata of macOS or Windows"
HIDDEN = "hidden file"
NO_IMAGE = "no image by its name"
ELSEWHERE = "image outside train, val and test"
COPY = "second copy of an image that was taken"
ONLY_IN_COPY = "only in a second copy of the data set"
WARNED_REASONS = (NO_IMAGE, ELSEWHERE, ONLY_IN_COPY)


@dataclass(frozen=True)
class Entry:
    """A file of an archive or of an unpacked folder."""

    name: str
    """POSIX path inside it."""
    size: int
    """Bytes, unpacked."""
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True)
class Place:
    """Where an image belongs: `<base>/<folder>/<class_name>/<file_name>` in its archive."""

    base: str
    folder: str
    class_name: str
    file_name: str

    @property
    def image_id(self) -> str:
        """POSIX path below the root of the data set."""
        return f"{self.folder}/{self.class_name}/{self.file_name}"


def open_zip(archive: Path, stack: ExitStack) -> zipfile.ZipFile:
    """Open a zip until the stack is closed; one that cannot be read is a FetchError."""
    try:
        return stack.enter_context(zipfile.ZipFile(archive))
    except zipfile.BadZipFile as error:
        raise FetchError(
            f"{archive} is not a readable zip ({error}): its download may have broken off; "
            "download it again, or unpack another format by hand and pass the folder"
        ) from error


def list_zip(content: zipfile.ZipFile, archive: Path) -> list[Entry]:
    """List the files of a zip, refusing names that lead outside, links and passwords."""
    entries = []
    for info in content.infolist():
        name = info.filename.replace("\\", "/")
        if name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in name.split("/"):
            raise FetchError(
                f"{archive}: entry {info.filename!r} leads outside the archive's own folder; "
                "nothing was unpacked, get the archive from a place that you trust"
            )
        if stat.S_ISLNK(info.external_attr >> 16):
            raise FetchError(
                f"{archive}: entry {info.filename!r} is a link; nothing was unpacked, pack the "
                "files themselves"
            )
        if info.flag_bits & 1:
            raise FetchError(
                f"{archive}: entry {info.filename!r} needs a password; unpack it by hand and "
                "pass the folder: make data ARCHIVE=<folder>"
            )
        if not name.endswith("/"):
            entries.append(Entry(name, info.file_size, lambda info=info: content.open(info)))
    return entries


def list_folder(folder: Path) -> list[Entry]:
    """List the files of an unpacked folder; files may be links, folders may not."""
    entries = []
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for name in folders:
            if (Path(parent) / name).is_symlink():
                raise FetchError(f"{parent}/{name} is a link to a folder; put the folder there")
        for name in sorted(files):
            path = Path(parent) / name
            if not path.is_file():
                raise FetchError(f"{path} is a broken link or no plain file; remove it")
            relative = path.relative_to(folder).as_posix()
            entries.append(Entry(relative, path.stat().st_size, lambda path=path: open(path, "rb")))
    return entries


def _place(name: str) -> Place | str:
    """Return where an entry belongs, or the reason for which it is left out.

    Raises:
        ValueError: if it lies in a split folder but in none of a class.
    """
    parts = PurePosixPath(name).parts
    if not parts or any(part.startswith(".") for part in parts[:-1]):
        return HIDDEN
    if "__MACOSX" in parts or parts[-1].startswith("._"):
        return METADATA
    if parts[-1].lower() in (".ds_store", "thumbs.db", "desktop.ini"):
        return METADATA
    if parts[-1].startswith("."):
        return HIDDEN
    if PurePosixPath(name).suffix.lower() not in IMAGE_SUFFIXES:
        return NO_IMAGE
    folders = [part.lower() for part in parts[:-1]]
    if len(parts) >= 3 and folders[-2] in FOLDERS and folders[-1].upper() in CLASS_NAMES:
        return Place("/".join(parts[:-3]), folders[-2], folders[-1].upper(), parts[-1])
    if set(folders) & set(FOLDERS):
        raise ValueError(f"in a split, but not in a folder {' or '.join(CLASS_NAMES)}")
    return ELSEWHERE


def unpack(entries: list[Entry], scratch: Path, archive: str, report: Report) -> None:
    """Write the images of an archive into the layout of a data set.

    Where a folder is there more than once, as in Kaggle's archive, the outermost is taken, and
    the others must be copies of it.
    """
    report.entries = len(entries)
    placed: list[tuple[Place, Entry]] = []
    for entry in entries:
        try:
            place = _place(entry.name)
        except ValueError as error:
            report.refused[entry.name] = str(error)
            continue
        if isinstance(place, Place):
            placed.append((place, entry))
        else:
            report.skip(place, entry.name)
    outermost = _choose_bases([place for place, _ in placed], archive)
    placed.sort(key=lambda pair: (pair[0].base != outermost[pair[0].folder], pair[1].name))
    _require_space(
        scratch, sum(entry.size for place, entry in placed if place.base == outermost[place.folder])
    )
    taken: dict[str, tuple[str, str]] = {}
    for place, entry in track(placed, "unpacking", len(placed)):
        # Names that differ in case alone would overwrite each other on some disks.
        key = place.image_id.lower()
        if key in taken:
            first, sha256 = taken[key]
            if _copy(entry, None, archive) == sha256:
                report.skip(COPY, entry.name)
            else:
                report.refused[entry.name] = f"differs from {first}, which has the same name"
        elif place.base == outermost[place.folder]:
            taken[key] = entry.name, _copy(entry, scratch / place.image_id, archive)
        else:
            report.skip(ONLY_IN_COPY, entry.name)
    for reason in WARNED_REASONS:
        if names := report.skipped.get(reason):
            report.warn(f"left out, {reason}: {some(names)}")
    raise_if_refused(report, archive)


def _choose_bases(places: Iterable[Place], archive: str) -> dict[str, str]:
    """Choose for each split the outermost of its folders, and refuse unrelated data sets."""
    names: dict[tuple[str, str], set[str]] = {}
    for place in places:
        names.setdefault((place.folder, place.base), set()).add(place.image_id.lower())
    chosen: dict[str, str] = {}
    for folder, base in sorted(names, key=lambda key: (key[1].count("/"), len(key[1]), key[1])):
        first = chosen.setdefault(folder, base)
        if names[folder, first].isdisjoint(names[folder, base]):
            raise FetchError(
                f"{archive} holds two different data sets, {first or '.'}/{folder} and "
                f"{base or '.'}/{folder}; pack or pass one of them"
            )
    return chosen


def _copy(entry: Entry, target: Path | None, archive: str) -> str:
    """Copy an entry to a file, or only read it, and return the SHA-256 of its bytes."""
    digest = hashlib.sha256()
    with ExitStack() as stack:
        output = None
        if target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            output = stack.enter_context(open(target, "xb"))
        try:
            source = stack.enter_context(entry.open())
            while chunk := source.read(2**20):
                digest.update(chunk)
                if output is not None:
                    output.write(chunk)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise FetchError(
                f"{archive}: entry {entry.name} cannot be unpacked ({error}); download the "
                "archive again"
            ) from error
    return digest.hexdigest()


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise FetchError(
            f"the data set needs {needed / 1e9:.2f} GB, but the disk of {folder.parent} has "
            f"{free / 1e9:.2f} GB free; free space, or set DATA_DIR to a folder on another disk"
        )
