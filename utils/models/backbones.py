"""Networks as flat functional graphs: preprocessing, frozen backbone, trainable head."""

import logging
import math
import re

import keras
import numpy as np
from keras import layers

from utils.common.constants import CLASS_NAMES, IMAGE_SIZE
from utils.models.catalogue import BACKBONES, IMAGENET_BGR, Preprocessing
from utils.models.pretrained import Weights
from utils.models.weights import load_backbone_weights

# In a notebook TensorFlow logs to stdout, where its hints would become part of the results.
logging.getLogger("tensorflow").setLevel(logging.ERROR)

DTYPE_POLICIES = {
    "float32": "float32",
    "bfloat16": "mixed_bfloat16",
    "mixed_float16": "mixed_float16",
}
"""Keras' policy for each precision of a backbone."""

_JOINED = "_classifier"


class SplitError(ValueError):
    """A layer at which a network cannot be cut; the message names those where it can."""


def preprocess_images(
    images: keras.KerasTensor, preprocessing: Preprocessing = IMAGENET_BGR
) -> keras.KerasTensor:
    """Turn (n, h, w, 3) RGB in [0, 255] into what a network expects: VGG19 and ResNet50, if unsaid.

    The same numbers as `preprocess_input` of `keras.applications`, as layers without weights, so
    that an exported model takes plain pixels and loads wherever Keras is.
    """
    if preprocessing.bgr:
        images = keras.ops.flip(images, axis=-1)
    # The name is part of the exported models and of what cached activations are known by.
    scale, offset = preprocessing.scale, list(preprocessing.offset)
    return layers.Rescaling(scale, offset, name="subtract_imagenet_mean")(images)


def preprocess_array(images: np.ndarray) -> np.ndarray:
    """Turn (n, h, w, 3) RGB in [0, 255] into the zero-mean float32 BGR of VGG19 and ResNet50."""
    return keras.ops.convert_to_numpy(preprocess_images(images.astype(np.float32)))


def build_backbone(weights: Weights, precision: str = "float32") -> keras.Model:
    """Build the frozen part of a network, from pixels to the activations of its last layer.

    Args:
        weights: Resolved weights; they name the backbone.
        precision: In which the layers compute, of `precision.PRECISIONS` but `auto`; weights
            stay float32.

    Returns:
        A model from (n, 224, 224, 3) RGB in [0, 255] to activations, not trainable.
    """
    facts = BACKBONES[weights.backbone]
    build = getattr(keras.applications, facts.keras_name)
    policy_before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(DTYPE_POLICIES[precision])
    try:
        image = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3), name="image", dtype="float32")
        pixels = preprocess_images(image, facts.preprocessing)
        backbone = build(weights=None, include_top=False, input_tensor=pixels)
    finally:
        keras.config.set_dtype_policy(policy_before)
    load_backbone_weights(backbone, weights)
    whole = keras.Model(image, backbone.output, name=weights.backbone)
    whole.trainable = False
    return whole


def split_model(model: keras.Model, split_layer: str) -> tuple[keras.Model, keras.Model]:
    """Cut a flat model in two at one layer: a frozen backbone and a trainable head.

    Both share the layers, so training the head trains the model. Batch
    normalization that is frozen in the model stays so in the head, in inference mode, because
    its statistics are ImageNet's and a small batch would destroy them; everything else of the
    head is trainable, and the backbone's layers are frozen.

    Args:
        model: Flat functional graph, as `join` makes it.
        split_layer: Name of the layer whose output ends the backbone.

    Returns:
        The backbone, from pixels to activations, and the head, from activations to the output.

    Raises:
        SplitError: if there is no such layer, or the rest of the model needs more than its output.
    """
    names = [layer.name for layer in model.layers]
    if split_layer not in names:
        raise SplitError(
            f"{model.name} has no layer {split_layer!r} to cut at; {_describe_split_layers(model)}"
        )
    output = model.get_layer(split_layer).output
    name = model.name.removesuffix(_JOINED)
    try:
        backbone = keras.Model(model.input, output, name=name)
        head = keras.Model(output, model.output, name=f"{name}_tail")
    except ValueError as error:
        raise SplitError(
            f"{model.name} cannot be cut at {split_layer!r}: a connection goes around that layer, "
            f"or it belongs to the head; {_describe_split_layers(model)}"
        ) from error
    for layer in head.layers:
        if not isinstance(layer, layers.BatchNormalization):
            layer.trainable = True
    backbone.trainable = False
    return backbone, head


def _describe_split_layers(model: keras.Model) -> str:
    """Name the ends of a network's blocks, where it can be cut."""
    patterns = "|".join(backbone.block_end for backbone in BACKBONES.values())
    ends = [layer.name for layer in model.layers if re.fullmatch(patterns, layer.name)]
    return f"choose the end of a block: {', '.join(ends)}"


def build_head(
    activation_shape: tuple[int, ...], seed: int, standardize: bool = False
) -> keras.Model:
    """Build the published baseline's head: Flatten, 512 relu, 128 relu, dropout 0.5 each, softmax.

    Args:
        activation_shape: (height, width, channels) of the backbone's output.
        seed: Seed of the initial weights and of dropout.
        standardize: Whether batch normalization comes first, for a backbone whose activations
            have no scale of their own; the published baseline has none.

    Returns:
        A model from activations to (n, 2) probabilities of NORMAL and PNEUMONIA.
    """
    keras.utils.set_random_seed(seed)
    activations = keras.Input(activation_shape, name="activations")
    x = layers.BatchNormalization(name="standardize")(activations) if standardize else activations
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(512, activation="relu", name="dense_512")(x)
    x = layers.Dropout(0.5, seed=seed, name="dropout_512")(x)
    x = layers.Dense(128, activation="relu", name="dense_128")(x)
    x = layers.Dropout(0.5, seed=seed + 1, name="dropout_128")(x)
    outputs = layers.Dense(len(CLASS_NAMES), activation="softmax", name="probabilities")(x)
    return keras.Model(activations, outputs, name="reference_head")


def join(backbone: keras.Model, head: keras.Model) -> keras.Model:
    """Join backbone and head into one flat graph from pixels to probabilities.

    The layers are shared: training the head trains the joined model.
    """
    x = backbone.output
    for layer in head.layers:
        if not isinstance(layer, layers.InputLayer):
            x = layer(x)
    return keras.Model(backbone.input, x, name=backbone.name + _JOINED)


def count_parameters(model: keras.Model) -> dict[str, int]:
    """Count a model's parameters: total, trainable and frozen."""
    total = model.count_params()
    trainable = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    return {"total": total, "trainable": trainable, "frozen": total - trainable}
