"""Exercises of notebook 01: images at random, a key that leaks, how many images are enough."""

from collections.abc import Callable

import pandas as pd
from scipy.stats import binomtest
from sklearn.model_selection import train_test_split

from exercises.checking import WrongAnswer, call, exercise, read_count, read_number

DRAWS = 20
"""Random splits whose mean is the truth; one alone would differ by chance from the next."""
SHARE_TOLERANCE = 0.1

SCORED_RIGHT, WIDEST = 15 / 16, 0.1
"""An accuracy, and how wide its 95 % interval may be, from end to end."""
BATCH = 16
"""Images are counted in sixteens, so that 15 of 16 is always a whole number of images."""
GENEROUS = 1.25
"""So many times the images that are needed still count as an answer."""

CHILDREN = (
    ("train/NORMAL/IM-0003-0001.jpeg", "IM-3-normal", "A"),
    ("train/NORMAL/NORMAL2-IM-0003-0001.jpeg", "NORMAL2-IM-3-normal", "B"),
    ("train/PNEUMONIA/person3_bacteria_10.jpeg", "person-3-bacteria", "C"),
    ("train/PNEUMONIA/person3_bacteria_11.jpeg", "person-3-bacteria", "C"),
    ("train/PNEUMONIA/person3_virus_12.jpeg", "person-3-virus", "C"),
    ("train/PNEUMONIA/person4_virus_13.jpeg", "person-4-virus", "D"),
)
"""Images, their patients, and who may be the same child: letters by the wide reading of names."""


@exercise
def check_images_at_random(
    guess: float, index: pd.DataFrame, validation_fraction: float, seed: int
) -> str:
    """Check a prediction: how many held-out images are of a child who is also trained on.

    Args:
        guess: Share of the held-out images, 0 to 1; right within `SHARE_TOLERANCE`.
        index: The image index.
        validation_fraction: Share of the images that a random split holds out.
        seed: Of the first draw.
    """
    guess = read_number(guess, "the share", 0, 1)
    images = index[index.split != "test"]
    if (images.patient_id == "").all():
        raise WrongAnswer("this data set names no patients; answer with the phantoms instead")
    share = 0.0
    for draw in range(DRAWS):
        train, held_out = train_test_split(
            images, test_size=validation_fraction, stratify=images.label, random_state=seed + draw
        )
        share += held_out.patient_id.isin(train.patient_id).mean() / DRAWS
    if abs(guess - share) > SHARE_TOLERANCE:
        raise WrongAnswer(
            f"{guess:.2f} is too {'low' if guess < share else 'high'}, and predictions may be "
            "wrong: that is what they are for. Take a child with two images, one of them held "
            "out. How likely is it that the other one was trained on? Then count the images of "
            "children with one, two, three images: `per_patient` above"
        )
    return (
        f"at random, {share:.0%} of the held-out images show a child who is trained on; "
        "by patient it is none"
    )


@exercise
def check_splitting_key(key_of: Callable[[pd.Series], object]) -> str:
    """Check that a key holds all images of a child together, under either reading of a name.

    Args:
        key_of: From a row of the index (`image_id`, `patient_id`) to what is hashed.
    """
    keys: dict[str, list[str]] = {}
    for image_id, patient_id, child in CHILDREN:
        image = pd.Series({"image_id": image_id, "patient_id": patient_id})
        keys.setdefault(child, []).append(repr(call(key_of, image)))
    if keys["C"][0] != keys["C"][1]:
        raise WrongAnswer(
            "two images of person 3 with bacteria get two keys, so each is drawn for itself. What "
            "do the images of one child have in common?"
        )
    if keys["C"][0] != keys["C"][2]:
        raise WrongAnswer(
            "person3_bacteria_10 and person3_virus_12 get two keys. Could they be one child? "
            "Look at what each reading of the name keeps, and which of the two is safe"
        )
    first = [of_child[0] for of_child in keys.values()]
    if len(set(first)) == 1:
        raise WrongAnswer("every image gets the same key, so all of them fall on one side")
    if len(set(first)) < len(first):
        raise WrongAnswer(
            "two children share a key. IM-0003, NORMAL2-IM-0003 and person3 come from three "
            "series, and each series counts for itself: what has to stay in the key?"
        )
    return "one number, one side, whatever the pathogen; each series of numbers counts for itself"


@exercise
def check_enough_images(count: int) -> str:
    """Check how many images make the interval of an accuracy of 15/16 narrow enough.

    Args:
        count: A multiple of `BATCH`; right if it is enough and at most `GENEROUS` times that.
    """
    count = read_count(count, "the number of images")
    if count == 0 or count % BATCH:
        raise WrongAnswer(f"take a multiple of {BATCH}, so that 15/16 of the images can be right")
    width = _interval_width(count)
    if width > WIDEST:
        raise WrongAnswer(
            f"with {count} images the interval is {width:.2f} wide. Its width falls with the "
            "square root of the number of images: how many times as many are needed?"
        )
    fewest = next(n for n in range(BATCH, count + 1, BATCH) if _interval_width(n) <= WIDEST)
    if count > GENEROUS * fewest:
        raise WrongAnswer(
            f"{count} images are enough, but far fewer are, too: with {count} the interval is "
            f"{width:.2f} wide"
        )
    return (
        f"{fewest} images suffice for an interval {_interval_width(fewest):.2f} wide, where 16 "
        f"leave {_interval_width(BATCH):.2f}; if children have several images, more are needed"
    )


def _interval_width(images: int) -> float:
    """Return the width of the exact 95 % interval with 15 of 16 images right."""
    interval = binomtest(round(SCORED_RIGHT * images), images).proportion_ci()
    return interval.high - interval.low
