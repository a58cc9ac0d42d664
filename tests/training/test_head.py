"""Training on cached activations is training through the whole model, only cheaper."""

import h5py
import keras
import numpy as np
import pandas as pd
import pytest

from tests.builders import build_small_backbone, write_dataset
from utils.data.images import load_images
from utils.data.index import build_index
from utils.evaluation.predictions import write_predictions
from utils.models.backbones import build_head, join, split_model
from utils.models.export import export_model
from utils.models.pretrained import Weights
from utils.models.weights import resolve_weights
from utils.training.activations import ActivationStore
from utils.training.head import (
    CopyBatches,
    Recipe,
    TrainingError,
    check_learned,
    predict_pneumonia,
    read_history,
    score_head,
    train_head,
    write_history,
)

RECIPE = Recipe(epochs=3, batch_size=8, learning_rate=1e-3, seed=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = write_dataset(tmp_path_factory.mktemp("data"), range(1, 11))
    return root, build_index(root, 1, 0.3)


@pytest.fixture(scope="module")
def tables(data, tmp_path_factory):
    root, index = data
    store = ActivationStore(tmp_path_factory.mktemp("cache"), build_small_backbone(), "float32")
    return {split: store.load(root, rows) for split, rows in index.groupby("split")}


def test_epoch_e_has_view_e_mod_views():
    labels = np.arange(20) % 2
    marked = [_Constant(len(labels), value) for value in (0.0, 1.0, 2.0)]
    values = keras.Input((1,))
    model = keras.Model(values, keras.layers.Identity()(values))
    model.compile(loss=lambda _, value: keras.ops.mean(value))

    def losses(epochs_done):
        batches = CopyBatches(marked, labels, 8, seed=0, epochs_done=epochs_done)
        history = model.fit(batches, epochs=5, initial_epoch=epochs_done, shuffle=False, verbose=0)
        return history.history["loss"]

    # `fit` itself, because it moves a data set on before the first epoch too.
    assert losses(0) == [1.0, 2.0, 0.0, 1.0, 2.0]
    assert losses(3) == [1.0, 2.0]


def test_every_epoch_has_all_images_in_an_order_of_its_own():
    labels = np.arange(20)
    with pytest.raises(ValueError, match="activations"):
        CopyBatches([_Constant(20, 0.0), _Constant(19, 0.0)], labels, 8, seed=0)
    batches = CopyBatches([_Constant(len(labels), 0.0)], labels, 8, seed=0)
    orders = []
    for _ in range(3):
        batches.on_epoch_end()
        orders.append(np.concatenate([batches[number][1] for number in range(len(batches))]))
    assert all(sorted(order) == sorted(labels) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


class _Constant:
    def __init__(self, count, value):
        self._count, self._value = count, value

    def __len__(self):
        return self._count

    def __getitem__(self, rows):
        return np.full((len(rows), 1), self._value, np.float16)


@pytest.mark.slow
def test_training_on_the_cache_equals_training_through_the_model(data, tables, tmp_path):
    root, index = data
    train = index[index.split == "train"]
    labels, held_out = train.label.to_numpy(), index[index.split == "validation"]
    backbone = build_small_backbone()
    head = build_head(backbone.output_shape[1:], seed=5)
    history = train_head(
        head, [tables["train"]], labels, tables["validation"], held_out.label.to_numpy(),
        RECIPE, tmp_path / "best.weights.h5",
    )  # fmt: skip

    whole = join(backbone, build_head(backbone.output_shape[1:], seed=5))
    # Without XLA, like the head: it draws dropout masks in another way than TensorFlow.
    whole.compile(
        keras.optimizers.Adam(RECIPE.learning_rate),
        "sparse_categorical_crossentropy",
        jit_compile=False,
    )
    keras.utils.set_random_seed(RECIPE.seed)
    images = load_images(root, train.image_id).astype("float32")
    batches = CopyBatches([images], labels, RECIPE.batch_size, RECIPE.seed)
    losses = whole.fit(batches, epochs=RECIPE.epochs, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(history.loss, losses, rtol=1e-4)


@pytest.mark.slow
def test_the_best_epoch_is_kept(tables, data, tmp_path):
    _, index = data
    labels = {split: rows.label.to_numpy() for split, rows in index.groupby("split")}
    head = build_head((7, 7, 4), seed=1)
    history = train_head(
        head, [tables["train"]], labels["train"], tables["validation"], labels["validation"],
        Recipe(epochs=12, batch_size=8, learning_rate=1e-2, stopping_patience=3),
        tmp_path / "best.weights.h5",
    )  # fmt: skip
    assert len(history) < 12, "noise cannot be learned, so training should have stopped early"
    assert history.learning_rate.iloc[-1] < 1e-2
    scores = score_head(head, tables["validation"], labels["validation"])
    assert scores["loss"] == pytest.approx(history.val_loss.min(), rel=1e-4)
    assert list(history.epoch) == list(range(1, len(history) + 1))
    with h5py.File(tmp_path / "best.weights.h5") as checkpoint:
        assert "optimizer" not in checkpoint and "layers" in checkpoint


def test_history_round_trip(tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    table = pd.DataFrame({"epoch": [1, 2], "loss": [0.7, 0.25]})
    write_history("sample", "resnet50", table)
    pd.testing.assert_frame_equal(read_history(tmp_path / "sample", "resnet50"), table)


def test_prediction_files_have_their_form(data, tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    _, index = data
    probability = {
        split: np.linspace(0, 1, (index.split == split).sum()) for split in ("validation", "test")
    }
    write_predictions("sample", "resnet50", index, probability)
    written = pd.read_csv(tmp_path / "sample" / "predictions" / "resnet50.csv")
    assert list(written) == ["image_id", "patient_id", "split", "y_true", "probability"]
    assert len(written) == sum(index.split != "train")
    with pytest.raises(ValueError, match="images in 'test' but 1 probabilities"):
        write_predictions("sample", "resnet50", index, {"test": np.zeros(1)})


def test_a_model_that_learned_nothing_is_refused():
    weights = Weights("resnet50", "ImageNet", "npm", "0" * 64, None)
    good, chance = {"auc": 0.9, "loss": 0.3}, {"auc": 0.51, "loss": 0.7}
    check_learned(good, good, weights, 0.75)
    with pytest.raises(TrainingError, match="0.510, less than 0.75"):
        check_learned(good, chance, weights, 0.75)
    with pytest.raises(TrainingError, match="nothing was learned"):
        check_learned(chance, good, weights, 0.75)
    with pytest.raises(TrainingError, match="not finite"):
        check_learned(good, good | {"loss": float("nan")}, weights, 0.75)
    unverified = Weights("vgg19", "unverified", "WEIGHTS_DIR", "0" * 64, None)
    check_learned(good, chance, unverified, 0.75)
    with pytest.raises(TrainingError, match="nothing was learned"):
        check_learned(chance, chance, unverified, 0.75)


def test_random_weights_promise_only_numbers():
    weights = resolve_weights("vgg19", "random")
    chance = {"auc": 0.5, "loss": 0.7}
    check_learned(chance, chance, weights, 0.75)
    with pytest.raises(TrainingError, match="not finite"):
        check_learned(chance | {"auc": float("nan")}, chance, weights, 0.75)


def test_probabilities_are_those_of_pneumonia(tables):
    head = build_head((7, 7, 4), seed=1)
    bias = head.get_layer("probabilities").bias
    bias.assign([0.0, 50.0])
    assert (predict_pneumonia(head, tables["test"]) > 0.99).all()


@pytest.mark.slow
def test_a_deeper_cut_trains_like_the_whole_model(data, tmp_path):
    """Fine-tuning moves the cut; the head with its branches trains from cached activations."""
    root, index = data
    train, held_out = (index[index.split == split] for split in ("train", "validation"))

    def build():
        keras.utils.set_random_seed(4)
        image = keras.Input((224, 224, 3), name="image")
        x = keras.layers.AveragePooling2D(32)(keras.layers.Rescaling(1 / 255)(image))
        x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="block1_out")(x)
        y = keras.layers.Conv2D(4, 3, padding="same", name="block2_conv")(x)
        x = keras.layers.Add(name="block2_out")([x, y])
        x = keras.layers.GlobalAveragePooling2D()(x)
        return keras.Model(image, keras.layers.Dense(2, activation="softmax")(x), name="residual")

    model = build()
    backbone, head = split_model(model, "block1_out")
    store = ActivationStore(tmp_path, backbone, "float32")
    history = train_head(
        head, [store.load(root, train)], train.label.to_numpy(), store.load(root, held_out),
        held_out.label.to_numpy(), RECIPE, tmp_path / "best.weights.h5",
    )  # fmt: skip
    whole = build()
    whole.get_layer("block1_out").trainable = False
    whole.compile(keras.optimizers.Adam(RECIPE.learning_rate), "sparse_categorical_crossentropy")
    images = load_images(root, train.image_id).astype("float32")
    batches = CopyBatches([images], train.label.to_numpy(), RECIPE.batch_size, RECIPE.seed)
    losses = whole.fit(batches, epochs=RECIPE.epochs, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(history.loss, losses, rtol=1e-4)
    exported = export_model(model, tmp_path / "model.keras")
    np.testing.assert_allclose(
        exported.predict(images, verbose=0), model.predict(images, verbose=0), atol=1e-6
    )
