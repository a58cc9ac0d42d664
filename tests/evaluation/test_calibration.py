import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from utils.evaluation.calibration import (
    apply_temperature,
    correct_prevalence,
    fit_calibration_line,
    fit_temperature,
    fit_temperature_and_bias,
    measure_calibration,
    reliability_table,
)
from utils.evaluation.predictions import from_log_odds, log_odds


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


@pytest.mark.parametrize(("intercept", "slope"), [(0, 1), (-0.8, 1), (0.5, 0.6)])
def test_the_calibration_line_that_was_drawn_is_found(intercept, slope):
    random = np.random.default_rng(1)
    x = random.normal(0.3, 1.5, 40_000)
    y_true = (random.random(len(x)) < from_log_odds(intercept + slope * x)).astype(int)
    found_intercept, found_slope = fit_calibration_line(y_true, from_log_odds(x))
    assert found_slope == pytest.approx(slope, abs=0.03)
    if slope == 1:
        assert found_intercept == pytest.approx(intercept, abs=0.04)


@pytest.mark.parametrize("shift", [-12, -4, 4, 12])
def test_an_intercept_far_away_is_found(shift):
    truth = np.tile([0.0, 1, 1, 0], 50)
    x = np.tile([-1.0, 1, -0.5, 0.5], 50)
    # Labels and log-odds are symmetric, so that without the shift the intercept is 0.
    intercept, _ = fit_calibration_line(truth, from_log_odds(x + shift))
    assert intercept == pytest.approx(-shift, abs=1e-4)


def test_the_calibration_line_is_that_of_a_logistic_regression(honest):
    y_true, probability = (part[:300] for part in honest)
    x = log_odds(probability)[:, None]
    weights = np.random.default_rng(2).integers(0, 4, (3, 300))
    _, slopes = fit_calibration_line(y_true, probability, weights)
    for slope, each in zip(slopes, weights, strict=True):
        expected = LogisticRegression(C=np.inf, tol=1e-10).fit(x, y_true, sample_weight=each)
        assert slope == pytest.approx(expected.coef_[0, 0], rel=1e-4)
    # With a slope of 1, the mean probability becomes the share of PNEUMONIA.
    intercept, _ = fit_calibration_line(y_true, probability)
    assert from_log_odds(x[:, 0] + intercept).mean() == pytest.approx(y_true.mean())


def test_a_line_through_classes_that_hardly_overlap_is_found():
    random = np.random.default_rng(4)
    y_true = np.arange(600) % 3 > 0
    x = random.normal(np.where(y_true, 3, -3), 1.6)
    _, slope = fit_calibration_line(y_true, from_log_odds(x))
    expected = LogisticRegression(C=np.inf, tol=1e-10).fit(x[:, None], y_true)
    assert slope == pytest.approx(expected.coef_[0, 0], rel=1e-3)


def test_classes_that_are_apart_have_no_slope():
    y_true, probability = np.array([0, 0, 1, 1]), np.array([0.1, 0.3, 0.7, 0.8])
    _, slope = fit_calibration_line(y_true, probability)
    assert np.isnan(slope)


def test_a_prevalence_is_exchanged_by_bayes_rule():
    # Of 1,000 images half are ill, or a tenth; among the ill a finding is three times as frequent.
    assert correct_prevalence(0.75, 0.5, 0.1) == pytest.approx(0.1 * 3 / (0.1 * 3 + 0.9))
    assert correct_prevalence(0.4, 0.3, 0.3) == pytest.approx(0.4)
    random = np.random.default_rng(3)
    y_true = (random.random(50_000) < 0.2).astype(int)
    x = random.normal(2 * y_true, 1)  # log-odds where classes are equally frequent: 2x - 2
    balanced = from_log_odds(2 * x - 2)
    assert fit_calibration_line(y_true, balanced)[0] == pytest.approx(log_odds(0.2), abs=0.05)
    corrected = correct_prevalence(balanced, 0.5, 0.2)
    intercept, slope = fit_calibration_line(y_true, corrected)
    assert intercept == pytest.approx(0, abs=0.05) and slope == pytest.approx(1, abs=0.05)
