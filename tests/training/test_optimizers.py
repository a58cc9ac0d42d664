import keras
import numpy as np
import pytest

from utils.training.optimizers import FusedAdam, LayerwiseAdam


def train(optimizer, steps=6):
    """Take a few steps of a small network; return its losses, weights and both moments."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5, "relu"), keras.layers.Dense(2, "softmax")]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
    random = np.random.default_rng(1)
    x, y = random.normal(size=(16, 6)).astype("float32"), random.integers(0, 2, 16)
    losses = [float(model.train_on_batch(x, y)) for _ in range(steps)]
    state = [keras.ops.convert_to_numpy(variable) for variable in model.optimizer.variables]
    return losses, [*model.get_weights(), *state]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate": 1e-2},
        {"learning_rate": 1e-2, "beta_1": 0.7, "beta_2": 0.9, "epsilon": 1e-3},
        {"learning_rate": keras.optimizers.schedules.CosineDecay(1e-2, 4), "weight_decay": 0.1},
        {"learning_rate": 1e-2, "clipnorm": 0.1, "use_ema": True},
    ],
)
def test_steps_are_those_of_keras(settings):
    losses, arrays = train(FusedAdam(**settings))
    expected_losses, expected = train(keras.optimizers.Adam(**settings))
    assert losses[-1] < losses[0]
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    assert len(arrays) == len(expected)
    for array, other in zip(arrays, expected, strict=True):
        np.testing.assert_allclose(array, other, rtol=1e-4, atol=1e-6)


def test_amsgrad_is_refused():
    with pytest.raises(NotImplementedError, match=r"keras\.optimizers\.Adam"):
        train(FusedAdam(amsgrad=True))


def train_two(rates):
    """Take two steps of two dense layers, with a factor for each variable; return what moved."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5, "tanh"), keras.layers.Dense(2, "softmax")]
    )
    model.compile(LayerwiseAdam(1e-2), "sparse_categorical_crossentropy", jit_compile=False)
    model.optimizer.set_rates(model.trainable_variables, rates)
    before = model.get_weights()
    random = np.random.default_rng(1)
    x, y = random.normal(size=(16, 6)).astype("float32"), random.integers(0, 2, 16)
    model.train_on_batch(x, y)
    return [b - a for a, b in zip(before, model.get_weights(), strict=True)], model, (x, y)


def test_each_layer_moves_at_its_own_rate():
    whole, _, _ = train_two([1, 1, 1, 1])
    shares, model, batch = train_two([0, 0.1, 0.5, 1])
    for moved, full, share in zip(shares, whole, (0, 0.1, 0.5, 1), strict=True):
        np.testing.assert_allclose(moved, share * full, rtol=1e-3, atol=1e-7)
    # A rate that changes later is seen by the step that is compiled already.
    before = model.get_weights()[0]
    model.optimizer.set_rates(model.trainable_variables, [1, 1, 1, 1])
    model.train_on_batch(*batch)
    assert np.abs(model.get_weights()[0] - before).max() > 1e-3


def test_without_rates_every_layer_moves_at_the_whole_rate():
    (_, moved), (_, expected) = (train(each(1e-2)) for each in (LayerwiseAdam, FusedAdam))
    for array, other in zip(moved, expected, strict=True):
        np.testing.assert_allclose(array, other, rtol=1e-6)


@pytest.mark.parametrize("rates", [[1, 1], [1, 1, 1, -1]])
def test_unusable_rates_are_refused(rates):
    with pytest.raises(ValueError, match="4 variables need as many factors"):
        train_two(rates)
