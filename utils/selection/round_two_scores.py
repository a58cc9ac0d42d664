"""Score round two as `docs/round_two.md` says, from prediction files alone.

No network and no image is opened, and nothing is chosen. Primary are the test ROC-AUC of
`ensemble_two` and its accuracy at 0.5; everything else is secondary and exploratory, because it is
the second look at this test set.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from utils.common.constants import EXTERNAL_SPLIT, PNEUMONIA, SCORED_SPLITS
from utils.common.files import read_json, write_json
from utils.common.paths import external_file, final_name, predictions_file, results_dir, table_file
from utils.evaluation.calibration import correct_prevalence, evaluate_calibration
from utils.evaluation.curves import decision_curve
from utils.evaluation.external import BALANCED, HALF, LOCAL_NORMALS, score_external
from utils.evaluation.intervals import DECIMALS, with_null
from utils.evaluation.metrics import evaluate_predictions, paired_differences
from utils.evaluation.predictions import (
    align,
    average_predictions,
    load_predictions,
    log_odds,
    select_split,
)
from utils.evaluation.study_metrics import evaluate_seeds
from utils.models.registry import SHIPPED_MODEL
from utils.selection.choices import (
    ENSEMBLE,
    ENSEMBLE_TWO,
    RELEASED,
    ROUND_TWO_RECIPES,
    ROUND_TWO_SEEDS,
    WHOLE_IMAGE,
    read_choices,
    round_two_networks,
)
from utils.selection.comparison import FinalModel, score_subgroups

METRICS_FILE, EXTERNAL_FILE = "round_two_metrics.json", "external_metrics.json"
GOALS = (
    (ENSEMBLE_TWO, "roc_auc", 0.993, 0.988),
    (ENSEMBLE_TWO, "accuracy_at_0.5", 0.962, 0.950),
    (ENSEMBLE_TWO, "sensitivity_at_0.5", None, 0.97),
    (ENSEMBLE_TWO, "specificity_at_0.5", None, 0.90),
    (RELEASED, "roc_auc", None, 0.985),
    (RELEASED, "accuracy_at_0.5", None, 0.945),
)
"""Registered: model, metric on test, goal and least. The first two are primary."""
HEADLINE = (ENSEMBLE_TWO, RELEASED, ENSEMBLE, SHIPPED_MODEL)
"""Models of both rounds that are scored in every respect, and on the external test."""
PAIRS = (
    (ENSEMBLE_TWO, ENSEMBLE), (RELEASED, ENSEMBLE), (RELEASED, SHIPPED_MODEL),
    (ENSEMBLE_TWO, ENSEMBLE_TWO + WHOLE_IMAGE), (RELEASED, RELEASED + WHOLE_IMAGE),
    (ENSEMBLE_TWO, RELEASED), ROUND_TWO_RECIPES,
)  # fmt: skip
"""Models whose difference on the test set is bootstrapped, first minus second."""
CURVE = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Thresholds of the decision curve."""
TRAINED, WITHIN = "training_folder", "within"
FITTED, PIXELS = (TRAINED, WITHIN), ("mean_intensity", "border_frame", "thumbnail")
"""How and on what pixel baselines of the external test are fitted."""


def read_models(study_name: str) -> dict[str, pd.DataFrame]:
    """Read the predictions of round two and of round one's ensemble and shipped network.

    Beside the files there are a model of each size, its three seeds averaged in log-odds, and
    `_plain` ones of all, by the whole image.
    """

    def average(names: Sequence[str], end: str) -> pd.DataFrame:
        return average_predictions(
            [tables[name.removeprefix("final/") + end] for name in names], in_log_odds=True
        )

    networks = round_two_networks()
    names = [ENSEMBLE_TWO, RELEASED, *networks, *(name + WHOLE_IMAGE for name in networks)]
    tables = {
        name.removeprefix("final/"): load_predictions(predictions_file(study_name, name))
        for name in [*names, f"final/{SHIPPED_MODEL}"]
    }
    for end in ("", WHOLE_IMAGE):
        for recipe in ROUND_TWO_RECIPES:
            seeds = [final_name(recipe, seed) for seed in ROUND_TWO_SEEDS]
            tables[recipe + end] = average(seeds, end)
    tables[ENSEMBLE_TWO + WHOLE_IMAGE] = average(networks, WHOLE_IMAGE)
    tables[RELEASED + WHOLE_IMAGE] = average(networks[:1], WHOLE_IMAGE)
    tables[ENSEMBLE] = read_first_ensemble(study_name)
    return tables


def read_first_ensemble(study_name: str) -> pd.DataFrame:
    """Return the predictions of round one's ensemble: the mean over its networks."""
    choices, parts = read_choices(study_name), []
    for member in choices["members"]:
        for file in sorted(predictions_file(study_name, "final").parent.glob(
            f"final/{member}_seed*.csv"
        )):  # fmt: skip
            table = load_predictions(file)
            parts.append(table[table.split.isin(SCORED_SPLITS)])
    return average_predictions(parts)


def list_thresholds(study_name: str, models: Sequence[str]) -> dict[str, float]:
    """Return round one's threshold of each model: the ensemble's, or for one network the single's.

    The shipped network is the single model; the released one is judged at the same threshold.
    """
    choices = read_choices(study_name)
    single = (RELEASED, SHIPPED_MODEL)
    return {
        name: choices["thresholds"][choices["single"] if name in single else ENSEMBLE]
        for name in models
    }


def score_round_two(study_name: str, resamples: int, seed: int) -> dict[str, Any]:
    """Score round two, and write `results/<study>/round_two_metrics.json`.

    Args:
        study_name: Of the study.
        resamples: Bootstrap resamples of patients.
        seed: Of the resamples.

    Returns:
        `goals`: model, metric, goal, least, reached, and which of both are met. `models`: metrics
        on validation and test with patient-level intervals; the models of `HEADLINE` also with
        identical test images counted once (`identical_once`), by both readings of who a patient is
        (`number_known`: PNEUMONIA images whose number the training folder has, with all normal
        ones; `number_not_in_training`), on test `by_etiology` and with `errors` by group, and with
        the calibration on both splits. It is given for probabilities as they are, and corrected
        for training with balanced classes: with the training patients' prevalence q,
        log-odds(p) + log(q / (1 - q)). `seeds`: each metric of the three seeds, their mean, and an
        interval that resamples patients and seeds. `differences`: see `PAIRS`; all but round one's
        at 0.5. `decision_curve`: net benefit by threshold.
    """
    tables = read_models(study_name)
    thresholds = dict.fromkeys(tables, HALF) | list_thresholds(
        study_name, [ENSEMBLE, SHIPPED_MODEL]
    )
    train = select_split(tables[ENSEMBLE_TWO], "train")
    prevalence = float((train.y_true == PNEUMONIA).mean())
    parts = {name: select_split(table, "test") for name, table in tables.items()}
    models = {}
    for name, table in tables.items():
        selected = {split: select_split(table, split) for split in SCORED_SPLITS}
        if name in HEADLINE:
            selected |= _select_readings(study_name, parts[name])
        models[name] = {"threshold": thresholds[name]} | {
            part: {"images": len(rows)}
            | evaluate_predictions(rows, thresholds[name], resamples, seed)
            for part, rows in selected.items()
        }
        if name in HEADLINE:
            models[name]["calibration"] = {
                split: {
                    kind: evaluate_calibration(rows, resamples, seed)
                    for kind, rows in _correct(selected[split], prevalence).items()
                }
                for split in SCORED_SPLITS
            }
            final = FinalModel(name, thresholds[name], (table,))
            models[name] |= score_subgroups(final, resamples, seed)
    scores = with_null({
        "intervals": {"resamples": resamples, "seed": seed, "resampled": "patients"},
        "prevalence": {"trained": BALANCED, "training_patients": round(prevalence, DECIMALS)},
        "goals": [_judge_goal(models, *goal) for goal in GOALS],
        "models": models,
        "seeds": _score_seeds(parts, resamples, seed),
        "differences": {
            f"{first} - {second}": paired_differences(
                parts[first], parts[second], (thresholds[first], thresholds[second]),
                resamples, seed, "patient",
            )
            for first, second in PAIRS
        },
        "decision_curve": _draw_curve({name: parts[name] for name in HEADLINE}, prevalence),
    })  # fmt: skip
    write_json(results_dir(study_name) / METRICS_FILE, scores)
    return scores


def _select_readings(study_name: str, test: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return parts of the test set: identical images once, and both readings of a patient."""
    known, identical = (
        pd.read_csv(table_file(study_name, name)) for name in ("known_numbers", "identical_images")
    )
    repeated = identical.sort_values("image_id")
    repeated = repeated.image_id[repeated.duplicated("duplicate_group")]
    is_known = test.image_id.isin(known.image_id[known.known])
    return {
        "identical_once": test[~test.image_id.isin(repeated)],
        "number_known": test[is_known | (test.y_true != PNEUMONIA)],
        "number_not_in_training": test[~is_known],
    }


def _correct(rows: pd.DataFrame, prevalence: float) -> dict[str, pd.DataFrame]:
    corrected = correct_prevalence(rows.probability, BALANCED, prevalence)
    return {"as_is": rows, "prevalence_corrected": rows.assign(probability=corrected)}


def _judge_goal(
    models: Mapping[str, Any], name: str, metric: str, goal: float | None, least: float
) -> dict[str, Any]:
    reached = models[name]["test"][metric]
    return {
        "model": name, "metric": metric, "goal": goal, "least": least, "reached": reached,
        "goal_met": None if goal is None else reached["value"] >= goal,
        "least_met": reached["value"] >= least,
    }  # fmt: skip


def _score_seeds(
    parts: Mapping[str, pd.DataFrame], resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Score one network of each size and the ensemble, with patients and seeds resampled."""
    images = parts[ENSEMBLE_TWO].sort_values("image_id", ignore_index=True)
    scored = {}
    for end in ("", WHOLE_IMAGE):
        odds = np.stack([
            [
                log_odds(align(images, parts[f"{recipe}_seed{number}{end}"])[1].probability)
                for number in ROUND_TWO_SEEDS
            ]
            for recipe in ROUND_TWO_RECIPES
        ])  # fmt: skip
        for recipe, each in zip(ROUND_TWO_RECIPES, odds, strict=True):
            scored[recipe + end] = evaluate_seeds(images, each, False, resamples, seed)
        together = odds.mean(axis=0)
        scored[ENSEMBLE_TWO + end] = evaluate_seeds(images, together, True, resamples, seed)
    return scored


def _draw_curve(parts: Mapping[str, pd.DataFrame], prevalence: float) -> list[dict[str, float]]:
    """Return the net benefit of models on test by threshold; treating nobody has 0."""
    kinds = {
        f"{name}, {kind}": rows for name, part in parts.items()
        for kind, rows in _correct(part, prevalence).items()
    }  # fmt: skip
    return decision_curve(kinds, CURVE).round(DECIMALS).to_dict("records")


def score_external_set(
    study_name: str, resamples: int, seed: int, local_normals: int = LOCAL_NORMALS
) -> dict[str, Any]:
    """Score `HEADLINE` on the external test, and write `results/<study>/external_metrics.json`.

    Args:
        study_name: Of the study.
        resamples: Bootstrap resamples of patients.
        seed: Of the resamples, and of the draw of local normals.
        local_normals: How many set the local threshold.

    Returns:
        See `external.score_external`; `not_predicted` names models that have no predictions.
    """

    def read(name: str) -> pd.DataFrame:
        return load_predictions(external_file(study_name, name), (EXTERNAL_SPLIT,))

    there = [name for name in HEADLINE if external_file(study_name, name).is_file()]
    known = read_models(study_name)
    train = select_split(known[ENSEMBLE_TWO], "train")
    baselines = {
        fitted: {kind: read(f"pixels/{fitted}_{kind}") for kind in PIXELS} for fitted in FITTED
    }
    scores = score_external(
        {name: read(name) for name in there},
        {name: select_split(known[name], "validation") for name in there},
        list_thresholds(study_name, there), pd.read_csv(external_file(study_name, "gray")),
        baselines, float((train.y_true == PNEUMONIA).mean()), resamples, seed, local_normals,
    )  # fmt: skip
    scores["not_predicted"] = [name for name in HEADLINE if name not in there]
    write_json(results_dir(study_name) / EXTERNAL_FILE, with_null(scores))
    return scores


def read_scores(study_name: str, file: str = METRICS_FILE) -> dict[str, Any]:
    """Read the scores of round two, or with `EXTERNAL_FILE` those on the external test."""
    return read_json(results_dir(study_name) / file)
