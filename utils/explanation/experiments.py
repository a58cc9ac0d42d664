"""What the experiments on heat maps share: images, what a table is made from, row by row."""

import json
import shutil
from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from utils.common.constants import PNEUMONIA
from utils.common.files import cached_table, describe_inputs, write_csv
from utils.common.jobs import run_pieces
from utils.common.paths import results_dir, table_file
from utils.common.provenance import count_threads, read_provenance
from utils.common.study import Study
from utils.data.images import load_images
from utils.data.index import open_study_index
from utils.explanation import measures
from utils.explanation.heat_maps import (
    BATCH_SIZE,
    METHODS,
    NOISE,
    NOISE_SEED,
    NOISY_COPIES,
    STRONGEST_CHANNELS,
    default_layer,
)
from utils.explanation.networks import Explained

ROUND = 5
Measure = Callable[[int], list[dict[str, Any]]]
"""From the number of an image to its rows."""
Prepared = tuple[pd.DataFrame, Measure]
"""The images of an experiment, whose `image_id` and `patient_id` begin their rows, and what
measures the rest of the rows of one of them."""
Prepare = Callable[[Study], Prepared]
"""A function of a module, which workers call too."""


def measure_images(
    study: Study, name: str, made_from: Mapping[str, Any], prepare: Prepare
) -> pd.DataFrame:
    """Return a table of `results/<study>/explanation/`, made a batch of images at a time.

    Each batch is a piece of work, whose rows lie in `.<name>-<inputs>/<start>.csv` until the table
    is whole: an interrupted run goes on, and takes nothing over from another network.

    Args:
        study: The study.
        name: Of the table.
        made_from: What the table depends on.
        prepare: Called where the table has to be made, once in every process that works on it.
    """
    file = table_file(study.study, f"explanation/{name}")
    description = json.dumps(describe_inputs(made_from), sort_keys=True)
    source = sha256(description.encode()).hexdigest()[:12]

    def make() -> pd.DataFrame:
        images, _ = _prepare(prepare, study, source)
        parts = {
            start: file.parent / f".{name}-{source}" / f"{start}.csv"
            for start in range(0, len(images), BATCH_SIZE)
        }
        pieces = [(prepare, study, source, start, part) for start, part in parts.items()]
        run_pieces(_measure_batch, [piece for piece in pieces if not piece[-1].is_file()], name)
        _prepare.cache_clear()
        rows = [pd.read_csv(part) for part in parts.values()]
        for unfinished in file.parent.glob(f".{name}-*"):
            shutil.rmtree(unfinished)
        return pd.concat(rows, ignore_index=True).round(ROUND)

    return cached_table(file, made_from, make, {"threads": count_threads()})


@lru_cache(1)
def _prepare(prepare: Prepare, study: Study, source: str) -> Prepared:
    """Prepare an experiment, for all images that this process measures; inputs tell it apart."""
    return prepare(study)


def _measure_batch(prepare: Prepare, study: Study, source: str, start: int, file: Path) -> None:
    if file.is_file():
        return
    images, measure = _prepare(prepare, study, source)
    named = images[["image_id", "patient_id"]].iloc[start : start + BATCH_SIZE]
    rows = [
        first | row
        for number, first in enumerate(named.to_dict("records"), start)
        for row in measure(number)
    ]
    write_csv(file, pd.DataFrame(rows, columns=None if rows else list(named)))


def open_test_images(study: Study) -> tuple[Path, pd.DataFrame]:
    """Return the root of the data set and the rows of the index of all test images."""
    root, index = open_study_index(study)
    return root, index[index.split == "test"]


def draw_test_images(study: Study) -> tuple[pd.DataFrame, np.ndarray]:
    """Draw test images, classes alike; return the rows of the index and the pixels."""
    root, test = open_test_images(study)
    each = min(study.explained_images // 2, *test.label.value_counts())
    drawn = test.groupby("label").sample(each, random_state=study.seed)
    images = drawn.sort_values("image_id", ignore_index=True)
    return images, load_pixels(root, images)


def load_pixels(root: Path, images: pd.DataFrame) -> np.ndarray:
    """Read images of the index as (n, 224, 224, 3) float32 RGB in [0, 255]."""
    return load_images(root, images.image_id).astype(np.float32)


def images_key(study: Study) -> dict[str, Any]:
    """Return what the choice of test images depends on."""
    dataset = read_provenance(results_dir(study.study), "resnet50")["dataset"]
    return {"dataset": dataset["fingerprint"], "images": study.explained_images}


def maps_key(explained: Explained) -> dict[str, Any]:
    """Return what maps by all methods depend on."""
    return explained.describe() | {
        "methods": list(METHODS), "scorecam_channels": STRONGEST_CHANNELS,
        "smoothgrad": {"copies": NOISY_COPIES, "noise": NOISE, "seed": NOISE_SEED},
    }  # fmt: skip


def baseline_maps(image: np.ndarray, cells: int, seed: int) -> dict[str, np.ndarray]:
    """Return the maps of `BASELINES` for one image.

    Args:
        image: (h, w, 3) in [0, 255].
        cells: Cells on a side of the network's maps.
        seed: Of the random map.
    """
    gray = image.mean(-1)
    return {
        "random": measures.random_map(gray.shape, cells, seed),
        "centre": measures.center_map(gray.shape),
        "edges": measures.edge_map(gray),
    }


def maps_of(
    image: np.ndarray, explainers: Mapping[str, Callable], class_index: int = PNEUMONIA
) -> dict[str, np.ndarray]:
    """Return the (224, 224) maps of one image by every method, from `build_explainers`."""
    return {name: explain(image[None], class_index)[0] for name, explain in explainers.items()}


def maps_in_batches(
    pixels: np.ndarray, explainers: Mapping[str, Callable]
) -> Callable[[int], dict[str, np.ndarray]]:
    """Return a function from the number of an image to its maps by every method, for PNEUMONIA.

    Images are explained in batches: for one image alone, most of the time of a gradient goes into
    calling a hundred layers. The last batch is kept, for callers that go through the images.

    Args:
        pixels: (n, 224, 224, 3) in [0, 255].
        explainers: From `build_explainers`.
    """

    @lru_cache(maxsize=1)
    def explain_batch(start: int) -> dict[str, np.ndarray]:
        batch = pixels[start : start + BATCH_SIZE]
        return {name: explain(batch, PNEUMONIA) for name, explain in explainers.items()}

    def find_maps(number: int) -> dict[str, np.ndarray]:
        start = number - number % BATCH_SIZE
        return {name: maps[number - start] for name, maps in explain_batch(start).items()}

    return find_maps


def count_cells(network: keras.Model) -> int:
    """Return the cells on a side of the maps of a network."""
    return network.get_layer(default_layer(network)).output.shape[1]
