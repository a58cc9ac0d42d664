"""How far a model goes by the site where a film was taken, from prediction files alone.

The measures and intervals of `docs/phantoms.md`. A prediction file holds films, of the splits
`validation` and `test`, and their pairs, the same children at the other site, of the splits
`validation_pair` and `test_pair`. An image_id is `<split>/<site>/<file>`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from utils.common.constants import CLASS_NAMES, SCORED_SPLITS
from utils.common.progress import track
from utils.evaluation.bootstrap import mean_interval, resample_rows
from utils.evaluation.intervals import CONFIDENCE, binomial_interval
from utils.evaluation.metrics import auc_by_ranks
from utils.evaluation.predictions import PredictionsError, select_split
from utils.evaluation.tables import format_interval
from utils.evaluation.thresholds import is_positive

PAIR = "_pair"
"""Ends the name of a split whose films show the children of another split at the other site."""
FILM_SPLITS = (*SCORED_SPLITS, *(split + PAIR for split in SCORED_SPLITS))
SITE_NAMES = ("A", "B")
MEASURES = (
    "gap", "flips", "change", "validation_auc", "test_auc",
    *(f"test_auc_at_{site}" for site in SITE_NAMES),
)  # fmt: skip
"""Validation ROC-AUC minus test ROC-AUC; of the test children, the proportion whose answer at 0.5
is not the same for both films, and the mean absolute change of the probability; then ROC-AUCs,
those of the test films at each site, too."""
COLUMNS = {
    "gap": "gap", "flips": "flips", "test_auc": "test AUC", "validation_auc": "validation AUC",
    "change": "change",
}  # fmt: skip
"""Measures that a table of models shows, by the title of their column."""
GOALS = {
    "at least 0.05": lambda row: row["value"] >= 0.05,
    "interval above 0": lambda row: row["low"] > 0,
    "interval below 0": lambda row: row["high"] < 0,
}
_THRESHOLD = 0.5
_DIGITS = 6


@dataclass(frozen=True)
class Measured:
    """What was measured of each model, and in resamples of children and seeds.

    Both are by the model's name: (measures, networks), and (resamples, measures) of the mean of
    its networks.
    """

    seeds: tuple[int, ...]
    observed: Mapping[str, np.ndarray]
    drawn: Mapping[str, np.ndarray]

    def compare(self, measure: str, first: str, second: str | None = None) -> dict[str, float]:
        """Return a measure of a model, or its paired difference from another one's.

        Args:
            measure: Of `MEASURES`.
            first: Name of the model.
            second: Name of the one whose measure is subtracted.

        Returns:
            The mean over the seeds `value`, its 95% bounds `low` and `high`, and where there are
            seeds, the value of each, `seed_<k>`.
        """
        row = MEASURES.index(measure)
        each, drawn = self.observed[first][row], self.drawn[first][:, row]
        if second is not None:
            each, drawn = each - self.observed[second][row], drawn - self.drawn[second][:, row]
        tail = 100 * (1 - CONFIDENCE) / 2
        low, high = np.percentile(drawn, (tail, 100 - tail))
        named = {"value": each.mean(), "low": low, "high": high}
        if len(each) > 1:
            named |= {f"seed_{seed}": value for seed, value in zip(self.seeds, each, strict=True)}
        return {name: round(float(value), _DIGITS) for name, value in named.items()}


def measure_models(
    tables: Mapping[str, Sequence[pd.DataFrame]], seeds: Sequence[int], resamples: int, seed: int
) -> Measured:
    """Measure all models in the same resamples, so that differences between them are paired.

    Children are drawn within class, those of validation and of test apart, and the numbers of the
    seeds; a draw is the same for all models.

    Args:
        tables: By the model's name the predictions of its networks, one for each seed, or one
            alone where the model has no seeds.
        seeds: Of the networks.
        resamples: Number of resamples.
        seed: Of the resamples.

    Raises:
        PredictionsError: if models predicted other films, or a film has no pair.
        ValueError: if a model has another number of networks.
    """
    for model, own in tables.items():
        if len(own) not in (1, len(seeds)):
            raise ValueError(f"{model} has {len(own)} networks, not 1 or {len(seeds)}")
    validation, in_validation = _stack(tables, "validation")
    test, film = _stack(tables, "test")
    pair = _stack_pairs(tables, test)

    def measure(rows: np.ndarray, test_rows: np.ndarray) -> np.ndarray:
        """Return (measures, networks) of some rows, which may be repeated."""
        labels, here, there = (
            test.y_true.to_numpy()[test_rows],
            film[:, test_rows],
            pair[:, test_rows],
        )
        own = test.site.to_numpy()[test_rows]
        before = auc_by_ranks(validation.y_true.to_numpy()[rows], in_validation[:, rows])
        after = auc_by_ranks(labels, here)
        flipped = is_positive(here, _THRESHOLD) != is_positive(there, _THRESHOLD)
        return np.stack([
            before - after, flipped.mean(-1), np.abs(here - there).mean(-1), before, after,
            *(auc_by_ranks(labels[own == site], here[:, own == site]) for site in SITE_NAMES),
        ])  # fmt: skip

    random = np.random.default_rng(seed)
    rows = resample_rows(validation, resamples, random)
    test_rows = resample_rows(test, resamples, random)
    chosen = random.integers(len(seeds), size=(resamples, 1, len(seeds)))
    drawn = np.stack([
        measure(*each) for each in track(
            zip(rows, test_rows, strict=True), "resampling children and seeds", resamples
        )
    ])  # fmt: skip
    observed = measure(np.arange(len(validation)), np.arange(len(test)))
    ends = np.cumsum([len(own) for own in tables.values()])[:-1]
    by_model = zip(tables, np.split(observed, ends, -1), np.split(drawn, ends, -1), strict=True)
    found, resampled = {}, {}
    for model, values, each in by_model:
        picked = each if each.shape[-1] == 1 else np.take_along_axis(each, chosen, axis=-1)
        found[model], resampled[model] = values, picked.mean(axis=-1)
    return Measured(tuple(seeds), found, resampled)


def _stack(
    tables: Mapping[str, Sequence[pd.DataFrame]], split: str
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the films of a split in the order of children, and (networks, n) probabilities."""
    parts = {
        model: [select_split(table, split).sort_values("patient_id", ignore_index=True)
                for table in own]
        for model, own in tables.items()
    }  # fmt: skip
    films = next(iter(parts.values()))[0]
    for model, own in parts.items():
        for part in own:
            if not part[["image_id", "y_true"]].equals(films[["image_id", "y_true"]]):
                raise PredictionsError(
                    f"{model} predicted other films of {split} than {next(iter(parts))}; models "
                    "are compared on the same films"
                )
    site = films.image_id.str.split("/").str[1]
    if films.patient_id.duplicated().any() or not site.isin(SITE_NAMES).all():
        raise PredictionsError(
            f"{split} must have one film a child, named {split}/A/... or {split}/B/...; there is "
            f"{films.image_id[films.patient_id.duplicated() | ~site.isin(SITE_NAMES)].iloc[0]}"
        )
    return films.assign(site=site), np.stack([part.probability for own in parts.values()
                                              for part in own])  # fmt: skip


def _stack_pairs(tables: Mapping[str, Sequence[pd.DataFrame]], test: pd.DataFrame) -> np.ndarray:
    """Return (networks, n) probabilities of the test children at their other site."""
    pairs, probability = _stack(tables, "test" + PAIR)
    same = ["patient_id", "y_true"]
    if not pairs[same].equals(test[same]) or (pairs.site == test.site).any():
        raise PredictionsError(
            "each test film needs a pair, the same child at the other site; predict both again"
        )
    return probability


def count_flips(tables: Mapping[str, Sequence[pd.DataFrame]], seeds: Sequence[int]) -> pd.DataFrame:
    """Return by network and class which test children are answered PNEUMONIA at one site alone.

    Args:
        tables: See `measure_models`.
        seeds: Of the networks.

    Returns:
        A row per network and class: model, seed (missing where the model has none), class,
        children, and proportions of them: flips, pneumonia_at_A_alone, pneumonia_at_B_alone.
    """
    test, film = _stack(tables, "test")
    pair = _stack_pairs(tables, test)
    names = [
        (model, number) for model, own in tables.items()
        for number in (seeds if len(own) > 1 else [None])
    ]  # fmt: skip
    at = {
        site: is_positive(np.where(test.site == site, film, pair), _THRESHOLD)
        for site in SITE_NAMES
    }
    rows = []
    for place, (model, number) in enumerate(names):
        for label, name in enumerate(CLASS_NAMES):
            own = (test.y_true == label).to_numpy()
            first, second = (at[site][place, own] for site in SITE_NAMES)
            rows.append({
                "model": model, "seed": number, "class": name, "children": own.sum(),
                "flips": (first != second).mean(),
                "pneumonia_at_A_alone": (first & ~second).mean(),
                "pneumonia_at_B_alone": (second & ~first).mean(),
            })  # fmt: skip
    return pd.DataFrame(rows).astype({"seed": "Int64"}).round(_DIGITS)


def summarize_flips(table: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Return how far one network's answers to the test children follow the site.

    Args:
        table: Predictions of the splits `test` and `test_pair`.
        resamples: Bootstrap resamples of the children, for the change.
        seed: Of the resamples.

    Returns:
        Rows `flips`, of the children the proportion whose answer at 0.5 is not the same for both
        films, with an exact interval, and `change`, the mean absolute change of the probability;
        columns children, value, low, high.

    Raises:
        PredictionsError: if a film has no pair.
    """
    test, film = _stack({"network": [table]}, "test")
    pair = _stack_pairs({"network": [table]}, test)
    flipped = (is_positive(film, _THRESHOLD) != is_positive(pair, _THRESHOLD))[0]
    low, high = binomial_interval(int(flipped.sum()), len(flipped))
    change = mean_interval(np.abs(film - pair)[0], test.patient_id.to_numpy(), resamples, seed)
    rows = {"flips": {"value": flipped.mean(), "low": low, "high": high}, "change": change}
    found = pd.DataFrame.from_dict(rows, orient="index").round(_DIGITS)
    found.insert(0, "children", len(test))
    return found


def list_measures(measured: Measured) -> pd.DataFrame:
    """Return a row per model and measure: model, measure, value, low, high, and seeds' values."""
    return pd.DataFrame([
        {"model": model, "measure": measure} | measured.compare(measure, model)
        for model in measured.observed for measure in MEASURES
    ])  # fmt: skip


def judge_questions(
    measured: Measured, questions: Sequence[tuple[str, str, str | None, str]]
) -> pd.DataFrame:
    """Answer registered questions.

    Args:
        measured: From `measure_models`.
        questions: For each the measure, the model, the one that is subtracted or None, and the
            goal, a key of `GOALS`.

    Returns:
        A row per question: measure, model, minus, value, low, high, each seed's value, goal, met.
    """
    rows = []
    for measure, first, second, goal in questions:
        row: dict[str, Any] = {"measure": measure, "model": first, "minus": second}
        row |= measured.compare(measure, first, second)
        rows.append(row | {"goal": goal, "met": GOALS[goal](row)})
    return pd.DataFrame(rows)


def tabulate_models(measures: pd.DataFrame) -> pd.DataFrame:
    """Return a row per model to be read: each of `COLUMNS` as `0.123 [0.100, 0.150]`.

    Args:
        measures: From `list_measures`.
    """
    rows: dict[str, dict[str, str]] = {}
    for row in measures.to_dict("records"):
        if title := COLUMNS.get(row["measure"]):
            rows.setdefault(row["model"], {})[title] = format_interval(row)
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS.values()))
    return table.rename_axis("model")


def tabulate_questions(questions: pd.DataFrame) -> pd.DataFrame:
    """Return a row per registered question to be read: what was measured, its goal, the answer.

    Args:
        questions: From `judge_questions`.
    """
    names = questions[["model", "minus"]].fillna("")
    compared = names.model + np.where(names.minus == "", "", " minus " + names.minus)
    return pd.DataFrame({
        "measure": questions.measure.replace(COLUMNS),
        "model": compared,
        "mean": [format_interval(row, signed=True) for row in questions.to_dict("records")],
        "goal": questions.goal,
        "met": np.where(questions.met, "yes", "no"),
    })  # fmt: skip
