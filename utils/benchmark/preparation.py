"""What `make bench` measures, and on which images: settings, data, weights and scratch folder."""

import json
import logging
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import pandas as pd

from utils.common.constants import PNEUMONIA
from utils.common.study import Study, load_study
from utils.data.images import DatasetError
from utils.data.index import build_index, open_dataset
from utils.models.backbones import build_backbone
from utils.models.pretrained import Weights
from utils.models.weights import resolve_weights
from utils.phantoms.sets import SMALLEST_DATASET, write_phantom_dataset
from utils.training.head import Recipe

logger = logging.getLogger(__name__)

Images = tuple[pd.DataFrame, pd.DataFrame]
"""Rows of the image index: of training and of validation."""


class BenchError(RuntimeError):
    """A benchmark that cannot be run; the message names the remedy."""


@dataclass(frozen=True)
class BenchSettings:
    """What is measured; records of other settings are not reused."""

    study: str
    images: int
    epochs: int = 20
    views: int = 4
    seeds: tuple[int, ...] = (42, 43, 44)
    """Of the warm training runs; the first is that of every other contender."""
    sizes: tuple[int, ...] = (500, 1000, 2000, 5000)
    """Numbers of images at which the cost of an image is measured."""
    size_epochs: int = 3
    repetitions: int = 5
    """Interleaved repetitions of steps and extraction."""
    rounds: int = 2
    """Processes in which the training step is measured."""
    steps: int = 15
    """Training steps of one repetition."""
    extracted_images: int = 16
    """Images whose copies are computed in one repetition of the extraction test."""
    workers: tuple[int, ...] = (0, 1, 2, 4)
    """Processes that share an extraction; 0 is the command's own process, on all cores."""
    scored_images: int = 300
    """Images that `make predict` scores, at most."""
    weights: str = "imagenet"

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON gives them back."""
        return json.loads(json.dumps(asdict(self)))


@dataclass(frozen=True)
class Bench:
    """What every process of one benchmark is given."""

    settings: BenchSettings
    scratch: Path
    """Folder for caches and checkpoints."""
    root: Path
    """Root of the data set."""
    index: pd.DataFrame
    weights: Weights
    """ResNet50's, found once for all processes."""

    @property
    def study(self) -> Study:
        """The study whose data and recipe are used."""
        return load_study(self.settings.study)

    def choose(self, count: int | None = None) -> Images:
        """Return the training and the validation images of one size, by default of the loops."""
        count = count or self.settings.images
        chosen = choose_images(self.index, count, self.study.validation_fraction)
        return chosen[chosen.split == "train"], chosen[chosen.split == "validation"]

    def build_backbone(self, precision: str = "float32") -> keras.Model:
        """Return the frozen ResNet50."""
        return build_backbone(self.weights, precision=precision)

    @property
    def views_dtype(self) -> str:
        """Number format of the augmented copies; random weights do not fit the study's."""
        return "float32" if self.weights.file is None else "float16"

    def recipe(self, seed: int, epochs: int | None = None) -> Recipe:
        """Return the study's recipe for a fixed number of epochs, without early stopping."""
        study, epochs = self.study, epochs or self.settings.epochs
        return Recipe(
            epochs=epochs, batch_size=study.batch_size, learning_rate=study.learning_rate,
            stopping_patience=epochs + 1, plateau_patience=study.plateau_patience, seed=seed,
        )  # fmt: skip

    def empty_folder(self, name: str) -> Path:
        """Return a folder of the scratch space with nothing in it."""
        folder = self.scratch / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder


def choose_images(index: pd.DataFrame, count: int, validation_fraction: float) -> pd.DataFrame:
    """Choose images of the train and validation patients, never of the test set.

    Within each split the classes keep their proportion, and the images come in the order of
    their pixel hashes, which is random but the same everywhere. Of images with equal pixels one
    is taken. `count` is that of both splits together, `validation_fraction` the validation's share.

    Raises:
        BenchError: if there are not as many.
    """
    distinct = index[index.split.isin(("train", "validation"))]
    distinct = distinct.sort_values(["pixel_sha256", "image_id"]).drop_duplicates("pixel_sha256")
    wanted = {"validation": round(count * validation_fraction)}
    wanted["train"] = count - wanted["validation"]
    parts = []
    for split, number in wanted.items():
        rows = distinct[distinct.split == split]
        positive, negative = rows[rows.label == PNEUMONIA], rows[rows.label != PNEUMONIA]
        share = len(positive) / max(len(rows), 1)
        positives = min(max(round(number * share), 1), number - 1)
        if number < 2 or len(positive) < positives or len(negative) < number - positives:
            raise BenchError(
                f"{number} {split} images are wanted of {len(rows)} distinct ones; "
                "choose another N="
            )
        parts += [negative.head(number - positives), positive.head(positives)]
    return pd.concat(parts).sort_values("image_id").reset_index(drop=True)


def choose_sizes(images: int) -> tuple[int, ...]:
    """Return the sizes at which the cost of an image is measured; smaller ones in a small trial."""
    return (500, 1000, 2000, 5000) if images >= 500 else (images, 2 * images)


def prepare(settings: BenchSettings, scratch: Path) -> Bench:
    """Prepare images, their index and the weights.

    Phantoms are rendered to order, enough for the largest size. Sizes that real data do not
    allow are left out.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    study = load_study(settings.study)
    if study.dataset_name == "phantoms":
        root = render_phantoms(study, max(settings.images, *settings.sizes), scratch)
    else:
        root = open_dataset(study.dataset_name)
    index = build_index(root, study.seed, study.validation_fraction)
    choose_images(index, settings.images, study.validation_fraction)
    possible = []
    for size in settings.sizes:
        with suppress(BenchError):
            choose_images(index, size, study.validation_fraction)
            possible.append(size)
    if len(possible) < len(settings.sizes):
        logger.info("the data allow the sizes %s, not %s", possible, settings.sizes)
        settings = replace(settings, sizes=tuple(possible))
    weights = resolve_weights(
        "resnet50", settings.weights, allow_random=study.allow_random_weights, seed=study.seed
    )
    return Bench(settings, scratch, root, index, weights)


def render_phantoms(study: Study, images: int, scratch: Path) -> Path:
    """Render a phantom data set in which `images` can be chosen from outside the test set."""
    # A quarter are test images, and the split by patient and doubled images take their part.
    count = max(round(1.5 * images), SMALLEST_DATASET)
    while True:
        root = write_phantom_dataset(scratch / f"phantoms-{count}", count)
        try:
            index = build_index(root, study.seed, study.validation_fraction)
            choose_images(index, images, study.validation_fraction)
            return root
        except (BenchError, DatasetError):
            shutil.rmtree(root)
            count = round(1.15 * count)
