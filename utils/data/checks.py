"""What is checked of every image of a data set, and the report of what became of it."""

import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from utils.common.constants import CLASS_NAMES, EXTERNAL_SPLIT
from utils.common.files import file_sha256
from utils.common.folders import some
from utils.common.progress import track
from utils.data.images import IMAGE_SUFFIXES, DatasetError, UnreadableImageError, read_picture
from utils.data.index import KNOWN_NAMES, parse_name
from utils.data.sources import KAGGLE_ADDRESS

logger = logging.getLogger(__name__)

# Reasons for which a file is refused that downloading again does not mend.
MISPLACED = f"in a split, but not in a folder {' or '.join(CLASS_NAMES)}"
OTHER_CLASS = "its name belongs to the other class"
NAMELESS = "its name says no patient"
UNPACK_BY_HAND = (
    "download it again, and if the files are still damaged unpack it by hand, repair or remove "
    "them, and pass the folder: make data ARCHIVE=<folder>"
)
_GROUPS, _NAMES = 3, 3
"""Reasons, and files of each, that an error shows."""

FOLDERS = ("train", "val", "test")
NEEDED_FOLDERS = ("train", "test")


class FetchError(RuntimeError):
    """A data set that cannot be fetched; the message names the offending thing and the remedy."""


@dataclass
class Report:
    """What became of every entry."""

    entries: int = 0
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Images by folder and class."""
    modes: dict[str, int] = field(default_factory=dict)
    """Images by Pillow's pixel mode: L is gray, RGB color, I;16 gray of 16 bits."""
    converted_when_read: dict[str, list[str]] = field(default_factory=dict)
    """By mode and remark of the reader; the files stay as they are."""
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


def measure(root: Path) -> tuple[dict[str, dict[str, int]], int]:
    """Count the images of a data set by folder and class, and their bytes.

    Classes that lie at the root itself, as those of an external test, count as `external`.
    """
    folders = {folder: root / folder for folder in FOLDERS if (root / folder).is_dir()}
    if any((root / class_name).is_dir() for class_name in CLASS_NAMES):
        folders[EXTERNAL_SPLIT] = root
    counts: dict[str, dict[str, int]] = {}
    size = 0
    for folder, path in folders.items():
        counts[folder] = {}
        for class_name in CLASS_NAMES:
            files = [
                file
                for file in (path / class_name).glob("*")
                if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
            ]
            counts[folder][class_name] = len(files)
            size += sum(file.stat().st_size for file in files)
    return counts, size


@dataclass(frozen=True)
class _CheckedImage:
    mode: str = ""
    sha256: str = ""
    remarks: tuple[str, ...] = ()
    reason: str = ""
    """Why it is refused, if it is."""


def check_images(
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
        for remark in result.remarks:
            report.converted_when_read.setdefault(f"{result.mode}: {remark}", []).append(image_id)
    report.counts, _ = measure(scratch)
    report.modes = dict(Counter(result.mode for result in checked.values() if not result.reason))
    raise_if_refused(report, archive)
    for folder in dict.fromkeys((*NEEDED_FOLDERS, *report.counts)):
        classes = report.counts.get(folder, dict.fromkeys(CLASS_NAMES, 0))
        if missing := [f"{folder}/{name}" for name, count in classes.items() if count == 0]:
            raise FetchError(
                f"{archive} has no images in {' and '.join(missing)} (found: "
                f"{show_counts(report.counts)}); it is not whole, or another data set: take the "
                f"zip of {KAGGLE_ADDRESS}"
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
        picture = read_picture(path)
        if name_carries_patient:
            is_normal = parse_name(path.name).etiology == "normal"
            if is_normal != (path.parent.name == CLASS_NAMES[0]):
                return _CheckedImage(reason=OTHER_CLASS)
    except UnreadableImageError as error:
        return _CheckedImage(reason=error.reason)
    except DatasetError:
        return _CheckedImage(reason=NAMELESS)
    return _CheckedImage(picture.mode, file_sha256(path), picture.remarks)


def raise_if_refused(report: Report, archive: str, remedy: str = UNPACK_BY_HAND) -> None:
    """Raise a FetchError that names what was refused, if anything was, and what helps.

    Args:
        report: Of all entries.
        archive: Named in the error.
        remedy: Of damaged or missing files.
    """
    if not report.refused:
        return
    by_reason: dict[str, list[str]] = {}
    for name, reason in report.refused.items():
        by_reason.setdefault(reason, []).append(name)
    shown = [f"{some(names, _NAMES)} ({why})" for why, names in list(by_reason.items())[:_GROUPS]]
    if (rest := len(by_reason) - _GROUPS) > 0:
        shown.append(f"and {rest} more reasons")
    remedies = {
        NAMELESS: f"restore the original names ({KNOWN_NAMES}); images of your own can be scored "
        "by make predict",
        MISPLACED: f"move them to a folder {' or '.join(CLASS_NAMES)}, or remove them",
        OTHER_CLASS: "move them to the folder of their class",
    }
    helps = [remedies[reason] for reason in by_reason if reason in remedies]
    if by_reason.keys() - remedies.keys():
        helps.append(remedy)
    count = len(report.refused)
    raise FetchError(f"{archive}: {count:,} files refused: {'; '.join(shown)}. {'; '.join(helps)}")


def show_counts(counts: dict[str, dict[str, int]]) -> str:
    """Return counts of images by folder and class as text."""
    shown = ", ".join(
        f"{folder} " + " + ".join(f"{count:,} {name}" for name, count in classes.items())
        for folder, classes in counts.items()
    )
    return shown or "nothing"
