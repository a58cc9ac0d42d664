"""Write a network of ours as ONNX, small enough to be committed, for `utils.models.onnx_scoring`.

Layers are translated one by one. Weights are stored in half precision and cast when the file is
opened: those of a released network are exact in it. Normalization is not folded into convolutions,
whose weights would not be exact any more. The antialiased resizing in front of the network is two
matrix products, because ONNX's own is young and not supported everywhere.
"""

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from keras import layers
from onnx import TensorProto, helper, numpy_helper

from utils.common.constants import CLASS_NAMES, IMAGE_SIZE
from utils.common.files import file_sha256, write_atomically
from utils.models.export import LARGEST_BYTES, TEN_CROPS, TooLargeError, find_gray, with_ten_crops
from utils.models.onnx_scoring import (
    CLASS_WEIGHTS,
    FEATURES,
    INPUT,
    PROBABILITIES,
    WHOLE_IMAGE,
    OnnxNetwork,
    resize_matrix,
)

OPSET, IR_VERSION = 17, 8
"""Of November 2021 and February 2022, which everything that runs ONNX knows."""
TOLERANCE = 1e-4
"""Largest difference of a probability from that of the Keras network."""


class ExportError(ValueError):
    """A network that cannot be written as ONNX; the message says which layer or weight it is."""


class _Graph:
    """Nodes and constants of a graph that is being written."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Add a node and return the name of its output, by default one of its own."""
        name = name or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def hold(self, values: Any, dtype: type = np.float32) -> str:
        """Add a constant and return its name."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def weigh(self, values: np.ndarray) -> str:
        """Add a constant in half precision, and return the name under which it is cast back."""
        half = values.astype(np.float16)
        if not np.array_equal(half.astype(values.dtype), values):
            raise ExportError(
                f"weights of shape {values.shape} are not exact in half precision; round them "
                "first with export.shrink_model"
            )
        return self.add("Cast", self.hold(half, np.float16), to=TensorProto.FLOAT)


def _window(layer: layers.Layer, kernel: Sequence[int]) -> dict[str, Any]:
    """Return strides and padding: of `same`, what is odd goes below and to the right."""
    before, after = [], []
    for side, size, stride in zip(layer.input.shape[1:3], kernel, layer.strides, strict=True):
        total = max((-(-side // stride) - 1) * stride + size - side, 0)
        total = total if layer.padding == "same" else 0
        before.append(total // 2)
        after.append(total - total // 2)
    return {"kernel_shape": list(kernel), "strides": list(layer.strides), "pads": before + after}


def _convolve(graph: _Graph, layer: layers.Conv2D, x: str) -> str:
    # (h, w, in, out) to (out, in, h, w)
    kernel = _value(layer.kernel).transpose(3, 2, 0, 1)
    bias = [graph.weigh(_value(layer.bias))] if layer.use_bias else []
    window = _window(layer, layer.kernel_size)
    return graph.add("Conv", x, graph.weigh(kernel), *bias, **window)


def _convolve_each(graph: _Graph, layer: layers.DepthwiseConv2D, x: str) -> str:
    # (h, w, channels, 1) to (channels, 1, h, w)
    kernel = _value(layer.kernel).transpose(2, 3, 0, 1)
    window = _window(layer, layer.kernel_size)
    return graph.add("Conv", x, graph.weigh(kernel), group=len(kernel), **window)


def _normalize(graph: _Graph, layer: layers.BatchNormalization, x: str) -> str:
    parts = (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
    weights = [graph.weigh(_value(part)) for part in parts]
    return graph.add("BatchNormalization", x, *weights, epsilon=layer.epsilon)


def _rectify(graph: _Graph, layer: layers.ReLU, x: str) -> str:
    if layer.max_value is None:
        return graph.add("Relu", x)
    return graph.add("Clip", x, graph.hold(0.0), graph.hold(layer.max_value))


def _rescale(graph: _Graph, layer: layers.Rescaling, x: str) -> str:
    return graph.add("Add", graph.add("Mul", x, graph.hold(layer.scale)), graph.hold(layer.offset))


def _pool(graph: _Graph, layer: layers.MaxPooling2D, x: str) -> str:
    return graph.add("MaxPool", x, **_window(layer, layer.pool_size))


_Writer = Callable[..., str]
_WRITERS: dict[type, _Writer] = {
    layers.Conv2D: _convolve,
    layers.DepthwiseConv2D: _convolve_each,
    layers.BatchNormalization: _normalize,
    layers.ReLU: _rectify,
    layers.Rescaling: _rescale,
    layers.MaxPooling2D: _pool,
    layers.Concatenate: lambda graph, layer, *x: graph.add("Concat", *x, axis=1),
    layers.Add: lambda graph, layer, *x: graph.add("Sum", *x),
}
"""How the layers between gray pixels and the last feature map are written: channels come first."""


def _value(variable: keras.Variable) -> np.ndarray:
    return keras.ops.convert_to_numpy(variable)


def build_onnx(network: keras.Model, *, crops: bool = False) -> onnx.ModelProto:
    """Return a network as ONNX, from (n, 224, 224, 3) RGB in [0, 255], n being free.

    Its outputs are `probabilities`, (n, 2), and `features`, (n, rows, columns, channels), the last
    feature map of the whole image; with crops also `whole_image`, (n, 2), by it alone.

    Args:
        network: Of `build_network(full_size=True)`, convolutions alone, rounded by `shrink_model`;
            with crops also the one that `with_ten_crops` holds under its name.
        crops: Whether it answers by ten crops, as `with_ten_crops` of it does.

    Raises:
        ExportError: if it has a layer that is not translated, or weights that are not exact in
            half precision.
    """
    pool, last = (network.get_layer(name) for name in ("mean_over_places", "probabilities"))
    graph, gray = _Graph(), find_gray(network)
    size = gray.shape[1]
    views = _list_views(size, crops)
    names = {id(gray): _write_views(graph, size, views)}
    _write_layers(graph, network.layers[: network.layers.index(pool)], names)
    features = names[id(pool.input)]
    kernel, bias = _value(last.kernel), _value(last.bias)
    mean = graph.add("Flatten", graph.add("GlobalAveragePool", features))
    scores = graph.add("Gemm", mean, graph.weigh(kernel), graph.weigh(bias))
    # Softmax of mean scores has the mean log-odds.
    uncropped = len(views) - 1
    answers = (
        {PROBABILITIES: [*range(uncropped)], WHOLE_IMAGE: [uncropped]}
        if crops
        else {PROBABILITIES: [uncropped]}
    )
    scores = graph.add("Reshape", scores, graph.hold([-1, len(views), len(CLASS_NAMES)], np.int64))
    for name, places in answers.items():
        chosen = graph.add("Gather", scores, graph.hold(places, np.int64), axis=1)
        graph.add("Softmax", graph.add("ReduceMean", chosen, axes=[1], keepdims=0), name=name)
    rows, columns, channels = pool.input.shape[1:]
    shape = graph.hold([-1, len(views), channels, rows, columns], np.int64)
    whole = graph.add(
        "Gather",
        graph.add("Reshape", features, shape),
        graph.hold(uncropped, np.int64),
        axis=1,
    )
    graph.add("Transpose", whole, name=FEATURES, perm=[0, 2, 3, 1])
    shapes = {
        INPUT: (IMAGE_SIZE, IMAGE_SIZE, 3),
        **dict.fromkeys(answers, (len(CLASS_NAMES),)),
        FEATURES: (rows, columns, channels),
    }
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", *shape))
        for name, shape in shapes.items()
    }
    model = helper.make_model(
        helper.make_graph(
            graph.nodes, network.name, [values[INPUT]],
            [values[name] for name in (*answers, FEATURES)], graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
        producer_name=__name__, producer_version=f"onnx {onnx.__version__}",
    )  # fmt: skip
    encoded = base64.b64encode(kernel.astype("<f2").tobytes()).decode()
    helper.set_model_props(model, {CLASS_WEIGHTS: encoded})
    onnx.checker.check_model(model, full_check=True)
    return model


def _write_layers(
    graph: _Graph, layers_in_order: Sequence[layers.Layer], names: dict[int, str]
) -> None:
    """Write layers; `names` has those of tensors by their identity, and takes those of outputs."""
    for layer in layers_in_order:
        if isinstance(layer, layers.InputLayer | layers.Resizing):
            continue  # the views stand for them
        if type(layer) not in _WRITERS:
            raise ExportError(
                f"layer {layer.name!r}, a {type(layer).__name__}, has no translation to ONNX; add "
                "one to utils/models/onnx_export.py"
            )
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        written = _WRITERS[type(layer)](graph, layer, *(names[id(each)] for each in inputs))
        names[id(layer.output)] = written


def _list_views(size: int, crops: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the matrices that make each view of an image from its left and its right.

    The whole image comes last; its features are given out. It is the only view without crops.
    """
    views = []
    for top, left, side, mirrored in TEN_CROPS if crops else ():
        rows, columns = (np.zeros((size, IMAGE_SIZE), np.float32) for _ in range(2))
        rows[:, top : top + side] = resize_matrix(side, size)
        columns[:, left : left + side] = resize_matrix(side, size)
        views.append((rows, columns[::-1] if mirrored else columns))
    whole = resize_matrix(IMAGE_SIZE, size)
    return [*views, (whole, whole)]


def _write_views(graph: _Graph, size: int, views: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
    """Write what turns images into gray views; return the name of (n x views, 1, size, size)."""
    gray = graph.add("ReduceMean", INPUT, axes=[3], keepdims=0)
    gray = graph.add("Unsqueeze", gray, graph.hold([1], np.int64))
    rows, columns = (
        _hold_distinct(graph, matrices)
        for matrices in ([rows for rows, _ in views], [columns.T for _, columns in views])
    )
    gray = graph.add("MatMul", graph.add("MatMul", rows, gray), columns)
    return graph.add("Reshape", gray, graph.hold([-1, 1, size, size], np.int64))


def _hold_distinct(graph: _Graph, matrices: Sequence[np.ndarray]) -> str:
    """Hold a stack of matrices, each of those that are equal once."""
    distinct, places = np.unique(np.stack(matrices), axis=0, return_inverse=True)
    return graph.add("Gather", graph.hold(distinct), graph.hold(places, np.int64), axis=0)


def export_onnx(network: keras.Model, file: Path, *, crops: bool = False) -> dict[str, Any]:
    """Write a network as ONNX, once it has been seen to answer as Keras does.

    Args:
        network: See `build_onnx`.
        file: `.onnx` file to write, atomically.
        crops: See `build_onnx`.

    Returns:
        Its record: file, hash, bytes, opset and producer.

    Raises:
        ExportError: if it cannot be written, or answers otherwise than Keras.
        TooLargeError: if the file would be larger than 10 MB.
    """
    model = build_onnx(network, crops=crops)
    images = np.random.default_rng(0).uniform(0, 255, (2, IMAGE_SIZE, IMAGE_SIZE, 3))
    images = images.astype(np.float32)
    with write_atomically(file) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
        size = temporary.stat().st_size
        if size > LARGEST_BYTES:
            raise TooLargeError(
                f"{file.name} takes {size / 1e6:.1f} MB, more than the "
                f"{LARGEST_BYTES / 1e6:.0f} MB that the repository carries; take a smaller network"
            )
        expected = with_ten_crops(network) if crops else network
        difference = np.abs(
            OnnxNetwork(temporary).predict_on_batch(images) - expected.predict_on_batch(images)
        ).max()
        if difference > TOLERANCE:
            raise ExportError(
                f"{file.name} differs from {network.name} by {difference:.1e} in a probability; "
                "correct the translation of its layers in utils/models/onnx_export.py"
            )
    return {
        "file": file.name, "sha256": file_sha256(file), "bytes": size, "opset": OPSET,
        "producer": f"{model.producer_name}, {model.producer_version}",
    }  # fmt: skip
