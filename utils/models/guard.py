"""Is this a chest radiograph at all? A detector of images unlike those in training.

A network makes a prediction for any image. The detector compares the features of an image with
those of training images: the largest cosine similarity to any of them, after a projection to the
directions in which training images vary most (nearest neighbors: Sun et al. 2022). The limit is
set on validation images, of which a stated share is flagged. It belongs to the shipped small
model and guards every model of `make demo`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter

from utils.common.constants import IMAGE_SIZE
from utils.common.files import write_atomically
from utils.data.images import load_image
from utils.models.registry import ModelError

if TYPE_CHECKING:
    import keras

REFERENCES, DIRECTIONS = 500, 64
FALSE_POSITIVE_RATE = 0.03
"""Proportion of the validation images that the limit flags; the demo allows 5% at most."""
_PHOTOGRAPHS = {
    "skimage": (
        "data/astronaut.png", "data/brick.png", "data/camera.png", "data/cell.png",
        "data/chelsea.png", "data/clock_motion.png", "data/coffee.png", "data/coins.png",
        "data/color.png", "data/grass.png", "data/gravel.png", "data/horse.png",
        "data/hubble_deep_field.jpg", "data/ihc.png", "data/logo.png", "data/moon.png",
        "data/motorcycle_left.png", "data/page.png", "data/retina.jpg", "data/rocket.jpg",
        "data/text.png",
    ),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
    "matplotlib": ("mpl-data/sample_data/grace_hopper.jpg",),
}  # fmt: skip
"""Images that packages of the study carry; among them a retina, a tissue section and cells."""
_NOISE_IMAGES, _SEED = 10, 0


@dataclass(frozen=True)
class OutOfDistributionDetector:
    """Tells images unlike the training images from the others, by their features."""

    directions: np.ndarray
    """(directions, features) float32, orthonormal."""
    references: np.ndarray
    """(references, directions) float32: projected features of training images."""
    limit: float
    """Largest distance that still counts as known."""

    def measure_distance(self, features: np.ndarray) -> np.ndarray:
        """Return 1 less the largest similarity to a training image, (n,) in [0, 2].

        Args:
            features: (n, features), from `build_feature_model` or `OnnxNetwork.measure_features`.
        """
        return 1 - (_project(features, self.directions) @ self.references.T).max(axis=1)

    def is_out_of_distribution(self, features: np.ndarray) -> np.ndarray:
        """Say which images are unlike all training images, (n,) bool."""
        return self.measure_distance(features) > self.limit

    def save(self, file: Path) -> None:
        """Write the detector to an `.npz` file, atomically, in half precision."""
        with write_atomically(file) as temporary, open(temporary, "wb") as stream:
            np.savez_compressed(
                stream,
                directions=self.directions.astype(np.float16),
                references=self.references.astype(np.float16),
                limit=np.float64(self.limit),
            )


def load_detector(file: Path) -> OutOfDistributionDetector:
    """Read a detector.

    Raises:
        ModelError: if there is none, or the file holds something else.
    """
    try:
        with np.load(file, allow_pickle=False) as content:
            return OutOfDistributionDetector(
                content["directions"].astype(np.float32),
                content["references"].astype(np.float32),
                float(content["limit"]),
            )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{file} is no detector ({error}); restore it with git") from error


def fit_detector(
    training: np.ndarray, validation: np.ndarray, seed: int
) -> OutOfDistributionDetector:
    """Fit a detector.

    Args:
        training: (n, features) of training images.
        validation: (m, features) of images of other patients, which set the limit.
        seed: Of the draw of references.

    Returns:
        The detector as it is read back from its file.
    """
    # Directions from the origin, not from the mean: similarity is an angle at the origin.
    directions = np.linalg.svd(_normalize(training), full_matrices=False)[2][:DIRECTIONS]
    directions = directions.astype(np.float16).astype(np.float32)
    drawn = np.random.default_rng(seed).permutation(len(training))[:REFERENCES]
    references = _project(training[drawn], directions).astype(np.float16).astype(np.float32)
    unlimited = OutOfDistributionDetector(directions, references, np.inf)
    limit = np.quantile(unlimited.measure_distance(validation), 1 - FALSE_POSITIVE_RATE)
    return OutOfDistributionDetector(directions, references, float(limit))


def _normalize(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, np.float32)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.divide(features, length, out=np.zeros_like(features), where=length > 0)


def _project(features: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return unit features in the directions; what lies outside of them counts as unlike."""
    return _normalize(features) @ directions.T


def build_feature_model(network: "keras.Model") -> "keras.Model":
    """Return the part of a network of ours up to its features, the mean over positions."""
    import keras  # the features of the shipped network come from ONNX Runtime, too

    return keras.Model(network.inputs, network.get_layer("mean_over_places").output)


def make_out_of_distribution_images() -> dict[str, np.ndarray]:
    """Return images that are no radiographs of a chest, by kind.

    Returns:
        (n, 224, 224, 3) uint8 RGB in [0, 255] each: `photographs` and drawings that come with
        scikit-image, scikit-learn and matplotlib; `noise`, white, normal and smooth; `flat`,
        black, gray and white, a ramp and a chessboard.
    """
    photographs = [
        load_image(Path(str(resources.files(package) / name)))
        for package, names in _PHOTOGRAPHS.items()
        for name in names
    ]
    random = np.random.default_rng(_SEED)
    shape = (IMAGE_SIZE, IMAGE_SIZE)
    noise: list[np.ndarray] = []
    for number in range(_NOISE_IMAGES):
        noise.append(random.uniform(0, 255, shape))
        noise.append(random.normal(128, 40, shape))
        smooth = gaussian_filter(random.normal(0, 1, shape), 6 + 3 * number)
        noise.append(128 + 60 * smooth / smooth.std())
    ramp = np.tile(np.linspace(0, 255, IMAGE_SIZE), (IMAGE_SIZE, 1))
    squares = np.arange(IMAGE_SIZE) // 28
    chessboard = 255.0 * ((squares[:, None] + squares) % 2)
    flat = [np.full(shape, value) for value in (0, 128, 255)] + [ramp, chessboard]
    return {
        "photographs": np.stack(photographs),
        "noise": _to_rgb(noise),
        "flat": _to_rgb(flat),
    }


def _to_rgb(images: list[np.ndarray]) -> np.ndarray:
    gray = np.stack(images).round().clip(0, 255).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=-1)


def measure_rates(
    detector: OutOfDistributionDetector, measure_features: Callable[[np.ndarray], np.ndarray]
) -> dict[str, float]:
    """Return the proportion of each kind of out-of-distribution image that the detector flags.

    Args:
        detector: To judge.
        measure_features: From (n, 224, 224, 3) images in [0, 255] to (n, features).
    """
    return {
        kind: round(float(detector.is_out_of_distribution(measure_features(images)).mean()), 4)
        for kind, images in make_out_of_distribution_images().items()
    }
