"""Several devices or workers learn what one learns; the others run in processes of their own."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from utils.models.backbones import build_reference_head, cut_model
from utils.training.distribution import DistributionError, copy_into, fit, is_chief, open_strategy
from utils.training.head import PlainBatches, Recipe, ViewBatches, train_tail
from utils.training.optimizers import FusedAdam

ROOT = Path(__file__).parents[2]
SECONDS = 240

RTOL = 1e-5
"""Sums over replicas are added in another order; 2e-7 was measured."""


def build_dense_tail(dropout=0.0):
    x = inputs = keras.Input((4, 4, 2))
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(16, activation="relu")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, seed=3)(x)
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x), name="dense")


def build_dropout_tail():
    return build_dense_tail(dropout=0.5)


def build_convolutional_tail():
    x = inputs = keras.Input((4, 4, 2))
    x = keras.layers.Conv2D(6, 3, padding="same", activation="relu")(x)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x), name="conv")


def build_normalizing_tail():
    x = inputs = keras.Input((4, 4, 2))
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x), name="normalizing")


class CallRecorder(keras.callbacks.Callback):
    """Note what was called, and with which logs."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def on_train_begin(self, logs=None):
        self.calls.append(["train", self.params["epochs"], self.params["steps"]])

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append([epoch, *sorted(logs)])

    def on_train_batch_end(self, batch, logs=None):
        self.calls.append(["batch", batch, *sorted(logs)])

    def on_test_batch_end(self, batch, logs=None):
        self.calls.append(["test batch", batch, *sorted(logs)])

    def on_train_end(self, logs=None):
        self.calls.append(["end", *sorted(logs)])


def train(
    strategy, images, build=build_dense_tail, *, epochs=3, learning_rate=1e-3, callbacks=(),
    initial_epoch=0, noise=False, seed=0,
):  # fmt: skip
    """Train a small tail on two views in batches of 8; return all that the tests compare."""
    random = np.random.default_rng(0)
    x = random.normal(size=(images, 4, 4, 2)).astype("float32")
    validation = random.normal(size=(21, 4, 4, 2)).astype("float32")
    y, held_out = (np.int64(a.sum((1, 2, 3)) > 0) for a in (x, validation))
    if noise:
        y, held_out = random.integers(0, 2, images), random.integers(0, 2, 21)
    keras.utils.set_random_seed(1)
    tail = build()
    model = copy_into(strategy, tail)
    with strategy.scope() if strategy else tf.distribute.get_strategy().scope():
        model.compile(
            FusedAdam(learning_rate),
            "sparse_categorical_crossentropy",
            metrics=["accuracy"],
            jit_compile=False,
        )
    recorder = CallRecorder()
    history = fit(
        model,
        strategy,
        ViewBatches([x, x[::-1] + 1], y, 8, seed, initial_epoch),
        validation_data=PlainBatches(validation, held_out, 8),
        epochs=epochs,
        initial_epoch=initial_epoch,
        callbacks=[recorder, *callbacks],
    )
    tail.set_weights(model.get_weights())
    seeds = [
        keras.ops.convert_to_numpy(value).tolist()
        for layer in model.layers if hasattr(layer, "seed_generator")
        for value in (strategy or tf.distribute.get_strategy()).experimental_local_results(
            layer.seed_generator.state.value)
    ]  # fmt: skip
    return {
        "history": {name: [float(v) for v in values] for name, values in history.history.items()},
        "epochs": history.epoch,
        "weights": [w.tolist() for w in tail.get_weights()],
        "calls": recorder.calls,
        "seeds": seeds,
        "keras_fit": model.train_function is not None,
        "stopped": model.stop_training,
        "sum": float(tail.predict(validation, verbose=0)[:, 1].sum()),
    }


def watchers():
    return [
        keras.callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.2, patience=1),
        keras.callbacks.EarlyStopping(monitor="val_loss", patience=2),
    ]


def write_checkpoint(strategy, folder):
    file = folder / "best.weights.h5"
    writer = keras.callbacks.ModelCheckpoint(file, save_weights_only=True)
    result = train(strategy, 16, epochs=1, callbacks=[writer])
    return {"written": file.is_file(), "chief": is_chief(strategy)} | result


class Table:
    """Activations of the shape that training reads, in memory."""

    fingerprint = "fixed"

    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def __getitem__(self, rows):
        return self.values[rows]


def train_as_the_study_does(strategy, folder):
    """Run `train_tail`, which finds the strategy itself; all workers share one folder."""
    random = np.random.default_rng(0)
    x, held_out = random.normal(size=(43, 4, 4, 2)), random.normal(size=(21, 4, 4, 2))
    labels = [np.int64(a.sum((1, 2, 3)) > 0) for a in (x, held_out)]
    keras.utils.set_random_seed(1)
    tail = build_dense_tail()
    history = train_tail(
        tail, [Table(x)], labels[0], Table(held_out), labels[1],
        Recipe(epochs=4, batch_size=8, learning_rate=1e-2, seed=3),
        folder.parent / "shared" / "best.weights.h5", state_share=1.0,
    )  # fmt: skip
    return {
        "history": history.to_dict("list"),
        "epochs": history.epoch.tolist(),
        "weights": [w.tolist() for w in tail.get_weights()],
        "sum": float(tail.predict(held_out, verbose=0)[:, 1].sum()),
    }


def start_differently(strategy, folder):
    """Let every process have weights of its own."""

    def build():
        keras.utils.set_random_seed(os.getpid())
        return build_dense_tail()

    return refuse(train, strategy, 16, build)


def go_on_differently(strategy, folder):
    """Let every process take up the training at another epoch."""
    return refuse(train, strategy, 16, initial_epoch=0 if is_chief(strategy) else 1)


def shuffle_differently(strategy, folder):
    return refuse(train, strategy, 16, seed=0 if is_chief(strategy) else 1)


def refuse(function, *arguments, **options):
    try:
        function(*arguments, **options)
    except DistributionError as error:
        return {"error": str(error)}
    return {"error": ""}


SCENARIOS = {
    # 43 images: the last batch has 3, which two replicas cannot share evenly.
    "uneven": lambda strategy, _: train(strategy, 43),
    "even": lambda strategy, _: train(strategy, 44),
    # 41 images: one replica has nothing of the last batch.
    "empty slice": lambda strategy, _: train(strategy, 41, build_convolutional_tail),
    "empty statistics": lambda strategy, _: train(strategy, 41, build_normalizing_tail),
    "resumed": lambda strategy, _: train(strategy, 43, initial_epoch=1),
    "stopping": lambda strategy, _: train(
        strategy, 43, epochs=12, learning_rate=1e-2, callbacks=watchers(), noise=True
    ),
    "dropout": lambda strategy, _: train(strategy, 43, build_dropout_tail),
    "checkpoint": write_checkpoint,
    "study": train_as_the_study_does,
    "plain model": lambda strategy, _: refuse(fit, build_dense_tail(), strategy, [],
                                              validation_data=[], epochs=1),
}  # fmt: skip
DISAGREEMENTS = {
    "other weights": start_differently,
    "other epochs": go_on_differently,
    "other order": shuffle_differently,
}


def main(name, file):
    """Run the scenarios under a strategy; the tests start this in processes of its own."""
    if name == "mirrored":
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
    os.environ["STRATEGY"] = name
    strategy = open_strategy()
    scenarios = SCENARIOS | (DISAGREEMENTS if name == "multiworker" else {})
    folder = Path(file).parent
    results = {key: scenario(strategy, folder) for key, scenario in scenarios.items()}
    results["replicas"] = strategy.num_replicas_in_sync
    results["cached"] = open_strategy(name) is strategy
    if name == "mirrored":
        os.environ["TF_CONFIG"] = tf_config([1, 2], 0)
        results["too late"] = refuse(open_strategy, "multiworker")
    Path(file).write_text(json.dumps(results))


def tf_config(ports, index):
    workers = [f"127.0.0.1:{port}" for port in ports]
    return json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})


def run_processes(folder, name, configs):
    """Run `main` in one process a configuration; end all of them when one fails or hangs."""
    plain = {key: value for key, value in os.environ.items() if key not in ("STRATEGY",)}
    folders = [folder / str(number) for number in range(len(configs))]
    processes = []
    for place, config in zip(folders, configs, strict=True):
        place.mkdir()
        command = [
            sys.executable,
            "-m",
            "tests.training.test_distribution",
            name,
            place / "results.json",
        ]
        processes.append(
            subprocess.Popen(
                command, cwd=ROOT, env=plain | config, stdout=subprocess.DEVNULL,
                stderr=(place / "stderr").open("w"),
            )
        )  # fmt: skip
    end = time.monotonic() + SECONDS
    try:
        while any(process.poll() is None for process in processes):
            assert time.monotonic() < end, f"{name} hangs: {_errors(folders)}"
            assert not any(process.poll() for process in processes), _errors(folders)
            time.sleep(0.2)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert not any(process.returncode for process in processes), _errors(folders)
    return [json.loads((place / "results.json").read_text()) for place in folders]


def _errors(folders):
    return "\n".join((place / "stderr").read_text()[-3000:] for place in folders)


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Return one worker's results, scenario by scenario."""
    names = (
        "uneven", "even", "empty slice", "empty statistics", "resumed", "stopping", "study",
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("one") / "0"
    return {name: SCENARIOS[name](None, folder) for name in names}


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    return run_processes(tmp_path_factory.mktemp("mirrored"), "mirrored", [{}])[0]


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    ports = free_ports(2)
    configs = [{"TF_CONFIG": tf_config(ports, index)} for index in range(2)]
    return run_processes(tmp_path_factory.mktemp("workers"), "multiworker", configs)


@pytest.fixture(scope="module", params=["mirrored", "multiworker"])
def several(request):
    """Return the results of each process: one for mirrored devices, two workers."""
    if request.param == "mirrored":
        return [request.getfixturevalue("mirrored")]
    return request.getfixturevalue("workers")


def assert_equal_training(result, expected):
    assert list(result["history"]) == list(expected["history"])
    for name, values in expected["history"].items():
        np.testing.assert_allclose(result["history"][name], values, rtol=RTOL, err_msg=name)
    for weights, others in zip(result["weights"], expected["weights"], strict=True):
        np.testing.assert_allclose(weights, others, rtol=RTOL, atol=1e-5)
    assert result["epochs"] == expected["epochs"]
    assert result["sum"] == pytest.approx(expected["sum"], rel=RTOL)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["uneven", "even", "empty slice", "empty statistics", "resumed", "study"]
)
def test_two_replicas_learn_what_one_learns(several, one, name):
    for results in several:
        assert results["replicas"] == 2
        assert_equal_training(results[name], one[name])


@pytest.mark.slow
def test_keras_fits_where_it_is_exact(mirrored, workers, one):
    assert one["uneven"]["keras_fit"]
    assert mirrored["even"]["keras_fit"] and not mirrored["uneven"]["keras_fit"]
    assert not any(worker["even"]["keras_fit"] for worker in workers)


@pytest.mark.slow
def test_all_workers_stop_at_the_same_epoch(several, one):
    assert one["stopping"]["stopped"] and len(one["stopping"]["epochs"]) < 12
    rates = one["stopping"]["history"]["learning_rate"]
    assert rates[-1] < rates[0], "the learning rate should have fallen"
    for results in several:
        assert results["stopping"]["stopped"]
        assert_equal_training(results["stopping"], one["stopping"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["uneven", "stopping"])
def test_callbacks_are_called_as_keras_calls_them(several, one, name):
    for results in several:
        assert results[name]["calls"] == one[name]["calls"]


@pytest.mark.slow
def test_workers_hold_the_same_weights(workers):
    first, second = ([worker[name]["weights"] for name in ("uneven", "dropout")]
                     for worker in workers)  # fmt: skip
    assert first == second


@pytest.mark.slow
def test_every_replica_has_its_own_dropout(mirrored, workers):
    seeds = [seed for seed, _ in mirrored["dropout"]["seeds"]]
    assert seeds == [3, 4]
    assert [worker["dropout"]["seeds"][0][0] for worker in workers] == [3, 4]


@pytest.mark.slow
def test_only_the_chief_writes_files(mirrored, workers):
    written = [result["checkpoint"]["written"] for result in (mirrored, *workers)]
    assert written == [True, True, False]
    assert [result["checkpoint"]["chief"] for result in (mirrored, *workers)] == written


@pytest.mark.slow
def test_workers_that_do_not_agree_are_refused(workers):
    for worker in workers:
        assert "different checksums of the first weights" in worker["other weights"]["error"]
        assert "different initial epochs: [0, 1]" in worker["other epochs"]["error"]
        assert "different checksums of the first labels" in worker["other order"]["error"]


@pytest.mark.slow
def test_a_model_outside_of_the_scope_is_refused(several):
    for results in several:
        assert "take copy_into's copy" in results["plain model"]["error"]


@pytest.mark.slow
def test_a_strategy_is_opened_once_and_in_time(several, mirrored):
    assert all(results["cached"] for results in several)
    assert "restart the kernel" in mirrored["too late"]["error"]


def test_one_is_the_default_and_takes_the_model_as_it_is(monkeypatch):
    monkeypatch.delenv("STRATEGY", raising=False)
    assert open_strategy() is None and is_chief(None)
    tail = build_dense_tail()
    assert copy_into(None, tail) is tail


def test_an_unknown_strategy_is_refused(monkeypatch):
    monkeypatch.setenv("STRATEGY", "horovod")
    with pytest.raises(DistributionError, match="one, mirrored, multiworker, not 'horovod'"):
        open_strategy()


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "[]",
        "null",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
    ],
)
def test_multiworker_needs_a_usable_tf_config(monkeypatch, text):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(DistributionError, match="TF_CONFIG.* set it"):
        open_strategy("multiworker")


def test_the_copy_of_a_tail_has_its_weights_and_what_is_frozen():
    whole = build_convolutional_tail()
    whole.trainable = False
    _, tail = cut_model(whole, whole.layers[2].name)
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    for model in (tail, build_reference_head((2, 2, 3), seed=1, standardize=True)):
        copy = copy_into(strategy, model)
        assert [w.path for w in copy.weights] == [w.path for w in model.weights]
        assert [w.shape for w in copy.trainable_weights] == [
            w.shape for w in model.trainable_weights
        ]
        for mine, original in zip(copy.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, original)
        assert copy.weights[0] is not model.weights[0]


if __name__ == "__main__":
    main(*sys.argv[1:])
