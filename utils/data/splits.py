"""What choices are made on: radiographs outside the test set, and ways to hold some of them out.

Every module that chooses something (depth, augmentation, size, architecture, epochs, members,
threshold) reads images through `load_development_images`, which refuses the test split. The rule
that it follows is in `docs/selection_rule.md`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from utils.common.constants import IMAGE_SIZE
from utils.common.study import Study
from utils.data.images import load_images
from utils.data.index import dataset_fingerprint, open_study_index, patient_number

BLOCKS = 4
"""Blocks of consecutive patient numbers, of which each is held out once."""
PLAIN = "plain"
FOLDS = (PLAIN, *(f"block{number}" for number in range(1, BLOCKS + 1)))
"""Names of the folds that a candidate can be judged on."""
_AT_ONCE = 64


class ForbiddenTestSetError(ValueError):
    """Something that chooses has asked for the test set."""


@dataclass(frozen=True)
class Fold:
    """One way to divide the development images: what a network learns from, what it is judged on.

    `train` and `held_out` are image ids; no patient is in both.
    """

    name: str
    train: tuple[str, ...]
    held_out: tuple[str, ...]


def development_index(index: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of an image index that may be used for selection: train and validation."""
    return index[index.split.isin(("train", "validation"))].reset_index(drop=True)


def open_development(
    study: Study, size: int
) -> tuple[Path, pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Open what a study's candidates are trained on; the same pixels are read once in a process.

    Args:
        study: The study.
        size: Side of the images; see `load_development_images`.

    Returns:
        Root of the data set, index of all its images, rows of the development images and their
        (n, size, size, 1) uint8 pixels.
    """
    root, index = open_study_index(study)
    return root, index, development_index(index), _keep(study, dataset_fingerprint(index), size)


@lru_cache(1)
def _keep(study: Study, fingerprint: str, size: int) -> np.ndarray:
    """Read the development images, again where the fingerprint shows that they have changed."""
    root, index = open_study_index(study)
    return load_development_images(root, development_index(index), size)


def load_development_images(root: Path, images: pd.DataFrame, size: int) -> np.ndarray:
    """Read images as (n, size, size, 1) uint8 gray in [0, 255].

    Args:
        root: Root of the data set.
        images: Rows of the image index.
        size: Side to which the 224 x 224 image is reduced, as an exported network does.

    Raises:
        ForbiddenTestSetError: if one of them belongs to the test set.
    """
    refuse_test(images)
    return reduce_images(load_images(root, images.image_id), size)


def refuse_test(images: pd.DataFrame) -> None:
    """Refuse rows of the test set.

    Raises:
        ForbiddenTestSetError: naming the first one.
    """
    test = images[images.split == "test"]
    if len(test):
        raise ForbiddenTestSetError(
            f"{test.image_id.iloc[0]} and {len(test) - 1} more belong to the test set, which must "
            "not be used for selection; pass utils.data.splits.development_index(index)"
        )


def reduce_images(images: np.ndarray, size: int) -> np.ndarray:
    """Turn (n, 224, 224, 3) uint8 RGB into (n, size, size, 1) uint8 gray, both in [0, 255]."""
    reduced = np.empty((len(images), size, size, 1), np.uint8)
    for start in range(0, len(images), _AT_ONCE):
        part = images[start : start + _AT_ONCE].astype(np.float32).mean(-1, keepdims=True)
        if size != IMAGE_SIZE:
            part = keras.ops.image.resize(part, (size, size), antialias=True)
        rounded = np.round(keras.ops.convert_to_numpy(part)).clip(0, 255)
        reduced[start : start + _AT_ONCE] = rounded
    return reduced


def plain_fold(images: pd.DataFrame) -> Fold:
    """Return the study's own split: patients drawn at random."""
    return _fold(PLAIN, images, (images.split == "validation").to_numpy())


def block_folds(images: pd.DataFrame) -> list[Fold]:
    """Return the folds that each leave out a block of consecutive patient numbers.

    The normal images of the official test set are such a block, the lowest numbers of their
    series, and those with pneumonia come from three ranges of numbers; patients drawn at random do
    not.
    Each series (`person`, `IM`, `NORMAL2-IM`) is cut into `BLOCKS` parts with as many patient
    numbers each, and fold k holds out part k of every series.

    Args:
        images: From `development_index`, with known patients.

    Raises:
        ValueError: if patients are unknown, or a series has fewer numbers than there are blocks.
    """
    if (images.patient_id == "").any():
        raise ValueError("blocks need patient numbers, and this data set has none")
    numbers = images.patient_id.map(patient_number)
    family = numbers.str.rsplit("-", n=1).str[0]
    value = numbers.str.rsplit("-", n=1).str[1].astype(int)
    block = pd.Series(0, index=images.index)
    for name in sorted(family.unique()):
        rows = family == name
        distinct = np.sort(value[rows].unique())
        if len(distinct) < BLOCKS:
            raise ValueError(f"series {name} has {len(distinct)} numbers, fewer than {BLOCKS}")
        parts = np.array_split(distinct, BLOCKS)
        starts = [part[0] for part in parts]
        block[rows] = np.searchsorted(starts, value[rows], side="right")
    return [
        _fold(name, images, (block == number).to_numpy())
        for number, name in enumerate(FOLDS[1:], start=1)
    ]


def _fold(name: str, images: pd.DataFrame, held_out: np.ndarray) -> Fold:
    refuse_test(images)
    ids = images.image_id.to_numpy()
    return Fold(name, tuple(ids[~held_out]), tuple(ids[held_out]))


def rows_of(images: pd.DataFrame, image_ids: Sequence[str]) -> np.ndarray:
    """Return the row numbers of image ids in an index."""
    return pd.Index(images.image_id).get_indexer(list(image_ids))
