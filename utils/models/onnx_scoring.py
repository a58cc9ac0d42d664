"""The released network on ONNX Runtime: probabilities, features and heat maps without TensorFlow.

The file is written by `utils.models.onnx_export`, which says what is in it.
"""

import base64
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.common.constants import CLASS_NAMES

# ONNX Runtime otherwise keeps an identifier and a database below the user's home, and reports from
# there to its maker: what it runs on, by which program, and which model. It asks once, at import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime  # noqa: E402

INPUT, PROBABILITIES, FEATURES = "image", "probabilities", "features"
"""Names in the file: (n, 224, 224, 3) RGB in [0, 255]; (n, 2); (n, rows, columns, channels)."""
WHOLE_IMAGE = "whole_image"
"""Where `probabilities` are those of ten crops: the same (n, 2) of the image as a whole."""
CLASS_WEIGHTS = "class_weights"
"""Key of the file's metadata: (channels, 2) half precision in base64, of the last layer."""
IMAGES_AT_ONCE = 4
"""More cost memory and save no time."""


class OnnxNetwork:
    """A network in an ONNX file, ready to score; it stands where a Keras model does."""

    def __init__(self, file: Path, plain: bool = False) -> None:
        """Open a file of `onnx_export`; `plain` answers by the whole image and not by ten crops."""
        self._session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        self.ten_crops = WHOLE_IMAGE in [output.name for output in self._session.get_outputs()]
        self._answer = WHOLE_IMAGE if plain and self.ten_crops else PROBABILITIES
        self.input_shape = (None, *self._session.get_inputs()[0].shape[1:])
        encoded = self._session.get_modelmeta().custom_metadata_map[CLASS_WEIGHTS]
        weights = np.frombuffer(base64.b64decode(encoded), "<f2").astype(np.float32)
        self.class_weights = weights.reshape(-1, len(CLASS_NAMES))

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        """Return the probabilities of both classes, (n, 2) float32.

        Args:
            images: (n, 224, 224, 3) RGB in [0, 255]; the same for the other methods.
        """
        return self._run(images, [self._answer])[0]

    def measure_features(self, images: np.ndarray) -> np.ndarray:
        """Return the mean over places of the last feature map, (n, channels) float32."""
        return self._run(images, [FEATURES])[0].mean(axis=(1, 2))

    def predict_with_features(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what `predict_on_batch` and `measure_features` return, from one run."""
        probabilities, features = self._run(images, [self._answer, FEATURES])
        return probabilities, features.mean(axis=(1, 2))

    def map_class(self, images: np.ndarray, class_index: int) -> np.ndarray:
        """Return class activation maps, (n, rows, columns) float32, not negative.

        The last layer is linear in the mean over places, so that its weights times the feature map
        say what each place adds to the class score (Zhou et al. 2016). This is Grad-CAM of that
        score, in the same units.

        Args:
            images: To explain.
            class_index: Class to explain.
        """
        features = self._run(images, [FEATURES])[0]
        places = features.shape[1] * features.shape[2]
        return np.maximum(features @ self.class_weights[:, class_index] / places, 0)

    def explain(self, images: np.ndarray, class_index: int) -> np.ndarray:
        """Return `map_class` enlarged to (n, 224, 224), bilinearly between the centers of cells."""
        cells = self.map_class(images, class_index)
        rows, columns = (
            resize_matrix(source, target)
            for source, target in zip(cells.shape[1:], images.shape[1:3], strict=True)
        )
        return rows @ cells @ columns.T

    def _run(self, images: np.ndarray, outputs: Sequence[str]) -> list[np.ndarray]:
        parts = [
            self._session.run(list(outputs), {INPUT: part.astype(np.float32)})
            for part in np.split(images, range(IMAGES_AT_ONCE, len(images), IMAGES_AT_ONCE))
        ]
        return [np.concatenate(values) for values in zip(*parts, strict=True)]


def resize_matrix(source: int, target: int) -> np.ndarray:
    """Return the matrix that resizes one side of an image, (target, source) float32.

    Bilinear between the centers of pixels, antialiased where it reduces: the triangle is as wide as
    a pixel of the result. `rows @ image @ columns.T` is TensorFlow's `resize(antialias=True)`.

    Args:
        source: Pixels of the side before.
        target: Pixels of the side after.
    """
    scale = source / target
    centers = (np.arange(target) + 0.5) * scale
    distance = np.abs(np.arange(source) + 0.5 - centers[:, None]) / max(scale, 1)
    weights = np.maximum(1 - distance, 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
