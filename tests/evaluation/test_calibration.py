import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from utils.evaluation.calibration import (
    apply_temperature,
    fit_temperature,
    fit_temperature_and_bias,
    measure_calibration,
    reliability_table,
)


@pytest.fixture(scope="module")
def honest():
    """Return labels that come true as often as their probabilities say."""
    random = np.random.default_rng(0)
    probability = random.uniform(0.01, 0.99, 20_000)
    return (random.random(20_000) < probability).astype(int), probability


def test_honest_probabilities_are_left_alone(honest):
    assert fit_temperature(*honest) == pytest.approx(1, abs=0.05)
    assert measure_calibration(*honest).ece < 0.015


@pytest.mark.parametrize("sureness", [0.5, 3.0])
def test_the_temperature_that_was_applied_is_found(honest, sureness):
    y_true, probability = honest
    distorted = apply_temperature(probability, 1 / sureness)
    temperature = fit_temperature(y_true, distorted)
    assert temperature == pytest.approx(sureness, rel=0.05)
    before = measure_calibration(y_true, distorted)
    after = measure_calibration(y_true, apply_temperature(distorted, temperature))
    assert after.ece < before.ece / 3 and after.brier < before.brier
    assert roc_auc_score(y_true, distorted) == pytest.approx(roc_auc_score(y_true, probability))


def test_the_bias_that_was_applied_is_found(honest):
    y_true, probability = honest
    distorted = apply_temperature(probability, 1 / 2, bias=-1.5)
    temperature, bias = fit_temperature_and_bias(y_true, distorted)
    # (2 z - 1.5) / 2 + 0.75 = z
    assert temperature == pytest.approx(2, rel=0.05) and bias == pytest.approx(0.75, abs=0.05)
    one = apply_temperature(distorted, fit_temperature(y_true, distorted))
    both = apply_temperature(distorted, temperature, bias)
    assert measure_calibration(y_true, both).ece < 0.015 < measure_calibration(y_true, one).ece


def test_a_model_that_ranks_backwards_is_told_the_base_rate(honest):
    y_true, probability = honest
    temperature, bias = fit_temperature_and_bias(y_true, 1 - probability)
    assert temperature == pytest.approx(20) and bias == pytest.approx(0, abs=0.05)


def test_known_values_in_closed_form():
    y_true, probability = np.array([0, 1, 1, 1]), np.array([0.25, 0.25, 0.95, 0.95])
    assert reliability_table(y_true, probability) == [(0.25, 0.5, 2), (0.95, 1.0, 2)]
    found = measure_calibration(y_true, probability)
    assert found.ece == pytest.approx((0.25 + 0.05) / 2)
    assert found.brier == pytest.approx((0.25**2 + 0.75**2 + 2 * 0.05**2) / 4)
    assert apply_temperature(np.array([0.9]), 2)[0] == pytest.approx(0.75)
    assert reliability_table(np.array([1]), np.array([1.0])) == [(1.0, 1.0, 1)]


def test_certainty_stays_finite():
    scaled = apply_temperature(np.array([0.0, 1.0]), 1.0)
    assert np.isfinite(scaled).all() and scaled[0] < 1e-6 and scaled[1] > 1 - 1e-6


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="both classes"):
        fit_temperature(np.ones(3), np.full(3, 0.5))
    with pytest.raises(ValueError, match="above 0"):
        apply_temperature(np.array([0.5]), 0)
