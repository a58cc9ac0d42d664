"""What notebook 12 reads out of the tables about heat maps: means with intervals over patients.

`utils.explanation.run` makes the tables, a row per image and map. A map that is zero
everywhere has no measure; it is counted next to the mean, and is not in it.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from utils.common.constants import PNEUMONIA
from utils.common.names import displayed
from utils.evaluation.bootstrap import mean_interval
from utils.evaluation.tables import format_columns, interval_columns
from utils.explanation.heat_maps import CASES, name_cases
from utils.explanation.measures import BASELINES, NO_NETWORK, TITLES

TRUTH_MEASURES = {
    "energy_inside": "share of energy inside", "pointing_hit": "pointing game",
    "iou": "IoU at Otsu",
}  # fmt: skip
"""How maps are compared with a known opacity, and what the measures are called."""
SIZES = ("small", "medium", "large")
"""Thirds of the opacities by the share of the image that they cover."""


def summarize(
    table: pd.DataFrame, by: Sequence[str], measures: Sequence[str], resamples: int, seed: int
) -> pd.DataFrame:
    """Return the mean of each measure with its 95% bootstrap interval over patients.

    Args:
        table: A row per image and map: `image_id`, `patient_id`, `by` and `measures`.
        by: Columns whose values make a group; groups stay in their order of appearance.
        measures: Columns that are averaged.
        resamples: Bootstrap resamples.
        seed: Of the resamples.

    Returns:
        A row per group: `by`, `images`, `zero` (images without a value of the first measure), and
        for each measure `<measure>`, `<measure>_low` and `<measure>_high`; nan where fewer than
        two patients have a value.
    """
    rows = []
    for key, group in table.groupby(list(by), sort=False):
        row = dict(zip(by, key, strict=True)) | {
            "images": len(group), "zero": int(group[measures[0]].isna().sum()),
        }  # fmt: skip
        for measure in measures:
            row |= interval_columns(measure, _interval(group, measure, resamples, seed))
        rows.append(row)
    return pd.DataFrame(rows)


def _interval(group: pd.DataFrame, measure: str, resamples: int, seed: int) -> dict[str, float]:
    known = group.dropna(subset=measure)
    if known.patient_id.nunique() < 2:
        return dict.fromkeys(("value", "low", "high"), float("nan"))
    return mean_interval(known[measure].to_numpy(), known.patient_id.to_numpy(), resamples, seed)


def as_text(
    summary: pd.DataFrame, measures: Mapping[str, str], digits: int = 2, signed: bool = False
) -> pd.DataFrame:
    """Return a summary to be read: titles for names, `0.31 [0.28, 0.34]` for measures.

    Args:
        summary: From `summarize` or `compare_with_baselines`.
        measures: Title of each measure that is shown.
        digits: Behind the point.
        signed: Whether to show the sign.
    """
    shown = summary.drop(
        columns=[f"{measure}{end}" for measure in measures for end in ("", "_low", "_high")]
    )
    if "map" in shown:
        shown["map"] = shown["map"].map(TITLES)
    if "network" in shown:
        shown["network"] = shown["network"].map(displayed)
    for measure, title in measures.items():
        shown[title] = format_columns(summary, measure, digits, signed)
    return shown


def side_by_side(summary: pd.DataFrame, column: str, measure: str) -> pd.DataFrame:
    """Return one measure as text, maps below each other and the values of a column abreast.

    Args:
        summary: From `summarize` by `map` and `column`, or by `network`, `map` and `column`.
        column: Whose values become columns, in their order of appearance.
        measure: That is shown.
    """
    keys = [name for name in ("network", "map") if name in summary]
    text = as_text(summary, {measure: measure})
    table = text.pivot(index=keys, columns=column, values=measure)
    order = text[keys].drop_duplicates()
    index = pd.MultiIndex.from_frame(order) if len(keys) > 1 else pd.Index(order[keys[0]])
    return table.reindex(index=index, columns=summary[column].unique())


def size_of_opacity(truth: pd.DataFrame) -> pd.Series:
    """Return for each row in which third its image's opacity is, by size (see `SIZES`)."""
    shares = truth.drop_duplicates("image_id").set_index("image_id").mask_share
    thirds = pd.qcut(shares.rank(method="first"), len(SIZES), labels=SIZES)
    return truth.image_id.map(thirds.astype(str))


def compare_with_baselines(
    table: pd.DataFrame,
    measures: Mapping[str, str],
    resamples: int,
    seed: int,
    less_is_better: Sequence[str] = (),
    baselines: Sequence[str] = BASELINES,
) -> pd.DataFrame:
    """Return by how much each method beats the best baseline map, image by image.

    The best baseline of each measure is the one with the best mean, see `best_baselines`.

    Args:
        table: A row per image and map, with `map` and, if there are several, `network` and
            `predicted` class.
        measures: Columns that are compared, with their titles.
        resamples: Bootstrap resamples.
        seed: Of the resamples.
        less_is_better: Measures where the smaller value wins; their difference is reversed, so
            that above 0 the method is better everywhere.
        baselines: Baseline maps, of which the best is taken.

    Returns:
        A row per method, and per network and predicted class where the table has them: for each
        measure the mean difference with its interval, see `summarize`, and `better`: titles of the
        measures whose interval lies above 0.
    """
    by = [*(name for name in ("network", "predicted") if name in table), "map"]
    methods = table[~table["map"].isin(BASELINES)].copy()
    rivals = table[table["map"].isin(baselines)]
    for measure, best in best_baselines(rivals, list(measures), less_is_better).items():
        baseline = table[table["map"] == best].set_index("image_id")[measure]
        ahead = methods[measure] - methods.image_id.map(baseline)
        methods[measure] = -ahead if measure in less_is_better else ahead
    compared = summarize(methods, by, list(measures), resamples, seed)
    compared["better"] = [
        ", ".join(title for measure, title in measures.items() if row[f"{measure}_low"] > 0) or "no"
        for _, row in compared.iterrows()
    ]
    return compared


def best_baselines(
    table: pd.DataFrame, measures: Sequence[str], less_is_better: Sequence[str] = ()
) -> dict[str, str]:
    """Return which baseline map has the best mean, by measure."""
    means = table[table["map"].isin(BASELINES)].groupby("map")[list(measures)].mean()
    return {
        measure: means[measure].idxmin() if measure in less_is_better else means[measure].idxmax()
        for measure in measures
    }


def with_outcome(attention: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with their `outcome`, in the order of `heat_maps.CASES`, at 0.5."""
    case = pd.Series(name_cases(attention.y_true, attention.called == PNEUMONIA))
    order = case.map(list(CASES).index).argsort(kind="stable")
    return attention.assign(outcome=case.map(CASES).to_numpy()).iloc[order]


def networks_of(truth: pd.DataFrame) -> pd.DataFrame:
    """Return each network's ROC-AUC on the phantoms, and its mean probability with an opacity."""
    rows = truth[truth.network != NO_NETWORK]
    means = rows.groupby("network", sort=False)[["auc", "probability"]].mean().reset_index()
    return means.assign(network=means.network.map(displayed))
