"""Measure what a fixed set of augmented copies costs, versus a fresh copy every epoch.

`python -m utils.training.augmented_copies --study full` trains the head of our ResNet50 on a part
of the training images with few copies and with one fresh copy per epoch, all else equal, and writes
`results/<study>/views_cost.csv`, a row per training run. Rows that are already there are not
trained again.
"""

import argparse
from pathlib import Path

import pandas as pd

from utils.common.files import find_changed_inputs, write_csv
from utils.common.paths import results_dir, table_file
from utils.common.study import Study, load_study
from utils.data.index import open_study_index
from utils.models.backbones import build_head
from utils.models.weights import resolve_study_weights
from utils.training.activations import training_copies
from utils.training.head import Recipe, prepare_head_data, score_head, train_plainly

SEEDS = (42, 43, 44)
TABLE = "views_cost"


def summarize_copies_cost(results: Path) -> pd.DataFrame:
    """Summarize a study's measurements: mean and range over the seeds by number of copies.

    Returns:
        One row per number of copies, with the mean, lowest and highest validation loss and AUC.
    """
    rows = pd.read_csv(results / f"{TABLE}.csv")
    summary = rows.groupby(["views", "images", "epochs"])[["loss", "auc"]].agg(
        ["mean", "min", "max"]
    )
    summary.columns = [f"{metric}_{statistic}" for metric, statistic in summary.columns]
    return summary.reset_index()


def measure_copies_cost(study: Study, images: int, contenders: tuple[int, ...]) -> pd.DataFrame:
    """Train on a part of the training images with each number of copies and each seed.

    All training runs take the study's full number of epochs, so that none is helped by an early
    stop, and are scored on the plain validation images.

    Args:
        study: The study whose recipe, data and seed are used.
        images: Number of training images, the first in the order of their pixel hashes, which
            is random but the same everywhere.
        contenders: Numbers of copies; the number of epochs means a fresh copy every epoch.
    """
    root, index = open_study_index(study)
    part = index[index.split == "train"].sort_values("pixel_sha256").head(images)
    validation = index[index.split == "validation"]
    weights = resolve_study_weights("resnet50", study)
    data = prepare_head_data(
        root, weights, part, {"validation": validation},
        training_copies(max(contenders), study.seed),
    )  # fmt: skip
    file = table_file(study.study, TABLE)
    rows = pd.read_csv(file).to_dict("records") if file.is_file() else []
    for seed in SEEDS:
        for count in contenders:
            wanted = {"views": count, "seed": seed, "images": len(part), "epochs": study.epochs}
            if any(not find_changed_inputs(row, wanted) for row in rows):
                continue
            head = build_head(data.backbone.output_shape[1:], seed)
            recipe = Recipe.of_study(study, seed=seed)
            train_plainly(head, data.copies[:count], part.label.to_numpy(), recipe)
            scores = score_head(head, data.held_out["validation"], validation.label.to_numpy())
            rows.append(wanted | scores)
            write_csv(file, pd.DataFrame(rows))
    return pd.DataFrame(rows)


def main() -> None:
    """Run the measurement from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", default="full")
    parser.add_argument("--images", type=int, default=320, help="training images")
    arguments = parser.parse_args()
    study = load_study(arguments.study)
    measure_copies_cost(study, arguments.images, (1, study.views, study.epochs))
    print(summarize_copies_cost(results_dir(study.study)).round(4).to_string(index=False))


if __name__ == "__main__":
    main()
