"""Sanity checks (Adebayo et al. 2018): do heat maps depend on image, weights and labels?"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from utils.common.constants import PNEUMONIA
from utils.common.study import Study
from utils.explanation import measures
from utils.explanation.experiments import (
    Prepared,
    draw_test_images,
    images_key,
    maps_in_batches,
    maps_key,
    measure_images,
)
from utils.explanation.heat_maps import build_explainers
from utils.explanation.networks import (
    LEVELS,
    RANDOM_LABEL_IMAGES,
    find_explained,
    random_label_recipe,
    randomize_in_steps,
    train_on_random_labels,
)


def _similarity_rows(
    first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Return how similar two networks' maps of one image are, a row per method."""
    rows = []
    for method, cam in first.items():
        spearman, ssim = measures.similarity(cam, second[method])
        rows.append({"map": method, "spearman": spearman, "ssim": ssim})
    return rows


def measure_other_images(study: Study) -> pd.DataFrame:
    """Return how similar the maps of radiographs with and without pneumonia are, by one network.

    A similarity that any two images share says nothing about the image, nor about the network.

    Returns:
        A row per pair and method: image_id and patient_id with pneumonia, healthy_id: the image
        without, map, spearman, ssim.
    """
    explained = find_explained(study)
    made_from = maps_key(explained) | images_key(study)
    return measure_images(study, "other_images", made_from, _prepare_other_images)


def _prepare_other_images(study: Study) -> Prepared:
    images, pixels = draw_test_images(study)
    explainers = build_explainers(find_explained(study).load())
    positive = (images.label == PNEUMONIA).to_numpy()
    parts = [maps_in_batches(part, explainers) for part in (pixels[positive], pixels[~positive])]
    healthy_ids = images.image_id[~positive].to_numpy()

    def measure(number: int) -> list[dict[str, Any]]:
        first, second = (maps(number) for maps in parts)
        return [
            {"healthy_id": healthy_ids[number]} | similarity
            for similarity in _similarity_rows(first, second)
        ]

    return images[positive], measure


def measure_randomization(study: Study) -> pd.DataFrame:
    """Return how similar the maps stay when the weights are randomized step by step.

    Returns:
        A row per image, step and method: image_id, patient_id, step, layer, map, spearman, ssim.
    """
    explained = find_explained(study)
    made_from = maps_key(explained) | images_key(study) | {"levels": LEVELS}
    return measure_images(study, "randomisation", made_from, _prepare_randomization)


def _prepare_randomization(study: Study) -> Prepared:
    images, pixels = draw_test_images(study)
    network = find_explained(study).load()
    maps = maps_in_batches(pixels, build_explainers(network))
    randomized = {
        layer: maps_in_batches(pixels, build_explainers(random))
        for layer, random in randomize_in_steps(network, study.seed)
    }

    def measure(number: int) -> list[dict[str, Any]]:
        first = maps(number)
        return [
            {"step": step, "layer": layer} | similarity
            for step, (layer, random) in enumerate(randomized.items(), start=1)
            for similarity in _similarity_rows(first, random(number))
        ]

    return images, measure


def measure_random_labels(study: Study) -> pd.DataFrame:
    """Return how similar the maps are to those of a network that was trained on shuffled labels.

    Such a network has memorized its training images and learned nothing about pneumonia: its
    training accuracy is noted, because only a network that fits its labels has learned something.

    Returns:
        A row per image and method: image_id, patient_id, training_accuracy, map, spearman, ssim.
    """
    explained, recipe = find_explained(study), random_label_recipe(study)
    made_from = maps_key(explained) | images_key(study) | {
        "recipe": recipe, "training_images": RANDOM_LABEL_IMAGES,
    }  # fmt: skip
    return measure_images(study, "random_labels", made_from, _prepare_random_labels)


def _prepare_random_labels(study: Study) -> Prepared:
    images, pixels = draw_test_images(study)
    explained = find_explained(study).load()
    network, accuracy = train_on_random_labels(study, random_label_recipe(study))
    parts = [maps_in_batches(pixels, build_explainers(each)) for each in (explained, network)]

    def measure(number: int) -> list[dict[str, Any]]:
        first, second = (maps(number) for maps in parts)
        return [
            {"training_accuracy": accuracy} | similarity
            for similarity in _similarity_rows(first, second)
        ]

    return images, measure
