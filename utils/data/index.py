"""The image index: what a file name says, who goes into which split, and which are alike.

The rules for names and patients are in `data/README.md`, the datasheet.
"""

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from utils.common.constants import (
    CLASS_NAMES,
    IMAGE_LEVEL_SPLIT,
    NORMAL,
    PATIENT_LEVEL_SPLIT,
    PNEUMONIA,
)
from utils.common.files import read_json, write_csv
from utils.common.folders import some, walk_folder
from utils.common.paths import dataset_dir
from utils.common.progress import track
from utils.common.study import Study
from utils.data.images import IMAGE_SUFFIXES, DatasetError, pixel_sha256, read_image
from utils.phantoms.sets import write_phantom_dataset

INDEX_COLUMNS = (
    "image_id", "split", "label", "etiology", "patient_id", "width", "height",
    "duplicate_group", "pixel_sha256",
)  # fmt: skip

_PERSON = re.compile(r"person(?P<number>\d+)_(?P<etiology>bacteria|virus)_\d+(_\d+)?", re.I)
_NORMAL = re.compile(r"(?P<family>IM|NORMAL2-IM)-(?P<number>\d+)-\d+(-\d+)?", re.I)
_MENDELEY = re.compile(r"(?P<etiology>NORMAL|BACTERIA|VIRUS)-(?P<number>\d+)-\d+", re.I)
LINKED_TO = "linked_to"
"""In `source.json` of a data set whose images are links: the folder that they lead to."""
KNOWN_NAMES = (
    "person1_bacteria_2.jpeg, IM-0001-0001.jpeg, NORMAL2-IM-0001-0001.jpeg, or Mendeley's "
    "BACTERIA-1234567-0001.jpeg"
)


@dataclass(frozen=True)
class ImageName:
    """What a file name of the data set, Kaggle's or Mendeley's, says of its image."""

    family: str
    """Series of patient numbers: `person`, `IM`, `NORMAL2-IM` or `MENDELEY`, which numbers the
    children of all classes together; each counts for itself."""
    number: int
    etiology: str

    @property
    def patient_id(self) -> str:
        """Patient under the narrow reading: family, number and etiology."""
        return f"{self.family}-{self.number}-{self.etiology}"

    @property
    def patient_number(self) -> str:
        """Patient under the wide reading, family and number alone: what the split hashes."""
        return f"{self.family}-{self.number}"


def parse_name(file_name: str) -> ImageName:
    """Read family, patient number and etiology from a file name of Kaggle's or Mendeley's.

    Raises:
        DatasetError: if the name follows none of the patterns of the data set.
    """
    stem = Path(file_name).stem
    if match := _PERSON.fullmatch(stem):
        return ImageName("person", int(match["number"]), match["etiology"].lower())
    if match := _NORMAL.fullmatch(stem):
        return ImageName(match["family"].upper(), int(match["number"]), "normal")
    if match := _MENDELEY.fullmatch(stem):
        return ImageName("MENDELEY", int(match["number"]), match["etiology"].lower())
    raise DatasetError(
        f"{file_name!r} does not follow the naming of the data set ({KNOWN_NAMES}), so its patient "
        "is unknown; restore the original name or remove the file"
    )


def patient_number(patient_id: str) -> str:
    """Return the patient under the wide reading: `person-12-bacteria` becomes `person-12`."""
    return patient_id.rsplit("-", 1)[0]


def assign_split(name: ImageName, seed: int, validation_fraction: float) -> str:
    """Assign an image outside the test set to `train` or `validation`.

    A pure function of patient number and seed, so that every copy of the data agrees whatever
    its image size, and all images of a patient go the same way. The etiology is left out on
    purpose: a number that carries both may be one child.
    """
    digest = hashlib.sha256(f"{seed}:{name.patient_number}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    return "validation" if position < validation_fraction else "train"


def open_dataset(name: str) -> Path:
    """Return the root of `chest_xray` or `phantoms` below `data/`, rendering the phantoms if new.

    These phantoms are films of two sites (`docs/phantoms.md`).

    Raises:
        DatasetError: if the real data set is not there.
    """
    root = dataset_dir(name)
    if name == "phantoms":
        return write_phantom_dataset(root, sites=True)
    if not root.is_dir():
        raise DatasetError(f"there is no data set at {root}; run `make data`")
    return root


def split_level(root: Path) -> str:
    """Return `patient-level split`, or `image-level split` where names carry no patient."""
    return IMAGE_LEVEL_SPLIT if dataset_source(root) == "medmnist" else PATIENT_LEVEL_SPLIT


def dataset_source(root: Path) -> str:
    """Return where the data set came from, as `make data` recorded it, or `unrecorded`."""
    return str(_read_record(root).get("source", "unrecorded"))


def _read_record(root: Path) -> dict[str, Any]:
    """Return what `make data` recorded of a data set; nothing of one that it did not write."""
    record = root / "source.json"
    return read_json(record) if record.is_file() else {}


def describe_lost_links(root: Path, image: str | Path) -> str:
    """Say that images of a data set are links that lead nowhere any more, and what helps.

    Args:
        root: Of a data set with `LINKED_TO` in its record.
        image: One that is lost.
    """
    folder = _read_record(root)[LINKED_TO]
    return (
        f"the images in {root} are links into {folder}, and what {image} leads to is not there any "
        f"more; attach that folder again, or move the links away (mv '{root}' '{root}-old') and "
        "run make data with ARCHIVE= where the images are now"
    )


def _list_images(root: Path) -> list[Path]:
    """List the image files below the split folders, in one order on every machine.

    Linked folders are followed, each once.
    """
    names = []
    for split in ("train", "val", "test"):
        if (root / split).is_dir():
            found = walk_folder(root / split)
            if found.broken and LINKED_TO in _read_record(root):
                raise DatasetError(describe_lost_links(root, root / split / found.broken[0]))
            if unread := found.closed + found.broken:
                raise DatasetError(
                    f"{root / split}: {some(unread)} cannot be read (closed, or a link that leads "
                    "nowhere); change its permissions or remove it"
                )
            names += [f"{split}/{name}" for name in found.files]
    return [
        root / name
        for name in sorted(names)
        if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES
    ]


def _label_of_folder(path: Path) -> int:
    folder = path.parent.name.upper()
    if folder not in CLASS_NAMES:
        raise DatasetError(
            f"{path} lies in a folder that is not one of {', '.join(CLASS_NAMES)}; "
            "move it to the folder of its class or remove it"
        )
    return CLASS_NAMES.index(folder)


def _describe_pixels(path: Path) -> tuple[int, int, str]:
    pixels = read_image(path)
    return pixels.shape[1], pixels.shape[0], pixel_sha256(pixels)


def _scan_pixels(root: Path, files: list[Path]) -> pd.DataFrame:
    """Decode every image once: size and hash of the pixels.

    The scan is kept in `scan.csv` of the data set and reused for files of unchanged size and
    time, because the original 1,300-pixel JPEGs take minutes.
    """
    listing = pd.DataFrame(
        [
            (file.relative_to(root).as_posix(), file.stat().st_size, file.stat().st_mtime_ns)
            for file in files
        ],
        columns=["image_id", "bytes", "mtime_ns"],
    )
    scan_file = root / "scan.csv"
    if scan_file.is_file():
        known = pd.read_csv(scan_file)
        merged = listing.merge(known, on=["image_id", "bytes", "mtime_ns"], how="left")
        if len(known) == len(listing) and merged.pixel_sha256.notna().all():
            return merged
    with ThreadPoolExecutor() as pool:
        described = list(track(pool.map(_describe_pixels, files), "indexing images", len(files)))
    scan = listing.join(pd.DataFrame(described, columns=["width", "height", "pixel_sha256"]))
    write_csv(scan_file, scan)
    return scan


def build_index(root: Path, seed: int, validation_fraction: float) -> pd.DataFrame:
    """Build the index of a data set: one row per image, with its patient and its split.

    The official test folder stays the test split; `train` and the tiny `val` folder are split
    again by patient. Where names carry no patient (PneumoniaMNIST) the data set's own split is
    kept and `patient_id` is empty.

    Returns:
        A table with the columns `INDEX_COLUMNS`, sorted by `image_id`; `label` is 0 or 1,
        `width` and `height` are pixels of the stored file, `duplicate_group` numbers the sets
        of images with identical pixels (-1 for an image without a duplicate).

    Raises:
        DatasetError: if there is no data set, a class is missing, or a file is not understood.
    """
    if not 0 < validation_fraction < 1:
        raise ValueError(f"validation_fraction must lie between 0 and 1, not {validation_fraction}")
    files = _list_images(root)
    if not files:
        raise DatasetError(f"no images below {root}/train and {root}/test; run `make data`")
    rows = []
    keep_own_split = split_level(root) == IMAGE_LEVEL_SPLIT
    for file in files:
        image_id = file.relative_to(root).as_posix()
        folder, label = image_id.split("/")[0], _label_of_folder(file)
        if keep_own_split:
            split = "validation" if folder == "val" else folder
            etiology, patient_id = ("normal" if label == NORMAL else ""), ""
        else:
            name = parse_name(file.name)
            if (name.etiology == "normal") != (label == NORMAL):
                raise DatasetError(f"{image_id} lies in the folder of the other class; move it")
            split = "test" if folder == "test" else assign_split(name, seed, validation_fraction)
            etiology, patient_id = name.etiology, name.patient_id
        rows.append((image_id, split, label, etiology, patient_id))
    index = pd.DataFrame(rows, columns=["image_id", "split", "label", "etiology", "patient_id"])
    index = index.merge(_scan_pixels(root, files), on="image_id")
    duplicated = index.groupby("pixel_sha256").image_id.transform("size") > 1
    group = pd.factorize(index.pixel_sha256.where(duplicated))[0]
    index = index.assign(duplicate_group=group)[list(INDEX_COLUMNS)]
    for split in ("train", "validation", "test"):
        labels = set(index.label[index.split == split])
        if labels != {NORMAL, PNEUMONIA}:
            present = [CLASS_NAMES[label] for label in sorted(labels)] or "no image at all"
            raise DatasetError(
                f"split {split!r} of {root} holds {present}; both classes are needed"
            )
    return index


def open_study_index(study: Study) -> tuple[Path, pd.DataFrame]:
    """Return the root of a study's data set and the index of all its images.

    Raises:
        DatasetError: as `open_dataset` and `build_index` raise it.
    """
    root = open_dataset(study.dataset_name)
    return root, build_index(root, study.seed, study.validation_fraction)


def dataset_fingerprint(index: pd.DataFrame) -> str:
    """Return a SHA-256 of every image's name, split and pixels: the data a result came from."""
    rows = index.image_id + " " + index.split + " " + index.pixel_sha256
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()


def describe_dataset(root: Path, index: pd.DataFrame) -> dict[str, Any]:
    """Describe the data behind a result: source, split, counts and fingerprint."""
    return {
        "source": dataset_source(root),
        "split": split_level(root),
        "images": {name: int(count) for name, count in index.split.value_counts().items()},
        "fingerprint": dataset_fingerprint(index),
    }


def count_crossings(index: pd.DataFrame) -> dict[str, int]:
    """Count what lies in train and validation at once; a clean split has none.

    Returns:
        Counts of patients under the narrow reading (with etiology) and the wide one (number
        alone), and of groups of identical images.
    """
    rows = index[index.split != "test"]
    groups = {
        "patients by number and etiology": rows.patient_id.where(rows.patient_id != ""),
        "patients by number alone": rows.patient_id.where(rows.patient_id != "").map(
            patient_number, na_action="ignore"
        ),
        "groups of identical images": rows.duplicate_group.where(rows.duplicate_group >= 0),
    }
    return {
        reading: int((rows.split.groupby(group).nunique() > 1).sum())
        for reading, group in groups.items()
    }
