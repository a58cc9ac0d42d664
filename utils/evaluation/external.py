"""Scores on images of another hospital, from prediction files alone.

Nothing is chosen on them. Two remedies use data of the new site, and their scores stand apart under
`uses_new_site`: alignment of the predictions, and a threshold set on local normals.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from utils.common.constants import NORMAL, PNEUMONIA
from utils.evaluation.calibration import correct_prevalence, evaluate_calibration
from utils.evaluation.intervals import DECIMALS, Interval
from utils.evaluation.metrics import evaluate_predictions
from utils.evaluation.thresholds import choose_threshold, is_positive

GRAY = ("mean", "spread")
"""Columns of the gray level of an image: mean and standard deviation of its pixels."""
CALIPER = 0.25
"""Largest difference within a matched pair, in standard deviations over all images."""
BALANCED = 0.5
"""Prevalence in the eyes of a training in which both classes weigh the same."""
HALF = 0.5
LOCAL_NORMALS, FALSE_POSITIVE_RATE, DRAWS = 100, 0.1, 200
"""Images on which a local threshold is set, the share of them that may reach it, and draws of them
that show how much their choice matters."""


def match_classes(images: pd.DataFrame, columns: Sequence[str] = GRAY) -> np.ndarray:
    """Return which images belong to pairs of both classes that are alike in some columns.

    Of all ways to pair images of the two classes that lie within the caliper in every column, that
    with the most pairs and, among these, the least total distance. Nothing is drawn.

    Args:
        images: image_id, y_true and the columns.
        columns: What the classes are matched on.

    Returns:
        (n,) bool, in the order of the images.
    """
    ordered = images.reset_index(drop=True).sort_values("image_id")
    values = ordered[list(columns)]
    scaled = (values / values.std()).to_numpy()
    rows = [np.flatnonzero(ordered.y_true == label) for label in (NORMAL, PNEUMONIA)]
    apart = np.abs(scaled[rows[0]][:, None] - scaled[rows[1]][None])
    allowed = (apart <= CALIPER).all(axis=-1)
    # A pair beyond the caliper costs more than all others together, and is dropped afterwards.
    cost = np.where(allowed, np.linalg.norm(apart, axis=-1), 1.0 + len(ordered))
    first, second = linear_sum_assignment(cost)
    kept = allowed[first, second]
    matched = np.zeros(len(ordered), bool)
    matched[ordered.index[rows[0][first[kept]]]] = True
    matched[ordered.index[rows[1][second[kept]]]] = True
    return matched


def measure_imbalance(images: pd.DataFrame, scale: pd.Series) -> dict[str, float]:
    """Return the difference of the classes' means in some columns, PNEUMONIA minus NORMAL.

    Args:
        images: y_true and the columns that `scale` names.
        scale: The unit of each column, such as its standard deviation over all images.
    """
    means = images.groupby("y_true")[list(scale.index)].mean()
    return ((means.loc[PNEUMONIA] - means.loc[NORMAL]) / scale).round(4).to_dict()


def align_predictions(
    new: np.ndarray, reference: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Return predictions of a new site with the distribution of those of a known one.

    Unsupervised prediction alignment (Roschewitz et al. 2023): a probability becomes the one below
    which the same share of the reference lies, linear in between. It needs no labels and keeps the
    order, so the ROC-AUC stays. It assumes that the sites differ in acquisition alone: with the
    same prevalence and severity. Where PNEUMONIA is rarer than in the reference, it predicts too
    much of it.

    Args:
        new: (n,) probabilities of the new site.
        reference: (m,) of images of the known site on which the model was not trained.
        weights: (m,) of the reference's images; by them it can be given another prevalence.
    """
    values, places = np.unique(np.asarray(reference, np.float64), return_inverse=True)
    share = np.bincount(places, weights).cumsum()
    own, counts = np.unique(np.asarray(new, np.float64), return_counts=True)
    matched = np.interp(counts.cumsum() / counts.sum(), share / share[-1], values)
    return np.interp(new, own, matched)


def draw_local_normals(predictions: pd.DataFrame, count: int, seed: int) -> np.ndarray:
    """Draw normal images of a site, patient by patient, until there are enough.

    Args:
        predictions: image_id, patient_id and y_true.
        count: Images that are wanted.
        seed: Of the draw.

    Returns:
        Positions of the rows.

    Raises:
        ValueError: if there are fewer.
    """
    normal = predictions.reset_index(drop=True).sort_values("image_id")
    normal = normal[normal.y_true == NORMAL]
    if len(normal) < count:
        raise ValueError(f"{count} local normals are wanted, and there are {len(normal)}")
    patients = np.random.default_rng(seed).permutation(np.unique(normal.patient_id))
    place = normal.patient_id.map({name: number for number, name in enumerate(patients)})
    return normal.index[np.argsort(place, kind="stable")][:count].to_numpy()


def threshold_for_rate(normals: np.ndarray, rate: float) -> float:
    """Return the lowest threshold that at most a share of normal images reaches.

    Args:
        normals: (n,) probabilities of normal images.
        rate: Share that may reach it, from 0 to below 1.
    """
    highest = np.sort(np.asarray(normals, np.float64))[::-1]
    allowed = int(rate * len(highest) + 1e-9)
    # Just above the first one that may not reach it; equal ones stay below, too.
    return float(min(np.nextafter(highest[allowed], 2), 1.0))


def score_external(
    predictions: Mapping[str, pd.DataFrame],
    references: Mapping[str, pd.DataFrame],
    thresholds: Mapping[str, float],
    gray: pd.DataFrame,
    baselines: Mapping[str, Mapping[str, pd.DataFrame]],
    prevalence: float,
    resamples: int,
    seed: int,
    local_normals: int = LOCAL_NORMALS,
) -> dict[str, Any]:
    """Score models on a new site, in the form of `external_metrics.json`.

    Args:
        predictions: For each model its rows of the site.
        references: For each model its rows of validation.
        thresholds: For each model that of round one, at which it is judged beside 0.5.
        gray: image_id and the columns of `GRAY`.
        baselines: For each way of fitting, predictions of the pixel baselines by their kind.
        prevalence: Of PNEUMONIA in the training folder, for which probabilities are corrected.
        resamples: Bootstrap resamples of patients.
        seed: Of the resamples, and of the draw of local normals.
        local_normals: How many set the local threshold.

    Returns:
        `matching`, `local_normals`, `prevalence`, `pixel_baselines`; and for each of `models` its
        scores on all images and on the matched ones, calibration, the threshold that would have
        been right, and under `uses_new_site` what the remedies give. Intervals are over patients.
    """
    first = next(iter(predictions.values()))
    images = first.drop(columns="probability").merge(gray, on="image_id", validate="1:1")
    matched = images.image_id[match_classes(images)]
    scale = images[list(GRAY)].std()
    parts = {"all": images.image_id, "matched": matched}

    def select(rows: pd.DataFrame, part: str) -> pd.DataFrame:
        return rows[rows.image_id.isin(parts[part])]

    def score_part(rows: pd.DataFrame, part: str) -> Interval:
        return evaluate_predictions(select(rows, part), HALF, resamples, seed)["roc_auc"]

    return {
        "images": {"all": len(images), "matched": len(matched)},
        "prevalence": {
            "site": round(float(images.y_true.mean()), DECIMALS),
            "training_folder": round(prevalence, DECIMALS),
        },
        "matching": {
            "caliper": CALIPER,
            "pairs": len(matched) // 2,
            "imbalance_before": measure_imbalance(images, scale),
            "imbalance_after": measure_imbalance(select(images, "matched"), scale),
        },
        "local_normals": {
            "images": local_normals, "false_positive_rate": FALSE_POSITIVE_RATE, "seed": seed,
            "draws": DRAWS,
        },
        "models": {
            name: {
                "round_one_threshold": thresholds[name],
                **{
                    part: evaluate_predictions(
                        select(rows, part), thresholds[name], resamples, seed
                    )
                    for part in parts
                },
                "calibration": {
                    "as_is": evaluate_calibration(rows, resamples, seed),
                    "prevalence_corrected": evaluate_calibration(
                        rows.assign(
                            probability=correct_prevalence(rows.probability, BALANCED, prevalence)
                        ),
                        resamples, seed,
                    ),
                },
                "right_threshold": _score_at(
                    rows, choose_threshold(rows.y_true, rows.probability), resamples, seed
                ),
                "uses_new_site": {
                    **_score_aligned(rows, references[name], resamples, seed),
                    "local_threshold": _score_local(rows, local_normals, resamples, seed),
                },
            }
            for name, rows in predictions.items()
        },
        "pixel_baselines": {
            fitted: {
                kind: {part: score_part(rows, part) for part in parts}
                for kind, rows in tables.items()
            }
            for fitted, tables in baselines.items()
        },
    }  # fmt: skip


def _score_at(rows: pd.DataFrame, threshold: float, resamples: int, seed: int) -> dict[str, Any]:
    metrics = evaluate_predictions(rows, threshold, resamples, seed)
    wanted = ("accuracy_at_threshold", "sensitivity", "specificity")
    return {"threshold": round(threshold, DECIMALS)} | {name: metrics[name] for name in wanted}


def _score_aligned(
    rows: pd.DataFrame, reference: pd.DataFrame, resamples: int, seed: int
) -> dict[str, Any]:
    """Score aligned predictions at 0.5: with the reference as it is, and at the site's prevalence.

    The second needs to know the prevalence of the site, which its labels give here.
    """
    is_ill = (reference.y_true == PNEUMONIA).to_numpy()
    site, known = rows.y_true.mean(), is_ill.mean()
    weights = np.where(is_ill, site / known, (1 - site) / (1 - known))
    return {
        name: _score_at(
            rows.assign(
                probability=align_predictions(rows.probability, reference.probability, given)
            ),
            HALF, resamples, seed,
        )
        for name, given in (("aligned", None), ("aligned_at_known_prevalence", weights))
    }  # fmt: skip


def _score_local(rows: pd.DataFrame, count: int, resamples: int, seed: int) -> dict[str, Any]:
    """Score a threshold that local normals set, on the images of the other patients."""

    def divide(draw: int) -> tuple[float, pd.DataFrame]:
        local = rows.iloc[draw_local_normals(rows, count, draw)]
        threshold = threshold_for_rate(local.probability, FALSE_POSITIVE_RATE)
        return threshold, rows[~rows.patient_id.isin(local.patient_id)]

    threshold, others = divide(seed)
    draws = []
    for draw in range(seed, seed + DRAWS):
        cut, rest = divide(draw)
        right = is_positive(rest.probability, cut) == (rest.y_true == PNEUMONIA)
        draws.append(right.groupby(rest.y_true).mean())
    table = pd.DataFrame(draws).rename(columns={PNEUMONIA: "sensitivity", NORMAL: "specificity"})
    return {"images": len(others), **_score_at(others, threshold, resamples, seed)} | {
        f"{name}_of_draws": {
            key: round(float(table[name].quantile(share)), DECIMALS)
            for key, share in (("value", 0.5), ("low", 0.025), ("high", 0.975))
        }
        for name in table
    }
