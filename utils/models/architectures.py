"""The networks of notebooks 07 to 09: one flat graph each, from gray pixels to probabilities."""

from collections.abc import Callable
from typing import NamedTuple

import keras
from keras import layers, ops

from utils.common.constants import CLASS_NAMES, IMAGE_SIZE
from utils.models.backbones import preprocess_images
from utils.models.efficientnet_lite import (
    assign_torch_weights,
    build_efficientnet_lite0,
    find_efficientnet_lite0_weights,
    read_torch_state,
)
from utils.models.pretrained import RANDOM, Weights
from utils.models.weights import load_backbone_weights, resolve_weights


class NetworkError(ValueError):
    """A network that does not exist; the message names those that do."""


def _to_rgb(gray: keras.KerasTensor) -> keras.KerasTensor:
    return layers.Concatenate(name="gray_to_rgb")([gray, gray, gray])


def _resnet50(gray: keras.KerasTensor) -> keras.KerasTensor:
    pixels = preprocess_images(_to_rgb(gray))
    resnet = keras.applications.ResNet50(weights=None, include_top=False, input_tensor=pixels)
    return resnet.output


def _efficientnet_lite0(gray: keras.KerasTensor) -> keras.KerasTensor:
    return build_efficientnet_lite0(_to_rgb(gray))


def _small_cnn(gray: keras.KerasTensor) -> keras.KerasTensor:
    """Four stages of two convolutions, as VGG has them, with batch normalization."""
    x = layers.Rescaling(1 / 127.5, -1.0, name="scale_pixels")(gray)
    for stage, channels in enumerate((32, 64, 128, 256), start=1):
        for number in (1, 2):
            name = f"stage{stage}_{number}"
            x = layers.Conv2D(channels, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
            x = layers.BatchNormalization(name=f"{name}_bn")(x)
            x = layers.ReLU(name=f"{name}_relu")(x)
        if stage < 4:
            x = layers.MaxPooling2D(name=f"stage{stage}_pool")(x)
    return x


def _transformer(
    x: keras.KerasTensor, blocks: int, heads: int, width: int, name: str
) -> keras.KerasTensor:
    """Run transformer encoder blocks (pre-norm) over the positions of a feature map.

    Positions are told apart by a depthwise convolution, the conditional positional encoding of Chu
    et al. 2021: any input size, and plain Keras layers alone.
    """
    positions = layers.DepthwiseConv2D(3, padding="same", name=f"{name}_places")(x)
    x = layers.Add(name=f"{name}_placed")([x, positions])
    x = layers.Reshape((-1, width), name=f"{name}_tokens")(x)
    for number in range(1, blocks + 1):
        block = f"{name}_block{number}"
        normal = layers.LayerNormalization(epsilon=1e-6, name=f"{block}_attention_norm")(x)
        attended = layers.MultiHeadAttention(
            heads, width // heads, dropout=0.1, name=f"{block}_attention"
        )(normal, normal)
        x = layers.Add(name=f"{block}_attended")([x, attended])
        normal = layers.LayerNormalization(epsilon=1e-6, name=f"{block}_mlp_norm")(x)
        hidden = layers.Dense(2 * width, activation="gelu", name=f"{block}_mlp_in")(normal)
        hidden = layers.Dropout(0.1, name=f"{block}_mlp_dropout")(hidden)
        x = layers.Add(name=f"{block}_out")(
            [x, layers.Dense(width, name=f"{block}_mlp_out")(hidden)]
        )
    return layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm")(x)


def _hybrid_vit(gray: keras.KerasTensor) -> keras.KerasTensor:
    """Run a transformer over a ResNet stage's tokens, the hybrid of Dosovitskiy et al. 2021."""
    pixels = preprocess_images(_to_rgb(gray))
    resnet = keras.applications.ResNet50(weights=None, include_top=False, input_tensor=pixels)
    # An eighth of the input's side: at 64 pixels as many tokens as the plain ViT's patches.
    stage = resnet.get_layer("conv3_block4_out").output
    tokens = layers.Conv2D(192, 1, name="hybrid_embed")(stage)
    return _transformer(tokens, blocks=4, heads=6, width=192, name="hybrid")


def _plain_vit(gray: keras.KerasTensor) -> keras.KerasTensor:
    """Run a transformer over patches of 8 x 8 pixels, from scratch."""
    x = layers.Rescaling(1 / 127.5, -1.0, name="scale_pixels")(gray)
    tokens = layers.Conv2D(128, 8, strides=8, name="vit_embed")(x)
    return _transformer(tokens, blocks=6, heads=4, width=128, name="vit")


def _load_resnet50(network: keras.Model) -> Weights:
    """Copy what a network has of ResNet50's layers, by their names."""
    weights = resolve_weights("resnet50")
    resnet = keras.applications.ResNet50(weights=None, include_top=False)
    load_backbone_weights(resnet, weights)
    names = {layer.name for layer in network.layers}
    for layer in resnet.layers:
        if layer.name in names and layer.weights:
            network.get_layer(layer.name).set_weights(layer.get_weights())
    return weights


def _load_efficientnet_lite0(network: keras.Model) -> Weights:
    weights = find_efficientnet_lite0_weights()
    assign_torch_weights(network, read_torch_state(weights.file))
    return weights


class Architecture(NamedTuple):
    """How a network is built, and where it starts from."""

    build: Callable[[keras.KerasTensor], keras.KerasTensor]
    """From gray pixels to the last feature map or the tokens."""
    load: Callable[[keras.Model], Weights] | None = None
    """Loads pretrained weights into a network and returns them; None where there are none."""


ARCHITECTURES = {
    "resnet50": Architecture(_resnet50, _load_resnet50),
    "efficientnet_lite0": Architecture(_efficientnet_lite0, _load_efficientnet_lite0),
    "hybrid_vit": Architecture(_hybrid_vit, _load_resnet50),
    "plain_vit": Architecture(_plain_vit),
    "small_cnn": Architecture(_small_cnn),
}


def build_network(
    architecture: str, size: int, seed: int, *, full_size: bool = False, dropout: float = 0.3
) -> keras.Model:
    """Build a network with random weights: features, mean over positions, dropout, two outputs.

    Args:
        architecture: A key of `ARCHITECTURES`.
        size: Side of the gray image that the features are computed from, in pixels.
        seed: Of the initial weights and of dropout.
        full_size: Whether the input is (n, 224, 224, 3) RGB in [0, 255], which the graph itself
            turns gray and reduces, as an exported model takes it; else (n, size, size, 1) gray
            in [0, 255]. The weights are the same, in the same order.
        dropout: Share of the features that dropout leaves out.

    Returns:
        A model to (n, 2) probabilities of NORMAL and PNEUMONIA.

    Raises:
        NetworkError: if the architecture is unknown.
    """
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise NetworkError(f"there is no architecture {architecture!r}; choose one of {known}")
    keras.utils.set_random_seed(seed)
    if full_size:
        image = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3), name="image")
        gray = ops.mean(image, axis=-1, keepdims=True)
        if size != IMAGE_SIZE:
            reduce = layers.Resizing(size, size, antialias=True, name="reduce")
            gray = reduce(gray)
    else:
        image = gray = keras.Input((size, size, 1), name="gray")
    features = ARCHITECTURES[architecture].build(gray)
    pool = layers.GlobalAveragePooling1D if len(features.shape) == 3 else (
        layers.GlobalAveragePooling2D
    )  # fmt: skip
    x = pool(name="mean_over_places")(features)
    x = layers.Dropout(dropout, seed=seed, name="dropout")(x)
    outputs = layers.Dense(len(CLASS_NAMES), activation="softmax", name="probabilities")(x)
    return keras.Model(image, outputs, name=architecture)


def load_pretrained(network: keras.Model, architecture: str) -> str:
    """Load the pretrained weights of an architecture into a network; return their provenance.

    An architecture without any keeps its random ones.

    Raises:
        WeightsError: if they cannot be had.
    """
    load = ARCHITECTURES[architecture].load
    if load is None:
        return RANDOM
    weights = load(network)
    return f"{weights.description} ({weights.source}, {weights.sha256[:12]})"
