"""The final comparison of notebooks 09 to 11: final models of several seeds, side by side.

Everything is computed from prediction files. Nothing in here chooses: names, members and
thresholds come from the file of choices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from utils.common.constants import SCORED_SPLITS
from utils.common.files import read_json, write_json
from utils.common.names import displayed
from utils.common.paths import final_metrics_file, final_name, predictions_dir
from utils.data.index import patient_number
from utils.evaluation.calibration import (
    apply_temperature,
    fit_temperature,
    fit_temperature_and_bias,
    measure_calibration,
    reliability_table,
)
from utils.evaluation.delong import delong_difference
from utils.evaluation.intervals import DECIMALS, spearman_interval, with_null
from utils.evaluation.metrics import (
    METRICS,
    compute_metrics,
    evaluate_by_etiology,
    evaluate_predictions,
    paired_difference,
    predictive_values,
)
from utils.evaluation.predictions import (
    average_predictions,
    etiology_of,
    load_predictions,
    select_split,
)
from utils.evaluation.tables import format_interval, format_range
from utils.evaluation.thresholds import choose_validation_threshold, is_positive
from utils.evaluation.without_labels import expect_accuracy, measure_agreement
from utils.models.registry import RECORD, SHIPPED, SHIPPED_MODEL
from utils.selection.choices import ENSEMBLE

BASELINE, REIMPLEMENTATION = "vgg19", "resnet50"
GOALS = {
    "roc_auc": 0.986, "accuracy_at_threshold": 0.945, "specificity_at_95": 0.9,
}  # fmt: skip
"""What the chosen model is to reach on test at least; first committed after most of these models
had predicted the test set, see the table of deviations in docs/selection_rule.md."""
LARGEST_ECE = 0.05
"""On validation, after calibration there."""
SURE = 0.9
"""A prediction has high confidence where the probability of its class is at least this."""
WRONG_AND_SURE = "wrong with high confidence"
"""Column of the table of errors; stored as `sure and wrong`."""
SEED_METRICS = (
    "roc_auc", "accuracy_at_0.5", "accuracy_at_threshold", "sensitivity", "specificity",
)  # fmt: skip
READING_METRICS = ("roc_auc", "accuracy_at_0.5", "accuracy_at_threshold")


@dataclass(frozen=True)
class FinalModel:
    """A final model: one set of predictions per seed, and a pre-specified threshold."""

    name: str
    threshold: float
    seeds: tuple[pd.DataFrame, ...]

    @property
    def title(self) -> str:
        """What it is called in tables."""
        return displayed(self.name)

    @property
    def mean(self) -> pd.DataFrame:
        """Predictions whose probability is the mean over the seeds."""
        return average_predictions(self.seeds)


def final_names(choices: Mapping[str, Any]) -> list[str]:
    """Return the candidates that are trained with all seeds: the single model, the members."""
    return list(dict.fromkeys([choices["single"], *choices["members"]]))


def read_final_models(
    study_name: str, choices: Mapping[str, Any], seeds: Sequence[int]
) -> dict[str, FinalModel]:
    """Read the predictions of all final models: VGG19, our ResNet50, those chosen, the ensemble.

    The thresholds of VGG19 and ResNet50 come from validation, by the rule of notebook 05, for the
    mean over their seeds; those of the chosen models come from the choices. A seed of the ensemble
    is the mean of its members' models of that seed.

    Args:
        study_name: Of the study.
        choices: From `rule.make_choices`.
        seeds: Of the final models; the first one is that of notebooks 03 and 04.
    """
    folder = predictions_dir(study_name)

    def read(name: str) -> pd.DataFrame:
        table = load_predictions(folder / f"{name}.csv")
        return table[table.split.isin(SCORED_SPLITS)]

    models: dict[str, FinalModel] = {}
    for name, other_seeds in ((BASELINE, []), (REIMPLEMENTATION, seeds[1:])):
        files = [name, *(final_name(name, seed) for seed in other_seeds)]
        tables = tuple(read(file) for file in files)
        threshold = choose_validation_threshold(average_predictions(tables))
        models[name] = FinalModel(name, threshold, tables)
    for name in final_names(choices):
        tables = tuple(read(final_name(name, seed)) for seed in seeds)
        models[name] = FinalModel(name, choices["thresholds"][name], tables)
    if choices["members"]:
        tables = tuple(
            average_predictions([models[name].seeds[number] for name in choices["members"]])
            for number in range(len(seeds))
        )
        models[ENSEMBLE] = FinalModel(ENSEMBLE, choices["thresholds"][ENSEMBLE], tables)
    if (folder / f"final/{SHIPPED_MODEL}.csv").is_file():
        threshold = read_json(SHIPPED / RECORD)[SHIPPED_MODEL]["threshold"]
        models[SHIPPED_MODEL] = FinalModel(
            SHIPPED_MODEL, threshold, (read(f"final/{SHIPPED_MODEL}"),)
        )
    return models


def score_final_models(
    models: Mapping[str, FinalModel], resamples: int, seed: int
) -> dict[str, Any]:
    """Score final models on validation and test, in the form of `final_metrics.json`.

    Returns:
        For each model its `threshold`, `seeds` (metrics of each seed on test), `validation` and
        `test` (metrics with patient-level intervals, of the mean over the seeds), `calibration`,
        `errors` by group and `by_etiology` on test. All but our ResNet50 have `difference`: AUC and
        accuracy minus its own with paired intervals, and DeLong's interval of the AUC's difference.
    """
    reference = models[REIMPLEMENTATION]
    return {
        name: _score_model(model, None if model is reference else reference, resamples, seed)
        for name, model in models.items()
    }


def write_final_metrics(study_name: str, scores: Mapping[str, Any]) -> None:
    """Write the scores of final models to `results/<study>/final_metrics.json`."""
    write_json(final_metrics_file(study_name), with_null(dict(scores)))


def _score_model(
    model: FinalModel, reference: FinalModel | None, resamples: int, seed: int
) -> dict[str, Any]:
    mean = model.mean
    scored: dict[str, Any] = {
        "threshold": model.threshold,
        "seeds": [_values(select_split(table, "test"), model.threshold) for table in model.seeds],
    }
    for split in SCORED_SPLITS:
        scored[split] = evaluate_predictions(
            select_split(mean, split), model.threshold, resamples, seed
        )
    scored["calibration"] = measure_calibration_of(model)
    scored |= score_subgroups(model, resamples, seed)
    if reference is not None:
        test, other = (select_split(each, "test") for each in (mean, reference.mean))
        scored["difference"] = {
            metric: paired_difference(
                test, other, resamples, seed, metric, (model.threshold, reference.threshold)
            )
            for metric in ("roc_auc", "accuracy_at_threshold")
        }
        delong = delong_difference(test.y_true, test.probability, other.probability)
        scored["difference"]["roc_auc_delong"] = {
            key: round(value, DECIMALS) for key, value in delong.items()
        }
    return scored


def score_subgroups(model: FinalModel, resamples: int, seed: int) -> dict[str, Any]:
    """Return `errors` by group (see `error_table`) and metrics `by_etiology`, both on test."""
    test = select_split(model.mean, "test")
    errors = error_table(model).rename(columns={WRONG_AND_SURE: "sure and wrong"})
    return {
        "errors": errors.to_dict("records"),
        "by_etiology": evaluate_by_etiology(test, model.threshold, resamples, seed),
    }


def _values(predictions: pd.DataFrame, threshold: float) -> dict[str, float]:
    values = compute_metrics(
        predictions.y_true.to_numpy(), predictions.probability.to_numpy(), threshold
    )
    return {metric: round(value, DECIMALS) for metric, value in values.items()}


def seed_table(scores: Mapping[str, Any]) -> pd.DataFrame:
    """Return mean and range over the seeds on test, as text such as `0.981 (0.979-0.984)`."""
    rows = {}
    for name, scored in scores.items():
        values = {metric: [seed[metric] for seed in scored["seeds"]] for metric in SEED_METRICS}
        ranges = [format_range(each) for each in values.values()]
        rows[displayed(name)] = [len(scored["seeds"]), *ranges]
    columns = ["seeds", *(METRICS[metric] for metric in SEED_METRICS)]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def score_table(scores: Mapping[str, Any], metrics: Sequence[str]) -> pd.DataFrame:
    """Return metrics with intervals on test, of the mean over the seeds, as text."""
    rows = {
        displayed(name): [format_interval(scored["test"][metric]) for metric in metrics]
        for name, scored in scores.items()
    }
    columns = [METRICS[metric] for metric in metrics]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def reading_table(
    models: Mapping[str, FinalModel], known: pd.DataFrame, resamples: int, seed: int
) -> pd.DataFrame:
    """Return test metrics under both readings of who a patient is, as text with intervals.

    Args:
        models: From `read_final_models`.
        known: From `leakage.find_known_numbers`: image_id, known.
        resamples: Bootstrap resamples of patients.
        seed: Of the resamples.

    Returns:
        Two rows per model: all test images, and those whose number the training folder lacks.
    """
    unseen = known.image_id[~known.known]
    rows = {}
    for name, model in models.items():
        test = select_split(model.mean, "test")
        parts = {"all": test, "number not in training": test[test.image_id.isin(unseen)]}
        for reading, part in parts.items():
            scored = evaluate_predictions(part, model.threshold, resamples, seed)
            rows[f"{displayed(name)}, {reading}"] = [str(len(part))] + [
                format_interval(scored[metric]) for metric in READING_METRICS
            ]
    columns = ["images", *(METRICS[metric] for metric in READING_METRICS)]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def difference_table(scores: Mapping[str, Any]) -> pd.DataFrame:
    """Return the difference of each model from our ResNet50, with intervals, as text."""
    titles = {
        "roc_auc": "ROC-AUC, patient bootstrap", "roc_auc_delong": "ROC-AUC, DeLong",
        "accuracy_at_threshold": "accuracy at threshold",
    }  # fmt: skip
    rows = {
        displayed(name): [format_interval(scored["difference"][key], signed=True) for key in titles]
        for name, scored in scores.items()
        if "difference" in scored
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(titles.values()))


def etiology_table(scores: Mapping[str, Any]) -> pd.DataFrame:
    """Return AUC and sensitivity of bacterial and viral pneumonia separately, as text."""
    rows = {
        f"{displayed(name)}, {kind}": [
            format_interval(values[key]) for key in ("roc_auc", "sensitivity")
        ]
        for name, scored in scores.items()
        for kind, values in scored["by_etiology"].items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["ROC-AUC", "sensitivity"])


def goal_table(scored: Mapping[str, Any]) -> pd.DataFrame:
    """Return the targets of the chosen model, what it reached, and whether they were met.

    Args:
        scored: The model's part of `score_final_models`.

    Returns:
        A row per target: target, required, reached, met.
    """
    rows = [
        (f"{METRICS[metric]}, test", f"at least {least:g}",
         format_interval(scored["test"][metric]), scored["test"][metric]["value"] >= least)
        for metric, least in GOALS.items()
    ]  # fmt: skip
    difference = scored["difference"]["roc_auc"]
    measured = scored["calibration"]["validation"]
    errors = {
        "with a temperature": measured["ece_after"],
        "with a bias too (post hoc)": measured["ece_with_bias"],
    }  # fmt: skip
    rows += [
        ("ROC-AUC, difference from our ResNet50, test", "interval above 0",
         format_interval(difference, signed=True), difference["low"] > 0),
        *((f"ECE, validation, {how}", f"at most {LARGEST_ECE:g}", f"{error:.3f}",
           error <= LARGEST_ECE) for how, error in errors.items()),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["target", "required", "reached", "met"])


def error_table(model: FinalModel) -> pd.DataFrame:
    """Return the errors of a model on test: by series of patient numbers and etiology.

    Confidence is measured after calibration on validation.

    Returns:
        A row per series and etiology: group, images, wrong, wrong with high confidence.
    """
    parts, temperature = _split_and_fit(model)
    test = parts["test"]
    calibrated = apply_temperature(test.probability, temperature)
    predicted = is_positive(test.probability, model.threshold).to_numpy()
    series = test.patient_id.map(patient_number).str.rsplit("-", n=1).str[0]
    wrong = predicted != test.y_true.to_numpy()
    table = pd.DataFrame({
        "group": (series + ", " + etiology_of(test.patient_id)).to_numpy(),
        "images": 1,
        "wrong": wrong.astype(int),
        WRONG_AND_SURE: wrong & (np.where(predicted, calibrated, 1 - calibrated) >= SURE),
    })  # fmt: skip
    return table.groupby("group", as_index=False).sum()


def _split_and_fit(model: FinalModel) -> tuple[dict[str, pd.DataFrame], float]:
    """Return a model's predictions by split, and the temperature that fits validation."""
    parts = {split: select_split(model.mean, split) for split in SCORED_SPLITS}
    validation = parts["validation"]
    return parts, fit_temperature(validation.y_true, validation.probability)


def measure_calibration_of(model: FinalModel) -> dict[str, Any]:
    """Return ECE and Brier score as they are, and after two scalings fitted on validation.

    Returns:
        `temperature`, and `with_bias`: the temperature and the bias that are fitted together; for
        each split `ece_before`, `ece_after` (the temperature alone), `ece_with_bias`, and the same
        of `brier`.
    """
    parts, temperature = _split_and_fit(model)
    validation = parts["validation"]
    fitted = fit_temperature_and_bias(validation.y_true, validation.probability)
    measured: dict[str, Any] = {
        "temperature": round(temperature, 6), "with_bias": [round(value, 6) for value in fitted],
    }  # fmt: skip
    for split, part in parts.items():
        scaled = {
            "before": part.probability,
            "after": apply_temperature(part.probability, temperature),
            "with_bias": apply_temperature(part.probability, *fitted),
        }
        each = {name: measure_calibration(part.y_true, values) for name, values in scaled.items()}
        measured[split] = {f"ece_{name}": round(found.ece, 6) for name, found in each.items()} | {
            f"brier_{name}": round(found.brier, 6) for name, found in each.items()
        }
    return measured


def calibration_table(scores: Mapping[str, Any]) -> pd.DataFrame:
    """Return calibration before and after two scalings, a row per model and split."""
    rows = [
        {"model": displayed(name), "split": split}
        | {"temperature": scored["calibration"]["temperature"]}
        | scored["calibration"][split]
        for name, scored in scores.items()
        for split in SCORED_SPLITS
    ]
    return pd.DataFrame(rows)


def reliability_curves(model: FinalModel) -> dict[str, list[tuple[float, float, int]]]:
    """Return the reliability tables of a model, calibrated on validation, for both splits."""
    parts, temperature = _split_and_fit(model)
    return {
        split: reliability_table(
            part.y_true.to_numpy(), apply_temperature(part.probability, temperature)
        )
        for split, part in parts.items()
    }


def prevalence_table(scored: Mapping[str, Any], prevalences: Sequence[float]) -> pd.DataFrame:
    """Return PPV and NPV at other prevalences, from a model's sensitivity and specificity."""
    sensitivity, specificity = (
        scored["test"][metric]["value"] for metric in ("sensitivity", "specificity")
    )
    rows = [(each, *predictive_values(sensitivity, specificity, each)) for each in prevalences]
    return pd.DataFrame(rows, columns=["prevalence", "PPV", "NPV"])


def read_without_labels(models: Mapping[str, FinalModel]) -> pd.DataFrame:
    """Return each model's accuracy as estimated without test labels, and as observed.

    Returns:
        A row per model with two seeds or more: model, agreement (of its seeds), estimated
        (accuracy by average thresholded confidence), observed (accuracy at the threshold).
    """
    rows = []
    for name, model in models.items():
        if len(model.seeds) < 2:
            continue
        known, unknown = (select_split(model.mean, split) for split in SCORED_SPLITS)
        seeds = [select_split(table, "test").probability.to_numpy() for table in model.seeds]
        estimated = expect_accuracy(
            known.y_true.to_numpy(), known.probability, unknown.probability, model.threshold
        )
        observed = _values(unknown, model.threshold)["accuracy_at_threshold"]
        rows.append((name, measure_agreement(seeds, model.threshold), estimated, observed))
    return pd.DataFrame(rows, columns=["model", "agreement", "estimated", "observed"])


def judge_criteria(criteria: pd.DataFrame, reached: Mapping[str, float]) -> pd.DataFrame:
    """Return how well each criterion ranks final models as the test set does.

    Args:
        criteria: A row per candidate: `candidate`, and a column for each criterion.
        reached: Test AUC of final models by candidate.

    Returns:
        A row per criterion: criterion, models, spearman, low, high. The interval is that of
        Bonett and Wright 2000; it needs four models or more and is empty otherwise.
    """
    finished = criteria[criteria.candidate.isin(reached)]
    test = finished.candidate.map(reached)
    rows = []
    for name in criteria.columns.drop("candidate"):
        values = finished[name].astype(float)
        known = values.notna()
        correlation = float("nan")
        if known.sum() > 2:
            correlation = float(spearmanr(values[known], test[known]).statistic)
        low, high = spearman_interval(correlation, int(known.sum()))
        rows.append((name, int(known.sum()), correlation, low, high))
    return pd.DataFrame(rows, columns=["criterion", "models", "spearman", "low", "high"])
