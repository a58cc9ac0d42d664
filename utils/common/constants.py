"""Facts that do not depend on a run: classes, splits, columns, the size of an image."""

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
PATIENT_LEVEL_SPLIT, IMAGE_LEVEL_SPLIT = "patient-level split", "image-level split"

SPLITS = ("train", "validation", "test")
SCORED_SPLITS = ("validation", "test")
EXTERNAL_SPLIT = "external"
"""Split of a data set from another hospital, on which nothing is trained and nothing chosen."""
