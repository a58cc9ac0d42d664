"""Read the arrays of a file of PyTorch, without PyTorch and without running what it holds."""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np


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
