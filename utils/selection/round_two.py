"""Round two: train the networks that `docs/round_two.md` registered.

Nothing is chosen here. Recipes and seeds are those of the document, and each network's record holds
the document's commit and SHA-256 as they were when its training began. Training does not look at
the test set. `python -m utils.selection.round_two` trains what is missing and goes on where it was
interrupted; `RESULTS_DIR` says where networks and records go.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from utils.common.constants import IMAGE_SIZE
from utils.common.files import file_sha256, is_made_from, write_json
from utils.common.paths import ROOT, final_name, model_file, models_dir, provenance_file
from utils.common.provenance import Stopwatch, describe_run, find_commit
from utils.common.study import Study, load_study
from utils.data.acquisition import PHOTOMETRIC
from utils.data.index import describe_dataset
from utils.data.splits import open_development
from utils.models.export import export_full_size
from utils.models.recipe import Candidate
from utils.selection.candidates import ROBUST
from utils.selection.cross_validation import fingerprint_of
from utils.training.fine_tuning import train_candidate

REGISTERED = ROOT / "docs" / "round_two.md"
SEEDS = (43, 44, 45)
"""Seed 42 was looked at before the recipe was fixed."""

_BASE = Candidate(
    "lite0_128_crops", "efficientnet_lite0", 128, ("flip", *PHOTOMETRIC), epochs=24,
    learning_rate=5e-4, trained_statistics=True, smallest_crop=0.08,
)  # fmt: skip
SIZES = (_BASE, replace(_BASE, name="lite0_96_crops", size=96))
"""The first of them with the first seed is the released network."""


def _setting(name: str, smallest_crop: float, transforms: Sequence[str] = ("flip",)) -> Candidate:
    return replace(
        _BASE, name=f"ablation_{name}", size=64, epochs=16, transforms=tuple(transforms),
        smallest_crop=smallest_crop,
    )  # fmt: skip


WHOLE = 1.0
ABLATION = (
    _setting("no_crop", WHOLE),
    _setting("crop_80", 0.8),
    _setting("crop_50", 0.5),
    _setting("crop_30", 0.3),
    _setting("crop_08", 0.08),
    _setting("crop_08_photometric", 0.08, ("flip", *PHOTOMETRIC)),
    _setting("photometric", WHOLE, ("flip", *PHOTOMETRIC)),
    _setting("robust", WHOLE, ROBUST),
)
"""Settings of the controlled ablation: one change of the augmentation each."""


def describe_registration() -> dict[str, Any]:
    """Return the commit and the SHA-256 of the registered document as it is now.

    The commit is None where there is no git history, as in a downloaded archive.
    """
    return {
        "document": REGISTERED.relative_to(ROOT).as_posix(),
        "commit": find_commit(REGISTERED) or None,
        "sha256": file_sha256(REGISTERED),
    }


def train_network(study: Study, recipe: Candidate, seed: int) -> None:
    """Train a registered network on the training patients, and export it with its record.

    Nothing is done where this recipe has been trained on this data. An interrupted training goes
    on from its last epoch.

    Args:
        study: The study, whose data it is trained on.
        recipe: Of `SIZES` or `ABLATION`.
        seed: Of initial weights, order, dropout and augmentation.
    """
    name = final_name(recipe.name, seed)
    record_file, network_file = provenance_file(study.study, name), model_file(study.study, name)
    inputs = {"recipe": recipe, "seed": seed, "dataset": {"fingerprint": fingerprint_of(study)}}
    if is_made_from(record_file, inputs, network_file):
        return
    registered = describe_registration()
    stopwatch = Stopwatch()
    root, index, images, pixels = open_development(study, IMAGE_SIZE)
    train = (images.split == "train").to_numpy()
    network, weights = train_candidate(
        recipe, pixels[train], images.label.to_numpy()[train], seed,
        models_dir(study.study) / f"{name}.h5", f"{recipe.name}, seed {seed}",
    )  # fmt: skip
    export_full_size(network, network_file)
    write_json(
        record_file,
        {
            "study": study.study,
            "model": name,
            "recipe": recipe.describe(),
            "seed": seed,
            "registered": registered,
            "weights": {"description": weights, "banner": ""},
            "parameters": network.count_params(),
            "training_minutes": stopwatch.minutes,
            "dataset": describe_dataset(root, index),
            "run": describe_run(stopwatch.minutes),
        },
    )


def main() -> None:
    """Train the registered networks from the command line; the released one first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="full")
    parser.add_argument("--ablation", action="store_true", help="train the ablation's instead")
    arguments = parser.parse_args()
    study = load_study(arguments.study)
    for seed in SEEDS:
        for recipe in ABLATION if arguments.ablation else SIZES:
            train_network(study, recipe, seed)


if __name__ == "__main__":
    main()
