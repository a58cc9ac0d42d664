"""Whether heat maps can be believed: the tables of notebook 10, made once and kept.

`python -m utils.explanation_study --study full` (`make explain`) explains one network, the single
model that the study chose, in seven ways, and writes a table for each to
`results/<study>/explanation/`:

- `truth.csv`: maps of phantoms against their opacities, beside maps that see no model;
- `other_images.csv`: maps of ill children against maps of healthy ones, by the same network;
- `randomisation.csv`: maps after the weights are randomised layer by layer from the output on;
- `random_labels.csv`: maps of a network that was trained on shuffled labels;
- `faithfulness.csv`: deletion and insertion, in the order of a map and in orders that see no model;
- `stability.csv`: maps of images that were shifted or brightened and are called as before;
- `attention.csv`: where the energy of maps lies that come from robust and from plain training.

Each table is kept with what it was made from. An interrupted run goes on with the image, or the
table, that it was at.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter, shift
from sklearn.metrics import roc_auc_score

from utils import heat_map_measures as measures
from utils.common.constants import IMAGE_SIZE, NORMAL, PNEUMONIA
from utils.common.files import keep_table, read_json, write_csv
from utils.common.paths import dataset_dir, predictions_dir, results_dir
from utils.common.progress import track
from utils.common.study import Study, load_study
from utils.data.images import load_images
from utils.data.index import build_index, open_study_index
from utils.data.regions import inside_frame, lung_template
from utils.explanation import (
    METHODS,
    NOISE,
    NOISE_SEED,
    NOISY_COPIES,
    STRONGEST_CHANNELS,
    build_explainer,
    build_explainers,
    default_layer,
)
from utils.explanation_networks import (
    LEVELS,
    RANDOM_LABEL_IMAGES,
    Explained,
    find_explained,
    random_label_recipe,
    randomise_in_steps,
    taught_recipe,
    teach_phantoms,
    train_on_random_labels,
)
from utils.models.prediction import predict_images
from utils.phantoms.sets import PHANTOM_VERSION, load_opacity_mask, write_phantom_dataset
from utils.selection.final_models import final_name, network_file

TABLES = (
    "truth", "other_images", "randomisation", "random_labels", "faithfulness", "stability",
    "attention",
)  # fmt: skip
BASELINES = ("random", "centre", "edges")
"""Maps that see no model; any method has to beat them."""
NO_NETWORK = "none"
"""Stands for the network of a map that sees none."""
ROBUST, PLAIN = "lite0_96_robust", "lite0_96_reference"
"""Candidates whose attention is compared: the same network and budget, other augmentation."""
SHIFT, BRIGHTER = 8, 1.1
"""Pixels by which an image is shifted, and the factor by which it is brightened, or darkened."""
MOVED = 0.05
"""A prediction has stayed where it was if its probability moved by no more than this."""
BORDER, CORNER = 1 / 8, 1 / 5
"""Shares of the side: of a frame around the image, and of a square in each corner."""
_BLUR = 16
"""Standard deviation of the blur that deletes detail, in pixels."""
_ROUND = 5


def explanation_dir(study: str) -> Path:
    """Return the folder of a study's tables about heat maps."""
    return results_dir(study) / "explanation"


def explain_study(study: Study, tables: Sequence[str] = TABLES) -> dict[str, pd.DataFrame]:
    """Make the tables that are not kept yet; return all that were asked for, by name.

    Args:
        study: The study; where its tables are kept, neither data nor network is needed.
        tables: Of `TABLES`.

    Raises:
        ValueError: if there is no such table.
    """
    if unknown := sorted(set(tables) - set(_MAKERS)):
        raise ValueError(f"there is no table {unknown[0]!r}; choose of {', '.join(TABLES)}")
    return {name: _MAKERS[name](study) for name in tables}


def _keep(study: Study, name: str, made_from: Mapping[str, Any], make: Callable) -> pd.DataFrame:
    return keep_table(explanation_dir(study.study) / f"{name}.csv", made_from, make)


def _row_by_row(
    study: Study,
    name: str,
    made_from: Mapping[str, Any],
    image_ids: Sequence[str],
    make: Callable[[int], list[dict[str, Any]]],
) -> pd.DataFrame:
    """Make the rows of a table image by image, so that an interrupted run can go on.

    What is done lies in `.<name>-unfinished.csv`, with a key in each row: of its image, and of
    what the table is made from, so that nothing is taken over from another network.

    Args:
        study: The study.
        name: Of the table.
        made_from: What the table depends on.
        image_ids: One an image.
        make: From the number of an image to its rows.
    """
    file = explanation_dir(study.study) / f".{name}-unfinished.csv"
    source = sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:12]
    keys = [f"{source} {image_id}" for image_id in image_ids]
    done = pd.read_csv(file) if file.is_file() else pd.DataFrame({"key": []})
    if not set(done.key) <= set(keys):
        done = done.iloc[:0]
    parts = [done]
    missing = [number for number, key in enumerate(keys) if key not in set(done.key)]
    for count, number in enumerate(track(missing, name, len(missing)), start=1):
        parts.append(pd.DataFrame(make(number)).assign(key=keys[number]))
        if count % 10 == 0:
            parts = [pd.concat(parts, ignore_index=True)]
            write_csv(file, parts[0])
    file.unlink(missing_ok=True)
    table = pd.concat(parts, ignore_index=True).drop(columns="key")
    return table.round(_ROUND)


# --- Images ----------------------------------------------------------------------------------


def known_phantoms(study: Study) -> tuple[Path, pd.DataFrame]:
    """Render phantoms that no network was trained on; return their root and index."""
    count = study.known_phantoms
    root = write_phantom_dataset(dataset_dir(f"known_phantoms_{count}"), count, seed=7)
    return root, build_index(root, seed=0, validation_fraction=0.5)


def _open_test_images(study: Study) -> tuple[Path, pd.DataFrame]:
    root, index = open_study_index(study)
    return root, index[index.split == "test"]


def draw_test_images(study: Study) -> tuple[Path, pd.DataFrame]:
    """Draw test images, classes alike; return the root and the rows of the index."""
    root, test = _open_test_images(study)
    each = min(study.explained_images // 2, *test.label.value_counts())
    drawn = test.groupby("label").sample(each, random_state=study.seed)
    return root, drawn.sort_values("image_id", ignore_index=True)


def _load(root: Path, images: pd.DataFrame) -> np.ndarray:
    return load_images(root, images.image_id).astype(np.float32)


def _images_key(study: Study) -> dict[str, Any]:
    dataset = read_json(results_dir(study.study) / "provenance" / "resnet50.json")["dataset"]
    return {"dataset": dataset["fingerprint"], "images": study.explained_images}


def _maps_key(explained: Explained) -> dict[str, Any]:
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
        "centre": measures.centre_map(gray.shape),
        "edges": measures.edge_map(gray),
    }


def _maps_of(
    image: np.ndarray, explainers: Mapping[str, Callable], class_index: int = PNEUMONIA
) -> dict[str, np.ndarray]:
    """Return the (224, 224) maps of one image by every method, from `build_explainers`."""
    return {name: explain(image[None], class_index)[0] for name, explain in explainers.items()}


def _cells(network: keras.Model) -> int:
    return network.get_layer(default_layer(network)).output.shape[1]


# --- The tables ------------------------------------------------------------------------------


def measure_truth(study: Study) -> pd.DataFrame:
    """Return how maps of ill phantoms meet their opacities.

    A network that was trained on radiographs need not know phantoms, and then its maps cannot
    point at their opacities. So the same recipe is also trained on other phantoms ("taught"): its
    maps test the methods, those of the explained network say what it makes of phantoms.

    Returns:
        A row an image, network and map (methods), and an image and baseline (no network):
        image_id, patient_id, etiology, mask_share, network, auc (of the network on all known
        phantoms), probability, map, energy_inside, pointing_hit, iou.
    """
    explained, recipe = find_explained(study.study), taught_recipe(study)
    made_from = _maps_key(explained) | {
        "phantoms": [PHANTOM_VERSION, study.known_phantoms], "taught": recipe.describe(),
    }  # fmt: skip

    def make() -> pd.DataFrame:
        root, known = known_phantoms(study)
        networks = {explained.title: explained.load(), "taught": teach_phantoms(study, recipe)}
        everything = _load(root, known)
        probabilities = {
            name: predict_images(network, everything) for name, network in networks.items()
        }
        auc = {name: roc_auc_score(known.label, found) for name, found in probabilities.items()}
        explainers = {name: build_explainers(network) for name, network in networks.items()}
        cells = _cells(networks["taught"])
        ill = np.flatnonzero(known.label == PNEUMONIA)

        def measure(number: int) -> list[dict[str, Any]]:
            place = ill[number]
            image, row = everything[place], known.iloc[place]
            mask = load_opacity_mask(root, row.image_id)
            maps = {name: _maps_of(image, explainers[name]) for name in networks}
            maps[NO_NETWORK] = baseline_maps(image, cells, number)
            return [
                {
                    "image_id": row.image_id, "patient_id": row.patient_id,
                    "etiology": row.etiology, "mask_share": measures.mask_share(mask),
                    "network": name, "auc": auc.get(name),
                    "probability": probabilities[name][place] if name in networks else None,
                    "map": method,
                    "energy_inside": measures.energy_inside_mask(cam, mask),
                    "pointing_hit": measures.pointing_hit(cam, mask),
                    "iou": measures.iou_at_otsu(cam, mask),
                }
                for name in maps
                for method, cam in maps[name].items()
            ]  # fmt: skip

        return _row_by_row(study, "truth", made_from, known.image_id.iloc[ill].tolist(), measure)

    return _keep(study, "truth", made_from, make)


def _likeness(
    first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Return how like two networks' maps of one image are, a row a method."""
    rows = []
    for method, cam in first.items():
        spearman, ssim = measures.similarity(cam, second[method])
        rows.append({"map": method, "spearman": spearman, "ssim": ssim})
    return rows


def measure_other_images(study: Study) -> pd.DataFrame:
    """Return how like the map of an ill child is to that of a healthy one, by the same network.

    A likeness that any two images share says nothing of the image, nor of the network.

    Returns:
        A row a pair and method: image_id and patient_id of the ill child, healthy_id of the other
        one's image, map, spearman, ssim.
    """
    explained = find_explained(study.study)
    made_from = _maps_key(explained) | _images_key(study)

    def make() -> pd.DataFrame:
        root, images = draw_test_images(study)
        ill, healthy = images[images.label == PNEUMONIA], images[images.label == NORMAL]
        explainers = build_explainers(explained.load())
        pixels = [_load(root, part) for part in (ill, healthy)]

        def measure(number: int) -> list[dict[str, Any]]:
            row = ill.iloc[number]
            first, second = (_maps_of(part[number], explainers) for part in pixels)
            return [
                {
                    "image_id": row.image_id, "patient_id": row.patient_id,
                    "healthy_id": healthy.image_id.iloc[number],
                } | likeness
                for likeness in _likeness(first, second)
            ]  # fmt: skip

        return _row_by_row(study, "other_images", made_from, ill.image_id.tolist(), measure)

    return _keep(study, "other_images", made_from, make)


def measure_randomisation(study: Study) -> pd.DataFrame:
    """Return how much of the maps is left when the weights are randomised step by step.

    Returns:
        A row an image, step and method: image_id, patient_id, step, layer, map, spearman, ssim.
    """
    explained = find_explained(study.study)
    made_from = _maps_key(explained) | _images_key(study) | {"levels": LEVELS}

    def make() -> pd.DataFrame:
        root, images = draw_test_images(study)
        pixels, network = _load(root, images), explained.load()
        explainers = build_explainers(network)
        randomised = {
            layer: build_explainers(random)
            for layer, random in randomise_in_steps(network, study.seed)
        }

        def measure(number: int) -> list[dict[str, Any]]:
            row, first = images.iloc[number], _maps_of(pixels[number], explainers)
            return [
                {
                    "image_id": row.image_id, "patient_id": row.patient_id,
                    "step": step, "layer": layer,
                } | likeness
                for step, (layer, random) in enumerate(randomised.items(), start=1)
                for likeness in _likeness(first, _maps_of(pixels[number], random))
            ]  # fmt: skip

        return _row_by_row(study, "randomisation", made_from, images.image_id.tolist(), measure)

    return _keep(study, "randomisation", made_from, make)


def measure_random_labels(study: Study) -> pd.DataFrame:
    """Return how like the maps are to those of a network that was trained on shuffled labels.

    Such a network has learned its training images by heart and nothing of pneumonia: its training
    accuracy is noted, because only a network that fits its labels has learned something.

    Returns:
        A row an image and method: image_id, patient_id, training_accuracy, map, spearman, ssim.
    """
    explained, recipe = find_explained(study.study), random_label_recipe(study)
    made_from = _maps_key(explained) | _images_key(study) | {
        "recipe": recipe.describe(), "training_images": RANDOM_LABEL_IMAGES,
    }  # fmt: skip

    def make() -> pd.DataFrame:
        root, images = draw_test_images(study)
        pixels, explainers = _load(root, images), build_explainers(explained.load())
        network, accuracy = train_on_random_labels(study, recipe)
        by_heart = build_explainers(network)

        def measure(number: int) -> list[dict[str, Any]]:
            row, image = images.iloc[number], pixels[number]
            return [
                {
                    "image_id": row.image_id, "patient_id": row.patient_id,
                    "training_accuracy": accuracy,
                } | likeness
                for likeness in _likeness(_maps_of(image, explainers), _maps_of(image, by_heart))
            ]  # fmt: skip

        return _row_by_row(study, "random_labels", made_from, images.image_id.tolist(), measure)

    return _keep(study, "random_labels", made_from, make)


def measure_faithfulness(study: Study) -> pd.DataFrame:
    """Return what deleting and inserting pixels in the order of a map does to the prediction.

    Explained is the class that the network calls, and so is the probability.

    Returns:
        A row an image and order (methods, random and centre): image_id, patient_id, map,
        deletion, insertion: areas under the curves.
    """
    explained = find_explained(study.study)

    made_from = _maps_key(explained) | _images_key(study) | {"blur": _BLUR}

    def make() -> pd.DataFrame:
        root, images = draw_test_images(study)
        pixels, network = _load(root, images), explained.load()
        explainers, cells = build_explainers(network), _cells(network)
        called = (predict_images(network, pixels) >= 0.5).astype(int)

        def measure(number: int) -> list[dict[str, Any]]:
            image, row = pixels[number], images.iloc[number]
            orders = _maps_of(image, explainers, called[number])
            orders |= baseline_maps(image, cells, number)
            blurred = gaussian_filter(image, (_BLUR, _BLUR, 0))
            predict = partial(_predict_class, network, called[number])
            rows = []
            for name, order in orders.items():
                deletion, insertion = measures.faithfulness(predict, image, order, blurred)
                rows.append({
                    "image_id": row.image_id, "patient_id": row.patient_id, "map": name,
                    "deletion": measures.area_under(deletion),
                    "insertion": measures.area_under(insertion),
                })  # fmt: skip
            return rows

        return _row_by_row(study, "faithfulness", made_from, images.image_id.tolist(), measure)

    return _keep(study, "faithfulness", made_from, make)


def _predict_class(network: keras.Model, class_index: int, images: np.ndarray) -> np.ndarray:
    probability = predict_images(network, images)
    return probability if class_index == PNEUMONIA else 1 - probability


def small_changes(image: np.ndarray) -> dict[str, tuple[np.ndarray, tuple[int, int]]]:
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
    """Return how like a map stays under changes that leave the prediction where it was.

    Returns:
        A row an image, change and method, where the probability moved by `MOVED` at most:
        image_id, patient_id, map, change, spearman, ssim.
    """
    explained = find_explained(study.study)

    made_from = _maps_key(explained) | _images_key(study) | {
        "shift": SHIFT, "brighter": BRIGHTER, "moved": MOVED,
    }  # fmt: skip

    def make() -> pd.DataFrame:
        root, images = draw_test_images(study)
        pixels, network = _load(root, images), explained.load()
        explainers, probability = build_explainers(network), predict_images(network, pixels)

        def measure(number: int) -> list[dict[str, Any]]:
            row, changes = images.iloc[number], small_changes(pixels[number])
            views = np.stack([pixels[number], *(view for view, _ in changes.values())])
            moved = np.abs(predict_images(network, views[1:]) - probability[number])
            rows = []
            for name, explain in explainers.items():
                maps = explain(views, PNEUMONIA)
                for place, (change, (_, move)) in enumerate(changes.items()):
                    if moved[place] > MOVED:
                        continue
                    pair = _overlap_of(maps[0], maps[place + 1], move)
                    spearman, ssim = measures.similarity(*pair)
                    rows.append({
                        "image_id": row.image_id, "patient_id": row.patient_id, "map": name,
                        "change": change, "spearman": spearman, "ssim": ssim,
                    })  # fmt: skip
            return rows

        return _row_by_row(study, "stability", made_from, images.image_id.tolist(), measure)

    return _keep(study, "stability", made_from, make)


def regions_of_interest() -> dict[str, np.ndarray]:
    """Return (224, 224) masks: the border, the corners, where markers are, and the lungs."""
    place = (np.arange(IMAGE_SIZE) + 0.5) / IMAGE_SIZE
    outer = (place < CORNER) | (place >= 1 - CORNER)
    return {
        "border": ~inside_frame(IMAGE_SIZE, BORDER),
        "corners": outer[:, None] & outer[None, :],
        "lungs": lung_template(IMAGE_SIZE),
    }


def measure_attention(study: Study) -> pd.DataFrame:
    """Return where Grad-CAM's energy lies on all test images, by network and outcome.

    Networks are the explained one, and two that differ in their augmentation alone, where the
    study has finished them.

    Returns:
        A row an image and network: image_id, patient_id, network, y_true, called, maximum, and the
        share of the energy in each of `regions_of_interest`; empty where a map is zero.
    """
    explained, seed = find_explained(study.study), study.final_seeds[0]
    names = [
        final_name(name, seed)
        for name in (ROBUST, PLAIN)
        if (predictions_dir(study.study) / f"{final_name(name, seed)}.csv").is_file()
    ]

    def make() -> pd.DataFrame:
        root, test = _open_test_images(study)
        pixels, regions = _load(root, test), regions_of_interest()
        others = [Explained(name, network_file(study.study, name)) for name in names]
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
                "called": (predict_images(network, pixels) >= 0.5).astype(int),
                "maximum": maps.max((1, 2)),
            } | shares))  # fmt: skip
        return pd.concat(parts, ignore_index=True).round(_ROUND)

    made_from = explained.describe() | {
        "dataset": _images_key(study)["dataset"], "networks": names,
        "border": BORDER, "corner": CORNER,
    }  # fmt: skip
    return _keep(study, "attention", made_from, make)


_MAKERS: dict[str, Callable[[Study], pd.DataFrame]] = {
    "truth": measure_truth,
    "other_images": measure_other_images,
    "randomisation": measure_randomisation,
    "random_labels": measure_random_labels,
    "faithfulness": measure_faithfulness,
    "stability": measure_stability,
    "attention": measure_attention,
}


def main() -> None:
    """Make the tables from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="full")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    arguments = parser.parse_args()
    for name, table in explain_study(load_study(arguments.study), arguments.tables).items():
        sys.stdout.write(f"{name}: {len(table):,} rows\n")


if __name__ == "__main__":
    main()
