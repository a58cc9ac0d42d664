"""The pretrained networks of the study, an entry each: all that tells one from another."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preprocessing:
    """What a network expects of pixels in [0, 255]: pixel x scale + offset, by channel."""

    bgr: bool
    """Whether blue comes first; `scale` and `offset` are in that order."""
    scale: float | tuple[float, float, float]
    offset: tuple[float, float, float]


@dataclass(frozen=True)
class BackboneFacts:
    """A pretrained network without its classifier, and where its weights are published."""

    name: str
    """By which studies, results and `make cache-fill BACKBONE=` call it."""
    keras_name: str
    """Of its function in `keras.applications`."""
    url: str
    """Of Keras' own file of weights without the classifier."""
    md5: str
    preprocessing: Preprocessing
    block_end: str
    """Pattern of the layers that end a block: where a person would cut the network."""
    gradcam_layer: str
    """Layer that is explained if none is named."""
    standardize_head: bool = False
    """Whether its head begins with batch normalization, because activations lack a scale."""
    copies_key: str = "views"
    """Key of the study that says how many augmented copies it trains on."""


IMAGENET_BGR = Preprocessing(bgr=True, scale=1.0, offset=(-103.939, -116.779, -123.68))
"""Channels without their means over ImageNet."""
_KERAS_WEIGHTS = "https://storage.googleapis.com/tensorflow/keras-applications"
_ENTRIES = (
    BackboneFacts(
        name="resnet50",
        keras_name="ResNet50",
        url=f"{_KERAS_WEIGHTS}/resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        md5="4d473c1dd8becc155b73f8504c6f6626",
        preprocessing=IMAGENET_BGR,
        block_end=r"conv\d_block\d+_out",
        gradcam_layer="conv5_block3_out",
    ),
    BackboneFacts(
        name="vgg19",
        keras_name="VGG19",
        url=f"{_KERAS_WEIGHTS}/vgg19/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
        md5="253f8cb515780f3b799900260a226db6",
        preprocessing=IMAGENET_BGR,
        block_end=r"block\d_pool",
        gradcam_layer="block5_conv4",
        standardize_head=True,
        copies_key="vgg19_views",
    ),
)
BACKBONES = {entry.name: entry for entry in _ENTRIES}
