"""Small data sets, predictions and models that the tests build themselves."""

from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers
from PIL import Image
from scipy.stats import norm

from utils.common.constants import PREDICTION_COLUMNS
from utils.common.paths import dataset_dir
from utils.common.study import Study, load_study

KAGGLE_NAMES = {
    "train/NORMAL": ["IM-{n:04}-0001.jpeg", "NORMAL2-IM-{n:04}-0001-0002.jpeg"],
    "train/PNEUMONIA": ["person{n}_bacteria_{n}.jpeg", "person{n}_virus_{n}.jpeg"],
}


def write_image(path: Path, value: int, size: int = 16) -> None:
    """Write a gray JPEG whose pixels depend on `value`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 256, (size, size), np.uint8)
    Image.fromarray(pixels).save(path, format="JPEG", quality=95)


def write_dataset(root: Path, numbers: range = range(1, 41), size: int = 16) -> Path:
    """Write a data set under Kaggle names: an image per patient number and kind, 8 of them test."""
    value = 0
    for folder, patterns in KAGGLE_NAMES.items():
        for pattern in patterns:
            for number in numbers:
                split = "test" if number % 5 == 0 else "train"
                path = root / folder.replace("train", split) / pattern.format(n=number)
                write_image(path, value, size)
                value += 1
    return root


def open_small_study(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Return the full study with a small data set and no results, both below a folder."""
    monkeypatch.setenv("DATA_DIR", str(folder / "data"))
    monkeypatch.setenv("RESULTS_DIR", str(folder / "results"))
    write_dataset(dataset_dir("chest_xray"), range(1, 21))
    return load_study("full")


def build_small_backbone(size: int = 224, channels: int = 4) -> keras.Model:
    """Build a frozen backbone that is fast at full image size: pool to 7 x 7, then two layers."""
    keras.utils.set_random_seed(0)
    image = keras.Input((size, size, 3), name="image")
    x = layers.Rescaling(1 / 255)(image)
    x = layers.AveragePooling2D(size // 7)(x)
    x = layers.Conv2D(channels, 3, padding="same", activation="relu", name="conv")(x)
    backbone = keras.Model(image, x, name="small")
    backbone.trainable = False
    return backbone


def make_predictions(
    patients: int = 20, images: int = 2, seed: int = 0, quality: float = 1.5, split: str = "test"
) -> pd.DataFrame:
    """Make predictions of `patients` normal, bacterial and viral patients each."""
    random = np.random.default_rng(seed)
    rows = []
    for etiology, family in (("normal", "IM"), ("bacteria", "person"), ("virus", "person")):
        label = int(etiology != "normal")
        for number in range(patients):
            severity = random.normal(quality * label)
            for image in range(images):
                score = severity + random.normal(scale=0.3)
                rows.append(
                    (
                        f"{split}/{family}-{number}-{etiology}-{image}.jpeg",
                        f"{family}-{number}-{etiology}",
                        split,
                        label,
                        round(float(norm.cdf(score - quality / 2)), 2),  # rounded: ties
                    )
                )
    return pd.DataFrame(rows, columns=list(PREDICTION_COLUMNS))


def make_study(patients: int = 15, seed: int = 0, quality: float = 1.5) -> pd.DataFrame:
    """Make the predictions of one model for both scored splits."""
    return pd.concat(
        [
            make_predictions(patients, seed=seed, quality=quality, split="validation"),
            make_predictions(patients, seed=seed + 1, quality=quality, split="test"),
        ],
        ignore_index=True,
    )


def without_patients(predictions: pd.DataFrame) -> pd.DataFrame:
    return predictions.assign(patient_id="")
