"""Exercises of notebook 05: a threshold that saw the answers, a low prevalence, sixteen images."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binom

from exercises.checking import WrongAnswer, call, exercise, read_number
from utils.evaluation.metrics import compute_metrics
from utils.evaluation.predictions import select_split
from utils.evaluation.thresholds import choose_threshold, choose_validation_threshold, is_positive

YOUDEN_TOLERANCE = 0.005
"""Sensitivity + specificity on validation may be this far below the best: ties are many."""

MODEL = "resnet50"
PREVALENCE = 0.05
CHANCE_TOLERANCE = 0.03

IMAGES, TRUE_ACCURACY, LUCK_TOLERANCE = 16, 0.8, 0.02


@exercise
def check_threshold(choose: Callable[[pd.DataFrame], float], predictions: pd.DataFrame) -> str:
    """Check that a threshold is chosen on validation, and on nothing else.

    Args:
        choose: From the predictions of a model, validation and test, to a threshold.
        predictions: Those of one model.
    """
    threshold = read_number(call(choose, predictions.copy()), "the threshold", 0, 1)
    exchanged = predictions.copy()
    exchanged.loc[exchanged.split == "test", ["y_true", "probability"]] = (
        1 - predictions[["y_true", "probability"]]
    )
    try:
        unmoved = call(choose, exchanged) == threshold
    except WrongAnswer:
        unmoved = False
    if not unmoved:
        raise WrongAnswer(
            "your threshold changes when the test images are exchanged for others, so it has seen "
            "them. Which rows may be used to choose, and which only to be scored?"
        )
    best = choose_validation_threshold(predictions)
    reached, reachable = (_youden(predictions, value) for value in (threshold, best))
    if reached < reachable - YOUDEN_TOLERANCE:
        raise WrongAnswer(
            f"{threshold:.3f} has not seen the test set, but sensitivity + specificity on "
            f"validation is {reached:.3f}, and {reachable:.3f} is possible. Which sum does the "
            "notebook maximize?"
        )
    test = select_split(predictions, "test")
    tuned = choose_threshold(test.y_true.to_numpy(), test.probability.to_numpy())
    frozen_accuracy, tuned_accuracy = (
        (is_positive(test.probability, value) == test.y_true).mean() for value in (threshold, tuned)
    )
    return (
        f"accuracy on test is {frozen_accuracy:.3f} with your threshold; with one tuned on test "
        f"we would have reported {tuned_accuracy:.3f}"
    )


def _youden(predictions: pd.DataFrame, threshold: float) -> float:
    """Return sensitivity + specificity on validation."""
    rows = select_split(predictions, "validation")
    values = compute_metrics(rows.y_true.to_numpy(), rows.probability.to_numpy(), threshold)
    return values["sensitivity"] + values["specificity"]


@exercise
def check_chance_of_disease(chance: float, metrics: dict[str, Any]) -> str:
    """Check a prediction: the positive predictive value where the prevalence is low.

    Args:
        chance: Positive predictive value at a prevalence of 5%; right within `CHANCE_TOLERANCE`.
        metrics: Of the study, from `evaluate_study`.
    """
    chance = read_number(chance, "the chance", 0, 1)
    scores = metrics["models"][MODEL]["test"]
    sensitivity, specificity = (scores[name]["value"] for name in ("sensitivity", "specificity"))
    tp, fp = PREVALENCE * sensitivity, (1 - PREVALENCE) * (1 - specificity)
    value = tp / (tp + fp)
    if abs(chance - value) <= CHANCE_TOLERANCE:
        return (
            f"{value:.0%}: of 1,000 children, {1000 * tp:.0f} with pneumonia and "
            f"{1000 * fp:.0f} without are predicted positive; in the test set, where most "
            f"have pneumonia, it was "
            f"{scores['ppv']['value']:.0%}"
        )
    if abs(chance - sensitivity) <= CHANCE_TOLERANCE:
        raise WrongAnswer(
            "that is the sensitivity, the chance of a positive prediction given pneumonia. The "
            "question is the other way round: who else is predicted positive?"
        )
    if abs(chance - scores["ppv"]["value"]) <= CHANCE_TOLERANCE:
        raise WrongAnswer(
            "that holds in the test set, where more than half of the children have pneumonia. What "
            "changes where 5 of 100 do?"
        )
    raise WrongAnswer(
        f"{chance:.2f} is too {'low' if chance < value else 'high'}, and predictions may be wrong. "
        "Imagine 1,000 children, 50 of them with pneumonia. How many of the 50 are predicted "
        "positive, how many of the 950, and what share of all these have pneumonia?"
    )


@exercise
def check_luck_of_sixteen(share: float) -> str:
    """Check a prediction: how often a mediocre model gets 15 or 16 of 16 images right.

    Args:
        share: Of all sets of 16 images; right within `LUCK_TOLERANCE`.
    """
    share = read_number(share, "the share", 0, 1)
    truth = float(binom.sf(IMAGES - 2, IMAGES, TRUE_ACCURACY))
    if abs(share - truth) <= LUCK_TOLERANCE:
        return f"{truth:.1%}, one set of 16 in {1 / truth:.0f}; on hundreds of images, almost never"
    if np.isclose(share, TRUE_ACCURACY**IMAGES, atol=LUCK_TOLERANCE):
        raise WrongAnswer("that is about 16 of 16. In how many ways can a model miss just one?")
    if np.isclose(share, binom.pmf(IMAGES - 1, IMAGES, TRUE_ACCURACY), atol=LUCK_TOLERANCE / 2):
        raise WrongAnswer("that is exactly 15. A model with all 16 right counts, too")
    raise WrongAnswer(
        f"{share:.3f} is too {'low' if share < truth else 'high'}, and predictions may be wrong. "
        "Each image is right with probability 0.8, independently: simulate such sets of 16, or "
        "use `scipy.stats.binom`"
    )
