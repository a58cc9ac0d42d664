"""A cache of trunk activations: each image and augmented view goes through the network once.

A store is a folder for one trunk (backbone, weight values, cut, number format) and holds blocks
of a few images: `<name>.npy` with the activations, `<name>.json` with their keys and the hash of
the array. A key is made of the image's pixels and its augmentation. Blocks are written under a
temporary name and renamed, the `.json` last; so a killed run leaves whole blocks only, and the
next one computes the rest.
"""

import hashlib
import json
import uuid
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from utils.augmentation import (
    IDENTITY,
    REFERENCE_RANGES,
    Augmentation,
    AugmentationRanges,
    augment_images,
    draw_augmentation,
)
from utils.dataset import load_image
from utils.facts import IMAGE_SIZE
from utils.files import file_sha256, read_json, write_atomically, write_json
from utils.progress import track
from utils.weights import values_sha256

CODE_VERSION = 1
"""Raise it when decoding, augmentation or the trunk's graph change what is computed."""

BATCH_SIZE = 8
"""Images a forward pass: small batches stay in the processor's cache and were the fastest."""
BLOCK_SIZE = 64
"""Images a block: what a kill can lose."""


@dataclass(frozen=True)
class View:
    """Which version of every image to compute: augmented view `number`, or the plain image."""

    number: int | None = None
    seed: int = 0
    ranges: AugmentationRanges = REFERENCE_RANGES

    def augmentation(self, pixel_sha256: str) -> Augmentation:
        """Return this view's transform of one image."""
        if self.number is None:
            return IDENTITY
        return draw_augmentation(pixel_sha256, self.seed, self.number, self.ranges)

    def key(self, pixel_sha256: str) -> str:
        """Return the cache key of one image in this view."""
        view = asdict(self) if self.number is not None else None
        return _hash({"pixels": pixel_sha256, "size": IMAGE_SIZE, "view": view})


PLAIN = View()


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class ActivationTable:
    """Memory-mapped activations of a list of images: indexing copies just the rows asked for."""

    def __init__(self, blocks: list[np.ndarray], places: np.ndarray) -> None:
        """Take the mapped blocks and, for each image, its (block, row) as (n, 2) int."""
        self._blocks = blocks
        self._places = places

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._places)

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (n, height, width, channels)."""
        return (len(self), *self._blocks[0].shape[1:])

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        """Return the activations of some images as an array of the store's number format."""
        return np.stack([self._blocks[block][row] for block, row in self._places[rows]])


class ActivationStore:
    """The cached activations of one trunk."""

    def __init__(self, folder: Path, trunk: keras.Model, dtype: str = "float16") -> None:
        """Open, or begin, the store of a trunk.

        Args:
            folder: Folder of all stores; each trunk has a folder of its own in it.
            trunk: Frozen model from (n, 224, 224, 3) RGB in [0, 255] to activations.
            dtype: `float16` or `float32`, as the activations are kept.
        """
        if dtype not in ("float16", "float32"):
            raise ValueError(f"dtype must be float16 or float32, not {dtype!r}")
        self.trunk, self.dtype = trunk, dtype
        self.identity = {
            "backbone": trunk.name,
            "weights_sha256": values_sha256(trunk),
            "cut": trunk.layers[-1].name,
            "dtype": dtype,
            "code_version": CODE_VERSION,
        }
        self.folder = Path(folder) / f"{trunk.name}-{dtype}-{_hash(self.identity)[:16]}"

    def load(self, root: Path, images: pd.DataFrame, view: View = PLAIN) -> ActivationTable:
        """Return the activations of some images in one view, computing those not yet kept.

        Args:
            root: Root of the data set.
            images: Rows of the index; `image_id` and `pixel_sha256` are used.
            view: Which version of the images.
        """
        keys = [view.key(sha256) for sha256 in images.pixel_sha256]
        places = self._places(set(keys))
        missing = images[[key not in places for key in keys]].drop_duplicates("pixel_sha256")
        if len(missing):
            self._compute(root, missing, view)
            places = self._places(set(keys))
        names = sorted({name for name, _ in places.values()})
        blocks = [np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in names]
        number = {name: position for position, name in enumerate(names)}
        rows = [(number[places[key][0]], places[key][1]) for key in keys]
        return ActivationTable(blocks, np.array(rows))

    def count_missing(self, images: pd.DataFrame, view: View = PLAIN) -> int:
        """Count the distinct images whose activations `load` would have to compute."""
        keys = {view.key(sha256) for sha256 in images.pixel_sha256}
        return len(keys - self._places(keys).keys())

    def _places(self, keys: set[str]) -> dict[str, tuple[str, int]]:
        """Find the block and row of each key that is kept; drop blocks that are damaged."""
        places = {}
        for record_file in sorted(self.folder.glob("*.json")):
            record = read_json(record_file)
            wanted = [(key, row) for row, key in enumerate(record["keys"]) if key in keys]
            if not wanted:
                continue
            array_file = record_file.with_suffix(".npy")
            if not array_file.is_file() or file_sha256(array_file) != record["sha256"]:
                warnings.warn(
                    f"block {array_file} of the activation cache is damaged; its "
                    f"{len(record['keys'])} images will be computed again",
                    stacklevel=3,
                )
                record_file.unlink(missing_ok=True)
                array_file.unlink(missing_ok=True)
                continue
            places.update({key: (record_file.stem, row) for key, row in wanted})
        return places

    def _compute(self, root: Path, images: pd.DataFrame, view: View) -> None:
        """Run the trunk over some images and keep the activations block by block."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder.with_suffix(".store"), self.identity)
        label = "plain" if view.number is None else f"view {view.number}"
        batches = self._batches(root, images, view)
        progress = track(batches, f"{self.trunk.name}, {label}", -(-len(images) // BATCH_SIZE))
        keys = [view.key(sha256) for sha256 in images.pixel_sha256]
        done = 0
        while block := list(islice(progress, BLOCK_SIZE // BATCH_SIZE)):
            activations = np.concatenate([self._forward(batch) for batch in block])
            self._write_block(keys[done : done + len(activations)], activations)
            done += len(activations)

    def _batches(self, root: Path, images: pd.DataFrame, view: View) -> Iterator[np.ndarray]:
        """Yield batches of augmented images; the next one is made while the network runs."""

        def prepare(start: int) -> np.ndarray:
            rows = images.iloc[start : start + BATCH_SIZE]
            pixels = np.stack([load_image(root / image_id) for image_id in rows.image_id])
            if view.number is None:
                return pixels.astype(np.float32)
            return augment_images(pixels, [view.augmentation(key) for key in rows.pixel_sha256])

        with ThreadPoolExecutor(1) as pool:
            starts = range(0, len(images), BATCH_SIZE)
            upcoming = pool.submit(prepare, 0)
            for start in starts:
                batch = upcoming.result()
                if start + BATCH_SIZE < len(images):
                    upcoming = pool.submit(prepare, start + BATCH_SIZE)
                yield batch

    def _forward(self, batch: np.ndarray) -> np.ndarray:
        """Run the trunk on one batch, padded to the fixed size so that it is compiled once."""
        padding = np.zeros((BATCH_SIZE - len(batch), *batch.shape[1:]), batch.dtype)
        outputs = self.trunk.predict_on_batch(np.concatenate([batch, padding]))[: len(batch)]
        activations = outputs.astype(self.dtype)
        if not np.isfinite(activations).all():
            raise ValueError(
                f"activations of {self.trunk.name} do not fit {self.dtype}; use dtype='float32'"
            )
        return activations

    def _write_block(self, keys: Sequence[str], activations: np.ndarray) -> None:
        # A name of its own for every block: two processes never write the same file.
        name = f"{keys[0][:16]}-{uuid.uuid4().hex[:8]}"
        array_file = self.folder / f"{name}.npy"
        with write_atomically(array_file) as temporary:
            np.save(temporary, activations)
        record = {"keys": list(keys), "sha256": file_sha256(array_file)}
        write_json(self.folder / f"{name}.json", record)
