"""Facts that do not depend on a run: classes, data sets, weights, and what others reported."""

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
PATIENT_LEVEL_SPLIT, IMAGE_LEVEL_SPLIT = "patient-level split", "image-level split"
