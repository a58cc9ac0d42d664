"""Write networks to files: plain, averaged, or small enough to be committed."""

import json
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from utils.common.constants import IMAGE_SIZE
from utils.common.files import write_atomically
from utils.models.architectures import build_network


def without_optimizer(model: keras.Model) -> keras.Model:
    """Return a model of the same layers that knows of no optimizer."""
    return keras.Model(model.inputs, model.outputs, name=model.name)


def export_model(model: keras.Model, file: Path) -> keras.Model:
    """Write a flat model without optimizer state, and return it as loaded.

    Args:
        model: From (n, 224, 224, 3) float32 RGB in [0, 255] to probabilities.
        file: `.keras` file to write, atomically.
    """
    with write_atomically(file) as temporary:
        without_optimizer(model).save(temporary)
    return keras.models.load_model(file, compile=False, safe_mode=True)


def export_full_size(network: keras.Model, file: Path) -> keras.Model:
    """Export a trained network as a graph from (n, 224, 224, 3) RGB in [0, 255]; return it.

    Args:
        network: Of `build_network`, from gray pixels; it says its architecture, size and dropout.
        file: `.keras` file to write, atomically.
    """
    return export_model(_to_full_size(network), file)


def _to_full_size(network: keras.Model) -> keras.Model:
    size, dropout = network.input_shape[1], network.get_layer("dropout").rate
    full = build_network(network.name, size, seed=0, full_size=True, dropout=dropout)
    full.set_weights(network.get_weights())
    return full


def average_networks(networks: Sequence[keras.Model], name: str) -> keras.Model:
    """Return one network whose probabilities are the mean of several networks'.

    Args:
        networks: From (n, 224, 224, 3) RGB in [0, 255] to (n, 2) probabilities, with layers of
            their own.
        name: Of the network that holds them.
    """
    image = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3), name="image")
    outputs = [
        keras.Model(network.inputs[0], network.outputs[0], name=f"member_{number}")(image)
        for number, network in enumerate(networks, start=1)
    ]
    return keras.Model(image, layers.Average(name="mean_of_members")(outputs), name=name)


def _place_crops() -> tuple[tuple[int, int, int, bool], ...]:
    side = round(IMAGE_SIZE * 6 / 7)
    end, middle = IMAGE_SIZE - side, (IMAGE_SIZE - side) // 2
    corners = [(top, left) for top in (0, end) for left in (0, end)]
    return tuple(
        (top, left, side, mirrored)
        for mirrored in (False, True)
        for top, left in (*corners, (middle, middle))
    )


TEN_CROPS = _place_crops()
"""Top, left and side in pixels, and whether it is mirrored: corners and center of 6/7 of the side
(Krizhevsky et al. 2012)."""


def find_gray(network: keras.Model) -> keras.KerasTensor:
    """Return what the trained part of a network reads: (n, size, size, 1) gray in [0, 255].

    Args:
        network: Of `build_network`.
    """
    made_gray = layers.InputLayer | layers.Resizing
    first = next(layer for layer in network.layers if not isinstance(layer, made_gray))
    return first.input[0] if isinstance(first.input, list) else first.input


def with_ten_crops(network: keras.Model) -> keras.Model:
    """Return a network that answers by ten crops of an image: the mean of their log-odds.

    Args:
        network: Of `build_network`, from any input; the new one holds a copy under its name.

    Returns:
        From (n, 224, 224, 3) RGB in [0, 255] to (n, 2) probabilities.
    """
    size, dropout = find_gray(network).shape[1], network.get_layer("dropout").rate
    trained = build_network(network.name, size, seed=0, dropout=dropout)
    trained.set_weights(network.get_weights())
    image = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3), name="image")
    whole = ops.mean(image, axis=-1, keepdims=True)
    parts = [
        (whole[:, top : top + side, left : left + side], mirrored)
        for top, left, side, mirrored in TEN_CROPS
    ]
    crops = ops.concatenate([ops.flip(part, 2) if flip else part for part, flip in parts], axis=0)
    each = trained(layers.Resizing(size, size, antialias=True, name="reduce")(crops))
    # The logarithm of 0 would outvote all other crops.
    scores = ops.reshape(ops.log(ops.maximum(each, 1e-30)), (len(TEN_CROPS), -1, each.shape[-1]))
    outputs = ops.softmax(ops.mean(scores, axis=0), axis=-1)
    return keras.Model(image, outputs, name=f"{network.name}_ten_crops")


def without_ten_crops(network: keras.Model) -> keras.Model:
    """Return what a network of `with_ten_crops` is without them: it answers by the whole image.

    Args:
        network: Stays as it is.

    Returns:
        Flat, from (n, 224, 224, 3) RGB in [0, 255] to (n, 2) probabilities: its layers have names
        and its maps can be drawn.
    """
    return _to_full_size(next(layer for layer in network.layers if isinstance(layer, keras.Model)))


LARGEST_BYTES = 10_000_000
"""Of a file that the repository carries."""


class TooLargeError(ValueError):
    """A model that does not become small enough."""


def shrink_model(model: keras.Model, file: Path) -> int:
    """Write a model with weights rounded to half precision, compressed; return its bytes.

    The file stays an ordinary float32 `.keras` file, which loads wherever Keras does: rounded
    weights end in zeros, and the archive's compression leaves the zeros out.

    Args:
        model: To write; its weights are rounded in place.
        file: `.keras` file to write, atomically.

    Raises:
        TooLargeError: if the file would be larger than 10 MB, or a weight overflows.
    """
    for variable in model.weights:
        value = keras.ops.convert_to_numpy(variable)
        with np.errstate(over="ignore"):
            rounded = value.astype(np.float16).astype(value.dtype)
        if np.issubdtype(value.dtype, np.floating):
            if not np.isfinite(rounded).all():
                raise TooLargeError(
                    f"{variable.path} holds {np.abs(value).max():.3g}, more than half precision can"
                )
            variable.assign(rounded)
    with write_atomically(file) as temporary:
        plain = temporary.with_name(f"plain-{temporary.name}")
        try:
            model.save(plain)
            with (
                zipfile.ZipFile(plain) as source,
                zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target,
            ):
                for name in source.namelist():
                    # One date for all entries: the same model gives the same file.
                    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    if name == "metadata.json":
                        target.writestr(entry, _without_date(source.read(name)))
                        continue
                    with source.open(name) as content, target.open(entry, "w") as copy:
                        shutil.copyfileobj(content, copy)
        finally:
            plain.unlink(missing_ok=True)
        size = temporary.stat().st_size
        if size > LARGEST_BYTES:
            raise TooLargeError(
                f"{file.name} takes {size / 1e6:.1f} MB, more than the "
                f"{LARGEST_BYTES / 1e6:.0f} MB that the repository carries; take a smaller network"
            )
    return size


def _without_date(metadata: bytes) -> str:
    """Return Keras' metadata of a file without the moment of saving."""
    return json.dumps(json.loads(metadata) | {"date_saved": ""}, sort_keys=True)
