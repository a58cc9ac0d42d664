"""What the released model says of an image besides its prediction: the guard of predict and demo.

A network makes a prediction for any image. The guard says of an image that it is nearly constant,
unlike any chest radiograph of the training, or probably a negative or rotated. It judges by the
features of the released network, the mean over positions of its last feature map, and belongs to
that network alone; `utils.tools.guard` fits it and measures what it flags and misses.

- Distance: the features, scaled to unit length and projected on `directions`, are compared with
  those of training images; one less the largest similarity is the distance (nearest neighbors: Sun
  et al. 2022). Beyond `limit`, the image is unlike all of them.
- Pose: `features @ weights + bias`, and its softmax over the eight `POSES`. Where the upright
  positive pose has less than `pose_limit`, the most probable other one is named.
- Nearly constant: the standard deviation of the gray levels is below `constant_limit`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.common.files import write_atomically
from utils.models.registry import ModelError, Network, Scorer, open_shipped_model

if TYPE_CHECKING:
    from utils.models.onnx_scoring import OnnxNetwork

POSES = (
    "upright", "rotated_90", "rotated_180", "rotated_270",
    "negative", "negative_90", "negative_180", "negative_270",
)  # fmt: skip
"""The positive image and its negative, each turned by 0, 90, 180 and 270 degrees counterclockwise
(`numpy.rot90`), in the order of the columns of `weights`."""
CONSTANT, FOREIGN = "constant", "foreign"
MEANINGLESS = (CONSTANT, FOREIGN)
"""Findings after which the prediction means nothing."""
REMARKS = {
    CONSTANT: "nearly constant: there is next to nothing to see, and its probability means nothing",
    FOREIGN: "unlike any chest radiograph of the training: its probability means nothing",
    "rotated_90": "probably rotated: turn it by 90 degrees clockwise",
    "rotated_180": "probably upside down: turn it by 180 degrees",
    "rotated_270": "probably rotated: turn it by 90 degrees counterclockwise",
    "negative": "probably a negative: invert it",
    "negative_90": "probably a negative, rotated: invert it and turn it by 90 degrees clockwise",
    "negative_180": "probably a negative, upside down: invert it and turn it by 180 degrees",
    "negative_270": (
        "probably a negative, rotated: invert it and turn it by 90 degrees counterclockwise"
    ),
}
"""What is said of an image, by finding."""
IF_ONE = "if it is a chest radiograph, it is "
"""Before the remark on the pose of an image that is unlike all radiographs."""


@dataclass(frozen=True)
class Guard:
    """Judges images by their pixels and by their features."""

    directions: np.ndarray
    """(directions, features) float32, orthonormal."""
    references: np.ndarray
    """(references, directions) float32: projected unit features of training images."""
    limit: float
    """Largest distance that still counts as known."""
    weights: np.ndarray
    """(features, 8) float32, from features as they are to the scores of the poses."""
    bias: np.ndarray
    """(8,) float32."""
    pose_limit: float
    """Smallest probability of the upright positive pose that counts as such."""
    constant_limit: float
    """Smallest standard deviation of gray levels in [0, 255] that counts as a picture."""

    def measure_distance(self, features: np.ndarray) -> np.ndarray:
        """Return 1 less the largest similarity to a training image, (n,) in [0, 2].

        Args:
            features: (n, features), from `OnnxNetwork.measure_features`; so for `judge`.
        """
        return 1 - (project(features, self.directions) @ self.references.T).max(axis=1)

    def estimate_poses(self, features: np.ndarray) -> np.ndarray:
        """Return the probability of each pose, (n, 8)."""
        scores = features @ self.weights + self.bias
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def judge(self, pixels: np.ndarray, features: np.ndarray) -> list[tuple[str, ...]]:
        """Return what is found in each image, as keys of `REMARKS`; nothing in an ordinary one.

        Of a nearly constant image nothing else is said: its features are those of no picture.

        Args:
            pixels: (n, 224, 224, 3) RGB in [0, 255].
            features: Of the same images.
        """
        is_constant = measure_contrast(pixels) < self.constant_limit
        is_foreign = self.measure_distance(features) > self.limit
        poses = self.estimate_poses(features)
        is_turned = poses[:, 0] < self.pose_limit
        named = 1 + poses[:, 1:].argmax(axis=1)
        found: list[tuple[str, ...]] = []
        for row in range(len(pixels)):
            if is_constant[row]:
                found.append((CONSTANT,))
                continue
            foreign = (FOREIGN,) if is_foreign[row] else ()
            found.append(foreign + ((POSES[named[row]],) if is_turned[row] else ()))
        return found

    def save(self, file: Path) -> None:
        """Write the guard to an `.npz` file, atomically, most of it in half precision."""
        with write_atomically(file) as temporary, open(temporary, "wb") as stream:
            np.savez_compressed(
                stream,
                directions=self.directions.astype(np.float16),
                references=self.references.astype(np.float16),
                limit=np.float64(self.limit),
                weights=self.weights.astype(np.float32),
                bias=self.bias.astype(np.float32),
                pose_limit=np.float64(self.pose_limit),
                constant_limit=np.float64(self.constant_limit),
            )


def load_guard(file: Path) -> Guard:
    """Read a guard.

    Raises:
        ModelError: if there is none, or the file holds something else.
    """
    try:
        with np.load(file, allow_pickle=False) as content:
            return Guard(
                content["directions"].astype(np.float32),
                content["references"].astype(np.float32),
                float(content["limit"]),
                content["weights"],
                content["bias"],
                float(content["pose_limit"]),
                float(content["constant_limit"]),
            )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{file} is no guard ({error}); restore it with git") from error


def normalize(features: np.ndarray) -> np.ndarray:
    """Scale features to unit length; zeros stay zeros."""
    features = np.asarray(features, np.float32)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.divide(features, length, out=np.zeros_like(features), where=length > 0)


def project(features: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return unit features in the directions; what lies outside of them counts as unlike."""
    return normalize(features) @ directions.T


def measure_contrast(pixels: np.ndarray) -> np.ndarray:
    """Return the standard deviation of the gray levels of images, (n,) in [0, 127.5].

    Args:
        pixels: (n, height, width, 3) RGB in [0, 255]; gray is the mean of the three.
    """
    return pixels.mean(axis=3, dtype=np.float32).std(axis=(1, 2))


def describe(findings: Sequence[str]) -> tuple[str, ...]:
    """Return what is said of an image.

    Args:
        findings: Of `Guard.judge`.
    """
    remarks = [REMARKS[finding] for finding in findings]
    if FOREIGN in findings:
        remarks[1:] = [IF_ONE + remark for remark in remarks[1:]]
    return tuple(remarks)


@dataclass(frozen=True)
class GuardedNetwork:
    """A guard, and the network by whose features it judges."""

    network: "OnnxNetwork"
    guard: Guard


def open_guard(scorer: Scorer, network: Network) -> GuardedNetwork:
    """Return the guard of the released model; it looks at what other models score, too.

    Args:
        scorer: Model that scores.
        network: Of `scorer.open()`; where it is the released one, one run gives both scores and
            features.

    Raises:
        ModelError: if the released network or its guard is not there.
    """
    from utils.models.onnx_scoring import OnnxNetwork  # not before the model has been named

    if scorer.guard is not None:
        return GuardedNetwork(network, load_guard(scorer.guard))
    released = open_shipped_model()
    if released.onnx is None or released.guard is None:
        raise ModelError("the released model has no guard; restore it: git checkout -- models")
    return GuardedNetwork(OnnxNetwork(released.onnx), load_guard(released.guard))
