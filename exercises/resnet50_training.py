"""Exercises of notebook 04: a wider input, one sigmoid unit, confident mistakes."""

from collections.abc import Callable

import numpy as np
from sklearn.metrics import log_loss

from exercises.checking import WrongAnswer, call, exercise, read_count, read_number
from utils.common.constants import IMAGE_SIZE, PNEUMONIA

WIDER = 320
"""Side of the larger input, in pixels."""
UNITS = 512
"""Of the first dense layer."""

OUTPUT = np.array([[0.02], [0.98], [0.6], [0.4], [0.51]], np.float32)
"""Output of one sigmoid unit for five images."""
EXPECTED = np.array([0, 1, 1, 0, 1])

RIGHT_OF_100 = 90
CAUTIOUS, CONFIDENT = 0.9, 0.999
"""Probability that each of two models assigns to its predicted class."""
RATIO_TOLERANCE = 0.25
"""Relative: where 2.0 is right, 1.5 to 2.5 are accepted."""


@exercise
def check_wider_input(parameters: int, activation_shape: tuple[int, int, int]) -> str:
    """Check the parameters of the first dense layer after Flatten, at 320 pixels.

    Args:
        parameters: Weights and biases, exactly.
        activation_shape: (height, width, channels) of the backbone's output at 224 pixels.
    """
    parameters = read_count(parameters, "the number of parameters")
    height, width, channels = activation_shape
    step = IMAGE_SIZE // height
    weights = (WIDER // step) ** 2 * channels * UNITS
    before = height * width * channels * UNITS
    if parameters == weights + UNITS:
        return (
            f"{parameters:,}, {weights / before:.1f} times as many: the head grows with the area, "
            "the frozen backbone does not grow at all"
        )
    if parameters == weights:
        raise WrongAnswer("almost: every unit also has a bias")
    if abs(parameters / (before * WIDER / IMAGE_SIZE) - 1) < 0.01:
        raise WrongAnswer("that grows with the side. The image becomes wider, and what else?")
    raise WrongAnswer(
        f"at {IMAGE_SIZE} pixels the backbone leaves {height} x {width} positions, so it divides "
        f"each side by {step}. How many positions are left of {WIDER} x {WIDER} pixels, with how "
        f"many channels each, and how many weights does each of {UNITS} units need for them?"
    )


@exercise
def check_one_sigmoid_unit(to_labels: Callable[[np.ndarray], np.ndarray]) -> str:
    """Check how the output of a single sigmoid unit is turned into labels.

    Args:
        to_labels: From (n, 1) probabilities of PNEUMONIA to (n,) labels, 1 from 0.5 upward.
    """
    labels = np.asarray(call(to_labels, OUTPUT.copy()))
    if labels.shape == OUTPUT.shape:
        raise WrongAnswer(
            f"the labels have the shape {labels.shape}. Compared with {len(OUTPUT)} true "
            "labels they would make a square table, whose mean is not the accuracy: return one "
            "label per image"
        )
    if labels.shape != EXPECTED.shape:
        raise WrongAnswer(
            f"{len(OUTPUT)} images got an answer of shape {labels.shape}; each image needs a label"
        )
    if not np.isin(labels, (0, 1)).all():
        raise WrongAnswer(f"{labels.tolist()} are no labels yet; 0 is NORMAL, 1 is PNEUMONIA")
    labels = labels.astype(int)
    if not labels.any():
        raise WrongAnswer(
            "every image is predicted as 0, NORMAL. `argmax` returns the column of the largest "
            "number; how many columns are there, and which is the largest of one number?"
        )
    if (labels == 1 - EXPECTED).all():
        raise WrongAnswer("the classes are swapped: a high output means class 1, PNEUMONIA")
    if not (labels == EXPECTED).all():
        wrong = OUTPUT[labels != EXPECTED, 0].tolist()[0]
        raise WrongAnswer(f"an output of {wrong:.2f} is misclassified; on which side of 0.5 is it?")
    return (
        f"label {PNEUMONIA} from 0.5 upward; with argmax the accuracy is the proportion of NORMAL "
        "images, whatever the network has learned"
    )


@exercise
def check_confident_mistakes(times: float) -> str:
    """Check a prediction: how much larger the loss of an overconfident model is.

    Args:
        times: Loss of the confident model over that of the cautious one; accepted within
            `RATIO_TOLERANCE` of it.
    """
    times = read_number(times, "the ratio", 0, 1e6)
    cautious, confident = (_loss(probability) for probability in (CAUTIOUS, CONFIDENT))
    ratio = confident / cautious
    if abs(times / ratio - 1) > RATIO_TOLERANCE:
        raise WrongAnswer(
            f"{times:g} is too {'small' if times < ratio else 'large'}; a prediction may be wrong. "
            "The loss of an image is -ln of the probability of its true class: compute it once for "
            "a correct prediction and once for a wrong one, and weight them 90 to 10"
        )
    return (
        f"{confident:.2f} over {cautious:.2f} is {ratio:.1f}: equally accurate, but the confident "
        "model's loss is at chance level (0.69), because of ten images"
    )


def _loss(probability: float) -> float:
    """Return the cross-entropy of a model that is right on 90 of 100, always as confident."""
    right = np.arange(100) < RIGHT_OF_100
    return log_loss(np.ones(100), np.where(right, probability, 1 - probability), labels=[0, 1])
