"""What the page says and shows, served by `make demo` or written into the site."""

import csv
from dataclasses import dataclass
from pathlib import Path

from utils.common.constants import CLASS_NAMES, NORMAL, PNEUMONIA
from utils.evaluation.calibration import apply_temperature
from utils.models.registry import PHANTOMS, REFERENCE_PREDICTIONS, RELEASED_MODEL, Scorer

DEMO = Path(__file__).parent
TEMPLATE = "page.html"


@dataclass(frozen=True)
class Sample:
    """An image that the page offers."""

    address: str
    drawn: str
    """The class as which it was drawn."""


def list_samples() -> list[Path]:
    """Return the phantoms that the page offers, `<class>/<name>.jpeg`."""
    return sorted(PHANTOMS.rglob("*.jpeg"))


def describe_uncertainty(scorer: Scorer) -> str:
    """Say how unsure a model is of the phantoms; empty where that is known of none.

    Args:
        scorer: Model that answers; what the released one answers to phantoms stands beside it.
    """
    if scorer.name != RELEASED_MODEL:
        return ""
    with open(REFERENCE_PREDICTIONS, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["image"].startswith("PNEUMONIA/")]
    shown = [apply_temperature(float(row["probability"]), scorer.temperature) for row in rows]
    missed = sum(row["prediction"] == CLASS_NAMES[NORMAL] for row in rows)
    return (
        "The model was trained on radiographs, and phantoms are none: it gives those drawn as "
        f"{CLASS_NAMES[PNEUMONIA]} a probability of {min(shown):.0%} to {max(shown):.0%}, and "
        f"predicts {CLASS_NAMES[NORMAL]} for {missed} of {len(rows)}."
    )
