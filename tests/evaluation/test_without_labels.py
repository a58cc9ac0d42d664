import numpy as np
import pytest

from utils.evaluation.without_labels import expect_accuracy, measure_agreement


def test_agreement_is_counted_over_pairs():
    first, second, third = [0.1, 0.9, 0.9, 0.2], [0.1, 0.8, 0.1, 0.3], [0.2, 0.7, 0.6, 0.9]
    assert measure_agreement([first, second], 0.5) == 0.75
    assert measure_agreement([first, second, third], 0.5) == pytest.approx((0.75 + 0.75 + 0.5) / 3)
    with pytest.raises(ValueError, match="two models"):
        measure_agreement([first], 0.5)


def test_the_expected_accuracy_is_the_real_one_where_nothing_shifts():
    random = np.random.default_rng(0)

    def draw(count, spread):
        y_true = random.integers(0, 2, count)
        score = (2 * y_true - 1) * 1.5 + random.normal(0, spread, count)
        return y_true, 1 / (1 + np.exp(-score))

    y_true, known = draw(4000, 1.0)
    alike, unknown = draw(4000, 1.0)
    real = np.mean((unknown >= 0.5) == alike)
    assert expect_accuracy(y_true, known, unknown, 0.5) == pytest.approx(real, abs=0.015)
    assert expect_accuracy(y_true, known, known, 0.5) == pytest.approx(
        np.mean((known >= 0.5) == y_true), abs=1e-3
    )
    weak = 0.5 + (known - 0.5) * 0.3
    assert expect_accuracy(y_true, known, weak, 0.5) < real - 0.15, "images that leave it unsure"
