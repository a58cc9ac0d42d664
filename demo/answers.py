"""What a model answers to one image: probability, heat map, and whether it is in distribution."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from utils.common.constants import CLASS_NAMES, IMAGE_SIZE, NORMAL, PNEUMONIA
from utils.evaluation.calibration import apply_temperature
from utils.evaluation.thresholds import is_positive
from utils.models.onnx_scoring import OnnxNetwork
from utils.models.out_of_distribution import OutOfDistributionDetector, load_detector
from utils.models.prediction import predict_pixels
from utils.models.registry import DETECTOR_FILE, SHIPPED, Network, Scorer, open_shipped_model


@dataclass(frozen=True)
class Answer:
    """What is said about one image."""

    probability: float
    """Of PNEUMONIA, as `make predict` writes it."""
    calibrated_probability: float
    label: str
    heat: np.ndarray
    """(224, 224) float32, not negative: Grad-CAM for the label, in units of the class score."""
    strange: bool
    """Whether the image is unlike the radiographs that the shipped model was trained on."""


class Answerer:
    """A model that is ready to answer, one image at a time."""

    def __init__(
        self,
        scorer: Scorer,
        detector: OutOfDistributionDetector,
        measure_features: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        """Load the model, and let it answer once: the first answer of Keras takes seconds.

        Args:
            scorer: Model that answers.
            detector: Of images that are no chest radiographs.
            measure_features: From images to the features that the detector compares.
        """
        self.scorer = scorer
        self._detector, self._measure_features = detector, measure_features
        self._network = scorer.open()
        self._explain = choose_explainer(self._network)
        # One image at a time: all processors work for it, and memory stays bounded.
        self._turn = threading.Lock()
        self.answer(np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8))

    @property
    def calibrated_threshold(self) -> float:
        """The threshold after calibration, for the calibrated probability."""
        return float(apply_temperature(self.scorer.threshold, self.scorer.temperature))

    def answer(self, pixels: np.ndarray) -> Answer:
        """Return what the model predicts for an image.

        Args:
            pixels: (224, 224, 3) uint8 RGB in [0, 255], from `images.load_image`.
        """
        batch = pixels[None]
        with self._turn:
            probability = float(predict_pixels(self._network, batch)[0])
            label = PNEUMONIA if is_positive(probability, self.scorer.threshold) else NORMAL
            heat = self._explain(batch.astype(np.float32), label)[0]
            features = self._measure_features(batch)
            strange = bool(self._detector.is_out_of_distribution(features)[0])
        return Answer(
            probability,
            float(apply_temperature(probability, self.scorer.temperature)),
            CLASS_NAMES[label],
            heat,
            strange,
        )


def choose_explainer(network: Network) -> Callable[[np.ndarray, int], np.ndarray]:
    """Return a function from images and a class to maps, as `heat_maps.build_explainer` does.

    The class activation map of the shipped network is its Grad-CAM, and needs no gradient.
    """
    if isinstance(network, OnnxNetwork):
        return network.explain
    from utils.explanation.heat_maps import build_explainer  # loads TensorFlow

    return build_explainer(network)


def load_answerer(scorer: Scorer) -> Answerer:
    """Return a model ready to answer, guarded by the detector of the shipped model.

    Raises:
        ModelError: if the shipped model, whose features the detector compares, or the detector is
            not there.
    """
    detector = load_detector(SHIPPED / DETECTOR_FILE)
    known = OnnxNetwork(open_shipped_model().onnx)
    return Answerer(scorer, detector, known.measure_features)
