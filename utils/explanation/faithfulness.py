"""Faithfulness and stability: does the prediction follow the map, does the map stay?"""

from functools import partial
from typing import Any

import keras
import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter, shift

from utils.common.constants import PNEUMONIA
from utils.common.study import Study
from utils.evaluation.thresholds import is_positive
from utils.explanation import measures
from utils.explanation.experiments import (
    Prepared,
    baseline_maps,
    count_cells,
    draw_test_images,
    images_key,
    maps_key,
    maps_of,
    measure_images,
)
from utils.explanation.heat_maps import build_explainers
from utils.explanation.networks import find_explained
from utils.models.prediction import predict_pixels

SHIFT, BRIGHTER = 8, 1.1
"""Pixels by which an image is shifted, and the factor by which it is brightened, or darkened."""
MOVED = 0.05
"""A prediction has stayed where it was if its probability moved by no more than this."""
_BLUR = 16
"""Standard deviation of the blur that deletes detail, in pixels."""


def measure_faithfulness(study: Study) -> pd.DataFrame:
    """Return what deleting and inserting pixels in the order of a map does to the prediction.

    Map and probability are those of the predicted class.

    Returns:
        A row per image and order (methods, random and center): image_id, patient_id, map,
        deletion, insertion: areas under the curves.
    """
    explained = find_explained(study)
    made_from = maps_key(explained) | images_key(study) | {"blur": _BLUR}
    return measure_images(study, "faithfulness", made_from, _prepare_faithfulness)


def _prepare_faithfulness(study: Study) -> Prepared:
    images, pixels = draw_test_images(study)
    network = find_explained(study).load()
    explainers, cells = build_explainers(network), count_cells(network)
    predicted = is_positive(predict_pixels(network, pixels), 0.5).astype(int)

    def measure(number: int) -> list[dict[str, Any]]:
        image = pixels[number]
        orders = maps_of(image, explainers, predicted[number])
        orders |= baseline_maps(image, cells, number)
        blurred = gaussian_filter(image, (_BLUR, _BLUR, 0))
        predict = partial(_predict_class, network, predicted[number])
        rows = []
        for name, order in orders.items():
            deletion, insertion = measures.faithfulness(predict, image, order, blurred)
            rows.append({
                "map": name, "deletion": measures.area_under(deletion),
                "insertion": measures.area_under(insertion),
            })  # fmt: skip
        return rows

    return images, measure


def _predict_class(network: keras.Model, class_index: int, images: np.ndarray) -> np.ndarray:
    probability = predict_pixels(network, images)
    return probability if class_index == PNEUMONIA else 1 - probability


def small_perturbations(image: np.ndarray) -> dict[str, tuple[np.ndarray, tuple[int, int]]]:
    """Return an image shifted down and right, brightened and darkened, and how each moved.

    Args:
        image: (h, w, 3) in [0, 255].

    Returns:
        For each change the image and its shift in rows and columns.
    """
    moves = {"down": (SHIFT, 0), "right": (0, SHIFT)}
    changed = {
        name: (shift(image, (*move, 0), order=0, mode="nearest"), move)
        for name, move in moves.items()
    }
    changed["brighter"] = (np.clip(image * BRIGHTER, 0, 255), (0, 0))
    changed["darker"] = (image / BRIGHTER, (0, 0))
    return changed


def _overlap_of(
    first: np.ndarray, second: np.ndarray, move: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return what two maps have in common once the second is moved back."""
    back = shift(second, (-move[0], -move[1]), order=0, mode="nearest")
    edge = max(map(abs, move))
    inner = slice(edge, first.shape[0] - edge)
    return first[inner, inner], back[inner, inner]


def measure_stability(study: Study) -> pd.DataFrame:
    """Return how similar a map stays under changes that leave the prediction where it was.

    Returns:
        A row per image, change and method, where the probability moved by `MOVED` at most:
        image_id, patient_id, map, change, spearman, ssim.
    """
    explained = find_explained(study)
    made_from = maps_key(explained) | images_key(study) | {
        "shift": SHIFT, "brighter": BRIGHTER, "moved": MOVED,
    }  # fmt: skip
    return measure_images(study, "stability", made_from, _prepare_stability)


def _prepare_stability(study: Study) -> Prepared:
    images, pixels = draw_test_images(study)
    network = find_explained(study).load()
    explainers, probability = build_explainers(network), predict_pixels(network, pixels)

    def measure(number: int) -> list[dict[str, Any]]:
        perturbations = small_perturbations(pixels[number])
        versions = np.stack([pixels[number], *(each for each, _ in perturbations.values())])
        moved = np.abs(predict_pixels(network, versions[1:]) - probability[number])
        rows = []
        for name, explain in explainers.items():
            maps = explain(versions, PNEUMONIA)
            for position, (perturbation, (_, move)) in enumerate(perturbations.items()):
                if moved[position] > MOVED:
                    continue
                pair = _overlap_of(maps[0], maps[position + 1], move)
                spearman, ssim = measures.similarity(*pair)
                rows.append({
                    "map": name, "change": perturbation, "spearman": spearman, "ssim": ssim,
                })  # fmt: skip
        return rows

    return images, measure
