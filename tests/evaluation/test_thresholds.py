"""Thresholds are frozen on validation, in the middle of what is equally good."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_curve

from tests.builders import make_study
from utils.evaluation.metrics import compute_metrics
from utils.evaluation.predictions import PredictionsError
from utils.evaluation.thresholds import (
    choose_threshold,
    choose_validation_threshold,
    is_positive,
    net_benefit,
)


@pytest.mark.parametrize(
    ("negatives", "positives", "threshold"),
    [
        ([0.1, 0.2], [0.6, 0.8], 0.4),  # perfect: the middle of the gap
        ([0.1, 0.5], [0.2, 0.9], 0.7),  # (0.5, 0.9] is wider than (0.1, 0.2]
        ([0.1, 0.8], [0.6, 0.9], 0.35),  # (0.1, 0.6] is wider than (0.8, 0.9]
        ([0.1, 0.4, 0.9], [0.4, 0.6, 0.8], 0.35),  # (0.1, 0.4] and (0.4, 0.6] are one range
        ([0.3, 0.3], [0.3, 0.3], 0.5),  # nothing is better than anything else
        ([1.0, 1.0], [0.0, 0.0], 0.0),  # upside down: predict only positives
    ],
)
def test_the_threshold_is_the_middle_of_the_widest_tie(negatives, positives, threshold):
    y_true = np.array([0] * len(negatives) + [1] * len(positives))
    chosen = choose_threshold(y_true, np.array(negatives + positives))
    assert chosen == pytest.approx(threshold)


def test_neighboring_cuts_of_equal_worth_are_one_range():
    # One image with and one without pneumonia share 0.5: crossing it leaves J as it is.
    y_true = np.array([0, 0, 1, 1])
    assert choose_threshold(y_true, np.array([0.1, 0.5, 0.5, 0.9])) == pytest.approx(0.5)


def test_equally_wide_ranges_give_the_lower_threshold():
    y_true = np.array([0, 1, 0, 1])
    assert choose_threshold(y_true, np.array([0.25, 0.5, 0.625, 0.875])) == 0.375


def test_between_neighboring_floats_the_threshold_still_parts_the_classes():
    low, high = 0.5, np.nextafter(0.5, 1)
    assert choose_threshold(np.array([0, 1]), np.array([low, high])) == high


@pytest.mark.parametrize("seed", range(5))
def test_no_cut_point_has_a_larger_youden_index(seed):
    random = np.random.default_rng(seed)
    y_true = random.integers(0, 2, 60)
    probability = np.round((random.random(60) + 0.5 * y_true) / 1.5, 1)
    false_rate, true_rate, _ = roc_curve(y_true, probability)
    values = compute_metrics(y_true, probability, choose_threshold(y_true, probability))
    youden = values["sensitivity"] + values["specificity"] - 1
    assert youden == pytest.approx((true_rate - false_rate).max())


def test_the_threshold_of_a_model_ignores_test():
    study = make_study()
    turned = study.assign(
        probability=study.probability.where(study.split == "validation", 1 - study.probability)
    )
    assert choose_validation_threshold(study) == choose_validation_threshold(turned)
    with pytest.raises(PredictionsError, match="'validation'"):
        choose_validation_threshold(study[study.split == "test"])


def test_a_threshold_needs_both_classes():
    with pytest.raises(PredictionsError, match="0 NORMAL and 2 PNEUMONIA"):
        choose_threshold(np.array([1, 1]), np.array([0.1, 0.2]))


def test_a_probability_at_the_threshold_is_positive():
    probabilities = np.array([0.2, 0.3, 0.4])
    assert is_positive(probabilities, 0.3).tolist() == [False, True, True]
    assert is_positive(0.3, 0.3) and not is_positive(np.nextafter(0.3, 0), 0.3)
    rows = pd.Series(probabilities, index=[7, 8, 9])
    assert is_positive(rows, 0.3).index.tolist() == [7, 8, 9]
    assert is_positive(probabilities[:, None], np.array([0.3, 0.4])).sum(axis=0).tolist() == [2, 1]


def test_the_net_benefit_is_that_of_a_count_by_hand():
    y_true, probability = np.array([1, 1, 0, 0, 0]), np.array([0.9, 0.2, 0.8, 0.1, 0.1])
    # At 0.25 a false positive costs a third of a true one.
    assert net_benefit(y_true, probability, 0.25) == pytest.approx((1 - 1 / 3) / 5)
    assert net_benefit(y_true, np.ones(5), 0.5) == pytest.approx((2 - 3) / 5)
    assert net_benefit(y_true, np.zeros(5), 0.5) == 0
