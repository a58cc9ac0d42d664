"""A cache of backbone activations: each image and augmented copy goes through the network once.

A store is a folder for one backbone (graph, weight values, cut, number format) and holds blocks of
a few images: `block-*.npy` with the activations, `block-*.json` with their keys and the hash of
the array. A key is made of the image's pixels and its augmentation. Blocks are written under a
temporary name and renamed, the `.json` last; so a killed run leaves whole blocks only, and the
next one computes the rest. Blocks are pieces of work: `common.jobs` shares them between processes.
"""

import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from utils.common.constants import IMAGE_SIZE
from utils.common.files import file_sha256, read_json, write_atomically, write_json
from utils.common.jobs import run_pieces, uses_workers
from utils.common.provenance import count_threads
from utils.data.augmentation import (
    IDENTITY,
    PUBLISHED_RANGES,
    Augmentation,
    AugmentationRanges,
    augment_images,
    draw_augmentation,
)
from utils.data.images import load_image
from utils.models.pretrained import describe_graph, values_sha256

CODE_VERSION = 2
"""Raise it when decoding, augmentation or the way the backbone is run change what is computed."""

BATCH_SIZE = 8
"""Images per forward pass: small batches stay in the processor's cache and were the fastest."""
BLOCK_SIZE = 64
"""Images per block: what a kill can lose."""
BLOCK_PATTERN = "block-*"
STORE_FILE = "store.json"
"""What a store is made of, for people and for `make cache`."""
NETWORK_FILE = "network.keras"
"""The backbone, from which workers read it."""


class CacheSpaceError(OSError):
    """The disk cannot hold the activations; the message gives the sizes and the remedy."""


@dataclass(frozen=True)
class AugmentedCopy:
    """Which version of every image to compute: augmented copy `number`, or the plain image."""

    number: int | None = None
    seed: int = 0
    ranges: AugmentationRanges = PUBLISHED_RANGES

    def augmentation(self, pixel_sha256: str) -> Augmentation:
        """Return this copy's transform of one image."""
        if self.number is None:
            return IDENTITY
        return draw_augmentation(pixel_sha256, self.seed, self.number, self.ranges)

    def key(self, pixel_sha256: str) -> str:
        """Return the cache key of one image in this copy."""
        copy = asdict(self) if self.number is not None else None
        return _hash({"pixels": pixel_sha256, "size": IMAGE_SIZE, "view": copy})


PLAIN = AugmentedCopy()


def training_copies(count: int, seed: int) -> list[AugmentedCopy]:
    """Return the first augmented copies of a seed: what a study trains on."""
    return [AugmentedCopy(number, seed) for number in range(count)]


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class ActivationTable:
    """Memory-mapped activations of a list of images: indexing copies just the rows asked for."""

    def __init__(self, blocks: list[np.ndarray], positions: np.ndarray, fingerprint: str) -> None:
        """Take the mapped blocks and, for each image, its position in them.

        Args:
            blocks: Mapped arrays.
            positions: For each image its (block, row), (n, 2) int.
            fingerprint: Hash of what the table holds: store and keys.
        """
        self._blocks = blocks
        self._positions = positions
        self.fingerprint = fingerprint

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._positions)

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (n, height, width, channels)."""
        return (len(self), *self._blocks[0].shape[1:])

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        """Return the activations of some images as an array of the store's number format."""
        return np.stack([self._blocks[block][row] for block, row in self._positions[rows]])


@dataclass(frozen=True)
class _Task:
    """One forward pass: an image in one copy."""

    image_id: str
    pixel_sha256: str
    copy: AugmentedCopy

    @cached_property
    def key(self) -> str:
        return self.copy.key(self.pixel_sha256)


class ActivationStore:
    """The cached activations of one backbone."""

    def __init__(self, folder: Path, backbone: keras.Model, dtype: str = "float16") -> None:
        """Open, or begin, the store of a backbone.

        Args:
            folder: Folder of all stores; each backbone has a folder of its own in it.
            backbone: Frozen model from (n, 224, 224, 3) RGB in [0, 255] to activations.
            dtype: `float16` or `float32`, as the activations are kept.
        """
        if dtype not in ("float16", "float32"):
            raise ValueError(f"dtype must be float16 or float32, not {dtype!r}")
        self.backbone, self.dtype = backbone, dtype
        identity = {
            "weights_sha256": values_sha256(backbone),
            "graph_sha256": _hash(describe_graph(backbone)),
            "dtype": dtype,
            "code_version": CODE_VERSION,
        }
        self.identity = _hash(identity)
        # For people: names that Keras gives may be numbered, the graph's hash covers them.
        self.description = identity | {
            "backbone": backbone.name,
            "cut": backbone.layers[-1].name,
            "precision": backbone.layers[-1].dtype_policy.name,
        }
        self.folder = Path(folder) / f"{backbone.name}-{dtype}-{self.identity[:16]}"
        self._verified: set[tuple[str, int]] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Be sent to a worker without the network, which it reads from the folder, once."""
        return {name: value for name, value in vars(self).items() if name != "backbone"}

    @cached_property
    def backbone(self) -> keras.Model:
        """The network, in a process that did not open the store itself."""
        return _load_network(self.folder / NETWORK_FILE)

    def load(
        self, root: Path, images: pd.DataFrame, copy: AugmentedCopy = PLAIN
    ) -> ActivationTable:
        """Return the activations of some images in one copy; see `load_copies`."""
        return self.load_copies(root, images, [copy])[0]

    def load_copies(
        self, root: Path, images: pd.DataFrame, copies: Sequence[AugmentedCopy]
    ) -> list[ActivationTable]:
        """Return the activations of some images, a table a copy, computing those not yet kept.

        Args:
            root: Root of the data set.
            images: Rows of the index; `image_id` and `pixel_sha256` are used.
            copies: Which versions of the images.

        Raises:
            CacheSpaceError: if the disk cannot hold what is missing; nothing is computed then.
        """
        self.fill(root, images, copies)
        keys = [[copy.key(sha256) for sha256 in images.pixel_sha256] for copy in copies]
        positions = self._positions({key for of_copy in keys for key in of_copy})
        names = sorted({name for name, _ in positions.values()})
        blocks = [np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in names]
        number = {name: position for position, name in enumerate(names)}
        return [
            ActivationTable(
                blocks,
                np.array([(number[positions[key][0]], positions[key][1]) for key in of_copy]),
                _hash([self.identity, of_copy]),
            )
            for of_copy in keys
        ]

    def fill(self, root: Path, images: pd.DataFrame, copies: Sequence[AugmentedCopy]) -> int:
        """Compute what is not yet kept, and return the number of forward passes.

        Every image is decoded once for all its copies.

        Args:
            root: Root of the data set.
            images: Rows of the index.
            copies: Which versions of the images.

        Raises:
            CacheSpaceError: if the disk cannot hold what is missing; nothing is computed then.
        """
        missing = self._missing(images, copies)
        if missing:
            self._check_space(len(missing))
            write_json(self.folder / STORE_FILE, self.description)
            network = self.folder / NETWORK_FILE
            if uses_workers() and not network.is_file():
                with write_atomically(network) as temporary:
                    self.backbone.save(temporary)
            # All copies of an image in one block: it is decoded once.
            size = BLOCK_SIZE - BLOCK_SIZE % len(copies) or BLOCK_SIZE
            blocks = [
                (self, root, missing[start : start + size])
                for start in range(0, len(missing), size)
            ]
            title = f"{self.backbone.name}, {len(missing):,} forward passes"
            run_pieces(ActivationStore._compute, blocks, title)
        return len(missing)

    def count_missing(
        self, images: pd.DataFrame, copies: Sequence[AugmentedCopy] = (PLAIN,)
    ) -> int:
        """Count the forward passes that `fill` would have to run."""
        return len(self._missing(images, copies))

    def _missing(self, images: pd.DataFrame, copies: Sequence[AugmentedCopy]) -> list[_Task]:
        """List the passes that are not kept, image by image, byte-identical images once."""
        distinct = images.drop_duplicates("pixel_sha256")
        tasks = [
            _Task(image_id, sha256, copy)
            for image_id, sha256 in zip(distinct.image_id, distinct.pixel_sha256, strict=True)
            for copy in copies
        ]
        positions = self._positions({task.key for task in tasks})
        return [task for task in tasks if task.key not in positions]

    def _positions(self, keys: set[str]) -> dict[str, tuple[str, int]]:
        """Find the block and row of each key that is kept; drop blocks that are damaged."""
        positions = {}
        for record_file in sorted(self.folder.glob(f"{BLOCK_PATTERN}.json")):
            try:
                record = read_json(record_file)
                wanted = [(key, row) for row, key in enumerate(record["keys"]) if key in keys]
                whole = not wanted or self._is_whole(record_file, record["sha256"])
            except (ValueError, KeyError, TypeError):
                wanted, whole = [], False
            if whole:
                positions.update({key: (record_file.stem, row) for key, row in wanted})
            else:
                self._drop_block(record_file)
        return positions

    def _is_whole(self, record_file: Path, sha256: str) -> bool:
        """Compare a block with its hash, once in a process as long as the file is not touched."""
        array_file = record_file.with_suffix(".npy")
        if not array_file.is_file():
            return False
        state = (array_file.name, array_file.stat().st_mtime_ns)
        if state not in self._verified:
            if file_sha256(array_file) != sha256:
                return False
            self._verified.add(state)
        return True

    def _drop_block(self, record_file: Path) -> None:
        array_file = record_file.with_suffix(".npy")
        warnings.warn(
            f"block {array_file} of the activation cache is damaged; "
            "its images will be computed again",
            stacklevel=5,
        )
        record_file.unlink(missing_ok=True)
        array_file.unlink(missing_ok=True)

    def _check_space(self, passes: int) -> None:
        """Refuse to begin what the disk cannot hold."""
        row = int(np.prod(self.backbone.output_shape[1:])) * np.dtype(self.dtype).itemsize
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        if passes * row > free:
            raise CacheSpaceError(
                f"the activations of {passes:,} images and augmented copies need "
                f"{passes * row / 1e9:,.1f} GB in {self.folder}, where {free / 1e9:,.1f} GB are "
                "free; set ACTIVATION_CACHE_DIR to a larger disk, let `make cache` show what can "
                "be deleted, or take fewer copies"
            )

    def _compute(self, root: Path, tasks: Sequence[_Task]) -> None:
        """Run the backbone over the images of one block and keep the activations."""
        keys = [task.key for task in tasks]
        # The same block has the same name, whoever computes it.
        name = f"block-{_hash(keys)[:24]}"
        array_file, record_file = (self.folder / f"{name}{kind}" for kind in (".npy", ".json"))
        if record_file.is_file():
            return
        activations = np.concatenate([self._forward(batch) for batch in self._batches(root, tasks)])
        with write_atomically(array_file) as temporary:
            np.save(temporary, activations)
        record = {"keys": keys, "sha256": file_sha256(array_file), "threads": count_threads()}
        write_json(record_file, record)

    def _batches(self, root: Path, tasks: Sequence[_Task]) -> Iterator[np.ndarray]:
        """Yield batches of augmented images; the next one is made while the network runs."""

        @lru_cache(1)  # the copies of an image follow each other, over the border of a batch too
        def load(image_id: str) -> np.ndarray:
            return load_image(root / image_id)

        def prepare(start: int) -> np.ndarray:
            part = tasks[start : start + BATCH_SIZE]
            pixels = np.stack([load(task.image_id) for task in part])
            augmentations = [task.copy.augmentation(task.pixel_sha256) for task in part]
            if all(augmentation == IDENTITY for augmentation in augmentations):
                return pixels.astype(np.float32)
            return augment_images(pixels, augmentations)

        with ThreadPoolExecutor(1) as pool:
            upcoming = pool.submit(prepare, 0)
            for start in range(0, len(tasks), BATCH_SIZE):
                batch = upcoming.result()
                if start + BATCH_SIZE < len(tasks):
                    upcoming = pool.submit(prepare, start + BATCH_SIZE)
                yield batch

    def _forward(self, batch: np.ndarray) -> np.ndarray:
        """Run the backbone on one batch, padded to the fixed size so that it is compiled once."""
        padding = np.zeros((BATCH_SIZE - len(batch), *batch.shape[1:]), batch.dtype)
        outputs = self.backbone.predict_on_batch(np.concatenate([batch, padding]))[: len(batch)]
        activations = outputs.astype(self.dtype)
        if not np.isfinite(activations).all():
            raise ValueError(
                f"activations of {self.backbone.name} do not fit {self.dtype}; use dtype='float32'"
            )
        return activations


@lru_cache(1)
def _load_network(file: Path) -> keras.Model:
    """Load a backbone for all blocks that a worker computes with it."""
    return keras.models.load_model(file, compile=False, safe_mode=True)
