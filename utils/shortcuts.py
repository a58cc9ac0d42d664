"""Shortcuts, measured: what tells the classes apart without a lung, and how far places differ."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from utils.common.constants import CLASS_NAMES, PNEUMONIA
from utils.common.kept import keep_table, prediction_hashes
from utils.common.paths import models_dir, results_dir
from utils.common.progress import track
from utils.common.provenance import read_provenance
from utils.common.study import load_study
from utils.dataset import load_images, open_study_index, patient_number
from utils.development import load_development_images, reduce_images
from utils.evaluation import SCORED_SPLITS, evaluate_predictions

CUES = {
    "mean": "mean intensity",
    "percentile_99": "99th percentile of intensity",
    "top_third": "mean of the top third",
    "contrast": "standard deviation",
    "fine_band": "standard deviation of the 1-4 pixel band",
    "coarse_band": "standard deviation of the 4-16 pixel band",
    "frame_mean": "mean of a frame of an eighth",
    "frame_contrast": "standard deviation of a frame of an eighth",
}
"""Numbers of a whole radiograph, none of which needs a lung, by their titles."""

_LUNGS = ((0.31, 0.47, 0.17, 0.30), (0.69, 0.47, 0.17, 0.30))
"""Centre and half axes of each lung, as shares of width and height: a template, not a
segmentation. It is the same for all images, so it misses rotated and very small chests."""
REGIONS = ("whole image", "border covered", "lungs only", "lungs removed")
FRAME = 1 / 8
CUES_SIZE = 96
_PREDICTED_AS = {"resnet50_best_model": "resnet50"}
"""Name of the prediction file of a network whose file is called otherwise."""
_FOLDS = 5
_AT_ONCE = 64


def _blur(images: np.ndarray, pixels: int) -> np.ndarray:
    """Return (n, h, w, 1) images without detail below some pixels: shrunk and enlarged again."""
    height, width = images.shape[1:3]
    small = keras.ops.image.resize(images, (height // pixels, width // pixels), antialias=True)
    return keras.ops.convert_to_numpy(keras.ops.image.resize(small, (height, width)))


def measure_cues(images: np.ndarray) -> pd.DataFrame:
    """Return every cue of `CUES`, a column each.

    Args:
        images: (n, size, size, 1) gray in [0, 255], size a multiple of 16.
    """
    frame = ~inside_frame(images.shape[1], FRAME)
    parts = []
    for start in range(0, len(images), _AT_ONCE):
        part = images[start : start + _AT_ONCE].astype(np.float32)
        flat = part[..., 0]
        fine, middle = part - _blur(part, 4), _blur(part, 4) - _blur(part, 16)
        parts.append(pd.DataFrame({
            "mean": flat.mean((1, 2)),
            "percentile_99": np.percentile(flat, 99, axis=(1, 2)),
            "top_third": flat[:, : flat.shape[1] // 3].mean((1, 2)),
            "contrast": flat.std((1, 2)),
            "fine_band": fine.std((1, 2, 3)),
            "coarse_band": middle.std((1, 2, 3)),
            "frame_mean": flat[:, frame].mean(1),
            "frame_contrast": flat[:, frame].std(1),
        }))  # fmt: skip
    return pd.concat(parts, ignore_index=True)[list(CUES)]


def score_cues(cues: pd.DataFrame, labels: np.ndarray) -> pd.Series:
    """Return how well each cue alone ranks the classes: its AUC in the better direction."""
    scores = {name: roc_auc_score(labels, cues[name]) for name in cues}
    return pd.Series({name: max(score, 1 - score) for name, score in scores.items()})


def _cues_made_from(study: str) -> dict[str, Any]:
    """Return what a kept table of cues depends on."""
    dataset = read_provenance(results_dir(study), "resnet50")["dataset"]
    return {"dataset": dataset, "cues": CUES, "size": CUES_SIZE}


def measure_training_cues(study: str) -> pd.DataFrame:
    """Return how well each cue of `CUES` ranks the classes on the training split.

    Kept in `results/<study>/cues.csv`; measured on gray images of 96 pixels.

    Args:
        study: Name of the study, whose ResNet50 has been trained: its record says which data
            set the numbers are of.

    Returns:
        A row a cue: cue, title, roc_auc, best first.
    """

    def make() -> pd.DataFrame:
        root, index = open_study_index(load_study(study))
        train = index[index.split == "train"]
        cues = measure_cues(load_development_images(root, train, CUES_SIZE))
        scores = score_cues(cues, train.label.to_numpy()).sort_values(ascending=False)
        return pd.DataFrame({
            "cue": scores.index, "title": scores.index.map(CUES), "roc_auc": scores.round(4),
        })  # fmt: skip

    return keep_table(results_dir(study) / "cues.csv", _cues_made_from(study), make)


def inside_frame(size: int, margin: float) -> np.ndarray:
    """Return (size, size) bool: what a frame of some share leaves over."""
    place = (np.arange(size) + 0.5) / size
    kept = (place >= margin) & (place < 1 - margin)
    return kept[:, None] & kept[None, :]


def lung_template(size: int) -> np.ndarray:
    """Return (size, size) bool: where the lungs of a well placed chest lie."""
    place = (np.arange(size) + 0.5) / size
    y, x = place[:, None], place[None, :]
    mask = np.zeros((size, size), bool)
    for centre_x, centre_y, half_x, half_y in _LUNGS:
        mask |= ((x - centre_x) / half_x) ** 2 + ((y - centre_y) / half_y) ** 2 <= 1
    return mask


def cover_region(images: np.ndarray, region: str) -> np.ndarray:
    """Replace what is not wanted by the image's own mean, so that exposure stays as it is.

    Args:
        images: (n, size, size, channels) in [0, 255].
        region: One of `REGIONS`.

    Returns:
        float32 images of the same shape.

    Raises:
        ValueError: if the region is unknown.
    """
    size = images.shape[1]
    masks = {
        "whole image": np.ones((size, size), bool),
        "border covered": inside_frame(size, FRAME),
        "lungs only": lung_template(size),
        "lungs removed": ~lung_template(size),
    }
    if region not in masks:
        raise ValueError(f"there is no region {region!r}; choose one of {', '.join(REGIONS)}")
    images = images.astype(np.float32)
    mean = images.mean((1, 2), keepdims=True)
    return np.where(masks[region][None, :, :, None], images, mean)


def measure_regions(study: str, names: Sequence[str], resamples: int, seed: int) -> pd.DataFrame:
    """Return what finished models make of test images of which a part is covered.

    Kept in `results/<study>/regions.csv`. The template of the lungs is the same for all images.

    Args:
        study: Name of the study.
        names: Of finished models whose networks were exported on this machine.
        resamples: Bootstrap resamples of patients.
        seed: Of the resamples.

    Returns:
        A row a model and region: model, region, roc_auc, low, high.

    Raises:
        FileNotFoundError: if nothing is kept and a network is not there.
    """
    made_from = {
        "dataset": read_provenance(results_dir(study), "resnet50")["dataset"],
        "models": prediction_hashes(study, [_PREDICTED_AS.get(name, name) for name in names]),
        "networks": list(names), "regions": list(REGIONS), "resamples": resamples, "seed": seed,
    }  # fmt: skip

    def make() -> pd.DataFrame:
        root, index = open_study_index(load_study(study))
        test = index[index.split == "test"].rename(columns={"label": "y_true"})
        pixels = load_images(root, test.image_id)
        rows = []
        for name in names:
            network = keras.models.load_model(models_dir(study) / f"{name}.keras", compile=False)
            for region in REGIONS:
                probability = _predict_region(network, pixels, region, f"{name}, {region}")
                scored = test.assign(probability=probability)
                auc = evaluate_predictions(scored, 0.5, resamples, seed)["roc_auc"]
                rows.append((name.removeprefix("final/"), region, *auc.values()))
        columns = ["model", "region", "roc_auc", "low", "high"]
        return pd.DataFrame(rows, columns=columns).round(4)

    return keep_table(results_dir(study) / "regions.csv", made_from, make)


def _predict_region(
    network: keras.Model, pixels: np.ndarray, region: str, title: str
) -> np.ndarray:
    parts = [
        network.predict_on_batch(cover_region(pixels[start : start + _AT_ONCE], region))
        for start in track(range(0, len(pixels), _AT_ONCE), title, -(-len(pixels) // _AT_ONCE))
    ]
    return np.concatenate(parts)[:, PNEUMONIA].astype(np.float64)


def measure_places(study: str) -> pd.DataFrame:
    """Return how well the cues alone tell the test set from the training split.

    Kept in `results/<study>/places.csv`. Classes are measured apart, because the splits hold
    different shares of them; validation against training is the control, which should be near
    0.5.

    Args:
        study: Name of the study.

    Returns:
        A row a class and split: class, split, roc_auc.
    """

    def make() -> pd.DataFrame:
        root, index = open_study_index(load_study(study))
        cues = measure_cues(reduce_images(load_images(root, index.image_id), CUES_SIZE))
        rows = []
        for label, class_name in enumerate(CLASS_NAMES):
            for split in SCORED_SPLITS:
                chosen = (index.split.isin(("train", split)) & (index.label == label)).to_numpy()
                elsewhere = (index.split == split).to_numpy()[chosen]
                auc = tell_places_apart(
                    cues[chosen].to_numpy(),
                    elsewhere,
                    index.patient_id[chosen],
                    load_study(study).seed,
                )
                rows.append((class_name, split, round(auc, 4)))
        return pd.DataFrame(rows, columns=["class", "split", "roc_auc"])

    return keep_table(results_dir(study) / "places.csv", _cues_made_from(study), make)


def tell_places_apart(
    features: np.ndarray, elsewhere: np.ndarray, patient_ids: Sequence[str], seed: int
) -> float:
    """Return how well a logistic regression tells images of one place from those of another.

    An AUC of 0.5 says that the places cannot be told apart, 1 that every image gives its place
    away. Labels of disease are not used. Cross-validated, patients kept together.

    Args:
        features: (n, k) of the images, such as cues or a network's pooled activations.
        elsewhere: (n,) bool: which images are from the other place.
        patient_ids: (n,) patients; one patient's images are in one fold.
        seed: Of the folds.
    """
    patients = pd.Series(list(patient_ids)).map(patient_number)
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    probability = cross_val_predict(
        model, features, elsewhere, groups=patients, cv=folds, method="predict_proba"
    )[:, 1]
    return float(roc_auc_score(elsewhere, probability))
