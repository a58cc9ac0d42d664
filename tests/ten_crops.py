"""Ten crops at test time, step by step on arrays: what the graph of `models.export` is held to."""

from functools import partial

import numpy as np

from utils.common.constants import NORMAL, PNEUMONIA
from utils.models.export import TEN_CROPS
from utils.models.onnx_scoring import resize_matrix
from utils.models.prediction import run_network
from utils.models.registry import Network


def predict_ten_crops(network: Network, pixels: np.ndarray) -> np.ndarray:
    """Return the probability of PNEUMONIA by ten crops of an image, (n,) float64 in [0, 1].

    What `export.with_ten_crops` builds as a graph, step by step on arrays: five crops of 6/7 of the
    side, each as it is and mirrored, reduced to the side of the network, and the mean of their
    log-odds.

    Args:
        network: From (n, size, size, 1) gray in [0, 255] to (n, 2) probabilities.
        pixels: (n, 224, 224, 1) gray or (n, 224, 224, 3) RGB in [0, 255].
    """
    size = network.input_shape[1]

    def crop(images: np.ndarray, top: int, left: int, side: int, mirrored: bool) -> np.ndarray:
        part = images.mean(axis=-1)[:, top : top + side, left : left + side]
        reduce = resize_matrix(side, size)
        return (reduce @ (part[..., ::-1] if mirrored else part) @ reduce.T)[..., None]

    scores = 0.0
    for top, left, side, mirrored in TEN_CROPS:
        place = partial(crop, top=top, left=left, side=side, mirrored=mirrored)
        each = run_network(network, pixels, transform=place).astype(np.float64)
        scores = scores + np.log(np.maximum(each, 1e-30)) / len(TEN_CROPS)
    return 1 / (1 + np.exp(scores[:, NORMAL] - scores[:, PNEUMONIA]))
