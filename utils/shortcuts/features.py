"""Shortcut features: numbers of a whole radiograph that tell the classes apart without a lung."""

from typing import Any

import keras
import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from utils.common.files import cached_table
from utils.common.paths import results_dir, table_file
from utils.common.provenance import read_provenance
from utils.common.study import Study
from utils.data.index import open_study_index
from utils.data.regions import FRAME, inside_frame
from utils.data.splits import load_development_images

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
CUES_SIZE = 96
AT_ONCE = 64


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
    for start in range(0, len(images), AT_ONCE):
        part = images[start : start + AT_ONCE].astype(np.float32)
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


def cues_made_from(study: Study) -> dict[str, Any]:
    """Return what a kept table of cues depends on."""
    dataset = read_provenance(results_dir(study.study), "resnet50")["dataset"]
    return {"dataset": dataset, "cues": list(CUES), "size": CUES_SIZE}


def measure_training_cues(study: Study) -> pd.DataFrame:
    """Return how well each cue of `CUES` ranks the classes on the training split.

    Kept in `results/<study>/cues.csv`; measured on gray images of 96 pixels.

    Args:
        study: The study, whose ResNet50 has been trained: its record says which data
            set the numbers are of.

    Returns:
        A row per cue: cue, title, roc_auc, best first.
    """

    def make() -> pd.DataFrame:
        root, index = open_study_index(study)
        train = index[index.split == "train"]
        cues = measure_cues(load_development_images(root, train, CUES_SIZE))
        scores = score_cues(cues, train.label.to_numpy()).sort_values(ascending=False)
        return pd.DataFrame({
            "cue": scores.index, "title": scores.index.map(CUES), "roc_auc": scores.round(4),
        })  # fmt: skip

    return cached_table(table_file(study.study, "cues"), cues_made_from(study), make)
