"""Whether heat maps can be believed: the tables of notebook 10, made once and kept.

`python -m utils.explanation_study --study full` (`make explain`) explains one network, the single
model that the study chose, in six ways, and writes a table for each to
`results/<study>/explanation/`:

- `truth.csv`: maps of phantoms against their opacities, beside maps that see no model;
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from utils.candidate_list import find_candidate
from utils.candidates import Candidate, predict_images, train_candidate
from utils.dataset import build_index, load_images, open_dataset
from utils.development import development_index, load_development_images
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
from utils.facts import IMAGE_SIZE, PNEUMONIA
from utils.files import file_sha256, read_json, write_csv
from utils.final_scores import SHIPPED_MODEL
from utils.finalists import export_full_size, final_name, network_file
from utils.kept import keep_table
from utils.paths import dataset_dir, models_dir, predictions_dir, results_dir
from utils.phantoms import PHANTOM_VERSION, load_opacity_mask, write_phantom_dataset
from utils.progress import track
from utils.registry import open_shipped_model
from utils.selection import choices_file
from utils.shortcuts import inside_frame, lung_template
from utils.study import Study, load_study

TABLES = (
    "truth", "randomisation", "random_labels", "faithfulness", "stability", "attention",
)  # fmt: skip
BASELINES = ("random", "centre", "edges")
"""Maps that see no model; any method has to beat them."""
NO_NETWORK = "none"
"""Stands for the network of a map that sees none."""
TAUGHT_SHARE = 2
"""Phantoms that a network is taught with, for each known one."""
ROBUST, PLAIN = "lite0_96_robust", "lite0_96_reference"
"""Candidates whose attention is compared: the same network and budget, other augmentation."""
LEVELS = 5
"""Steps of the cascade: the layers with weights in so many groups, from output to input."""
RANDOM_LABEL_IMAGES, RANDOM_LABEL_EPOCHS = 500, 60
"""Few images and many epochs, so that the network can learn shuffled labels by heart."""
SHIFT, BRIGHTER = 8, 1.1
"""Pixels by which an image is shifted, and the factor by which it is brightened, or darkened."""
MOVED = 0.05
"""A prediction has stayed where it was if its probability moved by no more than this."""
BORDER, CORNER = 1 / 8, 1 / 5
"""Shares of the side: of a frame around the image, and of a square in each corner."""
_BLUR = 16
"""Standard deviation of the blur that deletes detail, in pixels."""
_ROUND = 5


@dataclass(frozen=True)
class Explained:
    """The network that is explained."""

    name: str
    file: Path

    @property
    def title(self) -> str:
        """What it is called in tables."""
        return self.name.removeprefix("final/")

    def load(self) -> keras.Model:
        """Return the network, from (n, 224, 224, 3) RGB in [0, 255] to probabilities."""
        return keras.models.load_model(self.file, compile=False, safe_mode=True)

    def describe(self) -> dict[str, str]:
        """Return what a table that is made from the network depends on."""
        return {"network": self.name, "sha256": file_sha256(self.file)}


def explanation_dir(study: str) -> Path:
    """Return the folder of a study's tables about heat maps."""
    return results_dir(study) / "explanation"


def find_explained(study: str) -> Explained:
    """Return the single model that a study chose: as it ships, or as it was trained here.

    Raises:
        ModelError: if the shipped file is not the recorded one.
    """
    if (predictions_dir(study) / "final" / f"{SHIPPED_MODEL}.csv").is_file():
        return Explained(SHIPPED_MODEL, open_shipped_model().file)
    single = read_json(choices_file(study))["single"]
    name = final_name(single, load_study(study).final_seeds[0])
    return Explained(name, network_file(study, name))


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


def _open_split(study: Study, split: str) -> tuple[Path, pd.DataFrame]:
    """Return the root of the study's data set and the rows of one split."""
    root = open_dataset(study.dataset_name)
    index = build_index(root, study.seed, study.validation_fraction)
    return root, index[index.split == split]


def draw_test_images(study: Study) -> tuple[Path, pd.DataFrame]:
    """Draw test images, classes alike; return the root and the rows of the index."""
    root, test = _open_split(study, "test")
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
    explained, recipe = find_explained(study.study), _taught_recipe(study)
    made_from = _maps_key(explained) | {
        "phantoms": [PHANTOM_VERSION, study.known_phantoms], "taught": recipe.describe(),
    }  # fmt: skip

    def make() -> pd.DataFrame:
        root, known = known_phantoms(study)
        networks = {explained.title: explained.load(), "taught": _teach_phantoms(study, recipe)}
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
            maps = {
                (name, method): explain(image[None], PNEUMONIA)[0]
                for name in networks
                for method, explain in explainers[name].items()
            }
            for method, seen in baseline_maps(image, cells, number).items():
                maps[NO_NETWORK, method] = seen
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
                for (name, method), cam in maps.items()
            ]  # fmt: skip

        return _row_by_row(study, "truth", made_from, known.image_id.iloc[ill].tolist(), measure)

    return _keep(study, "truth", made_from, make)


def _taught_recipe(study: Study) -> Candidate:
    """Return the single model's recipe, under a name of its own."""
    single = find_candidate(read_json(choices_file(study.study))["single"])
    epochs = study.candidate_epochs or single.epochs
    return replace(single, name=f"{single.name}_phantoms", epochs=epochs)


def _teach_phantoms(study: Study, recipe: Candidate) -> keras.Model:
    """Return a full-size network that was trained on other phantoms than the known ones."""
    count = TAUGHT_SHARE * study.known_phantoms
    root = write_phantom_dataset(dataset_dir(f"taught_phantoms_{count}"), count, seed=8)
    index = development_index(build_index(root, seed=0, validation_fraction=0.5))
    images = load_development_images(root, index, recipe.size)
    return _train_full_size(study, recipe, images, index.label.to_numpy())[0]


def _train_full_size(
    study: Study, recipe: Candidate, images: np.ndarray, labels: np.ndarray
) -> tuple[keras.Model, keras.Model]:
    """Train a recipe; return the network at full size, and as it was trained."""
    folder = models_dir(study.study)
    trained, _ = train_candidate(
        recipe, images, labels, study.seed, folder / f"{recipe.name}.h5", recipe.name
    )
    return export_full_size(recipe, trained, folder / f"{recipe.name}.keras"), trained


def randomise_in_steps(network: keras.Model, seed: int) -> Iterator[tuple[str, keras.Model]]:
    """Yield copies of a network whose weights are random from the output down to some layer.

    Cascading randomisation of Adebayo et al. 2018. Kernels are drawn anew by the standard
    deviation that they have, so that activations keep their size; other weights are shuffled.

    Args:
        network: Stays as it is.
        seed: Of the draws.

    Yields:
        The first layer that is random, and the network; the same copy each time, changed further.
    """
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    random = np.random.default_rng(seed)
    weighted = [layer for layer in copy.layers if layer.weights][::-1]
    # The output layer alone is the first step; the others share the rest alike.
    groups = [[0], *np.array_split(np.arange(1, len(weighted)), LEVELS - 1)]
    for places in groups:
        for place in places:
            layer = weighted[place]
            layer.set_weights([_randomise(value, random) for value in layer.get_weights()])
        yield layer.name, copy


def _randomise(value: np.ndarray, random: np.random.Generator) -> np.ndarray:
    if value.ndim > 1:
        return random.normal(0, value.std(), value.shape).astype(value.dtype)
    return random.permutation(value)


def _compare_with(
    first: Mapping[str, np.ndarray], network: keras.Model, pixels: np.ndarray,
    images: pd.DataFrame, **columns: Any,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return the likeness of a network's maps to maps that were made before, a row an image."""
    rows = []
    for name, explain in build_explainers(network).items():
        second = explain(pixels, PNEUMONIA)
        for number, (one, other) in enumerate(zip(first[name], second, strict=True)):
            spearman, ssim = measures.similarity(one, other)
            row = images.iloc[number]
            rows.append(
                {"image_id": row.image_id, "patient_id": row.patient_id, "map": name}
                | columns | {"spearman": spearman, "ssim": ssim}
            )  # fmt: skip
    return rows


def _all_maps(network: keras.Model, pixels: np.ndarray) -> dict[str, np.ndarray]:
    return {
        name: explain(pixels, PNEUMONIA).astype(np.float16).astype(np.float32)
        for name, explain in build_explainers(network).items()
    }


def measure_randomisation(study: Study) -> pd.DataFrame:
    """Return how much of the maps is left when the weights are randomised step by step.

    Returns:
        A row an image, method and step: image_id, patient_id, map, step, layer, spearman, ssim.
    """
    explained = find_explained(study.study)

    def make() -> pd.DataFrame:
        root, images = draw_test_images(study)
        pixels, network = _load(root, images), explained.load()
        first = _all_maps(network, pixels)
        rows = []
        for step, (layer, random) in enumerate(randomise_in_steps(network, study.seed), start=1):
            rows += _compare_with(first, random, pixels, images, step=step, layer=layer)
        return pd.DataFrame(rows).round(_ROUND)

    made_from = _maps_key(explained) | _images_key(study) | {"levels": LEVELS}
    return _keep(study, "randomisation", made_from, make)


def _random_label_recipe(study: Study) -> Candidate:
    single = find_candidate(read_json(choices_file(study.study))["single"])
    epochs = RANDOM_LABEL_EPOCHS if study.candidate_epochs is None else study.candidate_epochs
    return replace(
        single, name=f"{single.name}_random_labels", transforms=(), epochs=epochs,
        label_smoothing=0.0, dropout=0.0, class_weights=False,
    )  # fmt: skip


def measure_random_labels(study: Study) -> pd.DataFrame:
    """Return how like the maps are to those of a network that was trained on shuffled labels.

    Such a network has learned its training images by heart and nothing of pneumonia: its training
    accuracy is noted, because only a network that fits its labels has learned something.

    Returns:
        A row an image and method: image_id, patient_id, map, training_accuracy, spearman, ssim.
    """
    explained, recipe = find_explained(study.study), _random_label_recipe(study)

    def make() -> pd.DataFrame:
        root, images = draw_test_images(study)
        pixels = _load(root, images)
        first = _all_maps(explained.load(), pixels)
        network, accuracy = _train_on_random_labels(study, recipe)
        rows = _compare_with(
            first, network, pixels, images, training_accuracy=round(accuracy, _ROUND)
        )
        return pd.DataFrame(rows).round(_ROUND)

    made_from = _maps_key(explained) | _images_key(study) | {
        "recipe": recipe.describe(), "training_images": RANDOM_LABEL_IMAGES,
    }  # fmt: skip
    return _keep(study, "random_labels", made_from, make)


def _train_on_random_labels(study: Study, recipe: Candidate) -> tuple[keras.Model, float]:
    """Return a full-size network that fits shuffled labels, and how well it does."""
    root, train = _open_split(study, "train")
    train = train.sample(min(RANDOM_LABEL_IMAGES, len(train)), random_state=study.seed)
    labels = np.random.default_rng(study.seed).permutation(train.label.to_numpy())
    images = load_development_images(root, train, recipe.size)
    network, trained = _train_full_size(study, recipe, images, labels)
    predicted = predict_images(trained, images) >= 0.5
    return network, float((predicted == labels).mean())


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
            orders = {
                name: explain(image[None], called[number])[0]
                for name, explain in explainers.items()
            }
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
        root, test = _open_split(study, "test")
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
