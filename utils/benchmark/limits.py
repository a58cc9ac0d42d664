"""What `make bench` measures of the machine: the limits that no loop can pass.

Every function runs in a process of its own, started by `utils.benchmark.run`. What is compared is
measured in turn within one process wherever that is possible, so that a processor that slows
down, or other work at the same time, hits both sides alike.
"""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from utils.benchmark.loops import augmented_views, run_ours
from utils.benchmark.preparation import Bench
from utils.common.constants import IMAGE_SIZE
from utils.common.jobs import disconnect
from utils.common.provenance import count_threads
from utils.models.backbones import build_head
from utils.training.activations import BATCH_SIZE, BLOCK_SIZE, PLAIN, ActivationStore
from utils.training.head import predict_pneumonia
from utils.training.optimizers import FusedAdam
from utils.training.precision import choose_precision

COPY_MEGABYTES = 512
"""Of one array of the bandwidth test: far more than any processor's cache."""
MATRIX_SIZE = 2048
SHORTEST_SECONDS = 2.0
"""Least time that a rate is measured over."""
LARGEST_PRECISION_TEST = 200
"""Validation images on which another precision is compared, at most."""


def measure_rate(forward: Callable, batch: tf.Tensor, seconds: float = SHORTEST_SECONDS) -> float:
    """Return the images per second of a forward pass over one batch, again and again."""
    calls, start = 0, time.perf_counter()
    while calls < 2 or time.perf_counter() - start < seconds:
        np.asarray(forward(batch)[0, 0])  # on a GPU a call returns before its result is there
        calls += 1
    return calls * len(batch) / (time.perf_counter() - start)


def random_batch() -> tf.Tensor:
    """Return (8, 224, 224, 3) float32 in [0, 255]: a forward pass costs the same on any."""
    shape = (BATCH_SIZE, IMAGE_SIZE, IMAGE_SIZE, 3)
    return tf.constant(np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32))


def compile_forward(backbone: keras.Model, batch: tf.Tensor) -> Callable:
    """Return a backbone's forward pass as one function, compiled for a batch."""
    forward = tf.function(lambda images: backbone(images, training=False))
    np.asarray(forward(batch)[0, 0])
    return forward


def summarize(values: Sequence[float]) -> dict[str, Any]:
    """Return median, best and all repetitions of a rate."""
    return {
        "median": float(np.median(values)),
        "best": float(np.max(values)),
        "repetitions": [float(value) for value in values],
    }


def measure_extraction(bench: Bench) -> dict[str, Any]:
    """Measure our cache filling against the bare forward pass, in turn.

    Returns:
        Images and copies per second of both: `bare` from one batch in memory, `ours` with decoding,
        augmentation, hashing and writing.
    """
    backbone = bench.build_backbone()
    train, _ = bench.choose()
    images = train.head(bench.settings.extracted_images)
    views = augmented_views(bench)
    batch = random_batch()
    bare = compile_forward(backbone, batch)
    rates: dict[str, list[float]] = {"bare": [], "ours": []}
    for repetition in range(bench.settings.repetitions + 1):
        store = ActivationStore(bench.empty_folder("extraction"), backbone, bench.views_dtype)
        start = time.perf_counter()
        passes = store.fill(bench.root, images, views)
        seconds = time.perf_counter() - start
        if repetition:  # the first one compiles
            rates["ours"].append(passes / seconds)
            rates["bare"].append(measure_rate(bare, batch, seconds))
    shutil.rmtree(bench.scratch / "extraction")
    return {"batch_size": BATCH_SIZE, "passes": passes} | {
        name: summarize(values) for name, values in rates.items()
    }


def measure_workers(bench: Bench, workers: int) -> dict[str, Any]:
    """Measure how fast processes that share the work fill a cache; 0 is this process alone.

    Each has computed a block before: it takes seconds to start and to compile, once.
    """
    os.environ["WORKERS"] = str(workers)
    images, _ = bench.choose()
    store = ActivationStore(
        bench.empty_folder("workers"), bench.build_backbone(), bench.views_dtype
    )
    store.fill(bench.root, images.head(max(workers, 1) * BLOCK_SIZE), [PLAIN])
    start = time.perf_counter()
    passes = store.fill(bench.root, images, augmented_views(bench)[:2])
    rate = passes / (time.perf_counter() - start)
    disconnect()
    shutil.rmtree(bench.scratch / "workers")
    return {"workers": workers, "passes": passes, "images_per_second": rate}


def measure_step(bench: Bench) -> dict[str, Any]:
    """Measure the head's training step on a resident batch, and its limits, in turn.

    The limits are memory bandwidth, of two threads or more that copy arrays (bytes read and
    written, as the STREAM benchmark counts them), and the rate of TensorFlow's matrix product.
    All three are returned as lists; `merge_steps` takes them together.
    """
    batch, seed, threads = bench.study.batch_size, bench.settings.seeds[0], count_threads()
    shape = bench.build_backbone().output_shape[1:]
    head = build_head(shape, seed)
    head.compile(
        optimizer=FusedAdam(bench.study.learning_rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,  # as in the study
    )
    random = np.random.default_rng(seed)
    x = np.maximum(random.normal(size=(batch, *shape)), 0).astype(np.float32)
    y = random.integers(0, 2, batch)
    head.train_on_batch(x, y)
    resident = iter(tf.data.Dataset.from_tensors((tf.constant(x), tf.constant(y))).repeat())

    def step() -> float:
        start = time.perf_counter()
        float(head.train_function(resident)["loss"])
        return time.perf_counter() - start

    for _ in range(3):
        step()
    elements = COPY_MEGABYTES * 1_000_000 // 8 // threads * threads
    source, target = np.ones(elements), np.zeros(elements)
    matrix = tf.constant(random.normal(size=(MATRIX_SIZE, MATRIX_SIZE)).astype(np.float32))
    product = tf.function(lambda: tf.matmul(matrix, matrix))
    product()
    steps, bandwidths, flops = [], [], []
    with ThreadPoolExecutor(threads) as pool:
        parts = list(zip(np.split(source, threads), np.split(target, threads), strict=True))
        for _ in range(max(bench.settings.repetitions, 2)):
            steps += [step() for _ in range(bench.settings.steps)]
            for _ in range(3):
                bandwidths.append(_copy_rate(pool, parts))
                start = time.perf_counter()
                np.asarray(product()[0, 0])
                flops.append(2 * MATRIX_SIZE**3 / (time.perf_counter() - start))
    return {
        "batch_size": batch, "parameters": head.count_params(), "threads": threads,
        "seconds": steps, "bandwidth": bandwidths, "matmul_flops": flops,
    }  # fmt: skip


def _copy_rate(pool: ThreadPoolExecutor, parts: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Return bytes per second, read and written, of one copy by all threads."""
    start = time.perf_counter()
    list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), parts))
    return 2 * sum(source.nbytes for source, _ in parts) / (time.perf_counter() - start)


def merge_steps(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Summarize the step's seconds and its limits over the processes that measured them."""
    merged = {
        name: summarize([value for record in rounds for value in record[name]])
        for name in ("seconds", "bandwidth", "matmul_flops")
    }
    merged["seconds"]["best"] = min(merged["seconds"]["repetitions"])
    return rounds[0] | merged


def measure_precision(bench: Bench) -> dict[str, Any]:
    """Compare a lower precision of the backbone with float32, under the head that ours trained.

    The precision is the one that `PRECISION=auto` takes on this machine, or bfloat16 where that
    is float32: then the row says why it is not taken.
    """
    chosen = choose_precision("auto")
    lower = chosen if chosen != "float32" else "bfloat16"
    _, validation = bench.choose()
    part = validation.sort_values("pixel_sha256").head(LARGEST_PRECISION_TEST)
    seed = bench.settings.seeds[0]
    best = bench.scratch / f"ours-{seed}" / "best.weights.h5"
    if not best.is_file():
        run_ours(bench, seed, warm=True)
    backbones = {name: bench.build_backbone(name) for name in ("float32", lower)}
    head = build_head(backbones["float32"].output_shape[1:], seed)
    head.load_weights(best)
    batch = random_batch()
    forwards = {name: compile_forward(backbone, batch) for name, backbone in backbones.items()}
    rates: dict[str, list[float]] = {name: [] for name in forwards}
    for _ in range(max(bench.settings.repetitions // 2, 1)):
        for name, forward in forwards.items():
            rates[name].append(measure_rate(forward, batch))
    cache = bench.empty_folder("precision")
    probability = {}
    for name, backbone in backbones.items():
        table = ActivationStore(cache, backbone, "float32").load(bench.root, part)
        probability[name] = predict_pneumonia(head, table)
    shutil.rmtree(cache)
    difference = np.abs(probability[lower] - probability["float32"])
    return {
        "precision": lower,
        "chosen_by_auto": chosen,
        "validation_images": len(part),
        "images_per_second": {name: summarize(values) for name, values in rates.items()},
        "probability_difference": {
            "max": float(difference.max()), "mean": float(difference.mean()),
        },
        "validation_auc": {  # none of a part that holds one class alone
            name: float(roc_auc_score(part.label, values)) if part.label.nunique() == 2 else None
            for name, values in probability.items()
        },
    }  # fmt: skip
