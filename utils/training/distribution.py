"""Train one tail on several devices or machines at once, with `tf.distribute`.

`STRATEGY` names how: `one` (the default), `mirrored` (all GPUs of this machine, or all logical
CPU devices where there is none) or `multiworker` (one process a machine, `TF_CONFIG` names them).
The numbers are those of one worker but for the order of additions: a batch of 32 is 32 over all
replicas, whatever its slices, and the last and smaller batch weighs what it weighs on one.

A training goes in this order, in every process alike:

1. `open_strategy()` before anything else of TensorFlow: it can make no multi-worker strategy once
   a layer, a tensor or a list of logical devices exists. Imports and `set_random_seed` may precede.
2. Build the model as ever, outside of the scope, then `copy_into(strategy, model)`.
3. `with strategy.scope(): copy.compile(..., jit_compile=False)`: XLA has no collectives on CPU.
4. `fit(copy, strategy, ...)`, then `model.set_weights(copy.get_weights())`.

Predict and export with the plain model: `predict` and `evaluate` of the copy would wait for the
other workers.
"""

import functools
import json
import os
import zlib
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

STRATEGIES = ("one", "mirrored", "multiworker")

_FILE_WRITERS = (
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.BackupAndRestore,
    keras.callbacks.CSVLogger,
    keras.callbacks.TensorBoard,
)
_LOSS = "sparse_categorical_crossentropy"
_EXAMPLE = (
    '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)

Slices = list[np.ndarray]
Step = Callable[[Slices, Slices, np.float32], tf.Tensor]


class DistributionError(ValueError):
    """A strategy that cannot be had, or workers that do not agree; the message says the remedy."""


def open_strategy(name: str | None = None) -> tf.distribute.Strategy | None:
    """Return the strategy of this process, the same one at every call; None for `one`.

    Call it first with `multiworker`, before TensorFlow has made anything: see the module's text.
    All workers have to be started; a call waits for those that are not there yet.

    Args:
        name: One of `STRATEGIES`; the environment variable `STRATEGY` by default, else `one`.

    Raises:
        DistributionError: if the name is unknown, `TF_CONFIG` is not usable, or a multi-worker
            strategy is opened too late.
    """
    name = name or os.environ.get("STRATEGY") or "one"
    if name not in STRATEGIES:
        raise DistributionError(f"STRATEGY is one of {', '.join(STRATEGIES)}, not {name!r}")
    return _open(name)


@functools.cache
def _open(name: str) -> tf.distribute.Strategy | None:
    if name == "one":
        return None
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    _check_tf_config(os.environ.get("TF_CONFIG", ""))
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        if "program startup" not in str(error):
            raise
        raise DistributionError(
            "STRATEGY=multiworker is opened too late, TensorFlow has run in this process already: "
            "call open_strategy() before any model is built; in a notebook, restart the kernel"
        ) from error


def _check_tf_config(text: str) -> None:
    """Refuse a `TF_CONFIG` on which TensorFlow would wait for ever, or train alone unnoticed."""
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        kind, index, workers = task["type"], int(task["index"]), list(cluster["worker"])
    except (ValueError, KeyError, TypeError) as error:
        raise DistributionError(
            f"STRATEGY=multiworker needs TF_CONFIG with all workers and this one's place, "
            f"not {text!r}; set it in each process, as in {_EXAMPLE}"
        ) from error
    if kind != "worker" or set(cluster) != {"worker"} or not 0 <= index < len(workers):
        raise DistributionError(
            f"TF_CONFIG has workers alone, and task is one of the {len(workers)}, not {text!r}; "
            f"set it as in {_EXAMPLE}"
        )


def is_chief(strategy: tf.distribute.Strategy | None) -> bool:
    """Tell whether this process writes the files: the only one, or task 0 of several."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return True
    return strategy.cluster_resolver.task_id == 0


def wait_for_all(strategy: tf.distribute.Strategy | None) -> None:
    """Return when every worker has come here; at once where there is only this process."""
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        one = strategy.experimental_distribute_values_from_function(lambda _: tf.constant([1]))
        strategy.gather(one, axis=0)


def copy_into(strategy: tf.distribute.Strategy | None, model: keras.Model) -> keras.Model:
    """Copy a functional model into a strategy's scope: new variables, the same weights.

    Batch normalization that is trainable takes its statistics over all replicas in the copy, so
    that they are those of the global batch.

    Args:
        strategy: From `open_strategy`; without one the model itself is returned.
        model: Functional, built outside of any scope; whether it is compiled does not matter.

    Returns:
        A model that is not compiled; its weights are in the order of the original's.
    """
    if strategy is None:
        return model

    def clone(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        if isinstance(layer, keras.layers.BatchNormalization):
            config["synchronized"] = layer.trainable
        return type(layer).from_config(config)

    with strategy.scope():
        copy = keras.models.clone_model(model, clone_function=clone)
        copy.set_weights(model.get_weights())
    return copy


def fit(
    model: keras.Model,
    strategy: tf.distribute.Strategy | None,
    batches: keras.utils.PyDataset,
    *,
    validation_data: keras.utils.PyDataset,
    epochs: int,
    initial_epoch: int = 0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> keras.callbacks.History:
    """Train a compiled model as `model.fit(shuffle=False, verbose=0)` does, under a strategy.

    Keras' own `fit` runs for one worker and for mirrored devices. It fails with several workers
    (keras#20585), and it weighs all replicas alike, which is wrong where a batch cannot be
    divided evenly (three images on two devices). Both go through a short loop that drives Keras'
    `CallbackList` and divides the sum over a batch by the size of the whole batch.

    All workers see the same losses, so that early stopping and learning rate agree. Keras'
    callbacks that write files run on the chief alone; callbacks of one's own run everywhere, and
    have to ask `is_chief` before they write. Dropout draws another mask on each replica.

    Args:
        model: From `copy_into`, compiled in the scope: `sparse_categorical_crossentropy`,
            metrics `["accuracy"]`.
        strategy: From `open_strategy`.
        batches: (n, ...) float and (n,) int labels of each global batch, the same in every
            process; its `on_epoch_end` is called when `fit` calls it.
        validation_data: Batches in the same form.
        epochs: Number of the last epoch.
        initial_epoch: Epochs that need not be run again.
        callbacks: Keras' or one's own.

    Returns:
        The history: loss, accuracy, val_loss, val_accuracy, and what callbacks add.

    Raises:
        DistributionError: if the model is not in the strategy's scope or has another loss, or
            if workers start from different weights, epochs or batches.
    """
    listeners = list(callbacks)
    if strategy is not None:
        if model.distribute_strategy is not strategy:
            raise DistributionError(
                f"{model.name} was built outside of the strategy's scope; take copy_into's copy"
            )
        if not is_chief(strategy):
            listeners = [each for each in listeners if not isinstance(each, _FILE_WRITERS)]
        # The last of all: it shifts what a kept training state may have restored.
        listeners.append(_DistinctDropout(strategy))
    if strategy is None or _fit_is_exact(strategy, batches):
        return model.fit(
            batches,
            validation_data=validation_data,
            epochs=epochs,
            initial_epoch=initial_epoch,
            shuffle=False,
            verbose=0,
            callbacks=listeners,
        )
    return _Loop(model, strategy).fit(batches, validation_data, epochs, initial_epoch, listeners)


def _fit_is_exact(strategy: tf.distribute.Strategy, batches: keras.utils.PyDataset) -> bool:
    """Tell whether Keras' `fit` gives one worker's numbers: equal slices in one process."""
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return False
    sizes = {len(batches[number][1]) for number in (0, len(batches) - 1)}
    return all(size % strategy.num_replicas_in_sync == 0 for size in sizes)


class _DistinctDropout(keras.callbacks.Callback):
    """Give each replica random numbers of its own; Keras seeds all alike.

    The first replica keeps its seed, so that the chief's state is that of one worker.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        super().__init__()
        self._strategy = strategy

    def on_train_begin(self, logs: dict | None = None) -> None:
        states = [layer.seed_generator.state for layer in self.model.layers
                  if hasattr(layer, "seed_generator")]  # fmt: skip

        @tf.function
        def shift() -> None:
            context = tf.distribute.get_replica_context()
            replica = tf.cast(context.replica_id_in_sync_group, tf.int64)
            for state in states:
                # From the first replica's, whatever the others hold: a kept state of each worker
                # or of the chief leads to the same numbers.
                own = tf.cast(state.value, tf.int64) * tf.cast(replica == 0, tf.int64)
                first = context.all_reduce(tf.distribute.ReduceOp.SUM, own)
                state.assign(tf.cast(first + tf.stack([replica, 0]), state.dtype))

        if states:
            self._strategy.run(shift)


class _Loop:
    """Keras' `fit` for replicas that each take a slice of every batch."""

    def __init__(self, model: keras.Model, strategy: tf.distribute.Strategy) -> None:
        if model.loss != _LOSS or model.losses:
            raise DistributionError(
                f"{model.name} has the loss {model.loss!r} and {len(model.losses)} penalties; "
                f"under this strategy compile it with {_LOSS!r} alone"
            )
        self._model, self._strategy = model, strategy
        self._shares_statistics = any(
            isinstance(layer, keras.layers.BatchNormalization) and layer.synchronized
            for layer in model.layers
        )
        places = strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(context.replica_id_in_sync_group)
        )
        self._replicas = [int(place) for place in strategy.experimental_local_results(places)]
        if not model.optimizer.built:
            with strategy.scope():
                # Variables cannot be made within the step, and all workers make them together.
                model.optimizer.build(model.trainable_variables)
        self._train, self._evaluate = self._compile(self._learn), self._compile(self._judge)

    def _judge(self, x: tf.Tensor, y: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        """Return the sums of loss and hits over one replica's slice, (2,) float32."""
        return self._score(x, y, training=False)

    def _score(self, x: tf.Tensor, y: tf.Tensor, training: bool) -> tf.Tensor:
        # Convolutions by oneDNN, which TensorFlow takes on processors with AVX-512 VNNI, return a
        # wrong shape for no image at all, so that an empty slice becomes one black image that
        # counts nothing. It would count in statistics over all replicas, where it is left empty.
        lacking = tf.cast(tf.shape(x)[0] == 0, tf.int32) * int(not self._shares_statistics)
        x = tf.pad(x, [[0, lacking], *([0, 0] for _ in x.shape[1:])])
        y = tf.pad(y, [[0, lacking]])
        probabilities = self._model(x, training=training)
        loss = keras.losses.sparse_categorical_crossentropy(y, probabilities)
        hits = tf.argmax(probabilities, axis=-1) == y
        sums = [tf.reduce_sum(tf.cast(each, tf.float32), axis=0) for each in (loss, hits)]
        return tf.stack(sums) * tf.cast(1 - lacking, tf.float32)

    def _learn(self, x: tf.Tensor, y: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        """Take one replica's part in a step of Adam; return its sums as `_judge` does."""
        model, optimizer = self._model, self._model.optimizer

        with tf.GradientTape() as tape:
            sums = self._score(x, y, training=True)
            loss = optimizer.scale_loss(sums[0] / size)
        gradients = tape.gradient(loss, model.trainable_variables)
        # Keras' optimizer sums the gradients over all replicas.
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return sums

    def _compile(self, on_replica: Callable[..., tf.Tensor]) -> Step:
        """Turn what a replica does into a function of this process' slices.

        Slices may have any size, none included. One trace serves all sizes: a worker that
        traced more often than another would number its collectives differently, and wait.
        """
        x = [tf.TensorSpec(self._model.input_shape, tf.float32)] * len(self._replicas)
        y = [tf.TensorSpec([None], tf.int64)] * len(self._replicas)

        @tf.function(input_signature=[x, y, tf.TensorSpec([], tf.float32)])
        def step(x: list[tf.Tensor], y: list[tf.Tensor], size: tf.Tensor) -> tf.Tensor:
            sums = self._strategy.run(on_replica, args=(self._spread(x), self._spread(y), size))
            return self._strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

        return step

    def _spread(self, values: Sequence[tf.Tensor]) -> tf.distribute.DistributedValues:
        """Give each replica of this process its own value."""
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: values[self._replicas.index(context.replica_id_in_sync_group)]
        )

    def _slices(self, batch: np.ndarray) -> Slices:
        """Cut this process' slices out of a global batch."""
        count = self._strategy.num_replicas_in_sync
        bounds = [len(batch) * place // count for place in range(count + 1)]
        return [batch[bounds[place] : bounds[place + 1]] for place in self._replicas]

    def fit(
        self,
        batches: keras.utils.PyDataset,
        validation_data: keras.utils.PyDataset,
        epochs: int,
        initial_epoch: int,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> keras.callbacks.History:
        """Train; arguments and result are those of the module's `fit`."""
        model = self._model
        listeners = keras.callbacks.CallbackList(
            list(callbacks), add_history=True, model=model,
            verbose=0, epochs=epochs, steps=len(batches),
        )  # fmt: skip
        # Keras' `fit` does so before the first epoch, too.
        batches.on_epoch_end()
        model.stop_training = False
        listeners.on_train_begin()
        self._require_agreement(batches, validation_data, epochs, initial_epoch)
        logs: dict[str, float] = {}
        for epoch in range(initial_epoch, epochs):
            listeners.on_epoch_begin(epoch)
            logs = self._run(
                self._train, batches, listeners.on_train_batch_begin, listeners.on_train_batch_end
            )
            listeners.on_test_begin()
            validation = self._run(
                self._evaluate, validation_data,
                listeners.on_test_batch_begin, listeners.on_test_batch_end,
            )  # fmt: skip
            listeners.on_test_end(validation)
            logs |= {f"val_{name}": value for name, value in validation.items()}
            listeners.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
        listeners.on_train_end(logs)
        return model.history

    def _run(
        self,
        step: Step,
        batches: keras.utils.PyDataset,
        begin: Callable[[int], None],
        end: Callable[[int, dict[str, float]], None],
    ) -> dict[str, float]:
        """Go once through all batches; return the means over all samples of all replicas."""
        sums, samples, means = np.zeros(2), 0, {}
        batches.on_epoch_begin()
        for number in range(len(batches)):
            begin(number)
            x, y = batches[number]
            y = np.asarray(y, np.int64)
            x = np.asarray(x, np.float32)
            sums += step(self._slices(x), self._slices(y), np.float32(len(y))).numpy()
            samples += len(y)
            means = {"accuracy": float(sums[1] / samples), "loss": float(sums[0] / samples)}
            end(number, means)
            if step is self._train and self._model.stop_training:
                break
        batches.on_epoch_end()
        return means

    def _require_agreement(
        self,
        batches: keras.utils.PyDataset,
        validation_data: keras.utils.PyDataset,
        epochs: int,
        initial_epoch: int,
    ) -> None:
        """Refuse workers that would wait for each other, or train different models as one."""
        weights = functools.reduce(
            lambda sum_so_far, array: zlib.crc32(array.tobytes(), sum_so_far),
            self._model.get_weights(),
            0,
        )
        facts = {
            "initial epochs": initial_epoch,
            "epochs": epochs,
            "batches an epoch": len(batches),
            "checksums of the first labels": zlib.crc32(np.asarray(batches[0][1], np.int64)),
            "validation batches": len(validation_data),
            "checksums of the first weights": weights,
        }
        mine = tf.constant([list(facts.values())], tf.int64)
        everyone = self._strategy.gather(self._spread([mine] * len(self._replicas)), axis=0)
        for name, values in zip(facts, everyone.numpy().T.tolist(), strict=True):
            if len(set(values)) > 1:
                raise DistributionError(
                    f"workers have different {name}: {values}; start all of them with the same "
                    "study, seed and weights, and with a results folder that all of them read"
                )
