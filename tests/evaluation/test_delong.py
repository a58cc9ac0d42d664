import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from utils.evaluation.delong import delong_difference


def brute_force_covariance(y_true, *models):
    """Compute DeLong's covariance from every pair of an image with and one without pneumonia."""
    positive, negative = y_true == 1, y_true == 0
    parts = []
    for probability in models:
        pairs = probability[positive][:, None] - probability[negative][None, :]
        wins = (pairs > 0) + 0.5 * (pairs == 0)
        parts.append((wins.mean(1), wins.mean(0)))
    return (
        np.cov([of_positives for of_positives, _ in parts]) / positive.sum()
        + np.cov([of_negatives for _, of_negatives in parts]) / negative.sum()
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
    assert found["value"] == pytest.approx(
        roc_auc_score(y_true, first) - roc_auc_score(y_true, second)
    )
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert (found["high"] - found["low"]) / 2 == pytest.approx(1.959964 * error, rel=1e-6)
    assert (found["high"] + found["low"]) / 2 == pytest.approx(found["value"])


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
    assert (found["high"] - found["low"]) / 2 == pytest.approx(1.96 * np.std(values), rel=0.15)


def test_the_order_of_the_models_turns_the_interval(models):
    y_true, first, second = models
    found = delong_difference(y_true, first, second)
    turned = delong_difference(y_true, second, first)
    mirrored = {"value": -found["value"], "low": -found["high"], "high": -found["low"]}
    assert turned == pytest.approx(mirrored)


def test_the_same_model_does_not_differ(models):
    y_true, first, _ = models
    same = delong_difference(y_true, first, first)
    assert same == {"value": 0, "low": 0, "high": 0}


def test_one_class_alone_is_refused():
    with pytest.raises(ValueError, match="both classes"):
        delong_difference(np.ones(4), np.linspace(0, 1, 4), np.linspace(0, 1, 4))
