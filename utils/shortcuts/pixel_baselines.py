"""Pixel baselines: how far shortcuts get before any network has looked at an image.

Each is a logistic regression on a handful of pixel averages, trained on the train split alone.
They are scored on the test split like the networks, and feed no choice.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from utils.common.constants import SCORED_SPLITS
from utils.common.files import write_csv
from utils.common.paths import table_file
from utils.common.progress import track
from utils.data.images import load_image
from utils.evaluation.metrics import METRICS, evaluate_predictions
from utils.evaluation.predictions import patients_known
from utils.evaluation.tables import format_columns, interval_columns

BASELINES = {
    "majority_class": "majority class",
    "mean_intensity": "mean intensity",
    "border_frame": "border frame alone",
    "thumbnail": "8 x 8 thumbnail",
}
"""Every baseline and its title in tables."""
BASELINE_METRICS = ("roc_auc", "accuracy_at_0.5")

FRAME_WIDTH = 8
"""Width of the border frame, in pixels of 224: it shows collars and corners, hardly any lung."""
FRAME_SQUARE = 4
"""Side of the squares over which the frame is averaged, in pixels."""
THUMBNAIL_SIZE = 8
"""Side of the thumbnail, in pixels."""
_FOLDS = 5


def pixel_features(images: np.ndarray, kind: str) -> np.ndarray:
    """Reduce images to the features of one baseline.

    `majority_class` uses no pixel, a constant 0, from which a regression can only learn how
    frequent the classes are. `mean_intensity` is one average. `border_frame` is the outermost
    8 pixels on every side, averaged over squares of 4 x 4, row by row: 432 features for 224
    pixels. `thumbnail` is the gray image averaged down to 8 x 8, row by row: 64.

    Args:
        images: (n, size, size, 3) in [0, 255]; size a multiple of 8, at least 24.
        kind: A key of `BASELINES`.

    Returns:
        (n, features) float32 in [0, 255].
    """
    if kind not in BASELINES:
        raise ValueError(f"unknown baseline {kind!r}; choose one of {', '.join(BASELINES)}")
    size = images.shape[1] if images.ndim == 4 else 0
    if images.shape[1:] != (size, size, 3) or size <= 2 * FRAME_WIDTH or size % THUMBNAIL_SIZE:
        raise ValueError(
            f"images of shape {images.shape} cannot be reduced; pass (n, size, size, 3) with a "
            f"size that is a multiple of {THUMBNAIL_SIZE} and more than {2 * FRAME_WIDTH}"
        )
    if kind == "majority_class":
        return np.zeros((len(images), 1), np.float32)
    if kind == "mean_intensity":
        averages = _average_squares(images, size)
    elif kind == "thumbnail":
        averages = _average_squares(images, size // THUMBNAIL_SIZE)
    else:
        averages = _average_squares(images, FRAME_SQUARE)
        inside = slice(FRAME_WIDTH // FRAME_SQUARE, -FRAME_WIDTH // FRAME_SQUARE)
        frame = np.ones(averages.shape[1:], bool)
        frame[inside, inside] = False
        averages = averages[:, frame]
    return averages.reshape(len(images), -1).astype(np.float32)


def _average_squares(images: np.ndarray, side: int) -> np.ndarray:
    """Average (n, size, size, 3) over channels and squares; return (n, size/side, size/side)."""
    # Channel by channel: NumPy is slow at summing over an axis as short as 3.
    sums = sum(images[..., channel].astype(np.float64) for channel in range(3))
    count = images.shape[1] // side
    return sums.reshape(len(images), count, side, count, side).mean(axis=(2, 4)) / 3


def load_pixel_features(root: Path, index: pd.DataFrame) -> dict[str, np.ndarray]:
    """Read every image of the index once and return the features of each baseline.

    Only the features stay in memory: the real data set's pixels would take 900 MB.

    Args:
        root: Root of the data set.
        index: The image index.

    Returns:
        For each baseline (n, features) float32, in the order of the index.
    """

    def describe(image_id: str) -> dict[str, np.ndarray]:
        image = load_image(root / image_id)[None]
        return {kind: pixel_features(image, kind)[0] for kind in BASELINES}

    with ThreadPoolExecutor() as pool:
        described = pool.map(describe, index.image_id)
        rows = list(track(described, "reading images", len(index)))
    return {kind: np.stack([row[kind] for row in rows]) for kind in BASELINES}


def predict_pixel_baseline(
    features: np.ndarray, index: pd.DataFrame, scored_splits: Sequence[str] = SCORED_SPLITS
) -> pd.DataFrame:
    """Train one baseline on the train split and predict others.

    Args:
        features: (n, features) of the images of the index, in its order.
        index: The image index.
        scored_splits: Splits that are predicted.

    Returns:
        Predictions in the form of a prediction file: image_id, patient_id, split, y_true,
        probability of PNEUMONIA.
    """
    if len(features) != len(index):
        raise ValueError(f"features of {len(features)} images, but the index has {len(index)}")
    # In single precision, probabilities would not survive being written as text and read back.
    features = features.astype(np.float64)
    training = (index.split == "train").to_numpy()
    if index.label[training].nunique() < 2:
        raise ValueError("the train split needs images of both classes; build the index again")
    model = _build_regression()
    model.fit(features[training], index.label[training])
    scored = index.split.isin(scored_splits).to_numpy()
    predictions = index.loc[scored, ["image_id", "patient_id", "split"]]
    return predictions.assign(
        y_true=index.label[scored], probability=model.predict_proba(features[scored])[:, 1]
    )


def _build_regression() -> Pipeline:
    # Newton's method converges so far that processors agree in all digits anyone prints.
    regression = LogisticRegression(solver="newton-cholesky", tol=1e-8)
    return make_pipeline(StandardScaler(), regression)


def cross_predict_pixel_baseline(
    features: np.ndarray, index: pd.DataFrame, seed: int
) -> pd.DataFrame:
    """Predict the images of a data set by a baseline fitted within it, on other patients.

    Args:
        features: (n, features) of the images of the index, in its order.
        index: The image index, of one split.
        seed: Of the five folds.

    Returns:
        Predictions of all images; see `predict_pixel_baseline`.
    """
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    probability = cross_val_predict(
        _build_regression(), features.astype(np.float64), index.label, groups=index.patient_id,
        cv=folds, method="predict_proba",
    )[:, 1]  # fmt: skip
    predictions = index[["image_id", "patient_id", "split"]]
    return predictions.assign(y_true=index.label, probability=probability)


def score_pixel_baselines(
    features: dict[str, np.ndarray], index: pd.DataFrame, resamples: int, seed: int
) -> pd.DataFrame:
    """Train and score every pixel baseline.

    Args:
        features: From `load_pixel_features`.
        index: The image index.
        resamples: Bootstrap resamples behind each interval: of patients, or of images where
            patients are unknown.
        seed: Seed of the resamples.

    Returns:
        One row per baseline; for validation and test, ROC-AUC and accuracy at 0.5 with the bounds
        of the 95% interval: `test_roc_auc`, `test_roc_auc_low`, `test_roc_auc_high`, ...
    """
    rows = {}
    for kind in BASELINES:
        predictions = predict_pixel_baseline(features[kind], index)
        level = "patient" if patients_known(predictions) else "image"
        rows[kind] = {}
        for split in SCORED_SPLITS:
            part = predictions[predictions.split == split]
            metrics = evaluate_predictions(part, 0.5, resamples, seed, level=level)
            for metric in BASELINE_METRICS:
                rows[kind] |= interval_columns(f"{split}_{metric}", metrics[metric])
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("baseline")


def baselines_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the scores as strings for display, such as `0.89 [0.86, 0.91]`.

    Args:
        scores: From `score_pixel_baselines`.
    """
    columns = {
        f"{split} {METRICS[metric]}": format_columns(scores, f"{split}_{metric}", digits=2)
        for split in SCORED_SPLITS
        for metric in BASELINE_METRICS
    }
    return pd.DataFrame(columns, index=scores.index.map(BASELINES))


def write_scores(study_name: str, scores: pd.DataFrame) -> None:
    """Write the scores of a study's pixel baselines to `results/<study>/pixel_baselines.csv`."""
    write_csv(table_file(study_name, "pixel_baselines"), scores.round(6).reset_index())


def read_scores(results: Path) -> pd.DataFrame:
    """Read the scores of the pixel baselines from a study's results."""
    return pd.read_csv(results / "pixel_baselines.csv", index_col="baseline")
