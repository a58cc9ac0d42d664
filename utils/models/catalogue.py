"""The pretrained networks of the study, an entry each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BackboneFacts:
    """A pretrained network without its classifier, and where its weights are published."""

    name: str
    keras_name: str
    url: str
    md5: str
    last_layer: str
    gradcam_layer: str


_KERAS_WEIGHTS = "https://storage.googleapis.com/tensorflow/keras-applications"
BACKBONES = {
    "resnet50": BackboneFacts(
        name="resnet50",
        keras_name="ResNet50",
        url=f"{_KERAS_WEIGHTS}/resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        md5="4d473c1dd8becc155b73f8504c6f6626",
        last_layer="conv5_block3_out",
        gradcam_layer="conv5_block3_out",
    ),
    "vgg19": BackboneFacts(
        name="vgg19",
        keras_name="VGG19",
        url=f"{_KERAS_WEIGHTS}/vgg19/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
        md5="253f8cb515780f3b799900260a226db6",
        last_layer="block5_pool",
        gradcam_layer="block5_conv4",
    ),
}
