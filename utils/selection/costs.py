"""What a network costs: parameters, operations, milliseconds an image, megabytes."""

import time
from collections.abc import Sequence

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from utils.common.files import cached_table
from utils.common.paths import table_file
from utils.models.architectures import build_network
from utils.models.recipe import Candidate

BATCH_SIZE = 32
REPEATS = 5
_BYTES_PER_WEIGHT = 4


def measure_costs(study_name: str, candidates: Sequence[Candidate]) -> pd.DataFrame:
    """Return what each candidate's network costs, measured side by side in one run.

    Kept in `results/<study>/costs.csv`; measured again where the candidates are others.

    Args:
        study_name: Of the study.
        candidates: Whose networks; one row per network and input size.

    Returns:
        Columns candidate, architecture, size, parameters, gigaflops (of one image, a
        multiplication and an addition counted apart), milliseconds (an image, batches of 32,
        median of 5), megabytes (float32).
    """
    made_from = {"candidates": [f"{c.architecture} {c.size} {c.name}" for c in candidates]}

    def make() -> pd.DataFrame:
        networks = {
            each.name: build_network(each.architecture, each.size, 0) for each in candidates
        }
        seconds = _time_side_by_side(list(networks.values()))
        return pd.DataFrame([
            {
                "candidate": each.name, "architecture": each.architecture, "size": each.size,
                "parameters": network.count_params(),
                "gigaflops": round(count_operations(network) / 1e9, 4),
                "milliseconds": round(1000 * taken / BATCH_SIZE, 2),
                "megabytes": round(network.count_params() * _BYTES_PER_WEIGHT / 1e6, 1),
            }
            for each, network, taken in zip(candidates, networks.values(), seconds, strict=True)
        ])  # fmt: skip

    return cached_table(table_file(study_name, "costs"), made_from, make)


def count_operations(network: keras.Model) -> int:
    """Return the floating-point operations of one image's forward pass, by TensorFlow's profiler.

    Args:
        network: With an input of fixed size.
    """
    signature = tf.TensorSpec((1, *network.input_shape[1:]), tf.float32)
    graph = convert_variables_to_constants_v2(
        tf.function(lambda image: network(image, training=False)).get_concrete_function(signature)
    ).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder(
        tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    )
    profile = tf.compat.v1.profiler.profile(graph, options=options.with_empty_output().build())
    return int(profile.total_float_ops)


def _time_side_by_side(networks: Sequence[keras.Model]) -> list[float]:
    """Return the median seconds of a batch for each network; they take turns."""
    batches = [
        np.random.default_rng(0).uniform(0, 255, (BATCH_SIZE, *network.input_shape[1:]))
        for network in networks
    ]
    taken: list[list[float]] = [[] for _ in networks]
    for repeat in range(REPEATS + 1):
        for network, batch, seconds in zip(networks, batches, taken, strict=True):
            start = time.perf_counter()
            network.predict_on_batch(batch.astype(np.float32))
            if repeat:  # the first one compiles
                seconds.append(time.perf_counter() - start)
    return [float(np.median(seconds)) for seconds in taken]
