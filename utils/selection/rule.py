"""Choose among candidates by `docs/selection_rule.md`, from held-out predictions alone.

Everything in here reads files that `utils.selection.cross_validation` wrote, and none of the test
set.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.common.files import read_json
from utils.data.perturbations import PERTURBATIONS, UNCHANGED
from utils.data.splits import PLAIN
from utils.evaluation.bootstrap import resample_rows
from utils.evaluation.metrics import auc_by_ranks
from utils.evaluation.thresholds import choose_threshold
from utils.models.recipe import Candidate
from utils.selection.choices import ENSEMBLE, SelectionError

CUES = {
    "exposure": ("exposure", "histogram_transfer"),
    "sharpness": ("spectrum", "spectrum_transfer", "resample"),
    "frame": ("frame",),
}
"""Shortcut features, and the transforms that make them uninformative."""
TOLERANCE = 0.01
"""Of the criterion, within which a candidate may be a member of the ensemble."""
LARGEST_ENSEMBLE = 3
RESAMPLES = 200
SEED = 42


@dataclass(frozen=True)
class HeldOut:
    """What one training run predicts for the held-out images of its fold."""

    candidate: str
    fold: str
    seed: int
    table: pd.DataFrame
    """image_id, patient_id, y_true and a column of probabilities for each perturbation."""


def read_held_out(
    folder: Path, candidate: Candidate, folds: Sequence[str], seeds: Sequence[int]
) -> list[HeldOut]:
    """Read the held-out predictions of a candidate, ordered by fold and seed.

    Other training runs in the folder are ignored: what is compared does not
    depend on what else has been tried.

    Args:
        folder: Of the study's cross-validation.
        candidate: Whose predictions; they must come from this very recipe.
        folds: Names of folds.
        seeds: Of the training runs.

    Raises:
        SelectionError: if one is missing, comes from another recipe, or lacks a column.
    """
    records = []
    for fold in folds:
        for seed in seeds:
            file = folder / candidate.name / f"{fold}_seed{seed}.csv"
            remedy = (
                f"run python -m utils.selection.cross_validation --candidates {candidate.name} "
                f"--folds {fold} --seeds {seed}"
            )
            if not (file.is_file() and file.with_suffix(".json").is_file()):
                raise SelectionError(
                    f"{candidate.name} has no predictions on {fold} with seed {seed}: {remedy}"
                )
            made_by = read_json(file.with_suffix(".json"))["candidate"]
            if Candidate.from_record(made_by) != candidate:
                raise SelectionError(f"{file} comes from another recipe of that name: {remedy}")
            table = pd.read_csv(file)
            missing = {"image_id", "patient_id", "y_true", *PERTURBATIONS} - set(table.columns)
            if missing:
                raise SelectionError(f"{file} lacks the columns {', '.join(sorted(missing))}")
            records.append(HeldOut(candidate.name, fold, seed, table))
    return records


def mean_auc(records: Sequence[HeldOut], perturbations: Sequence[str]) -> float:
    """Return the mean ROC-AUC over training runs and perturbations."""
    return float(np.mean([
        auc_by_ranks(record.table.y_true.to_numpy(), record.table[perturbation].to_numpy())
        for record in records for perturbation in perturbations
    ]))  # fmt: skip


def resample_mean_auc(records: Sequence[HeldOut], perturbations: Sequence[str]) -> np.ndarray:
    """Return `mean_auc` of bootstrap resamples: patients resampled within class.

    A patient is drawn with all of their images, for all perturbations and seeds of a fold alike,
    and the draws are the same for every candidate: resamples of two candidates can be subtracted.

    Returns:
        (RESAMPLES,) values; their standard deviation is the standard error.
    """
    random = np.random.default_rng(SEED)
    tables = {record.fold: record.table for record in records}
    draws = {fold: resample_rows(table, RESAMPLES, random) for fold, table in tables.items()}
    return np.array([
        mean_auc([
            replace(record, table=record.table.iloc[draws[record.fold][number]])
            for record in records
        ], perturbations)
        for number in range(RESAMPLES)
    ])  # fmt: skip


def covered_cues(candidate: Candidate) -> int:
    """Count the measured shortcut features that a candidate's transforms vary was trained."""
    return sum(any(name in candidate.transforms for name in cue) for cue in CUES.values())


def compare(
    folder: Path,
    candidates: Sequence[Candidate],
    folds: Sequence[str],
    seeds: Sequence[int],
    base: str | None = None,
) -> pd.DataFrame:
    """Compare cross-validated candidates by every criterion, all on the same folds and seeds.

    Args:
        folder: Of the study's cross-validation.
        candidates: Which to compare.
        folds: Block folds, and `plain` where plain and perturbed validation are wanted.
        seeds: Of the training runs.
        base: Name of the one whose difference to the others is wanted.

    Returns:
        One row per candidate: criterion (block folds, all perturbations) with its standard error,
        AUC of the unperturbed block folds with its own, plain and perturbed AUC, number of training
        runs, shortcut features covered, input size; with a base, also the difference of the
        criterion from the base's and its 95% interval.

    Raises:
        SelectionError: if there is no block fold, a training is missing, or the base is none of
            the candidates.
    """
    if all(fold == PLAIN for fold in folds):
        raise SelectionError(f"the criterion needs a block fold, not only {', '.join(folds)}")
    rows, resampled = [], {}
    for candidate in candidates:
        own = read_held_out(folder, candidate, folds, seeds)
        plain, blocks = (
            [r for r in own if (r.fold == PLAIN) == wanted] for wanted in (True, False)
        )
        resampled[candidate.name] = resample_mean_auc(blocks, PERTURBATIONS)
        rows.append({
            "candidate": candidate.name,
            "criterion": mean_auc(blocks, PERTURBATIONS),
            "standard_error": float(resampled[candidate.name].std(ddof=1)),
            "plain": mean_auc(plain, [UNCHANGED]) if plain else None,
            "block": mean_auc(blocks, [UNCHANGED]),
            "block_error": float(resample_mean_auc(blocks, [UNCHANGED]).std(ddof=1)),
            "stress": mean_auc(plain, PERTURBATIONS[1:]) if plain else None,
            "trainings": len(blocks),
            "cues": covered_cues(candidate),
            "size": candidate.size,
        })  # fmt: skip
    table = pd.DataFrame(rows)
    return table if base is None else _with_differences(table, resampled, base)


def _with_differences(
    table: pd.DataFrame, resampled: dict[str, np.ndarray], base: str
) -> pd.DataFrame:
    """Add the difference of every criterion to the base's, and its interval."""
    if base not in resampled:
        raise SelectionError(f"{base} is not among the candidates {', '.join(resampled)}")
    of_base = float(table.loc[table.candidate == base, "criterion"].iloc[0])
    bounds = [
        np.quantile(resampled[name] - resampled[base], [0.025, 0.975]) for name in table.candidate
    ]
    low, high = np.transpose(bounds)
    return table.assign(difference=table.criterion - of_base, low=low, high=high)


def auc_by_perturbation(
    folder: Path, candidates: Sequence[Candidate], folds: Sequence[str], seeds: Sequence[int]
) -> pd.DataFrame:
    """Return the AUC on block folds, candidates by perturbations; see `compare`."""
    records = {each.name: read_held_out(folder, each, folds, seeds) for each in candidates}
    return pd.DataFrame(
        {
            perturbation: [mean_auc(rows, [perturbation]) for rows in records.values()]
            for perturbation in PERTURBATIONS
        },
        index=list(records),
    )


def rank(comparison: pd.DataFrame) -> pd.DataFrame:
    """Order candidates by the rule; the first row is the choice.

    Within one standard error of the best criterion: more cues covered first, then the smaller
    input, then the larger criterion. Behind them come the others by their criterion.

    Returns:
        The comparison in order, with a column `within` of those among which preference decided.
    """
    best = comparison.loc[comparison.criterion.idxmax()]
    within = comparison.criterion >= best.criterion - best.standard_error
    marked = comparison.assign(within=within)
    preferred = marked[within].sort_values(
        ["cues", "size", "criterion"], ascending=[False, True, False], kind="stable"
    )
    others = marked[~within].sort_values("criterion", ascending=False, kind="stable")
    return pd.concat([preferred, others]).reset_index(drop=True)


def choose_second_round(ranked: pd.DataFrame) -> list[str]:
    """Return the candidates that are trained on all block folds.

    Those within one standard error of the best, and the best of each input size within
    `TOLERANCE`, because these may become members of the ensemble.
    """
    within = ranked.candidate[ranked.within].tolist()
    return within + [name for name in _best_of_sizes(ranked) if name not in within]


def choose_ensemble(ranked: pd.DataFrame) -> list[str]:
    """Choose the members of the ensemble: the best of each input size, three at most.

    A member's criterion is within `TOLERANCE` of the best; sizes are taken in the order of their
    best members.
    """
    return _best_of_sizes(ranked)[:LARGEST_ENSEMBLE]


def _best_of_sizes(ranked: pd.DataFrame) -> list[str]:
    near = ranked[ranked.criterion >= ranked.criterion.max() - TOLERANCE]
    ordered = near.sort_values("criterion", ascending=False, kind="stable")
    return ordered.drop_duplicates("size").candidate.tolist()


def choose_block_threshold(records: Sequence[HeldOut]) -> float:
    """Choose a threshold from the pooled predictions of all block folds, unperturbed images.

    Largest Youden's J; of tied thresholds the middle, see `thresholds.choose_threshold`.
    """
    blocks = [record for record in records if record.fold != PLAIN]
    if not blocks:
        raise SelectionError("a threshold needs predictions of block folds")
    pooled = pd.concat([record.table for record in blocks])
    return choose_threshold(pooled.y_true.to_numpy(), pooled[UNCHANGED].to_numpy())


def average_members(members: Sequence[Sequence[HeldOut]]) -> list[HeldOut]:
    """Return the ensemble's held-out predictions: the mean of its members', by perturbation.

    Raises:
        SelectionError: if the members were not cross-validated on the same folds and seeds.
    """
    keys = [[(record.fold, record.seed) for record in records] for records in members]
    if any(each != keys[0] for each in keys):
        raise SelectionError(f"members of an ensemble have different training runs: {keys}")
    averaged = []
    for trainings in zip(*members, strict=True):
        tables = [each.table.set_index("image_id") for each in trainings]
        mean = tables[0].copy()
        mean[list(PERTURBATIONS)] = sum(
            each.loc[mean.index, list(PERTURBATIONS)] for each in tables
        ) / len(tables)
        first = trainings[0]
        averaged.append(HeldOut(ENSEMBLE, first.fold, first.seed, mean.reset_index()))
    return averaged


def make_choices(
    folder: Path, candidates: Sequence[Candidate], folds: Sequence[str], seeds: Sequence[int]
) -> dict[str, Any]:
    """Apply the rule to the candidates of the second round; return the file of choices.

    Args:
        folder: Of the study's cross-validation.
        candidates: Of the second round.
        folds: Block folds of the second round.
        seeds: Of its training runs.

    Returns:
        `single`, `members` (none where there are fewer than two), `chosen` (`ensemble`, or the
        single model's name), `thresholds` of all candidates and of the ensemble, and the ranked
        comparison that they were read off.
    """
    ranked = rank(compare(folder, candidates, folds, seeds))
    blocks = {each.name: read_held_out(folder, each, folds, seeds) for each in candidates}
    members = choose_ensemble(ranked)
    thresholds = {name: choose_block_threshold(rows) for name, rows in blocks.items()}
    choices: dict[str, Any] = {
        "rule": "docs/selection_rule.md",
        "single": ranked.candidate.iloc[0],
        "members": members if len(members) > 1 else [],
        "chosen": ENSEMBLE if len(members) > 1 else ranked.candidate.iloc[0],
        "trainings": [f"{fold}, seed {seed}" for fold in folds for seed in seeds],
    }
    if choices["members"]:
        ensemble = average_members([blocks[name] for name in members])
        thresholds[ENSEMBLE] = choose_block_threshold(ensemble)
        choices["ensemble_criterion"] = round(mean_auc(ensemble, PERTURBATIONS), 6)
    columns = [name for name in ranked if name not in ("plain", "stress")]
    return choices | {
        "thresholds": {name: round(value, 6) for name, value in thresholds.items()},
        "compared": ranked[columns].round(6).to_dict("records"),
    }
