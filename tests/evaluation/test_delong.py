import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from utils.evaluation.delong import delong_difference, delong_interval


def brute_force_covariance(y_true, *models):
    """Compute DeLong's covariance from every pair of a sick and a healthy image."""
    sick, healthy = y_true == 1, y_true == 0
    parts = []
    for probability in models:
        pairs = probability[sick][:, None] - probability[healthy][None, :]
        wins = (pairs > 0) + 0.5 * (pairs == 0)
        parts.append((wins.mean(1), wins.mean(0)))
    return (
        np.cov([of_sick for of_sick, _ in parts]) / sick.sum()
        + np.cov([of_healthy for _, of_healthy in parts]) / healthy.sum()
    )


@pytest.fixture
def models():
    random = np.random.default_rng(3)
    y_true = (np.arange(150) % 3 > 0).astype(int)
    shared = random.normal(size=150)
    first = (1.5 * y_true + shared + random.normal(size=150)).round(1)  # with ties
    return y_true, first, 0.8 * y_true + shared + random.normal(size=150)


def test_it_is_the_definition_of_delong(models):
    y_true, first, second = models
    covariance = brute_force_covariance(y_true, first, second)
    found = delong_difference(y_true, first, second)
    assert found.value == pytest.approx(
        roc_auc_score(y_true, first) - roc_auc_score(y_true, second)
    )
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert (found.high - found.low) / 2 == pytest.approx(1.959964 * error, rel=1e-6)
    one = delong_interval(y_true, first)
    assert one.value == pytest.approx(roc_auc_score(y_true, first))
    assert (one.high - one.low) / 2 == pytest.approx(1.959964 * np.sqrt(covariance[0, 0]), rel=1e-6)


def test_it_agrees_with_the_bootstrap(models):
    y_true, first, second = models
    random = np.random.default_rng(0)
    values = []
    for _ in range(400):
        rows = np.concatenate([
            random.choice(np.flatnonzero(y_true == label), (y_true == label).sum())
            for label in (0, 1)
        ])  # fmt: skip
        values.append(
            roc_auc_score(y_true[rows], first[rows]) - roc_auc_score(y_true[rows], second[rows])
        )
    found = delong_difference(y_true, first, second)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * np.std(values), rel=0.15)


def test_the_p_value_belongs_to_the_interval(models):
    y_true, first, second = models
    found = delong_difference(y_true, first, second)
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
    turned = delong_difference(y_true, second, first)
    assert turned.value == pytest.approx(-found.value) and turned.p == pytest.approx(found.p)


def test_the_same_model_does_not_differ(models):
    y_true, first, _ = models
    same = delong_difference(y_true, first, first)
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_a_perfect_model_stays_within_1():
    perfect = delong_interval(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]))
    assert (perfect.value, perfect.low, perfect.high) == (1, 1, 1)


def test_one_class_alone_is_refused():
    with pytest.raises(ValueError, match="both classes"):
        delong_interval(np.ones(4), np.linspace(0, 1, 4))
