"""What the experiments on heat maps share: images, what a table is made from, row by row."""

import json
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
from utils.common.paths import results_dir, table_file
from utils.common.progress import track
from utils.common.provenance import read_provenance
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


def measure_images(
    study: Study,
    name: str,
    made_from: Mapping[str, Any],
    prepare: Callable[[], tuple[pd.DataFrame, Measure]],
) -> pd.DataFrame:
    """Return a table of `results/<study>/explanation/`, made image by image if need be.

    An interrupted run goes on: what is done lies in `.<name>-unfinished.csv`, with a key in each
    row, of its image and of what the table is made from, so that nothing is taken over from
    another network.

    Args:
        study: The study.
        name: Of the table.
        made_from: What the table depends on.
        prepare: Called where the table has to be made; returns the images, whose `image_id` and
            `patient_id` begin their rows, and what measures the rest of the rows of one of them.
    """
    file = table_file(study.study, f"explanation/.{name}-unfinished")
    description = json.dumps(describe_inputs(made_from), sort_keys=True)
    source = sha256(description.encode()).hexdigest()[:12]

    def make() -> pd.DataFrame:
        images, measure = prepare()
        named = images[["image_id", "patient_id"]].to_dict("records")
        keys = [f"{source} {image_id}" for image_id in images.image_id]
        done = pd.read_csv(file) if file.is_file() else pd.DataFrame({"key": []})
        if not set(done.key) <= set(keys):
            done = done.iloc[:0]
        parts = [done]
        missing = [number for number, key in enumerate(keys) if key not in set(done.key)]
        for count, number in enumerate(track(missing, name, len(missing)), start=1):
            rows = [named[number] | row for row in measure(number)]
            parts.append(pd.DataFrame(rows).assign(key=keys[number]))
            if count % 10 == 0:
                parts = [pd.concat(parts, ignore_index=True)]
                write_csv(file, parts[0])
        file.unlink(missing_ok=True)
        return pd.concat(parts, ignore_index=True).drop(columns="key").round(ROUND)

    return cached_table(table_file(study.study, f"explanation/{name}"), made_from, make)


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
