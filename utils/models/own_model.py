"""Models that people bring: a Keras file of theirs as a network that this study scores with.

A file is opened in safe mode, so that no code in it runs. What it does not say of itself (how it
expects its pixels, which class its output means) is assumed, said, and can be told.
"""

from pathlib import Path

import keras
import numpy as np
from keras import layers

from utils.common.constants import CLASS_NAMES

SUFFIXES = (".keras", ".h5", ".hdf5")
SCALES = {"0..255": (1.0, 0.0), "0..1": (1 / 255, 0.0), "-1..1": (1 / 127.5, -1.0)}
"""By the range of pixels that a model expects: factor and offset from [0, 255]."""
_DEEPEST = 10
_SAVE = "save the whole model with Keras 3: model.save('model.keras')"


class OwnModelError(ValueError):
    """A file that cannot be used as a model; the message says what is missing."""


def open_own_model(
    file: Path, scale: str | None = None, positive: str = "1"
) -> tuple[keras.Model, tuple[str, ...]]:
    """Open a file as a flat network with two probabilities.

    Args:
        file: `.keras` or `.h5`, from (n, h, w, 1 or 3) to one sigmoid or two softmax units.
        scale: Key of `SCALES`; without one 0..255 if the model rescales by itself, else 0..1.
        positive: `0` or `1`, the class of the model that is PNEUMONIA.

    Returns:
        From (n, h, w, 3) RGB in [0, 255] to (n, 2) probabilities, NORMAL first; and what was
        assumed.

    Raises:
        OwnModelError: if the file cannot be opened, or its shapes do not fit.
    """
    if scale not in (None, *SCALES):
        raise OwnModelError(f"SCALE={scale} is none of {', '.join(SCALES)}, the range of pixels")
    if positive not in ("0", "1"):
        raise OwnModelError(f"POSITIVE={positive} is neither 0 nor 1, a class of the model")
    pneumonia = int(positive)
    model = _flatten(_load(file))
    if not all(np.isfinite(values).all() for values in model.get_weights()):
        raise OwnModelError(
            f"{file} holds weights that are no numbers, as after a training that diverged; train "
            "it again"
        )
    height, width, channels = _check_input(model, file)
    dense, activation = _find_output(model, file)
    rescales = any(
        isinstance(layer, layers.Rescaling | layers.Normalization) for layer in model.layers
    )
    wanted = scale or ("0..255" if rescales else "0..1")
    factor, offset = SCALES[wanted]

    image = keras.Input((height, width, 3), name="image")
    x = keras.ops.mean(image, axis=-1, keepdims=True) if channels == 1 else image
    x = layers.Rescaling(factor, offset, name="own_scale")(x)
    trunk = keras.Model(model.inputs[0], dense.input)
    # The trunk's layers one by one, not the trunk as a layer: heat maps need one flat graph.
    output = layers.Dense(2, activation="softmax", dtype="float32", name="probabilities")
    network = keras.Model(image, output(trunk.call(x)), name="own_model")
    order = [1 - pneumonia, pneumonia]
    output.set_weights([values[..., order] for values in read_class_scores(dense)])
    network = _copy(network)

    why = "it has a rescaling layer" if rescales else "it has no rescaling layer"
    said = "as told" if scale else f"assumed: {why}"
    span = wanted.replace("..", " to ")
    meaning = {
        "sigmoid": f"its one output is the probability of {CLASS_NAMES[pneumonia]}",
        "softmax": f"its output {pneumonia}, counted from 0, is PNEUMONIA",
    }[activation]
    return network, (
        f"images are brought to {height} x {width} pixels without keeping aspect, "
        f"{'gray' if channels == 1 else 'RGB'}",
        f"pixels from {span} ({said}; change it with SCALE=, one of {', '.join(SCALES)})",
        f"{meaning} (change it with POSITIVE={1 - pneumonia})",
        "PNEUMONIA is predicted from a probability of 0.5 on",
    )


def _load(file: Path) -> keras.Model:
    if file.suffix.lower() not in SUFFIXES:
        raise OwnModelError(f"{file} is no {' or '.join(SUFFIXES)} file; {_SAVE}")
    if not file.is_file():
        raise OwnModelError(f"there is no file {file}; check the path")
    try:
        model = keras.models.load_model(file, compile=False, safe_mode=True)
    except Exception as error:  # whatever a file leads to that is damaged, foreign or unsafe
        text = " ".join(str(error).split())
        if "ambda" in text or "unsafe" in text or "safe_mode" in text:
            reason = "it holds Python code (a Lambda layer), which is not run; replace it by layers"
        elif "No model config" in text or "weights" in file.suffixes[:1]:
            reason = f"it holds weights alone; {_SAVE}"
        elif "custom" in text or "Could not locate" in text:
            reason = f"it uses classes that Keras does not have ({text[:150]}); use Keras' layers"
        else:
            reason = f"it is damaged, or no model of Keras ({text[:150]}); {_SAVE}"
        raise OwnModelError(f"{file} cannot be opened: {reason}") from error
    if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
        raise OwnModelError(
            f"{file} has no graph of layers (a subclassed model, or one that was never called); "
            "build it as a functional or sequential model with an Input"
        )
    return model


def _flatten(model: keras.Model) -> keras.Model:
    """Return a functional copy whose models within are dissolved into their layers."""

    def call(layer: keras.Operation, *arguments: object, **options: object) -> object:
        inner = layer.call if isinstance(layer, keras.Model) else layer
        return inner(*arguments, **options)

    for _ in range(_DEEPEST):
        functional = keras.Model(model.inputs, model.outputs, name=model.name)
        if not any(isinstance(layer, keras.Model) for layer in functional.layers):
            return _copy(functional)
        model = keras.models.clone_model(
            functional, clone_function=lambda layer: layer, call_function=call
        )
    raise OwnModelError(f"models lie within models more than {_DEEPEST} deep; join them into one")


def _copy(model: keras.Model) -> keras.Model:
    """Return a copy with layers of its own, each of which has one input."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def _check_input(model: keras.Model, file: Path) -> tuple[int, int, int]:
    """Return height, width and channels of the input."""
    shape = model.inputs[0].shape
    fits = (
        len(model.inputs) == 1 and len(shape) == 4 and None not in shape[1:] and shape[3] in (1, 3)
    )
    if not fits:
        shapes = ", ".join(str(tuple(each.shape)) for each in model.inputs)
        raise OwnModelError(
            f"{file} takes {shapes}; what fits is one input of images, (n, height, width, 1 or 3) "
            "with a fixed height and width"
        )
    return shape[1], shape[2], shape[3]


def _find_output(model: keras.Model, file: Path) -> tuple[layers.Dense, str]:
    """Return the Dense layer of the class scores, and the activation after it."""
    shapes = [tuple(output.shape) for output in model.outputs]
    last = model.get_layer(model.output_names[0])
    activation = "softmax" if isinstance(last, layers.Softmax) else None
    activation = activation or getattr(getattr(last, "activation", None), "__name__", "none")
    if isinstance(last, layers.Softmax | layers.Activation):
        last = next(
            (layer for layer in model.layers if layer.output is last.input), last
        )  # the layer before it
        if getattr(getattr(last, "activation", None), "__name__", "") != "linear":
            activation = "none"
    units = {"sigmoid": 1, "softmax": 2}.get(activation)
    if len(shapes) != 1 or shapes[0] != (None, units) or not isinstance(last, layers.Dense):
        raise OwnModelError(
            f"{file} gives {', '.join(map(str, shapes))} with activation {activation}; what fits "
            "is a Dense layer at the end with one unit and sigmoid, or two units and softmax"
        )
    return last, activation


def read_class_scores(dense: layers.Dense) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel and bias of a model's class scores, those before softmax or sigmoid.

    Args:
        dense: Of the classes; one sigmoid unit with the score z counts as two classes with the
            scores -z/2 and z/2, the softmax of which it is.
    """
    kernel = keras.ops.convert_to_numpy(dense.kernel)
    bias = keras.ops.convert_to_numpy(dense.bias) if dense.use_bias else np.zeros(kernel.shape[1])
    if kernel.shape[1] == 1:
        return np.concatenate([-kernel / 2, kernel / 2], axis=1), np.concatenate([-bias, bias]) / 2
    return kernel, bias
