"""Fit the guard of the released network, and measure what it flags and what it misses.

Part of `make release`, and alone `make release GUARD=1`. `utils.models.guard` says what the guard
is; it is written beside the network, and what was measured to `results/<study>/guard.csv`.
Everything is fitted on training patients, and each limit set on training patients whom the fitted
part has not seen. Validation, test, adults and foreign images are measured and choose nothing.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from utils.common.constants import SCORED_SPLITS
from utils.common.files import file_sha256, read_json, write_csv, write_json
from utils.common.paths import table_file
from utils.common.progress import track
from utils.common.study import Study
from utils.data.images import DatasetError, load_images
from utils.data.index import dataset_fingerprint, open_study_index
from utils.data.nih_adults import open_nih_adults
from utils.evaluation.intervals import binomial_interval
from utils.models.export import without_ten_crops
from utils.models.guard import CONSTANT, FOREIGN, POSES, Guard, measure_contrast, normalize, project
from utils.models.onnx_export import build_onnx
from utils.models.onnx_scoring import OnnxNetwork
from utils.models.registry import RECORD, Scorer, guard_file, open_shipped_model
from utils.tools.foreign import make_foreign_images

logger = logging.getLogger(__name__)

REFERENCES, DIRECTIONS = 500, 64
FOLDS = 5
FOREIGN_RATE, POSE_RATE = 0.02, 0.01
"""Proportions of training radiographs beyond each limit; all remarks together may be 5%."""
CONSTANT_SHARE = 0.25
"""Of the lowest contrast of a training radiograph: an image with less is nearly constant."""
REGULARIZATION = 0.01
"""`C` of the pose layer's L2 penalty, on standardized features."""
TABLE = "guard"
_TURNS = {pose: (number % 4, number > 3, False) for number, pose in enumerate(POSES)} | {
    "mirrored": (0, False, True),
    "mirrored_90": (1, False, True),
    "mirrored_180": (2, False, True),
    "mirrored_270": (3, False, True),
}
"""Quarter turns counterclockwise, whether as a negative, and whether mirrored before."""
_NAMED = frozenset(POSES[1:])
"""Poses that a remark names."""
_AT_ONCE = 64


def turn_images(images: np.ndarray, kind: str) -> np.ndarray:
    """Return images as they look in another pose, (n, size, size, 3) uint8.

    Args:
        images: (n, size, size, 3) uint8 in [0, 255].
        kind: One of `POSES`, or `mirrored`, left to right, alone or before a rotation.
    """
    turns, is_negative, is_mirrored = _TURNS[kind]
    turned = np.rot90(images[:, :, ::-1] if is_mirrored else images, turns, axes=(1, 2))
    return np.ascontiguousarray(255 - turned if is_negative else turned)


def measure_features(network: OnnxNetwork, images: np.ndarray, kind: str, title: str) -> np.ndarray:
    """Return the features of images in a pose, (n, features) float32."""
    starts = range(0, len(images), _AT_ONCE)
    return np.concatenate([
        network.measure_features(turn_images(images[start : start + _AT_ONCE], kind))
        for start in track(starts, f"features, {title}, {kind}", len(starts))
    ])  # fmt: skip


def fit_guard(
    features: np.ndarray, contrast: np.ndarray, labels: Sequence[int], groups: Sequence[str],
    seed: int,
) -> Guard:  # fmt: skip
    """Fit a guard, with limits from cross-fitting: each patient is measured by the others.

    Args:
        features: (8, n, features) of training images in each of `POSES`.
        contrast: (n,) of `measure_contrast`.
        labels: (n,) classes, of which each fold gets its share.
        groups: (n,) patients, none of whom is on both sides of a fold.
        seed: Of the draw of references.

    Returns:
        The guard as it is read back from its file.
    """
    distances, upright = np.empty(len(contrast)), np.empty(len(contrast))
    folds = StratifiedGroupKFold(FOLDS).split(contrast, labels, groups)
    for known, held_out in track(folds, "folds of the guard", FOLDS):
        fitted = _fit_without_limits(features[:, known], seed)
        distances[held_out] = fitted.measure_distance(features[0, held_out])
        upright[held_out] = fitted.estimate_poses(features[0, held_out])[:, 0]
    fitted = _fit_without_limits(features, seed)
    return Guard(
        fitted.directions, fitted.references, float(np.quantile(distances, 1 - FOREIGN_RATE)),
        fitted.weights, fitted.bias, float(np.quantile(upright, POSE_RATE)),
        float(CONSTANT_SHARE * contrast.min()),
    )  # fmt: skip


def _fit_without_limits(features: np.ndarray, seed: int) -> Guard:
    """Return a guard that flags nothing."""
    upright = features[0]
    # Directions from the origin, not from the mean: similarity is an angle at the origin.
    directions = np.linalg.svd(normalize(upright), full_matrices=False)[2][:DIRECTIONS]
    directions = directions.astype(np.float16).astype(np.float32)
    drawn = np.random.default_rng(seed).permutation(len(upright))[:REFERENCES]
    references = project(upright[drawn], directions).astype(np.float16).astype(np.float32)
    weights, bias = _fit_poses(features)
    return Guard(directions, references, np.inf, weights, bias, 0.0, 0.0)


def _fit_poses(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (features, 8) and bias (8,) that tell the poses apart, both float32."""
    rows = features.reshape(-1, features.shape[-1])
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    deviation[deviation == 0] = 1
    layer = LogisticRegression(C=REGULARIZATION, max_iter=1000)
    layer.fit((rows - mean) / deviation, np.repeat(np.arange(len(POSES)), features.shape[1]))
    weights = (layer.coef_ / deviation).T
    return weights.astype(np.float32), (layer.intercept_ - mean @ weights).astype(np.float32)


def measure_guard(guard: Guard, network: OnnxNetwork, study: Study) -> pd.DataFrame:
    """Return what a guard flags of images that chose nothing of it.

    Args:
        guard: To measure.
        network: Whose features it knows.
        study: Of the radiographs; adults of another hospital are measured where they are there.

    Returns:
        A row for each kind of images: `images`, `kind`, number `n`; `flagged`, the proportion with
        any remark, with its exact interval `low` and `high` by image; the proportions with each
        remark, `constant`, `foreign` and `pose`; `right`, the proportion whose pose is named.
    """
    rows = []
    for name, images in _open_radiographs(study).items():
        for kind in _TURNS:
            findings = guard.judge(images, measure_features(network, images, kind, name))
            rows.append(count_findings(name, kind, findings))
    for kind, images in make_foreign_images().items():
        findings = guard.judge(images, network.measure_features(images))
        rows.append(count_findings("foreign", kind, findings))
    return pd.DataFrame(rows)


def _open_radiographs(study: Study) -> dict[str, np.ndarray]:
    root, index = open_study_index(study)
    found = {
        split: load_images(root, index.image_id[index.split == split]) for split in SCORED_SPLITS
    }
    try:
        root, index = open_nih_adults()
        found["adults"] = load_images(root, index.image_id)
    except DatasetError as error:
        logger.warning("adults are not measured: %s", error)
    return found


def count_findings(name: str, kind: str, findings: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    """Return a row of the table."""
    number = len(findings)
    flagged = sum(map(bool, findings))
    low, high = binomial_interval(flagged, number)
    expected = kind.replace("mirrored_", "rotated_")
    shares = {
        "flagged": flagged / number, "low": low, "high": high,
        CONSTANT: sum(CONSTANT in found for found in findings) / number,
        FOREIGN: sum(FOREIGN in found for found in findings) / number,
        "pose": sum(not _NAMED.isdisjoint(found) for found in findings) / number,
        "right": sum(expected in found for found in findings) / number
        if expected in _NAMED else None,
    }  # fmt: skip
    rounded = {key: value if value is None else round(value, 6) for key, value in shares.items()}
    return {"images": name, "kind": kind, "n": number} | rounded


def open_whole_image(scorer: Scorer) -> OnnxNetwork:
    """Open a released network without its ten crops: the same features, in a tenth of the time."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / scorer.onnx.name
        file.write_bytes(build_onnx(without_ten_crops(scorer.load())).SerializeToString())
        return OnnxNetwork(file)


def release_guard(study: Study) -> Path:
    """Fit the guard of the released network, write and record it, measure it, return its file.

    Args:
        study: On whose training images the network was trained.

    Raises:
        DatasetError: if they are not there, or are others.
    """
    released = open_shipped_model()
    network, file = open_whole_image(released), guard_file(released.onnx)
    root, index = open_study_index(study)
    record = released.file.parent / RECORD
    models = read_json(record)
    if models[released.name]["dataset"]["fingerprint"] != dataset_fingerprint(index):
        raise DatasetError(
            f"{root} is not the data that {released.name} was trained on: its guard would judge by "
            "other images; make data, and name the study of the network: STUDY=full"
        )
    rows = index[index.split == "train"]
    images = load_images(root, rows.image_id)
    features = np.stack([measure_features(network, images, pose, "train") for pose in POSES])
    patients = rows.patient_id.where(rows.patient_id != "", rows.image_id)
    guard = fit_guard(features, measure_contrast(images), rows.label, patients, study.seed)
    guard.save(file)
    models[released.name]["guard"] = {"file": file.name, "sha256": file_sha256(file)}
    write_json(record, models)
    write_csv(table_file(study.study, TABLE), measure_guard(guard, network, study))
    return file
