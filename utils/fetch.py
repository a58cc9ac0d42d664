"""Fetch the real data set, check every image, and put it in place whole or not at all.

`python -m utils.fetch` takes it from Kaggle, `--archive FILE.zip` from a zip that was downloaded
by hand (or a folder that was unpacked by hand), and `--source medmnist` takes PneumoniaMNIST at
224 pixels from Zenodo. Whatever was skipped, converted or refused is listed in `report.json`;
`source.json` says where a complete data set came from.
"""

import argparse
import errno
import fcntl
import hashlib
import logging
import os
import re
import shutil
import stat
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any

import kagglehub
import numpy as np
import pooch
from kagglehub.config import get_cache_folder
from kagglehub.exceptions import DataCorruptionError
from PIL import Image, UnidentifiedImageError

from utils.common.constants import (
    CHEST_XRAY,
    CLASS_NAMES,
    KAGGLE_HANDLE,
    MEDMNIST_MD5,
    MEDMNIST_URL,
)
from utils.common.files import file_sha256, read_json, write_json
from utils.common.paths import dataset_dir
from utils.common.progress import track
from utils.dataset import (
    IMAGE_LEVEL_SPLIT,
    IMAGE_SUFFIXES,
    PATIENT_LEVEL_SPLIT,
    DatasetError,
    parse_name,
    read_image,
)

logger = logging.getLogger(__name__)

FOLDERS = ("train", "val", "test")
NEEDED_FOLDERS = ("train", "test")
SOURCES = ("kaggle", "medmnist")

# Reasons for which an entry of an archive is left out; each is listed in the report.
METADATA = "metadata of macOS or Windows"
HIDDEN = "hidden file"
NO_IMAGE = "neither JPEG nor PNG by its name"
ELSEWHERE = "image outside train, val and test"
COPY = "second copy of an image that was taken"
ONLY_IN_COPY = "only in a second copy of the data set"
WARNED_REASONS = (NO_IMAGE, ELSEWHERE, ONLY_IN_COPY)

CONVERSIONS = {
    "RGBA": "transparency is dropped",
    "LA": "transparency is dropped",
    "P": "palette becomes RGB",
    "CMYK": "becomes RGB",
    "1": "becomes 8 bits",
    "I;16": "16 bits become 8",
    "I;16B": "16 bits become 8",
    "I;16L": "16 bits become 8",
    "I": "16 bits become 8",
}
"""What reading does to images that are neither gray nor RGB of 8 bits; files stay as they are."""


class FetchError(RuntimeError):
    """A data set that cannot be fetched; the message names the offending thing and the remedy."""


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


@dataclass
class Report:
    """What became of every entry."""

    entries: int = 0
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Images by folder and class."""
    modes: dict[str, int] = field(default_factory=dict)
    """Images by Pillow's pixel mode: L is gray, RGB colour, I;16 gray of 16 bits."""
    converted_when_read: dict[str, list[str]] = field(default_factory=dict)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def skip(self, reason: str, name: str) -> None:
        """Note an entry that is left out."""
        self.skipped.setdefault(reason, []).append(name)

    def warn(self, message: str) -> None:
        """Note a warning and show it."""
        self.warnings.append(message)
        logger.warning("WARNING: %s", message)


def data_set_present(root: Path) -> bool:
    """Tell whether `root` holds a data set that was checked and put in place as a whole."""
    return (Path(root) / "source.json").is_file()


def fetch(root: Path, source: str | None = None, archive: Path | None = None) -> dict[str, Any]:
    """Fetch a data set into `root`, unless a complete one is already there.

    Args:
        root: Where it goes: `<root>/{train,test[,val]}/{NORMAL,PNEUMONIA}/*`, `source.json`,
            `report.json`.
        source: `kaggle` (the default) or `medmnist`.
        archive: A file or unpacked folder to take instead of downloading.

    Returns:
        The content of `source.json`.

    Raises:
        FetchError: if the data set cannot be had, is damaged, or is unsafe to unpack. `root` is
            then as it was; where entries were refused, `<root>.refused.json` lists them.
    """
    if source not in (None, *SOURCES):
        raise FetchError(f"unknown source {source!r}; choose one of {', '.join(SOURCES)}")
    root = Path(root).expanduser().resolve()
    if archive is not None:
        archive = Path(archive).expanduser().resolve()
        if not archive.exists():
            raise FetchError(f"there is no archive {archive}; check the path")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with _lock(root):
            if present := _check_present(root, source, archive):
                logger.info(
                    "%s already holds a complete data set (%s, source: %s); nothing to do",
                    root, _show_counts(present["counts"]), present["source"],
                )  # fmt: skip
                return present
            with _scratch_folder(root) as scratch:
                return _fill_and_install(scratch, root, source or "kaggle", archive)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FetchError(
                f"the disk of {root.parent} is full ({error.strerror}); free space and run again, "
                "nothing was put in place"
            ) from error
        raise FetchError(f"{error}; nothing was put in place") from error


@contextmanager
def _lock(root: Path) -> Iterator[None]:
    """Keep two runs from filling the same data set."""
    with open(root.parent / f".{root.name}.lock", "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FetchError(
                f"another `make data` is filling {root}; wait for its end, then run again"
            ) from error
        yield


@contextmanager
def _scratch_folder(root: Path) -> Iterator[Path]:
    """Yield an empty folder beside `root`, removed at the end unless it was renamed."""
    scratch = root.parent / f".{root.name}.unfinished"
    if scratch.exists():
        logger.warning("removing %s, which an interrupted run left behind", scratch)
        shutil.rmtree(scratch)
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _check_present(root: Path, source: str | None, archive: Path | None) -> dict[str, Any] | None:
    """Return the record of a complete data set at `root`, or None if there is nothing.

    Counts and bytes are compared with the record; decoding everything again would take minutes.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return None
    moved = f"{root}-unpacked"
    if not data_set_present(root):
        raise FetchError(
            f"{root} is in the way: it holds no source.json, so it was not put there by `make "
            f"data` and may not be whole. Move it (mv '{root}' '{moved}') and run again, with "
            f"ARCHIVE='{moved}' to check and take over what it holds"
        )
    remedy = f"Move it away (mv '{root}' '{root}-old') and run again"
    try:
        record = read_json(root / "source.json")
        expected = (record["counts"], record["bytes"])
        known_source, known_sha256 = record["source"], record.get("archive_sha256")
    except (ValueError, KeyError, TypeError) as error:
        raise FetchError(f"{root}/source.json is not what `make data` writes. {remedy}") from error
    found = _measure(root)
    if found != expected:
        raise FetchError(
            f"{root} has changed since it was put in place: its source.json says "
            f"{_show_counts(expected[0])} ({expected[1]:,} bytes), but it holds "
            f"{_show_counts(found[0])} ({found[1]:,} bytes). {remedy}"
        )
    other_source = (known_source == "medmnist") != (source == "medmnist")
    if (source or archive) and other_source:
        raise FetchError(f"{root} holds the data set of source {known_source!r}. {remedy}")
    if archive and archive.is_file() and known_sha256 not in (None, file_sha256(archive)):
        raise FetchError(f"{root} comes from another archive, {record['archive']}. {remedy}")
    return record


def _measure(root: Path) -> tuple[dict[str, dict[str, int]], int]:
    """Count the images of a data set by folder and class, and their bytes."""
    counts: dict[str, dict[str, int]] = {}
    size = 0
    for folder in FOLDERS:
        if (root / folder).is_dir():
            counts[folder] = {}
            for class_name in CLASS_NAMES:
                files = [
                    path
                    for path in (root / folder / class_name).glob("*")
                    if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
                ]
                counts[folder][class_name] = len(files)
                size += sum(path.stat().st_size for path in files)
    return counts, size


def _fill_and_install(
    scratch: Path, root: Path, source: str, archive: Path | None
) -> dict[str, Any]:
    """Fill the scratch folder from a source, check it, and rename it to `root`."""
    report = Report()
    refused_file = root.with_name(f"{root.name}.refused.json")
    try:
        if source == "medmnist":
            record = _take_medmnist(scratch, root.parent, archive, report)
        elif archive is not None:
            record = _take_archive(scratch, archive, report)
        else:
            record = _take_kaggle(scratch, report)
    except FetchError:
        if report.refused:
            write_json(refused_file, vars(report))
            logger.error("every refused entry is listed in %s", refused_file)
        raise
    refused_file.unlink(missing_ok=True)
    _, size = _measure(scratch)
    record |= {
        "images": sum(sum(classes.values()) for classes in report.counts.values()),
        "counts": report.counts,
        "bytes": size,
        "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(scratch / "report.json", vars(report))
    # Last, because its presence is what makes a data set complete.
    write_json(scratch / "source.json", record)
    os.rename(scratch, root)
    left_out = [f"{len(names):,} {reason}" for reason, names in report.skipped.items()]
    logger.info(
        "%s: %s images, every one decoded (%s). Left out: %s. Details: report.json there.",
        root, f"{record['images']:,}", _show_counts(report.counts),
        "; ".join(left_out) or "nothing",
    )  # fmt: skip
    return record


# Sources


def _take_kaggle(scratch: Path, report: Report) -> dict[str, Any]:
    """Take the data set from Kaggle; kagglehub resumes a download and compares its MD5."""
    cache = Path(get_cache_folder()) / "datasets" / KAGGLE_HANDLE
    logger.info("fetching %s from Kaggle (2.3 GB, in %s)", KAGGLE_HANDLE, cache)
    try:
        folder = Path(kagglehub.dataset_download(KAGGLE_HANDLE))
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, DataCorruptionError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise FetchError(
                f"the disk of {cache} is full; free 5 GB, or set KAGGLEHUB_CACHE to a folder on "
                "another disk, and run again"
            ) from error
        raise FetchError(
            f"Kaggle: {_one_line(error)}; run again to resume, or if that fails too delete "
            f"{cache}, or download the zip from {CHEST_XRAY.address} with a browser and run "
            "make data ARCHIVE=<the zip>"
        ) from error
    _unpack(_list_folder(folder), scratch, str(folder), report)
    hashes = _check_images(scratch, report, str(folder), names_carry_patients=True)
    if report.counts != _kaggle_counts():
        raise FetchError(
            f"Kaggle's data set should hold {_show_counts(_kaggle_counts())}, but {folder} holds "
            f"{_show_counts(report.counts)}; delete {cache} and run again, or accept it "
            f"as it is: make data ARCHIVE='{folder}'"
        )
    logger.info("kagglehub keeps its own copy in %s; the study does not need it any more", cache)
    return _describe("kaggle", CHEST_XRAY.address, PATIENT_LEVEL_SPLIT, hashes) | {
        "kaggle_version": folder.name
    }


def _take_archive(scratch: Path, archive: Path, report: Report) -> dict[str, Any]:
    """Take the data set from a zip or from an unpacked folder."""
    with ExitStack() as stack:
        if archive.is_dir():
            entries, sha256 = _list_folder(archive), None
        else:
            entries, sha256 = _list_zip(_open_zip(archive, stack), archive), file_sha256(archive)
        _unpack(entries, scratch, str(archive), report)
    hashes = _check_images(scratch, report, str(archive), names_carry_patients=True)
    if report.counts != _kaggle_counts():
        report.warn(
            f"{archive.name} is not the complete data set of Kaggle: it holds "
            f"{_show_counts(report.counts)}; Kaggle's holds {_show_counts(_kaggle_counts())}"
        )
    return _describe("archive", CHEST_XRAY.address, PATIENT_LEVEL_SPLIT, hashes) | {
        "archive": archive.name,
        "archive_sha256": sha256,
    }


def _take_medmnist(
    scratch: Path, downloads: Path, archive: Path | None, report: Report
) -> dict[str, Any]:
    """Take PneumoniaMNIST, whose names say nothing of patients, as PNG files."""
    file = archive or download_medmnist(downloads)
    if pooch.file_hash(str(file), alg="md5") != MEDMNIST_MD5:
        raise FetchError(
            f"{file} is not PneumoniaMNIST at 224 pixels: its MD5 is not {MEDMNIST_MD5}; download "
            f"{MEDMNIST_URL} again"
        )
    write_medmnist_images(file, scratch)
    report.entries = sum(1 for _ in scratch.rglob("*.png"))
    hashes = _check_images(scratch, report, file.name, names_carry_patients=False)
    if archive is None:
        file.unlink()
    return _describe("medmnist", MEDMNIST_URL, IMAGE_LEVEL_SPLIT, hashes) | {
        "archive": file.name,
        "archive_md5": MEDMNIST_MD5,
    }


def download_medmnist(folder: Path, url: str | None = None, md5: str | None = None) -> Path:
    """Download PneumoniaMNIST and compare its MD5; a file that is already there is reused.

    Args:
        folder: Where the file goes, under the name that the address ends with.
        url: Address, `facts.MEDMNIST_URL` by default.
        md5: Expected hash, `facts.MEDMNIST_MD5` by default.

    Raises:
        FetchError: if the server fails, breaks off, or sends something else.
    """
    url, md5 = url or MEDMNIST_URL, md5 or MEDMNIST_MD5
    name = url.rsplit("/", 1)[1]
    downloader = pooch.HTTPDownloader(progressbar=True, chunk_size=2**16, timeout=30)
    try:
        return Path(pooch.retrieve(url, f"md5:{md5}", name, folder, downloader=downloader))
    except (OSError, ValueError) as error:
        # Failures of `requests` are OSErrors without a number, a wrong hash is a ValueError.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise FetchError(
            f"{url}: {_one_line(error)}; run again, or download it with a browser and run "
            f"make data SOURCE=medmnist ARCHIVE={name}"
        ) from error


def write_medmnist_images(file: Path, root: Path) -> None:
    """Write the arrays of a PneumoniaMNIST file as `<folder>/<class>/medmnist_<folder>_<n>.png`.

    Args:
        file: `.npz` with `{train,val,test}_images` ((n, height, width) uint8) and
            `{train,val,test}_labels` ((n, 1) or (n,), 1 = PNEUMONIA).
        root: Folder that receives `train`, `val` and `test`.

    Raises:
        FetchError: if an array is missing or is not what it should be.
    """
    try:
        with np.load(file) as arrays:
            for folder in FOLDERS:
                images, labels = arrays[f"{folder}_images"], arrays[f"{folder}_labels"].ravel()
                if images.dtype != np.uint8 or images.ndim != 3 or len(images) != len(labels):
                    raise FetchError(
                        f"{file}: {folder}_images is {images.dtype} {images.shape} for "
                        f"{len(labels)} labels, not (n, height, width) uint8; download it again"
                    )
                if unknown := set(labels.tolist()) - set(range(len(CLASS_NAMES))):
                    raise FetchError(f"{file}: labels must be 0 or 1, not {sorted(unknown)}")
                _write_pngs(images, labels, root / folder)
    except (KeyError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise FetchError(
            f"{file} is not PneumoniaMNIST ({_one_line(error)}); download it again"
        ) from error


def _write_pngs(images: np.ndarray, labels: np.ndarray, folder: Path) -> None:
    for class_name in CLASS_NAMES:
        (folder / class_name).mkdir(parents=True)

    def write(number: int) -> None:
        name = f"medmnist_{folder.name}_{number:05}.png"
        Image.fromarray(images[number]).save(folder / CLASS_NAMES[labels[number]] / name)

    with ThreadPoolExecutor() as pool:
        for _ in track(pool.map(write, range(len(images))), f"writing {folder.name}", len(images)):
            pass


def _describe(source: str, address: str, split: str, hashes: dict[str, str]) -> dict[str, Any]:
    """Say what a data set is; its content hash does not depend on how it was packed."""
    lines = "".join(f"{image_id} {hashes[image_id]}\n" for image_id in sorted(hashes))
    return {
        "source": source,
        "split": split,
        "address": address,
        "licence": CHEST_XRAY.licence,
        "content_sha256": hashlib.sha256(lines.encode()).hexdigest(),
    }


def _kaggle_counts() -> dict[str, dict[str, int]]:
    return {
        folder: dict(zip(CLASS_NAMES, counts, strict=True))
        for folder, counts in CHEST_XRAY.image_counts.items()
    }


# Archives


def _open_zip(archive: Path, stack: ExitStack) -> zipfile.ZipFile:
    try:
        return stack.enter_context(zipfile.ZipFile(archive))
    except zipfile.BadZipFile as error:
        raise FetchError(
            f"{archive} is not a readable zip ({error}): its download may have broken off; "
            "download it again, or unpack another format by hand and pass the folder"
        ) from error


def _list_zip(content: zipfile.ZipFile, archive: Path) -> list[Entry]:
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


def _list_folder(folder: Path) -> list[Entry]:
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


def _unpack(entries: list[Entry], scratch: Path, archive: str, report: Report) -> None:
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
            report.warn(f"left out, {reason}: {_some(names)}")
    _raise_if_refused(report, archive)


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


# Checks


@dataclass(frozen=True)
class _CheckedImage:
    mode: str = ""
    sha256: str = ""
    reason: str = ""
    """Why it is refused, if it is."""


def _check_images(
    scratch: Path, report: Report, archive: str, names_carry_patients: bool
) -> dict[str, str]:
    """Decode every image, and require both classes in each folder.

    Returns:
        SHA-256 of each file by `image_id`.

    Raises:
        FetchError: if an image is damaged or misplaced, or a class is missing.
    """
    files = {path.relative_to(scratch).as_posix(): path for path in scratch.glob("*/*/*")}
    with ThreadPoolExecutor() as pool:
        checks = pool.map(lambda path: _check_image(path, names_carry_patients), files.values())
        checked = dict(zip(files, track(checks, "checking images", len(files)), strict=True))
    for image_id, result in sorted(checked.items()):
        if result.reason:
            report.refused[image_id] = result.reason
        elif result.mode in CONVERSIONS:
            key = f"{result.mode}: {CONVERSIONS[result.mode]}"
            report.converted_when_read.setdefault(key, []).append(image_id)
    report.counts, _ = _measure(scratch)
    report.modes = dict(Counter(result.mode for result in checked.values() if not result.reason))
    _raise_if_refused(report, archive)
    for folder in dict.fromkeys((*NEEDED_FOLDERS, *report.counts)):
        classes = report.counts.get(folder, dict.fromkeys(CLASS_NAMES, 0))
        if missing := [f"{folder}/{name}" for name, count in classes.items() if count == 0]:
            raise FetchError(
                f"{archive} has no images in {' and '.join(missing)} (found: "
                f"{_show_counts(report.counts)}); it is not whole, or another data set: take the "
                f"zip of {CHEST_XRAY.address}"
            )
    hashes = {image_id: result.sha256 for image_id, result in checked.items()}
    test = {sha256 for image_id, sha256 in hashes.items() if image_id.startswith("test/")}
    other = {sha256 for image_id, sha256 in hashes.items() if not image_id.startswith("test/")}
    if shared := test & other:
        report.warn(
            f"{len(shared)} images of test are in train or val too; results on test will look "
            "better than they are"
        )
    return hashes


def _check_image(path: Path, name_carries_patient: bool) -> _CheckedImage:
    """Decode an image as the study will, and read its name."""
    try:
        with Image.open(path) as image:
            mode = image.mode
        read_image(path)
        if name_carries_patient:
            is_normal = parse_name(path.name).etiology == "normal"
            if is_normal != (path.parent.name == CLASS_NAMES[0]):
                return _CheckedImage(reason="its name belongs to the other class")
    except UnidentifiedImageError:
        return _CheckedImage(reason=f"is no JPEG or PNG image ({path.stat().st_size:,} bytes)")
    except DatasetError as error:
        return _CheckedImage(reason=_one_line(error.__cause__ or error))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        return _CheckedImage(reason=_one_line(error))
    return _CheckedImage(mode, file_sha256(path))


def _raise_if_refused(report: Report, archive: str) -> None:
    if report.refused:
        examples = [f"{name} ({reason})" for name, reason in report.refused.items()]
        raise FetchError(
            f"{archive}: {_some(examples)} refused; download it again, and if the files are still "
            "damaged unpack it by hand, repair or remove them, and pass the folder: "
            "make data ARCHIVE=<folder>"
        )


# Wording


def _some(names: Sequence[str], shown: int = 5) -> str:
    """List some names and the number of the others."""
    rest = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + rest


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _show_counts(counts: dict[str, dict[str, int]]) -> str:
    shown = ", ".join(
        f"{folder} " + " + ".join(f"{count:,} {name}" for name, count in classes.items())
        for folder, classes in counts.items()
    )
    return shown or "nothing"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m utils.fetch", description=__doc__)
    parser.add_argument("--archive", type=Path, help="zip or folder to take, not downloaded")
    parser.add_argument("--source", choices=SOURCES, help="kaggle by default")
    parser.add_argument("--root", type=Path, help="data/chest_xray by default")
    arguments = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logger.setLevel(logging.INFO)
    root = arguments.root or dataset_dir("chest_xray")
    try:
        fetch(root, arguments.source, arguments.archive)
    except FetchError as error:
        logger.error("make data: %s", error)
        return 1
    except KeyboardInterrupt:
        logger.error("make data: interrupted; nothing was put in place, run it again")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
