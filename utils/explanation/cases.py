"""The images that notebook 12 draws with their maps: a phantom, and cases of each outcome."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np
import pandas as pd

from utils.common.constants import PNEUMONIA
from utils.common.study import Study
from utils.data.images import load_images
from utils.data.index import open_dataset
from utils.explanation.heat_maps import METHODS, build_explainers
from utils.explanation.networks import LEVELS, find_explained, randomize_in_steps
from utils.explanation.summary import with_outcome
from utils.models.registry import SHIPPED

PHANTOM = "phantoms/PNEUMONIA/person12_bacteria_22.jpeg"
"""A phantom that ships with the repository, in `registry.SHIPPED`."""


def load_phantom() -> np.ndarray:
    """Read the phantom that is drawn, as (1, 224, 224, 3) float32 RGB in [0, 255]."""
    return load_images(SHIPPED, [PHANTOM]).astype(np.float32)


def maps_by_method(network: keras.Model, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return (n, h, w) maps of PNEUMONIA by the title of each method."""
    return {
        METHODS[name].title: explain(images, PNEUMONIA)
        for name, explain in build_explainers(network).items()
    }


def cascade_maps(
    network: keras.Model, image: np.ndarray, steps: Sequence[int], seed: int
) -> dict[str, np.ndarray]:
    """Return an image's maps while the network's weights are randomized from the output on.

    Args:
        network: Stays as it is.
        image: (1, h, w, 3) in [0, 255].
        steps: Of `networks.LEVELS`, in order; 0 is the network as it was trained.
        seed: Of the random weights.

    Returns:
        (steps, h, w) maps by the title of each method.

    Raises:
        ValueError: if there is no such step.
    """
    if unknown := sorted(set(steps) - set(range(LEVELS + 1))):
        raise ValueError(f"there is no step {unknown[0]}; steps go from 0 to {LEVELS}")
    parts = [maps_by_method(network, image)] if 0 in steps else []
    for step, (_, random) in enumerate(randomize_in_steps(network, seed), start=1):
        if step in steps:
            parts.append(maps_by_method(random, image))
    return {title: np.concatenate([part[title] for part in parts]) for title in parts[0]}


def draw_outcomes(
    study: Study, attention: pd.DataFrame
) -> tuple[np.ndarray, Mapping[str, np.ndarray], list[str]]:
    """Draw a test image of each outcome of the explained network, with its maps.

    Args:
        study: Its data set and the explained network must be there.
        attention: From `localization.measure_attention`.

    Returns:
        (n, h, w, 3) images, (n, h, w) maps by the title of each method, and titles; an outcome
        that never happened is left out.
    """
    explained = find_explained(study)
    rows = with_outcome(attention[attention.network == explained.title])
    drawn = rows.groupby("outcome", sort=False).sample(1, random_state=study.seed)
    images = load_images(open_dataset(study.dataset_name), drawn.image_id).astype(np.float32)
    return images, maps_by_method(explained.load(), images), drawn.outcome.tolist()
