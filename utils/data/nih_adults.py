"""Adults of NIH ChestX-ray14, an external test: index, download, images of 224 pixels.

The index is committed, `data/nih_adults.csv`, and the images are not; `data/nih_adults.md` is the
datasheet.
"""

import logging
import shutil
from pathlib import Path
from urllib.parse import quote

import pandas as pd
import pooch
from PIL import Image

from utils.common.constants import CLASS_NAMES, EXTERNAL_SPLIT, IMAGE_SIZE
from utils.common.paths import ROOT, dataset_dir
from utils.common.progress import track
from utils.data.archive import download_file, require_space
from utils.data.checks import FetchError, Report, measure, raise_if_refused
from utils.data.images import DatasetError, UnreadableImageError, pixel_sha256, read_image
from utils.data.sources import NIH_FILES_URL

INDEX_FILE = ROOT / "data" / "nih_adults.csv"
BY_HAND = "take the images of 224 pixels from another machine: make data SOURCE=nih_adults ARCHIVE="
COPY_AGAIN = "copy the folder again, or download the images: make data SOURCE=nih_adults"


def _read_index() -> pd.DataFrame:
    return pd.read_csv(INDEX_FILE, dtype={"patient_id": str})


def load_nih_adults_index() -> pd.DataFrame:
    """Return the index of the external test; this needs none of its images.

    Returns:
        One row per image, sorted by `image_id`, its path below the root: patient_id (`NIH-61`; each
        has one class), split (`external`), label (0 or 1), age (years, as ChestX-ray14 notes it),
        sex (`F` or `M`), findings (those of ChestX-ray14, between `|`, or `No Finding`).
    """
    listed = _read_index().sort_values("file", ignore_index=True)
    return pd.DataFrame({
        "image_id": listed.file,
        "patient_id": "NIH-" + listed.patient_id,
        "split": EXTERNAL_SPLIT,
        "label": listed.label.map(CLASS_NAMES.index),
        "age": listed.age,
        "sex": listed.sex,
        "findings": listed.findings,
    })  # fmt: skip


def open_nih_adults() -> tuple[Path, pd.DataFrame]:
    """Return the root of the external test and the index of all its images.

    Raises:
        DatasetError: if `make data` has not put the images there.
    """
    root = dataset_dir("nih_adults")
    if not (root / "source.json").is_file():
        raise DatasetError(f"there is no data set at {root}; run `make data SOURCE=nih_adults`")
    return root, load_nih_adults_index()


def collect_nih_adults(
    scratch: Path, downloads: Path, archive: Path | None, report: Report
) -> dict[str, str]:
    """Write every image of the index, gray and of 224 x 224 pixels, and check it.

    Args:
        scratch: Receives `NORMAL` and `PNEUMONIA`.
        downloads: Keeps the files of 1024 pixels until all are there, so that an interrupted
            download is taken up again.
        archive: Folder with `NORMAL` and `PNEUMONIA` of 224 pixels to copy instead.
        report: Receives counts, and what is refused.

    Returns:
        SHA-256 of the pixels by `image_id`.

    Raises:
        FetchError: if a file cannot be had, or is missing or damaged in `archive`.
    """
    index = _read_index()
    for class_name in CLASS_NAMES:
        (scratch / class_name).mkdir()
    if archive is None:
        _download(index, scratch, downloads)
    else:
        _copy(index, scratch, archive, report)
    hashes = _check(index, scratch, report)
    report.entries = len(index)
    report.modes = {"L": len(hashes)}
    report.counts, _ = measure(scratch)
    raise_if_refused(report, str(archive or NIH_FILES_URL), COPY_AGAIN)
    shutil.rmtree(downloads, ignore_errors=True)
    return hashes


def source_url(source_path: str) -> str:
    """Return the address of a file, by its path in the repository."""
    return f"{NIH_FILES_URL}/{quote(source_path)}"


def _download(index: pd.DataFrame, scratch: Path, downloads: Path) -> None:
    pooch.get_logger().setLevel(logging.WARNING)  # It writes a line per file, into the bar.
    missing = [not (downloads / file).is_file() for file in index.file]
    require_space(scratch, int(index.source_bytes[missing].sum()))
    for row in track(index.itertuples(), "downloading", len(index)):
        file = downloads / row.file
        sha256 = f"sha256:{row.source_sha256}"
        download_file(
            source_url(row.source_path), sha256, file, BY_HAND + "<folder>", row.source_bytes
        )
        gray = Image.fromarray(read_image(file)).convert("L")
        gray.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR).save(scratch / row.file)


def _copy(index: pd.DataFrame, scratch: Path, archive: Path, report: Report) -> None:
    if not archive.is_dir():
        raise FetchError(
            f"{archive} is no folder; unpack it and pass the folder that holds "
            f"{' and '.join(CLASS_NAMES)}: make data SOURCE=nih_adults ARCHIVE=<folder>"
        )
    for name in track(index.file, "copying", len(index)):
        if (archive / name).is_file():
            shutil.copyfile(archive / name, scratch / name)
        else:
            report.refused[name] = "is missing"


def _check(index: pd.DataFrame, scratch: Path, report: Report) -> dict[str, str]:
    hashes = {}
    for name in index.file[~index.file.isin(report.refused)]:
        try:
            pixels = read_image(scratch / name)
        except UnreadableImageError as error:
            report.refused[name] = error.reason
            continue
        if pixels.shape == (IMAGE_SIZE, IMAGE_SIZE):
            hashes[name] = pixel_sha256(pixels)
        else:
            shape = " x ".join(map(str, pixels.shape))
            report.refused[name] = f"is {shape}, not gray of {IMAGE_SIZE} x {IMAGE_SIZE} pixels"
    return hashes
