"""The loops that `make bench` compares, and the memory and clock that they share.

What makes the comparison fair, for and against this repository:

- Every contender trains the same head from the same initial weights with the same optimizer and
  batch size on the same images for the same number of epochs, validates after every epoch, lowers
  the learning rate on a plateau, and keeps the best epoch. Early stopping is off, so that all do
  the same work; ours stops early in the study and is not credited for it here.
- Every contender runs in a process of its own. The clock starts with network and weights in
  memory and stops with the best epoch's weights loaded; compiling is inside, scoring is not.
- The other contenders keep the head's weights alone, as ours does: a checkpoint of the whole
  model with Adam's state would have cost them more. Ours also keeps its state against an
  interruption, which the others do without.
- `tf_data_loop` decodes each image once and keeps the pixels in memory, which most users would
  not think of. Its augmentation layers stand for the reference's transforms with the same ranges;
  brightness is added instead of multiplied, because that is what the layer does.
- Keras' own default decides about XLA in the other contenders; the record says what it chose.
"""

import resource
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from keras import layers
from sklearn.metrics import roc_auc_score

from utils.benchmark.preparation import Bench
from utils.common.constants import IMAGE_SIZE, PNEUMONIA
from utils.data.augmentation import REFERENCE_RANGES
from utils.models.backbones import build_reference_head, join
from utils.models.catalogue import BACKBONES
from utils.models.weights import load_backbone_weights
from utils.training.activations import ActivationStore, ActivationTable, View
from utils.training.head import predict_pneumonia, train_tail

LARGEST_MEASURED = 1000
"""Images up to which the loops through the frozen base run all their epochs."""
STEADY_EPOCHS = 3
"""Epochs from which a larger size is extrapolated: the first one is set apart."""
PROCESS_STATUS = Path("/proc/self/status")


class PeakMemory:
    """Sample this process' anonymous memory while a block runs, and keep its largest value.

    Mapped pages of the cache are the kernel's and are not counted. Where there is no `RssAnon`
    (outside Linux), the largest resident size of the whole process stands for it.
    """

    def __init__(self, interval: float = 0.02) -> None:
        """Sample every `interval` seconds."""
        self._interval = interval
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._peak = 0.0

    def _sample(self) -> None:
        while not self._done.wait(self._interval):
            self._peak = max(self._peak, read_anonymous_mb() or 0.0)

    def __enter__(self) -> "PeakMemory":
        """Begin."""
        self._peak = read_anonymous_mb() or 0.0
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """End."""
        self._done.set()
        self._thread.join()

    def describe(self) -> dict[str, Any]:
        """Return the peak in MB, and what was measured."""
        if self._peak:
            return {"peak_mb": round(self._peak, 1), "memory_measure": "RssAnon"}
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        unit = 1e6 if sys.platform == "darwin" else 1e3
        return {"peak_mb": round(largest / unit, 1), "memory_measure": "ru_maxrss"}


def read_anonymous_mb() -> float | None:
    """Return the anonymous resident memory of this process in MB; None outside Linux."""
    try:
        lines = PROCESS_STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("RssAnon:")]
    return kilobytes[0] * 1024 / 1e6 if kilobytes else None


class _EpochClock(keras.callbacks.Callback):
    """Note how long each epoch takes, its validation included."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.seconds.append(time.perf_counter() - self._start)


class _HeadCheckpoint(keras.callbacks.ModelCheckpoint):
    """Keep the head's weights of the best epoch, whatever model is trained around it."""

    def __init__(self, head: keras.Model, file: Path) -> None:
        super().__init__(file, monitor="val_loss", save_best_only=True, save_weights_only=True)
        self._head = head

    def set_model(self, model: keras.Model) -> None:
        super().set_model(self._head)


def extrapolate_seconds(epoch_seconds: list[float], epochs: int) -> float:
    """Return the seconds of all epochs from the first ones: the first, then the median of others.

    Where every epoch was run, that is their sum.
    """
    missing = epochs - len(epoch_seconds)
    if missing <= 0:
        return float(sum(epoch_seconds))
    steady = np.median(epoch_seconds[1:] or epoch_seconds)
    return float(sum(epoch_seconds) + missing * steady)


def _train_others(
    bench: Bench,
    model: keras.Model,
    head: keras.Model,
    batches: Any,
    validation: Any,
    epochs: int,
    **fit: Any,
) -> dict[str, Any]:
    """Train a contender that is not ours, and return its times."""
    seed = bench.settings.seeds[0]
    recipe = bench.recipe(seed)
    start = time.perf_counter()
    model.compile(
        optimizer=keras.optimizers.Adam(recipe.learning_rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    keras.utils.set_random_seed(seed)
    clock = _EpochClock()
    best = bench.empty_folder("others") / "best.weights.h5"
    model.fit(
        batches,
        validation_data=validation,
        epochs=epochs,
        verbose=0,
        callbacks=[
            clock,
            _HeadCheckpoint(head, best),
            keras.callbacks.ReduceLROnPlateau(
                monitor="val_loss", factor=recipe.plateau_factor, patience=recipe.plateau_patience
            ),
        ],
        **fit,
    )
    head.load_weights(best)
    measured = time.perf_counter() - start
    around = measured - sum(clock.seconds)
    return {
        "seconds": around + extrapolate_seconds(clock.seconds, recipe.epochs),
        "epoch_seconds": clock.seconds,
        "epochs_run": epochs,
        "extrapolated": epochs < recipe.epochs,
        "jit_compile": bool(model.jit_compile),
        "seed": seed,
    }


def _epochs_through_base(bench: Bench) -> int:
    epochs = bench.settings.epochs
    return epochs if bench.settings.images <= LARGEST_MEASURED else min(epochs, STEADY_EPOCHS)


def score(validation: pd.DataFrame, probability: np.ndarray) -> dict[str, Any]:
    """Return validation AUC and the probabilities of PNEUMONIA behind it."""
    return {
        "validation_auc": float(roc_auc_score(validation.label, probability)),
        "probabilities": [float(value) for value in np.ravel(probability)],
    }


def run_reference_loop(bench: Bench) -> dict[str, Any]:
    """Train as the reference does: `ImageDataGenerator`, `fit` through the frozen base."""
    train, validation = bench.choose()
    backbone = getattr(keras.applications, BACKBONES["resnet50"].keras_name)
    shape = (IMAGE_SIZE, IMAGE_SIZE, 3)
    base = backbone(weights=None, include_top=False, input_shape=shape)
    load_backbone_weights(base, bench.weights)
    base.trainable = False
    head = build_reference_head(base.output_shape[1:], bench.settings.seeds[0])
    model = join(base, head)
    prepare = keras.applications.resnet.preprocess_input
    ranges = REFERENCE_RANGES
    generator = tf.keras.preprocessing.image.ImageDataGenerator
    augmented = generator(
        preprocessing_function=prepare,
        rotation_range=ranges.rotation,
        width_shift_range=ranges.width_shift,
        height_shift_range=ranges.height_shift,
        zoom_range=list(ranges.zoom),
        shear_range=ranges.shear,
        brightness_range=ranges.brightness,
        horizontal_flip=ranges.horizontal_flip,
    )
    files = {
        "directory": str(bench.root), "x_col": "image_id", "y_col": "label", "class_mode": "raw",
        "target_size": shape[:2], "interpolation": "bilinear",
        "batch_size": bench.study.batch_size,
    }  # fmt: skip
    with PeakMemory() as memory:
        start = time.perf_counter()
        batches = augmented.flow_from_dataframe(
            train, shuffle=True, seed=bench.settings.seeds[0], **files
        )
        plain = generator(preprocessing_function=prepare)
        held_out = plain.flow_from_dataframe(validation, shuffle=False, **files)
        opened = time.perf_counter() - start
        record = _train_others(bench, model, head, batches, held_out, _epochs_through_base(bench))
    record["seconds"] += opened
    probability = model.predict(held_out, verbose=0)[:, PNEUMONIA]
    return record | memory.describe() | score(validation, probability)


def run_tf_data_loop(bench: Bench) -> dict[str, Any]:
    """Train as a good Keras user does today: `tf.data`, layers, `fit` through the frozen base."""
    train, validation = bench.choose()
    trunk = bench.build_trunk()
    head = build_reference_head(trunk.output_shape[1:], bench.settings.seeds[0])
    model = join(trunk, head)
    batch = bench.study.batch_size
    with PeakMemory() as memory:
        start = time.perf_counter()
        augment = build_augmentation(bench.settings.seeds[0])
        batches = (
            read_with_tensorflow(bench.root, train)
            .cache()
            .shuffle(len(train), seed=bench.settings.seeds[0])
            .batch(batch)
            .map(
                lambda images, labels: (augment(images, training=True), labels),
                num_parallel_calls=tf.data.AUTOTUNE,
            )
            .prefetch(tf.data.AUTOTUNE)
        )
        held_out = (
            read_with_tensorflow(bench.root, validation)
            .cache()
            .batch(batch)
            .prefetch(tf.data.AUTOTUNE)
        )
        opened = time.perf_counter() - start
        record = _train_others(bench, model, head, batches, held_out, _epochs_through_base(bench))
    record["seconds"] += opened
    probability = model.predict(held_out, verbose=0)[:, PNEUMONIA]
    return record | memory.describe() | score(validation, probability)


def read_with_tensorflow(root: Path, images: pd.DataFrame) -> tf.data.Dataset:
    """Return (224, 224, 3) uint8 pixels and labels of some images, decoded by TensorFlow."""

    def decode(file: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = tf.io.decode_jpeg(tf.io.read_file(file), channels=3)
        resized = tf.image.resize(pixels, (IMAGE_SIZE, IMAGE_SIZE), antialias=True)
        return tf.cast(tf.round(resized), tf.uint8), label

    files = [str(root / image_id) for image_id in images.image_id]
    listed = tf.data.Dataset.from_tensor_slices((files, images.label.to_numpy()))
    return listed.map(decode, num_parallel_calls=tf.data.AUTOTUNE)


def build_augmentation(seed: int) -> keras.Sequential:
    """Return the reference's augmentation as Keras' preprocessing layers."""
    ranges = REFERENCE_RANGES
    zoom = (ranges.zoom[0] - 1, ranges.zoom[1] - 1)
    edge = {"fill_mode": "nearest", "seed": seed}
    return keras.Sequential(
        [
            layers.RandomRotation(ranges.rotation / 360, **edge),
            layers.RandomTranslation(ranges.height_shift, ranges.width_shift, **edge),
            layers.RandomShear(x_factor=float(np.sin(np.deg2rad(ranges.shear))), **edge),
            layers.RandomZoom(zoom, zoom, **edge),
            layers.RandomFlip("horizontal", seed=seed),
            layers.RandomBrightness(ranges.brightness[1] - 1, value_range=(0, 255), seed=seed),
        ],
        name="augmentation",
    )


def run_bottleneck_once(bench: Bench) -> dict[str, Any]:
    """Train as the Keras blog does: features once, without augmentation, then the head."""
    train, validation = bench.choose()
    trunk = bench.build_trunk()
    head = build_reference_head(trunk.output_shape[1:], bench.settings.seeds[0])
    batch = bench.study.batch_size
    with PeakMemory() as memory:
        start = time.perf_counter()
        features, held_out = (
            trunk.predict(
                read_with_tensorflow(bench.root, images).batch(batch).prefetch(tf.data.AUTOTUNE),
                verbose=0,
            )
            for images in (train, validation)
        )
        extracted = time.perf_counter() - start
        record = _train_others(
            bench, head, head, features, (held_out, validation.label.to_numpy()),
            bench.settings.epochs, y=train.label.to_numpy(), batch_size=batch,
        )  # fmt: skip
    record["fill_seconds"] = extracted
    record["train_seconds"] = record["seconds"]
    record["seconds"] += extracted
    probability = head.predict(held_out, verbose=0)[:, PNEUMONIA]
    return record | memory.describe() | score(validation, probability)


def load_ours(
    bench: Bench,
    trunk: keras.Model,
    train: pd.DataFrame,
    validation: pd.DataFrame,
    folder: Path,
    views: list[View],
) -> tuple[list[ActivationTable], ActivationTable]:
    """Return our cached activations of the training views and of validation."""
    half = ActivationStore(folder, trunk, bench.views_dtype)
    single = ActivationStore(folder, trunk, "float32")
    return half.load_views(bench.root, train, views), single.load(bench.root, validation)


def augmented_views(bench: Bench) -> list[View]:
    """Return the augmented views that ours trains on."""
    return [View(number, bench.study.seed) for number in range(bench.settings.views)]


def fill_ours(bench: Bench) -> dict[str, Any]:
    """Fill our cache, where it is not full, for a process that is to find it full."""
    load_ours(
        bench, bench.build_trunk(), *bench.choose(), bench.scratch / "cache",
        augmented_views(bench),
    )  # fmt: skip
    return {}


def run_ours(bench: Bench, seed: int, warm: bool) -> dict[str, Any]:
    """Train as this repository does, on an empty cache or on a full one."""
    train, validation = bench.choose()
    cache = bench.scratch / "cache" if warm else bench.empty_folder("cache")
    trunk = bench.build_trunk()
    head = build_reference_head(trunk.output_shape[1:], seed)
    best = bench.empty_folder(f"ours-{seed}") / "best.weights.h5"
    with PeakMemory() as memory:
        start = time.perf_counter()
        views, held_out = load_ours(bench, trunk, train, validation, cache, augmented_views(bench))
        filled = time.perf_counter() - start
        history = train_tail(
            head, views, train.label.to_numpy(), held_out, validation.label.to_numpy(),
            bench.recipe(seed), best,
        )  # fmt: skip
        seconds = time.perf_counter() - start
    record = {
        "seconds": seconds,
        "fill_seconds": filled,
        "train_seconds": seconds - filled,
        "epochs_run": len(history),
        "extrapolated": False,
        "jit_compile": False,
        "seed": seed,
    }
    return record | memory.describe() | score(validation, predict_pneumonia(head, held_out))


def run_size(bench: Bench, count: int) -> dict[str, Any]:
    """Fill an empty cache with one plain view of `count` images and train a few epochs."""
    train, validation = bench.choose(count)
    folder = bench.empty_folder(f"size-{count}")
    trunk = bench.build_trunk()
    seed = bench.settings.seeds[0]
    head = build_reference_head(trunk.output_shape[1:], seed)
    # The network is compiled once whatever the number of images: that is not their cost.
    load_ours(bench, trunk, train[:1], validation[:1], folder / "start", [View()])
    with PeakMemory() as memory:
        start = time.perf_counter()
        views, held_out = load_ours(bench, trunk, train, validation, folder / "cache", [View()])
        filled = time.perf_counter() - start
        train_tail(
            head, views, train.label.to_numpy(), held_out, validation.label.to_numpy(),
            bench.recipe(seed, bench.settings.size_epochs), folder / "best.weights.h5",
        )  # fmt: skip
        seconds = time.perf_counter() - start
    shutil.rmtree(folder)
    return {
        "images": count,
        "train_images": len(train),
        "validation_images": len(validation),
        "fill_seconds": filled,
        "train_seconds": seconds - filled,
        "seconds": seconds,
    } | memory.describe()
