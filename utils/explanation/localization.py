"""Where heat maps lie: on the known opacities of phantoms, in the lungs, at the border."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from utils.common.constants import IMAGE_SIZE, PNEUMONIA
from utils.common.files import cached_table
from utils.common.paths import dataset_dir, table_file
from utils.common.study import Study
from utils.data.index import build_index
from utils.data.regions import inside_frame, lung_template
from utils.evaluation.thresholds import is_positive
from utils.explanation import measures
from utils.explanation.experiments import (
    ROUND,
    Prepared,
    baseline_maps,
    count_cells,
    images_key,
    load_pixels,
    maps_in_batches,
    maps_key,
    measure_images,
    open_test_images,
)
from utils.explanation.heat_maps import build_explainer, build_explainers
from utils.explanation.measures import NO_NETWORK
from utils.explanation.networks import (
    find_compared,
    find_explained,
    phantom_recipe,
    train_on_phantoms,
)
from utils.models.prediction import predict_pixels
from utils.phantoms.sets import PHANTOM_VERSION, load_opacity_mask, write_phantom_dataset

BORDER, CORNER = 1 / 8, 1 / 5
"""Shares of the side: of a frame around the image, and of a square in each corner."""


def known_phantoms(study: Study) -> tuple[Path, pd.DataFrame]:
    """Render phantoms that no network was trained on; return their root and index."""
    count = study.known_phantoms
    root = write_phantom_dataset(dataset_dir(f"known_phantoms_{count}"), count, seed=7)
    return root, build_index(root, seed=0, validation_fraction=0.5)


def measure_truth(study: Study) -> pd.DataFrame:
    """Return how well maps of phantoms coincide with their opacities.

    A network that was trained on radiographs may not recognize phantoms, and then its maps cannot
    point at their opacities. So the same recipe is also trained on other phantoms (stored as
    "taught"): its maps test the methods, those of the explained network its view of phantoms.

    Returns:
        A row per image, network and map (methods), and per image and baseline (no network):
        image_id, patient_id, etiology, mask_share, network, auc (of the network on all known
        phantoms), probability, map, energy_inside, pointing_hit, iou.
    """
    explained, recipe = find_explained(study), phantom_recipe(study)
    made_from = maps_key(explained) | {
        "phantoms": [PHANTOM_VERSION, study.known_phantoms], "taught": recipe,
    }  # fmt: skip
    return measure_images(study, "truth", made_from, _prepare_truth)


def _prepare_truth(study: Study) -> Prepared:
    root, known = known_phantoms(study)
    explained = find_explained(study)
    taught = train_on_phantoms(study, phantom_recipe(study))
    networks = {explained.title: explained.load(), "taught": taught}
    everything = load_pixels(root, known)
    probabilities = {
        name: predict_pixels(network, everything) for name, network in networks.items()
    }
    auc = {name: roc_auc_score(known.label, found) for name, found in probabilities.items()}
    cells = count_cells(networks["taught"])
    with_pneumonia = np.flatnonzero(known.label == PNEUMONIA)
    explained_maps = {
        name: maps_in_batches(everything[with_pneumonia], build_explainers(network))
        for name, network in networks.items()
    }

    def measure(number: int) -> list[dict[str, Any]]:
        position = with_pneumonia[number]
        image, row = everything[position], known.iloc[position]
        mask = load_opacity_mask(root, row.image_id)
        maps = {name: find_maps(number) for name, find_maps in explained_maps.items()}
        maps[NO_NETWORK] = baseline_maps(image, cells, number)
        return [
            {
                "etiology": row.etiology, "mask_share": measures.mask_share(mask),
                "network": name, "auc": auc.get(name),
                "probability": probabilities[name][position] if name in networks else None,
                "map": method,
                "energy_inside": measures.energy_inside_mask(cam, mask),
                "pointing_hit": measures.pointing_hit(cam, mask),
                "iou": measures.iou_at_otsu(cam, mask),
            }
            for name in maps
            for method, cam in maps[name].items()
        ]  # fmt: skip

    return known.iloc[with_pneumonia], measure


def regions_of_interest() -> dict[str, np.ndarray]:
    """Return (224, 224) masks: the border, the corners, where markers are, and the lungs."""
    position = (np.arange(IMAGE_SIZE) + 0.5) / IMAGE_SIZE
    outer = (position < CORNER) | (position >= 1 - CORNER)
    return {
        "border": ~inside_frame(IMAGE_SIZE, BORDER),
        "corners": outer[:, None] & outer[None, :],
        "lungs": lung_template(IMAGE_SIZE),
    }


def measure_attention(study: Study) -> pd.DataFrame:
    """Return where Grad-CAM's energy lies on all test images, by network and outcome.

    Networks are the explained one, and those of `networks.find_compared`.

    Returns:
        A row per image and network: image_id, patient_id, network, y_true, called, maximum, and the
        share of the energy in each of `regions_of_interest`; empty where a map is zero.
    """
    explained, others = find_explained(study), find_compared(study)

    def make() -> pd.DataFrame:
        root, test = open_test_images(study)
        pixels, regions = load_pixels(root, test), regions_of_interest()
        parts = []
        for each in (explained, *others):
            network = each.load()
            maps = build_explainer(network)(pixels, PNEUMONIA)
            shares = {
                region: [measures.energy_inside_mask(cam, mask) for cam in maps]
                for region, mask in regions.items()
            }
            parts.append(pd.DataFrame({
                "image_id": test.image_id.to_numpy(), "patient_id": test.patient_id.to_numpy(),
                "network": each.title, "y_true": test.label.to_numpy(),
                "called": is_positive(predict_pixels(network, pixels), 0.5).astype(int),
                "maximum": maps.max((1, 2)),
            } | shares))  # fmt: skip
        return pd.concat(parts, ignore_index=True).round(ROUND)

    made_from = explained.describe() | {
        "dataset": images_key(study)["dataset"],
        "networks": [each.describe() for each in others],
        "border": BORDER, "corner": CORNER,
    }  # fmt: skip
    return cached_table(table_file(study.study, "explanation/attention"), made_from, make)
