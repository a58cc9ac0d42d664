"""Exercises of notebook 01: a random split, a key that leaks, how many images are enough."""

from collections.abc import Callable

import pandas as pd
from scipy.stats import binomtest
from sklearn.model_selection import train_test_split

from exercises.checking import WrongAnswer, call, exercise, read_count, read_number

DRAWS = 20
"""Random splits whose mean counts as the true value; a single one would vary by chance."""
SHARE_TOLERANCE = 0.1

SCORED_RIGHT, WIDEST = 15 / 16, 0.1
"""An accuracy, and the largest accepted width of its 95% interval, from end to end."""
BATCH = 16
"""Answers are multiples of 16, so that 15/16 of the images is always a whole number."""
GENEROUS = 1.25
"""Up to this many times the images needed are accepted."""

CHILDREN = (
    ("train/NORMAL/IM-0003-0001.jpeg", "IM-3-normal", "A"),
    ("train/NORMAL/NORMAL2-IM-0003-0001.jpeg", "NORMAL2-IM-3-normal", "B"),
    ("train/PNEUMONIA/person3_bacteria_10.jpeg", "person-3-bacteria", "C"),
    ("train/PNEUMONIA/person3_bacteria_11.jpeg", "person-3-bacteria", "C"),
    ("train/PNEUMONIA/person3_virus_12.jpeg", "person-3-virus", "C"),
    ("train/PNEUMONIA/person4_virus_13.jpeg", "person-4-virus", "D"),
)
"""Images, patients (narrow reading), and a letter per possible child (wide reading)."""


@exercise
def check_images_at_random(
    guess: float, index: pd.DataFrame, validation_fraction: float, seed: int
) -> str:
    """Check a prediction: how many held-out images show a child who is also in training.

    Args:
        guess: Proportion of the held-out images, 0 to 1; right within `SHARE_TOLERANCE`.
        index: The image index.
        validation_fraction: Fraction of the images that a random split holds out.
        seed: Seed of the first draw.
    """
    guess = read_number(guess, "the proportion", 0, 1)
    images = index[index.split != "test"]
    if (images.patient_id == "").all():
        raise WrongAnswer("this data set does not identify patients; use the phantoms instead")
    share = 0.0
    for draw in range(DRAWS):
        train, held_out = train_test_split(
            images, test_size=validation_fraction, stratify=images.label, random_state=seed + draw
        )
        share += held_out.patient_id.isin(train.patient_id).mean() / DRAWS
    if abs(guess - share) > SHARE_TOLERANCE:
        raise WrongAnswer(
            f"{guess:.2f} is too {'low' if guess < share else 'high'}; a prediction may be "
            "wrong. Take a child with two images, one of them held out. How likely is it that the "
            "other one is a training image? Then count the images of children with one, two, "
            "three images: see `per_patient` above"
        )
    return (
        f"with a random split, {share:.0%} of the held-out images show a child who is also in "
        "training; with a split by patient, none do"
    )


@exercise
def check_splitting_key(key_of: Callable[[pd.Series], object]) -> str:
    """Check that a key keeps all images of a child together, under either reading of a name.

    Args:
        key_of: From a row of the index (`image_id`, `patient_id`) to what is hashed.
    """
    keys: dict[str, list[str]] = {}
    for image_id, patient_id, child in CHILDREN:
        image = pd.Series({"image_id": image_id, "patient_id": patient_id})
        keys.setdefault(child, []).append(repr(call(key_of, image)))
    if keys["C"][0] != keys["C"][1]:
        raise WrongAnswer(
            "two images of person 3 with bacteria get different keys, so each is assigned on its "
            "own. What do the images of one child have in common?"
        )
    if keys["C"][0] != keys["C"][2]:
        raise WrongAnswer(
            "person3_bacteria_10 and person3_virus_12 get different keys. Could they be one "
            "child? Look at what each reading of the name keeps, and which of the two is safe"
        )
    first = [of_child[0] for of_child in keys.values()]
    if len(set(first)) == 1:
        raise WrongAnswer("every image gets the same key, so all of them land on one side")
    if len(set(first)) < len(first):
        raise WrongAnswer(
            "two children share a key. IM-0003, NORMAL2-IM-0003 and person3 come from three "
            "series, and each series is numbered separately: what has to stay in the key?"
        )
    return "one number, one side, whatever the pathogen; each series is numbered separately"


@exercise
def check_enough_images(count: int) -> str:
    """Check how many images make the confidence interval of an accuracy of 15/16 narrow enough.

    Args:
        count: A multiple of `BATCH`; right if it is enough and at most `GENEROUS` times the fewest.
    """
    count = read_count(count, "the number of images")
    if count == 0 or count % BATCH:
        raise WrongAnswer(f"use a multiple of {BATCH}, so that 15/16 of it is a whole number")
    width = _interval_width(count)
    if width > WIDEST:
        raise WrongAnswer(
            f"with {count} images the interval is {width:.2f} wide. Its width shrinks with the "
            "square root of the number of images: how many times as many are needed?"
        )
    fewest = next(n for n in range(BATCH, count + 1, BATCH) if _interval_width(n) <= WIDEST)
    if count > GENEROUS * fewest:
        raise WrongAnswer(
            f"{count} images are enough, but far fewer would do: with {count} the interval is "
            f"{width:.2f} wide"
        )
    return (
        f"{fewest} images make the interval {_interval_width(fewest):.2f} wide, versus "
        f"{_interval_width(BATCH):.2f} with 16; if children have several images, more are needed"
    )


def _interval_width(images: int) -> float:
    """Return the width of the exact 95% interval if 15 of 16 images are classified correctly."""
    interval = binomtest(round(SCORED_RIGHT * images), images).proportion_ci()
    return interval.high - interval.low
