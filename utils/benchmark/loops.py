"""The loops that `make bench` compares, and how their memory is watched.

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
  not think of. Its augmentation layers stand for the baseline's transforms with the same ranges;
  brightness is added instead of multiplied, because that is what the layer does.
- Keras' own default decides about XLA in the other contenders; the record says what it chose.
"""

import re
import resource
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from keras import layers
from sklearn.metrics import roc_auc_score

from utils.benchmark.preparation import Bench, Images
from utils.common.constants import IMAGE_SIZE, PNEUMONIA
from utils.data.augmentation import PUBLISHED_RANGES
from utils.models.backbones import build_head, join
from utils.models.catalogue import BACKBONES
from utils.models.weights import load_backbone_weights
from utils.training.activations import ActivationStore, ActivationTable, AugmentedCopy
from utils.training.head import Recipe, predict_pneumonia, train_head

PROCESS_STATUS = Path("/proc/self/status")


@contextmanager
def watch_memory(interval: float = 0.02) -> Iterator[dict[str, Any]]:
    """Sample this process' anonymous memory every `interval` seconds while a block runs.

    Mapped pages of the cache are the kernel's and are not counted. Where there is no `RssAnon`
    (outside Linux), the largest resident size of the whole process stands for it.

    Yields:
        Its `peak_mb`, once the block is left, and the `memory_measure`.
    """
    found: dict[str, Any] = {"peak_mb": 0.0, "memory_measure": "RssAnon"}
    done = threading.Event()

    def sample() -> None:
        waiting = True
        while waiting:
            found["peak_mb"] = max(found["peak_mb"], read_anonymous_mb() or 0.0)
            waiting = not done.wait(interval)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()
    if not found["peak_mb"]:
        unit = 1e6 if sys.platform == "darwin" else 1e3
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        found |= {"peak_mb": largest, "memory_measure": "ru_maxrss"}


def read_anonymous_mb() -> float | None:
    """Return the anonymous resident memory of this process in MB; None outside Linux."""
    status = PROCESS_STATUS.read_text(encoding="utf-8") if PROCESS_STATUS.is_file() else ""
    kilobytes = re.search(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)
    return int(kilobytes[1]) * 1024 / 1e6 if kilobytes else None


class _HeadCheckpoint(keras.callbacks.ModelCheckpoint):
    """Keep the head's weights of the best epoch, whatever model is trained around it."""

    def __init__(self, head: keras.Model, file: Path) -> None:
        super().__init__(file, monitor="val_loss", save_best_only=True, save_weights_only=True)
        self._head = head

    def set_model(self, model: keras.Model) -> None:
        super().set_model(self._head)


def _train_contender(
    bench: Bench, model: keras.Model, head: keras.Model, open_data: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Train a contender that is not ours, and return its times, memory and quality.

    Args:
        bench: The benchmark.
        model: What is trained: the head, or the head behind the frozen base.
        head: What is kept.
        open_data: Returns what `fit` is told of the data; what it computes is on the clock.
    """
    recipe = bench.recipe(bench.settings.seeds[0])
    best = bench.empty_folder("others") / "best.weights.h5"
    with watch_memory() as memory:
        start = time.perf_counter()
        data = open_data()
        filled = time.perf_counter() - start
        model.compile(
            optimizer=keras.optimizers.Adam(recipe.learning_rate),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
        keras.utils.set_random_seed(recipe.seed)
        plateau = keras.callbacks.ReduceLROnPlateau(
            monitor="val_loss", factor=recipe.plateau_factor, patience=recipe.plateau_patience
        )
        callbacks = [_HeadCheckpoint(head, best), plateau]
        model.fit(**data, epochs=recipe.epochs, verbose=0, callbacks=callbacks)
        head.load_weights(best)
        seconds = time.perf_counter() - start
    held_out = data["validation_data"]
    images = held_out[0] if isinstance(held_out, tuple) else held_out
    probability = model.predict(images, verbose=0)[:, PNEUMONIA]
    return {
        "seconds": seconds, "fill_seconds": filled, "train_seconds": seconds - filled,
        "epochs_run": recipe.epochs, "jit_compile": bool(model.jit_compile), "seed": recipe.seed,
    } | memory | score(bench, probability)  # fmt: skip


def score(bench: Bench, probability: np.ndarray) -> dict[str, Any]:
    """Return validation AUC and the probabilities of PNEUMONIA behind it."""
    _, validation = bench.choose()
    return {
        "validation_auc": float(roc_auc_score(validation.label, probability)),
        "probabilities": [float(value) for value in probability],
    }


def run_published_loop(bench: Bench) -> dict[str, Any]:
    """Train as the published baseline does: `ImageDataGenerator`, `fit` through the frozen base."""
    train, validation = bench.choose()
    seed, ranges = bench.settings.seeds[0], PUBLISHED_RANGES
    backbone = getattr(keras.applications, BACKBONES["resnet50"].keras_name)
    shape = (IMAGE_SIZE, IMAGE_SIZE, 3)
    base = backbone(weights=None, include_top=False, input_shape=shape)
    load_backbone_weights(base, bench.weights)
    base.trainable = False
    head = build_head(base.output_shape[1:], seed)
    generator = partial(
        tf.keras.preprocessing.image.ImageDataGenerator,
        preprocessing_function=keras.applications.resnet.preprocess_input,
    )
    files = {
        "directory": str(bench.root), "x_col": "image_id", "y_col": "label", "class_mode": "raw",
        "target_size": shape[:2], "interpolation": "bilinear",
        "batch_size": bench.study.batch_size,
    }  # fmt: skip

    def open_data() -> dict[str, Any]:
        augmented = generator(
            rotation_range=ranges.rotation,
            width_shift_range=ranges.width_shift,
            height_shift_range=ranges.height_shift,
            zoom_range=list(ranges.zoom),
            shear_range=ranges.shear,
            brightness_range=ranges.brightness,
            horizontal_flip=ranges.horizontal_flip,
        )
        return {
            "x": augmented.flow_from_dataframe(train, shuffle=True, seed=seed, **files),
            "validation_data": generator().flow_from_dataframe(validation, shuffle=False, **files),
        }

    return _train_contender(bench, join(base, head), head, open_data)


def run_tf_data_loop(bench: Bench) -> dict[str, Any]:
    """Train as a good Keras user does today: `tf.data`, layers, `fit` through the frozen base."""
    train, validation = bench.choose()
    backbone, seed, batch = bench.build_backbone(), bench.settings.seeds[0], bench.study.batch_size
    head = build_head(backbone.output_shape[1:], seed)

    def open_data() -> dict[str, Any]:
        augment = build_augmentation(seed)
        kept, held_out = (
            read_with_tensorflow(bench.root, images).cache() for images in (train, validation)
        )
        batches = kept.shuffle(len(train), seed=seed).batch(batch).map(
            lambda images, labels: (augment(images, training=True), labels),
            num_parallel_calls=tf.data.AUTOTUNE,
        )  # fmt: skip
        return {
            "x": batches.prefetch(tf.data.AUTOTUNE),
            "validation_data": held_out.batch(batch).prefetch(tf.data.AUTOTUNE),
        }

    return _train_contender(bench, join(backbone, head), head, open_data)


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
    """Return the published baseline's augmentation as Keras' preprocessing layers."""
    ranges = PUBLISHED_RANGES
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
    backbone, batch = bench.build_backbone(), bench.study.batch_size
    head = build_head(backbone.output_shape[1:], bench.settings.seeds[0])

    def open_data() -> dict[str, Any]:
        features, held_out = (
            backbone.predict(
                read_with_tensorflow(bench.root, images).batch(batch).prefetch(tf.data.AUTOTUNE),
                verbose=0,
            )
            for images in (train, validation)
        )
        return {
            "x": features, "y": train.label.to_numpy(), "batch_size": batch,
            "validation_data": (held_out, validation.label.to_numpy()),
        }  # fmt: skip

    return _train_contender(bench, head, head, open_data)


def augmented_views(bench: Bench) -> list[AugmentedCopy]:
    """Return the augmented copies that ours trains on."""
    return [AugmentedCopy(number, bench.study.seed) for number in range(bench.settings.views)]


Tables = tuple[list[ActivationTable], ActivationTable]
"""Activations of the augmented copies and of validation."""


def load_ours(
    bench: Bench, backbone: keras.Model, images: Images, cache: Path, views: list[AugmentedCopy]
) -> Tables:
    """Return our cached activations; what the cache lacks is computed."""
    train, validation = images
    half = ActivationStore(cache, backbone, bench.views_dtype)
    single = ActivationStore(cache, backbone, "float32")
    return half.load_copies(bench.root, train, views), single.load(bench.root, validation)


def fill_ours(bench: Bench) -> None:
    """Fill our cache, where it is not full, for a process that is to find it full."""
    cache, views = bench.scratch / "cache", augmented_views(bench)
    load_ours(bench, bench.build_backbone(), bench.choose(), cache, views)


def _train_ours(
    images: Images, load: Callable[[], Tables], head: keras.Model, recipe: Recipe, best: Path
) -> tuple[dict[str, Any], ActivationTable]:
    """Train a head as this repository does; return times and memory, and validation's table."""
    labels, held_out_labels = (rows.label.to_numpy() for rows in images)
    with watch_memory() as memory:
        start = time.perf_counter()
        tables, held_out = load()
        filled = time.perf_counter() - start
        history = train_head(head, tables, labels, held_out, held_out_labels, recipe, best)
        seconds = time.perf_counter() - start
    record = {
        "seconds": seconds, "fill_seconds": filled, "train_seconds": seconds - filled,
        "epochs_run": len(history), "seed": recipe.seed,
    }  # fmt: skip
    return record | memory, held_out


def run_ours(bench: Bench, seed: int, warm: bool) -> dict[str, Any]:
    """Train as this repository does, on an empty cache or on a full one."""
    backbone, images, recipe = bench.build_backbone(), bench.choose(), bench.recipe(seed)
    cache = bench.scratch / "cache" if warm else bench.empty_folder("cache")
    best = bench.empty_folder(f"ours-{seed}") / "best.weights.h5"
    views = augmented_views(bench)
    head = build_head(backbone.output_shape[1:], seed)
    record, held_out = _train_ours(
        images, lambda: load_ours(bench, backbone, images, cache, views), head, recipe, best
    )
    return record | score(bench, predict_pneumonia(head, held_out))


def run_size(bench: Bench, count: int) -> dict[str, Any]:
    """Fill an empty cache with `count` images, not augmented, and train a few epochs."""
    backbone, images, views = bench.build_backbone(), bench.choose(count), [AugmentedCopy()]
    folder = bench.empty_folder(f"size-{count}")
    recipe = bench.recipe(bench.settings.seeds[0], bench.settings.size_epochs)
    head = build_head(backbone.output_shape[1:], recipe.seed)
    # The network is compiled once whatever the number of images: that is not their cost.
    load_ours(bench, backbone, (images[0][:1], images[1][:1]), folder / "start", views)
    record, _ = _train_ours(
        images, lambda: load_ours(bench, backbone, images, folder / "cache", views), head, recipe,
        folder / "best.weights.h5",
    )  # fmt: skip
    shutil.rmtree(folder)
    train, validation = map(len, images)
    counts = {"images": count, "train_images": train, "validation_images": validation}
    return counts | record
