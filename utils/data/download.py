"""Fetch the real data set, check every image, and put it in place whole or not at all.

`python -m utils.data.download` takes it from Kaggle, `--archive FILE.zip` from a zip that was
downloaded by hand (or a folder that was unpacked by hand; one that may not be written to, such as
Kaggle's mounts, is linked to and not copied), and `--source medmnist` takes
PneumoniaMNIST at 224 pixels from Zenodo. `--source nih_adults` takes the external test from GitHub,
or with `--archive` from a folder of its images, and gives it a folder of its own. Whatever was
skipped, converted or refused is listed in `report.json`; `source.json` says where a complete data
set came from.
"""

import argparse
import errno
import fcntl
import hashlib
import logging
import os
import shutil
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kagglehub
import pooch
from kagglehub.config import get_cache_folder
from kagglehub.exceptions import DataCorruptionError

from utils.common.constants import EXTERNAL_SPLIT, IMAGE_LEVEL_SPLIT, PATIENT_LEVEL_SPLIT
from utils.common.files import file_sha256, read_json, write_json
from utils.common.folders import one_line
from utils.common.paths import dataset_dir
from utils.data.archive import is_kept, list_folder, list_zip, open_zip, unpack
from utils.data.checks import FetchError, Report, check_images, measure, show_counts
from utils.data.index import LINKED_TO, describe_lost_links
from utils.data.medmnist import download_medmnist, write_medmnist_images
from utils.data.nih_adults import INDEX_FILE, collect_nih_adults
from utils.data.sources import (
    KAGGLE_ADDRESS,
    KAGGLE_COUNTS,
    KAGGLE_HANDLE,
    LICENSE,
    MEDMNIST_MD5,
    MEDMNIST_URL,
    NIH_ADDRESS,
    NIH_COMMIT,
    NIH_CONTENT_SHA256,
    NIH_LICENSE,
    NIH_REPOSITORY,
)

logger = logging.getLogger(__name__)
SOURCES = ("kaggle", "medmnist", "nih_adults")


def data_set_present(root: Path) -> bool:
    """Tell whether `root` holds a data set that was checked and put in place as a whole."""
    return (Path(root) / "source.json").is_file()


def fetch(root: Path, source: str | None = None, archive: Path | None = None) -> dict[str, Any]:
    """Fetch a data set into `root`, unless a complete one is already there.

    Args:
        root: Where it goes: `<root>/{train,test[,val]}/{NORMAL,PNEUMONIA}/*`, `source.json`,
            `report.json`; of the external test `<root>/{NORMAL,PNEUMONIA}/*`.
        source: `kaggle` (the default), `medmnist` or `nih_adults`.
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
                    root, show_counts(present["counts"]), present["source"],
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
    try:
        found = measure(root)
    except FileNotFoundError as error:
        if LINKED_TO not in record:
            raise
        raise FetchError(describe_lost_links(root, error.filename)) from error
    if found != expected:
        raise FetchError(
            f"{root} has changed since it was put in place: its source.json says "
            f"{show_counts(expected[0])} ({expected[1]:,} bytes), but it holds "
            f"{show_counts(found[0])} ({found[1]:,} bytes). {remedy}"
        )
    known = "kaggle" if known_source == "archive" else known_source  # the same, fetched by hand
    if (source or archive) and known != (source or "kaggle"):
        raise FetchError(f"{root} holds the data set of source {known_source!r}. {remedy}")
    if archive and archive.is_file() and known_sha256 not in (None, file_sha256(archive)):
        raise FetchError(f"{root} comes from another archive, {record['archive']}. {remedy}")
    return record


def _fill_and_install(
    scratch: Path, root: Path, source: str, archive: Path | None
) -> dict[str, Any]:
    """Fill the scratch folder from a source, check it, and rename it to `root`."""
    report = Report()
    refused_file = root.with_name(f"{root.name}.refused.json")
    try:
        if source == "medmnist":
            record = _take_medmnist(scratch, root.parent, archive, report)
        elif source == "nih_adults":
            record = _take_nih_adults(scratch, root, archive, report)
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
    _, size = measure(scratch)
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
        root, f"{record['images']:,}", show_counts(report.counts),
        "; ".join(left_out) or "nothing",
    )  # fmt: skip
    return record


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
            f"Kaggle: {one_line(error)}; run again to resume, or if that fails too delete "
            f"{cache}, or download the zip from {KAGGLE_ADDRESS} with a browser and run "
            "make data ARCHIVE=<the zip>"
        ) from error
    unpack(list_folder(folder), scratch, str(folder), report)
    hashes = check_images(scratch, report, str(folder), names_carry_patients=True)
    if report.counts != KAGGLE_COUNTS:
        raise FetchError(
            f"Kaggle's data set should hold {show_counts(KAGGLE_COUNTS)}, but {folder} holds "
            f"{show_counts(report.counts)}; delete {cache} and run again, or accept it "
            f"as it is: make data ARCHIVE='{folder}'"
        )
    links = _note_links(folder)
    if not links:
        logger.info(
            "kagglehub keeps its own copy in %s; the study does not need it any more", cache
        )
    record = _describe("kaggle", KAGGLE_ADDRESS, PATIENT_LEVEL_SPLIT, hashes)
    return record | {"kaggle_version": folder.name} | links


def _take_archive(scratch: Path, archive: Path, report: Report) -> dict[str, Any]:
    """Take the data set from a zip or from an unpacked folder."""
    with ExitStack() as stack:
        if archive.is_dir():
            entries, sha256 = list_folder(archive), None
        else:
            entries, sha256 = list_zip(open_zip(archive, stack), archive), file_sha256(archive)
        unpack(entries, scratch, str(archive), report)
    hashes = check_images(scratch, report, str(archive), names_carry_patients=True)
    if report.counts != KAGGLE_COUNTS:
        report.warn(
            f"{archive.name} is not the complete data set of Kaggle: it holds "
            f"{show_counts(report.counts)}; Kaggle's holds {show_counts(KAGGLE_COUNTS)}"
        )
    record = _describe("archive", KAGGLE_ADDRESS, PATIENT_LEVEL_SPLIT, hashes)
    record |= {"archive": archive.name, "archive_sha256": sha256}
    return record | _note_links(archive)


def _note_links(folder: Path) -> dict[str, str]:
    """Say where the images stay, if they are linked to; for the record."""
    if not (folder.is_dir() and is_kept(folder)):
        return {}
    logger.info("linked, not copied: the images stay in %s, which may not be written to", folder)
    return {LINKED_TO: str(folder)}


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
    hashes = check_images(scratch, report, file.name, names_carry_patients=False)
    if archive is None:
        file.unlink()
    return _describe("medmnist", MEDMNIST_URL, IMAGE_LEVEL_SPLIT, hashes) | {
        "archive": file.name,
        "archive_md5": MEDMNIST_MD5,
    }


def _take_nih_adults(
    scratch: Path, root: Path, archive: Path | None, report: Report
) -> dict[str, Any]:
    """Take the adults of ChestX-ray14, file by file or from a folder of their images."""
    downloads = root.with_name(f".{root.name}.downloads")
    hashes = collect_nih_adults(scratch, downloads, archive, report)
    record = _describe("nih_adults", NIH_ADDRESS, EXTERNAL_SPLIT, hashes, NIH_LICENSE)
    if record["content_sha256"] != NIH_CONTENT_SHA256:
        report.warn(
            "the pixels are not those that this study was scored on, so probabilities may differ "
            "from the committed ones"
        )
    return record | {
        "repository": NIH_REPOSITORY,
        "commit": NIH_COMMIT,
        "index_sha256": file_sha256(INDEX_FILE),
        "archive": archive and archive.name,
    }


def _describe(
    source: str, address: str, split: str, hashes: dict[str, str], license_name: str = LICENSE
) -> dict[str, Any]:
    """Say what a data set is; its content hash does not depend on how it was packed."""
    lines = "".join(f"{image_id} {hashes[image_id]}\n" for image_id in sorted(hashes))
    return {
        "source": source,
        "split": split,
        "address": address,
        "licence": license_name,
        "content_sha256": hashlib.sha256(lines.encode()).hexdigest(),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m utils.data.download", description=__doc__)
    parser.add_argument("--archive", type=Path, help="zip or folder to take, not downloaded")
    parser.add_argument("--source", choices=SOURCES, help="kaggle by default")
    parser.add_argument("--root", type=Path, help="data/chest_xray or data/nih_adults by default")
    arguments = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logger.setLevel(logging.INFO)
    name = "nih_adults" if arguments.source == "nih_adults" else "chest_xray"
    root = arguments.root or dataset_dir(name)
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
