"""Whether augmented copies in bfloat16 train heads as good as copies in float32.

`python -m utils.training.precision_trial --study full` trains the head of notebook 04 on copies of
either precision, with every seed of the study, and scores each on the validation images, which are
float32 for both. All are trained on the machine at hand, so the two heads of a seed differ in
nothing but the precision. The bound that decides is registered in `docs/round_two.md`. The test set
is not looked at.

`results/<study>/precision_trial.csv` has a row per head. An interrupted trial goes on with the
head, and the epoch, that it was at.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Any

import pandas as pd

from utils.common.files import is_made_from, read_json, write_csv, write_json
from utils.common.jobs import JobsError
from utils.common.paths import models_dir, table_file
from utils.common.provenance import Stopwatch, describe_run
from utils.common.study import load_study
from utils.data.index import describe_dataset, open_study_index
from utils.models.backbones import build_head
from utils.models.pretrained import WeightsError
from utils.models.weights import resolve_study_weights
from utils.training.activations import CacheSpaceError, training_copies
from utils.training.head import HeadData, Recipe, prepare_head_data, score_head, train_head
from utils.training.precision import RECORDED_FLAGS, cpu_flags

BOUND = 0.005
"""Of the mean difference of the validation ROC-AUC, registered in `docs/round_two.md`."""
COMPARED = ("float32", "bfloat16")
TRIAL = "precision_trial"
_BACKBONE = "resnet50"


def run_trial(study_name: str) -> pd.DataFrame:
    """Train and score a head for each precision and seed; what is there is not trained again.

    Args:
        study_name: Of the study.

    Returns:
        A row per head: precision, seed, loss, accuracy and auc of the validation images.
    """
    study, stopwatch = load_study(study_name), Stopwatch()
    root, index = open_study_index(study)
    parts = {split: index[index.split == split] for split in ("train", "validation")}
    labels = {split: rows.label.to_numpy() for split, rows in parts.items()}
    weights = resolve_study_weights(_BACKBONE, study)
    inputs = {
        "dataset": describe_dataset(root, index),
        "weights": weights.provenance(),
        "recipe": Recipe.of_study(study).describe() | {"views": study.views},
        "seeds": list(study.final_seeds),
        "processor": {flag: flag in cpu_flags() for flag in RECORDED_FLAGS},
    }

    def train(data: HeadData, precision: str, seed: int) -> dict[str, Any]:
        name = f"{precision}_seed{seed}"
        folder = models_dir(study_name) / TRIAL
        record, checkpoint = folder / f"{name}.json", folder / f"{name}.weights.h5"
        if not is_made_from(record, inputs, checkpoint):
            recipe = Recipe.of_study(study, seed=seed)
            head = build_head(data.backbone.output_shape[1:], seed)
            validation = data.held_out["validation"], labels["validation"]
            train_head(head, data.copies, labels["train"], *validation, recipe, checkpoint)
            write_json(record, inputs | {"scores": score_head(head, *validation)})
        return {"precision": precision, "seed": seed, **read_json(record)["scores"]}

    def make() -> pd.DataFrame:
        rows = []
        for precision in COMPARED:
            data = prepare_head_data(
                root, weights, parts["train"], {"validation": parts["validation"]},
                training_copies(study.views, study.seed), precision,
            )  # fmt: skip
            rows += [train(data, precision, seed) for seed in study.final_seeds]
        return pd.DataFrame(rows).round(6)

    file = table_file(study_name, TRIAL)
    if not is_made_from(file.with_suffix(".json"), inputs, file):
        write_csv(file, make())
        run = describe_run(stopwatch.minutes)
        write_json(file.with_suffix(".json"), inputs | {"run": run})
    return pd.read_csv(file)


def compare_pairs(table: pd.DataFrame) -> pd.Series:
    """Return the validation ROC-AUC of bfloat16 minus that of float32, by seed.

    Args:
        table: From `run_trial`.
    """
    auc = table.pivot(index="seed", columns="precision", values="auc")
    return auc["bfloat16"] - auc["float32"]


def is_within_bound(table: pd.DataFrame) -> bool:
    """Say whether the mean difference lets `PRECISION=auto` become the default."""
    return abs(float(compare_pairs(table).mean())) <= BOUND


def main(argv: Sequence[str] | None = None) -> int:
    """Run the trial from the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="full")
    arguments = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        table = run_trial(arguments.study)
    except (CacheSpaceError, JobsError, WeightsError, ValueError) as error:
        # Errors of data set and study are ValueErrors.
        sys.stderr.write(f"{error}\n")
        return 1
    differences = compare_pairs(table)
    sys.stdout.write(
        f"{table.to_string(index=False)}\n\nvalidation ROC-AUC, bfloat16 minus float32: mean "
        f"{differences.mean():+.4f} ({differences.min():+.4f} to {differences.max():+.4f}), "
        f"{'within' if is_within_bound(table) else 'outside'} {BOUND}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
