"""What a data set comes in: a file to download, a zip or a folder, and how it is unpacked."""

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

import pooch

from utils.common.constants import CLASS_NAMES
from utils.common.folders import one_line, some, walk_folder
from utils.common.progress import track
from utils.data.checks import FOLDERS, MISPLACED, FetchError, Report, raise_if_refused
from utils.data.images import IMAGE_SUFFIXES, describe_content

# Reasons for which an entry of an archive is skipped; each is listed in the report.
METADATA = "metadata of macOS or Windows"
HIDDEN = "hidden file"
NO_IMAGE = "no image by its name"
ELSEWHERE = "image outside train, val and test"
COPY = "second copy of an image that was taken"
ONLY_IN_COPY = "only in a second copy of the data set"
WARNED_REASONS = (NO_IMAGE, ELSEWHERE, ONLY_IN_COPY)
_UNPACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_DEFLATE64 = 9
_BY_HAND = (
    "unpack it by hand (Windows Explorer, 7-Zip, `unzip` or `tar -xf`) and pass the folder: "
    "make data ARCHIVE=<folder>"
)
_SECOND_DOWNLOAD = re.compile(r" ?\(\d{1,2}\)$")
"""What browsers and disks add to the name of a file that is there already."""


@dataclass(frozen=True)
class Entry:
    """A file of an archive or of an unpacked folder."""

    name: str
    """POSIX path inside it."""
    size: int
    """Bytes, unpacked."""
    open: Callable[[], IO[bytes]]
    link_to: Path | None = None
    """The file itself, where it is linked to and not copied."""


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


def download_file(
    url: str, known_hash: str, target: Path, otherwise: str, size: int | None = None
) -> None:
    """Download a file and compare its hash; one that is there and right is not fetched again.

    Args:
        url: Its address.
        known_hash: `md5:` or `sha256:` and the digits.
        target: Where it goes, whole and compared or not at all.
        otherwise: What else to do if it fails, for the error.
        size: Its bytes. Where they are not known, a bar shows how many there are to come.

    Raises:
        FetchError: if the server fails, breaks off, or sends something else.
    """
    download = pooch.HTTPDownloader(progressbar=size is None, chunk_size=2**16, timeout=30)

    def download_and_measure(url: str, file: str, pup: pooch.Pooch | None) -> None:
        download(url, file, pup)
        if size is not None and (found := os.path.getsize(file)) != size:
            raise ValueError(f"{found:,} bytes came instead of {size:,}")

    try:
        pooch.retrieve(url, known_hash, target.name, target.parent, downloader=download_and_measure)
    except (OSError, ValueError) as error:
        # Failures of `requests` are OSErrors without a number, a wrong hash is a ValueError.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise FetchError(f"{url}: {one_line(error)}; run again, or {otherwise}") from error


def open_zip(archive: Path, stack: ExitStack) -> zipfile.ZipFile:
    """Open a zip until the stack is closed; one that cannot be read is a FetchError."""
    try:
        return stack.enter_context(zipfile.ZipFile(archive))
    except zipfile.BadZipFile as error:
        with open(archive, "rb") as stream:
            start = stream.read(512)
        if start.startswith(b"PK"):
            what = f"{error}: its download may have broken off; download it again"
        elif not start or start.lstrip()[:1] == b"<":
            what = f"{describe_content(start)}; sign in, and download it again"
        else:
            what = f"{describe_content(start)}; {_BY_HAND}, or download it again"
        raise FetchError(f"{archive} is not a readable zip ({what})") from error


def list_zip(content: zipfile.ZipFile, archive: Path) -> list[Entry]:
    """List the files of a zip, refusing names that lead outside, links and passwords."""
    entries = []
    for info in content.infolist():
        name = info.filename.replace("\\", "/")
        if name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in name.split("/"):
            raise FetchError(
                f"{archive}: entry {info.filename!r} leads outside the archive's own folder; "
                "nothing was unpacked, get the archive from a source that you trust"
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
        if info.compress_type not in _UNPACKED:
            method = f"method {info.compress_type}"
            if info.compress_type == _DEFLATE64:
                method = "Deflate64, as Windows does above 2 GB"
            raise FetchError(
                f"{archive} is packed with {method}, which Python cannot unpack, however often it "
                f"is downloaded; {_BY_HAND}"
            )
        if not name.endswith("/"):
            entries.append(Entry(name, info.file_size, lambda info=info: content.open(info)))
    return entries


def is_kept(folder: Path) -> bool:
    """Tell whether a folder may not be written to, as Kaggle's mounts: its files are linked to."""
    return not os.access(folder, os.W_OK)


def list_folder(folder: Path) -> list[Entry]:
    """List the files of an unpacked folder; linked folders are entered, each once."""
    found = walk_folder(folder)
    for names, what in (
        (found.closed, "may not be read; change its permissions"),
        (found.broken, "is a broken link; remove it"),
        (found.special, "is no plain file; remove it"),
    ):
        if names:
            raise FetchError(f"{folder}: {some(names)} {what}")
    sizes = {name: (folder / name).stat().st_size for name in found.files}
    kept = is_kept(folder)
    return [
        Entry(
            name, sizes.get(name, 0), lambda name=name: open(folder / name, "rb"),
            link_to=folder / name if kept else None,
        )
        for name in sorted(found.files + found.hidden)
    ]  # fmt: skip


def _place(name: str) -> Place | str:
    """Return where an entry belongs, or the reason for which it is skipped.

    Folders within a class are left out of its place, and so is the ` (1)` of a second download.

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
    for number in reversed(range(len(folders) - 1)):
        split, class_name = folders[number], folders[number + 1].upper()
        if split in FOLDERS and class_name in CLASS_NAMES:
            stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix
            file_name = _SECOND_DOWNLOAD.sub("", stem) + suffix
            return Place("/".join(parts[:number]), split, class_name, file_name)
    if set(folders) & set(FOLDERS):
        raise ValueError(MISPLACED)
    return ELSEWHERE


def unpack(entries: list[Entry], scratch: Path, archive: str, report: Report) -> None:
    """Write the images of an archive into the layout of a data set, or link to them.

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
    _refuse_zip_in_zip(entries, placed, archive)
    renamed = [
        entry.name for place, entry in placed if PurePosixPath(entry.name).name != place.file_name
    ]
    if renamed:
        report.warn(f"taken without the ' (1)' of a second download: {some(renamed)}")
    outermost = _choose_bases([place for place, _ in placed], archive)
    placed.sort(key=lambda pair: (pair[0].base != outermost[pair[0].folder], pair[1].name))
    written = [entry.size for place, entry in placed
               if place.base == outermost[place.folder] and entry.link_to is None]  # fmt: skip
    require_space(scratch, sum(written))
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
            taken[key] = entry.name, _take(entry, scratch / place.image_id, archive)
        else:
            report.skip(ONLY_IN_COPY, entry.name)
    for reason in WARNED_REASONS:
        if names := report.skipped.get(reason):
            report.warn(f"left out, {reason}: {some(names)}")
    raise_if_refused(report, archive)


def _refuse_zip_in_zip(
    entries: list[Entry], placed: list[tuple[Place, Entry]], archive: str
) -> None:
    inner = [entry.name for entry in entries if entry.name.lower().endswith(".zip")]
    if inner and not placed:
        raise FetchError(
            f"{archive} holds no image, but another zip, {some(inner)}; unpack it once, and pass "
            f"that zip: make data ARCHIVE='{PurePosixPath(inner[0]).name}'"
        )


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


def _take(entry: Entry, target: Path, archive: str) -> str:
    """Copy an entry to a file, or link the file to it, and return the SHA-256 of its bytes."""
    if entry.link_to is None:
        return _copy(entry, target, archive)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(entry.link_to)
    return _copy(entry, None, archive)


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
                f"archive again, or {_BY_HAND}"
            ) from error
    return digest.hexdigest()


def require_space(folder: Path, needed: int) -> None:
    """Raise a FetchError where the disk of a data set's scratch folder has too few bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise FetchError(
            f"the data set needs {needed / 1e9:.2f} GB, but the disk of {folder.parent} has "
            f"{free / 1e9:.2f} GB free; free space, or set DATA_DIR to a folder on another disk"
        )
