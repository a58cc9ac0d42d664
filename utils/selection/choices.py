"""What a study has chosen, as notebook 08 wrote it by the rule, and what round two registered."""

from typing import Any

from utils.common.files import read_json
from utils.common.paths import choices_file, final_name, predictions_file
from utils.models.registry import RELEASED_MODEL

ENSEMBLE = "ensemble"

ENSEMBLE_TWO, RELEASED = "ensemble_two", RELEASED_MODEL
"""Round two's chosen model, and that of its networks which is released."""
ROUND_TWO_SEEDS = (43, 44, 45)
"""Seed 42 was looked at before the recipe was fixed."""
ROUND_TWO_RECIPES = ("lite0_128_crops", "lite0_96_crops")
"""The first of them with the first seed is the released network."""
WHOLE_IMAGE = "_plain"
"""Ends the name of a network of round two's where it predicts by the whole image, not ten crops."""


def round_two_networks() -> list[str]:
    """Return the names of round two's networks, the released one first."""
    return [final_name(recipe, seed) for seed in ROUND_TWO_SEEDS for recipe in ROUND_TWO_RECIPES]


class SelectionError(ValueError):
    """A choice that cannot be made; the message says what is missing."""


def read_choices(study_name: str) -> dict[str, Any]:
    """Return what a study chose, as notebook 08 wrote it.

    Raises:
        SelectionError: if the study has chosen nothing yet.
    """
    file = choices_file(study_name)
    if not file.is_file():
        raise SelectionError(
            f"study {study_name!r} has chosen nothing yet: there is no {file}; "
            "run notebook 08 first"
        )
    return read_json(file)


def name_chosen_model(study_name: str) -> str:
    """Return which model a study reports: round two's once it has predicted, else round one's."""
    if predictions_file(study_name, ENSEMBLE_TWO).is_file():
        return ENSEMBLE_TWO
    return read_choices(study_name)["chosen"]
