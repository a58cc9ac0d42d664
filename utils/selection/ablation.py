"""Round two's controlled ablation: what the augmentation does to validation and test.

`python -m utils.selection.ablation` trains what is missing of the eight settings with three seeds
each, lets every network predict once, and scores them; `--score` trains nothing. It comes after the
scores of round two are committed. All tables are made from prediction files:

- `results/<study>/ablation.csv`: a row per network;
- `results/<study>/ablation_criteria.csv`: how every criterion ranks the settings, and the regret of
  choosing by it. The setting is the unit, the mean over its three seeds.
"""

import argparse
import logging
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from sklearn.metrics import log_loss

from utils.common.constants import EXTERNAL_SPLIT, PNEUMONIA, SCORED_SPLITS
from utils.common.files import read_json, write_csv
from utils.common.paths import (
    ROOT,
    external_file,
    final_name,
    held_out_dir,
    model_file,
    predictions_file,
    provenance_file,
    results_dir,
    table_file,
)
from utils.common.progress import track
from utils.common.provenance import find_commit
from utils.common.study import Study, load_study
from utils.data.images import DatasetError
from utils.data.index import open_study_index
from utils.data.nih_adults import open_nih_adults
from utils.data.perturbations import PERTURBATIONS
from utils.data.regions import REGIONS
from utils.data.splits import PLAIN, open_development, plain_fold
from utils.evaluation.bootstrap import resample_rows
from utils.evaluation.metrics import auc_by_ranks, compute_metrics
from utils.evaluation.predictions import load_predictions, select_split
from utils.evaluation.tables import format_columns, format_range
from utils.models.export import find_gray
from utils.models.recipe import Candidate
from utils.selection.choices import SelectionError
from utils.selection.comparison import judge_criteria
from utils.selection.cross_validation import is_cross_validated, keep_held_out
from utils.selection.round_two import (
    ABLATION,
    SEEDS,
    predict_missing,
    require_trained,
    train_networks,
)
from utils.selection.round_two_scores import METRICS_FILE
from utils.selection.rule import covered_cues, read_held_out
from utils.shortcuts.regions import measure_regions

NETWORKS, CRITERIA_TABLE, REGIONS_TABLE = "ablation", "ablation_criteria", "ablation_regions"
CRITERIA = (
    "validation", "validation_accuracy", "validation_log_likelihood", "perturbed",
    "worst_perturbed", "all_versions", "covered_features", "external",
)  # fmt: skip
"""By which settings could be chosen, each the larger the better. ROC-AUC but where named otherwise;
`all_versions` is round one's criterion on the study's own validation patients in place of held-out
blocks, `covered_features` its preference among equals, and `external` what the adults say."""
AT_HALF = ("accuracy", "sensitivity", "specificity")


def predict_ablation(study: Study) -> None:
    """Let every network of the ablation predict: validation, test and external test, once.

    Perturbed validation goes where the other candidates' lies, and covered test images are measured
    last.
    """
    require_scored(study.study)
    networks = {
        final_name(recipe.name, seed): (recipe, seed) for recipe in ABLATION for seed in SEEDS
    }
    files = {name: (model_file(study.study, name), False) for name in networks}

    def open_scored() -> tuple[Path, pd.DataFrame]:
        require_trained(study, ABLATION)
        root, index = open_study_index(study)
        return root, index[index.split.isin(SCORED_SPLITS)]

    predict_missing(study.study, files, predictions_file, open_scored)
    predict_missing(study.study, files, external_file, open_nih_adults)
    for recipe, seed in track(list(networks.values()), "perturbed validation", len(networks)):
        if not is_cross_validated(study, recipe, PLAIN, seed):
            _perturb_validation(study, recipe, seed)
    measure_regions(study, list(networks), study.resamples, study.seed, REGIONS_TABLE)


def require_scored(study_name: str) -> None:
    """Refuse to begin before the scores of round two are there and, in a repository, committed.

    Raises:
        SelectionError: if they are not.
    """
    file = results_dir(study_name) / METRICS_FILE
    is_ours = file.is_relative_to(ROOT) and find_commit()
    if not file.is_file() or (is_ours and not find_commit(file)):
        raise SelectionError(
            f"{file} must be there and committed before the ablation is scored; make it with "
            "python -m utils.selection.round_two --score"
        )


def _perturb_validation(study: Study, recipe: Candidate, seed: int) -> None:
    """Keep what a network says of the validation images under every perturbation."""
    name = final_name(recipe.name, seed)
    record = read_json(provenance_file(study.study, name))
    full = keras.models.load_model(model_file(study.study, name), compile=False, safe_mode=True)
    network = keras.Model(find_gray(full), full.outputs[0])
    _, _, images, pixels = open_development(study, recipe.size)
    keep_held_out(
        study, recipe, images, pixels, plain_fold(images), seed, network,
        record["weights"]["description"], record["training_minutes"],
    )  # fmt: skip


def score_networks(study_name: str) -> pd.DataFrame:
    """Return a row per network: setting, seed, every criterion, test scores, covered test images.

    Written to `results/<study>/ablation.csv`.
    """
    regions = pd.read_csv(table_file(study_name, REGIONS_TABLE)).set_index(["model", "region"])
    rows = []
    for recipe in ABLATION:
        for record in read_held_out(held_out_dir(study_name), recipe, [PLAIN], SEEDS):
            name = final_name(recipe.name, record.seed)
            table = load_predictions(predictions_file(study_name, name))
            outside = load_predictions(external_file(study_name, name), (EXTERNAL_SPLIT,))
            validation, test = (select_split(table, split) for split in SCORED_SPLITS)
            scored = {
                split: compute_metrics(part.y_true, part.probability, 0.5)
                for split, part in (("validation", validation), ("test", test), ("out", outside))
            }
            versions = record.table[list(PERTURBATIONS)].to_numpy().T
            versions = auc_by_ranks(record.table.y_true.to_numpy(), versions)
            rows.append({
                "setting": recipe.name.removeprefix("ablation_"), "seed": record.seed,
                "smallest_crop": recipe.smallest_crop, "transforms": " ".join(recipe.transforms),
                "validation": scored["validation"]["roc_auc"],
                "validation_accuracy": scored["validation"]["accuracy_at_0.5"],
                "validation_log_likelihood": -log_loss(validation.y_true, validation.probability),
                "perturbed": versions[1:].mean(),
                "worst_perturbed": versions[1:].min(),
                "all_versions": versions.mean(),
                "covered_features": covered_cues(recipe),
                "external": scored["out"]["roc_auc"],
                "test": scored["test"]["roc_auc"],
                **{f"test_{name}": scored["test"][f"{name}_at_0.5"] for name in AT_HALF},
                **{
                    region: regions.roc_auc[name.removeprefix("final/"), region]
                    for region in REGIONS[1:]
                },
            })  # fmt: skip
    table = pd.DataFrame(rows).round(6)
    write_csv(table_file(study_name, NETWORKS), table)
    return table


def average_settings(networks: pd.DataFrame) -> pd.DataFrame:
    """Return mean and range over the seeds of every setting, as text.

    Args:
        networks: From `score_networks`.
    """
    shown = [name for name in networks if name not in ("setting", "seed", "transforms")]
    rows = {
        setting: [format_range(part[name].tolist()) for name in shown]
        for setting, part in networks.groupby("setting", sort=False)
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=shown)
    return table.drop(columns=["smallest_crop", "covered_features"])


def judge_settings(
    study_name: str, networks: pd.DataFrame, resamples: int, seed: int
) -> pd.DataFrame:
    """Return how each criterion ranks the settings as the test set does, and its regret.

    Both are of settings, the means over their seeds. Spearman's correlation has the interval of
    Bonett and Wright (2000), as in round one: it is about settings of this kind, of which eight are
    few. Resampling eight settings would not do: most resamples repeat some, which then tie.

    The regret is the test ROC-AUC of the best setting less that of the chosen one. Its interval
    resamples seeds within settings and patients of validation, external test and test; each
    resample chooses anew. The best setting is fixed, so a resample's regret may lie below 0.

    Args:
        study_name: Of the study.
        networks: From `score_networks`.
        resamples: Bootstrap resamples.
        seed: Of the resamples.

    Returns:
        A row per criterion: criterion, settings, spearman, low, high, chosen, regret, regret_low,
        regret_high; written to `results/<study>/ablation_criteria.csv`.
    """
    means = networks.groupby("setting", sort=False)[[*CRITERIA, "test"]].mean()
    criteria = means[list(CRITERIA)].rename_axis("candidate").reset_index()
    judged = judge_criteria(criteria, means.test.to_dict())
    best, names = int(means.test.to_numpy().argmax()), means.index.to_numpy()
    chosen = means[list(CRITERIA)].to_numpy().argmax(axis=0)
    regrets = means.test.iloc[best] - means.test.to_numpy()[chosen]
    drawn = _resample_regrets(study_name, networks, best, resamples, seed)
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    table = judged.rename(columns={"models": "settings"}).assign(
        chosen=names[chosen], regret=regrets, regret_low=low, regret_high=high
    )
    write_csv(table_file(study_name, CRITERIA_TABLE), table.round(6))
    return table.round(6)


def tabulate_criteria(judged: pd.DataFrame) -> pd.DataFrame:
    """Return a row per criterion to be read, its correlation and its regret with intervals.

    Args:
        judged: From `judge_settings`.
    """
    named = judged.rename(columns={"low": "spearman_low", "high": "spearman_high"})
    return pd.DataFrame({
        "criterion": judged.criterion,
        "Spearman's correlation": format_columns(named, "spearman", 2),
        "chosen": judged.chosen,
        "regret": format_columns(named, "regret", 3),
    })  # fmt: skip


def _resample_regrets(
    study_name: str, networks: pd.DataFrame, best: int, resamples: int, seed: int
) -> np.ndarray:
    """Return the regret of each criterion in resamples of seeds and patients; see above."""
    names = [final_name(recipe.name, number) for recipe in ABLATION for number in SEEDS]
    shape, random = (len(ABLATION), len(SEEDS)), np.random.default_rng(seed)

    def stack(tables: list[pd.DataFrame], columns: list[str]) -> tuple[pd.DataFrame, np.ndarray]:
        """Return the images, and (settings, seeds, columns, n) probabilities of them."""
        ordered = [table.sort_values("image_id", ignore_index=True) for table in tables]
        values = np.stack([table[columns].to_numpy().T for table in ordered])
        return ordered[0], values.reshape(*shape, len(columns), -1)

    predicted = [load_predictions(predictions_file(study_name, name)) for name in names]
    outside = [
        load_predictions(external_file(study_name, name), (EXTERNAL_SPLIT,)) for name in names
    ]
    held_out = [
        record.table for recipe in ABLATION
        for record in read_held_out(held_out_dir(study_name), recipe, [PLAIN], SEEDS)
    ]  # fmt: skip
    sets = {
        split: stack([select_split(table, split) for table in predicted], ["probability"])
        for split in SCORED_SPLITS
    }
    sets[EXTERNAL_SPLIT] = stack(outside, ["probability"])
    draws = {name: resample_rows(images, resamples, random) for name, (images, _) in sets.items()}
    # The same images as in validation, and so the same draws.
    sets["versions"], draws["versions"] = stack(held_out, list(PERTURBATIONS)), draws["validation"]
    covered, regrets = networks.covered_features.to_numpy()[:: len(SEEDS)], []
    for number in track(range(resamples), "resampling seeds and patients", resamples):
        seeds = random.integers(len(SEEDS), size=shape)
        rows = {name: draw[number] for name, draw in draws.items()}
        labels = {name: images.y_true.to_numpy()[rows[name]] for name, (images, _) in sets.items()}
        values = {
            name: probability[np.arange(len(ABLATION))[:, None], seeds][..., rows[name]]
            for name, (_, probability) in sets.items()
        }
        auc = {name: auc_by_ranks(labels[name], each).mean(1) for name, each in values.items()}
        ill, plain = labels["validation"] == PNEUMONIA, values["validation"][:, :, 0]
        likelihood = np.log(np.clip(np.where(ill, plain, 1 - plain), 1e-15, 1))
        worst = auc_by_ranks(labels["versions"], values["versions"])[..., 1:].min(-1).mean(1)
        found = {
            "validation": auc["validation"][:, 0],
            "validation_accuracy": ((plain >= 0.5) == ill).mean((1, 2)),
            "validation_log_likelihood": likelihood.mean((1, 2)),
            "perturbed": auc["versions"][:, 1:].mean(1),
            "worst_perturbed": worst,
            "all_versions": auc["versions"].mean(1),
            "covered_features": covered,
            "external": auc[EXTERNAL_SPLIT][:, 0],
        }
        test = auc["test"][:, 0]
        regrets.append([test[best] - test[found[name].argmax()] for name in CRITERIA])
    return np.array(regrets)


def main() -> None:
    """Train and score the ablation from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="full")
    parser.add_argument("--score", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    study = load_study(arguments.study)
    if not arguments.score:
        train_networks(study, ABLATION)
    try:
        predict_ablation(study)
    except (SelectionError, DatasetError) as error:
        sys.exit(str(error))
    judge_settings(study.study, score_networks(study.study), study.resamples, study.seed)


if __name__ == "__main__":
    main()
