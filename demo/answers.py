"""What a model answers to one image: probability, heat map, and what the guard finds."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from utils.common.constants import CLASS_NAMES, IMAGE_SIZE, NORMAL, PNEUMONIA
from utils.data.images import resize_image
from utils.evaluation.calibration import apply_temperature
from utils.evaluation.thresholds import is_positive
from utils.models.guard import GuardedNetwork, open_guard
from utils.models.onnx_scoring import OnnxNetwork
from utils.models.prediction import predict_guarded
from utils.models.registry import ModelError, Network, Scorer

CLASS_ACTIVATION_MAP, GRAD_CAM = "class activation map", "Grad-CAM"


@dataclass(frozen=True)
class Answer:
    """What is said about one image."""

    probability: float
    """Of PNEUMONIA, as `make predict` writes it."""
    calibrated_probability: float
    label: str
    heat: np.ndarray
    """(height, width) float32, not negative: heat map for the label, in units of its score."""
    pixels: np.ndarray
    """(height, width, 3) uint8 RGB in [0, 255]: the image as the model receives it."""
    findings: tuple[str, ...]
    """Of the guard: keys of `guard.REMARKS`."""


class Answerer:
    """A model that is ready to answer, one image at a time."""

    def __init__(self, scorer: Scorer, network: Network, guarded: GuardedNetwork) -> None:
        """Let the model answer once: the first answer of Keras takes seconds.

        Args:
            scorer: Model that answers.
            network: Of `scorer.open()`.
            guarded: Guard that looks at the images.

        Raises:
            ModelError: if no layer of the model can be explained.
        """
        self.scorer = scorer
        self._network, self._guarded = network, guarded
        self._explain = choose_explainer(network)
        # One image at a time: all processors work for it, and memory stays bounded.
        self._turn = threading.Lock()
        self.answer(np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8))

    @property
    def explained(self) -> str:
        """What the heat map is."""
        return CLASS_ACTIVATION_MAP if isinstance(self._network, OnnxNetwork) else GRAD_CAM

    @property
    def calibrated_threshold(self) -> float:
        """The threshold after calibration, for the calibrated probability."""
        return float(apply_temperature(self.scorer.threshold, self.scorer.temperature))

    def answer(self, pixels: np.ndarray) -> Answer:
        """Return what the model predicts for an image.

        Args:
            pixels: (height, width) or (height, width, 3) uint8 in [0, 255], of any size.
        """
        seen = resize_image(pixels, self._network.input_shape[1:3])
        batch, known = seen[None], resize_image(pixels)[None]
        with self._turn:
            probabilities, findings = predict_guarded(self._network, batch, self._guarded, known)
            probability = float(probabilities[0])
            label = PNEUMONIA if is_positive(probability, self.scorer.threshold) else NORMAL
            heat = self._explain(batch.astype(np.float32), label)[0]
        return Answer(
            probability,
            float(apply_temperature(probability, self.scorer.temperature)),
            CLASS_NAMES[label],
            heat,
            seen,
            findings[0],
        )


def choose_explainer(network: Network) -> Callable[[np.ndarray, int], np.ndarray]:
    """Return a function from images and a class to maps, as `heat_maps.build_explainer` does.

    The class activation map of the released network is its Grad-CAM, and needs no gradient.

    Raises:
        ModelError: if no layer of the network can be explained.
    """
    if isinstance(network, OnnxNetwork):
        return network.explain
    from utils.explanation.heat_maps import build_explainer  # loads TensorFlow

    try:
        return build_explainer(network)
    except ValueError as error:
        raise ModelError(f"{error}; make predict can use it, which draws no map") from error


def load_answerer(scorer: Scorer) -> Answerer:
    """Return a model ready to answer, with the guard of the released model.

    Raises:
        ModelError: if the model cannot be loaded or explained, or the released network, by whose
            features the guard judges, or the guard is not there.
    """
    network = scorer.open()
    return Answerer(scorer, network, open_guard(scorer, network))
