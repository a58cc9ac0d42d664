"""Networks as flat functional graphs: preprocessing, frozen trunk, trainable head."""

import logging
import math

import keras
import numpy as np
from keras import layers

from utils.facts import BACKBONES, CLASS_NAMES, IMAGE_SIZE
from utils.weights import Weights, load_backbone_weights

# In a notebook TensorFlow logs to stdout, where its hints would become part of the results.
logging.getLogger("tensorflow").setLevel(logging.ERROR)

IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)
"""Mean of ImageNet's channels in [0, 255], subtracted by `preprocess_input` of both networks."""


def preprocess_images(images: keras.KerasTensor) -> keras.KerasTensor:
    """Turn (n, h, w, 3) RGB in [0, 255] into the zero-mean BGR that VGG19 and ResNet50 expect.

    The same numbers as `keras.applications.resnet.preprocess_input`, as layers without weights,
    so that an exported model takes plain pixels and loads wherever Keras is.
    """
    bgr = keras.ops.flip(images, axis=-1)
    offset = [-mean for mean in IMAGENET_MEAN_BGR]
    return layers.Rescaling(scale=1.0, offset=offset, name="subtract_imagenet_mean")(bgr)


def preprocess_array(images: np.ndarray) -> np.ndarray:
    """Apply `preprocess_images` to (n, h, w, 3) RGB in [0, 255]; return float32 BGR."""
    return keras.ops.convert_to_numpy(preprocess_images(images.astype(np.float32)))


def build_trunk(weights: Weights, cut: str | None = None) -> keras.Model:
    """Build the frozen part of a network, from pixels to the activations of one layer.

    Args:
        weights: Resolved weights; they name the backbone.
        cut: Layer whose output ends the trunk; the backbone's last one by default.

    Returns:
        A model from (n, 224, 224, 3) RGB in [0, 255] to activations, not trainable.
    """
    facts = BACKBONES[weights.backbone]
    build = getattr(keras.applications, facts.keras_name)
    image = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3), name="image")
    backbone = build(weights=None, include_top=False, input_tensor=preprocess_images(image))
    load_backbone_weights(backbone, weights)
    output = backbone.get_layer(cut or facts.last_layer).output
    trunk = keras.Model(image, output, name=weights.backbone)
    trunk.trainable = False
    return trunk


def build_reference_head(
    activation_shape: tuple[int, ...], seed: int, standardize: bool = False
) -> keras.Model:
    """Build the reference classifier: Flatten, 512 relu, 128 relu, dropout 0.5 each, 2 softmax.

    Args:
        activation_shape: (height, width, channels) of the trunk's output.
        seed: Seed of the initial weights and of dropout.
        standardize: Whether batch normalization comes first, for a trunk whose activations
            have no scale of their own; the reference has none.

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


def join(trunk: keras.Model, head: keras.Model) -> keras.Model:
    """Join trunk and head into one flat graph from pixels to probabilities.

    The layers are shared: training the head trains the joined model.
    """
    x = trunk.output
    for layer in head.layers:
        if not isinstance(layer, layers.InputLayer):
            x = layer(x)
    return keras.Model(trunk.input, x, name=f"{trunk.name}_classifier")


def count_parameters(model: keras.Model) -> dict[str, int]:
    """Count a model's parameters: total, trainable and frozen."""
    total = model.count_params()
    trainable = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    return {"total": total, "trainable": trainable, "frozen": total - trainable}
