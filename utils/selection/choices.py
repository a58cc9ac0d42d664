"""What a study has chosen, as notebook 08 wrote it by the rule."""

from typing import Any

from utils.common.files import read_json
from utils.common.paths import choices_file

ENSEMBLE = "ensemble"


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
