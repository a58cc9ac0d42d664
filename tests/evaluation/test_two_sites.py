"""Reliance on the site is measured as registered: values by hand, intervals by formula."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from utils.common.constants import PNEUMONIA
from utils.evaluation.delong import _components, delong_difference
from utils.evaluation.predictions import PredictionsError
from utils.evaluation.two_sites import (
    MEASURES,
    SITE_NAMES,
    count_flips,
    judge_questions,
    list_measures,
    measure_models,
    summarize_flips,
    tabulate_models,
    tabulate_questions,
)
from utils.phantoms.sites import SITES

SEEDS = (43, 44, 45)
RESAMPLES = 2000


def make_table(validation, film, pair=None, labels=None):
    """Make predictions: half of the children NORMAL, films at A and B in turn."""
    parts = []
    for split, values in (("validation", validation), ("test", film), ("test_pair", pair)):
        values = np.asarray(film if values is None else values, float)
        number = np.arange(len(values))
        label = (number >= len(values) / 2).astype(int) if labels is None else np.array(labels)
        site = np.array(SITE_NAMES)[(number + (split == "test_pair")) % 2]
        child = [f"{split.removesuffix('_pair')}-{n:04}" for n in number]
        parts.append(pd.DataFrame({
            "image_id": [f"{split}/{s}/{c}.png" for s, c in zip(site, child, strict=True)],
            "patient_id": child, "split": split, "y_true": label, "probability": values,
        }))  # fmt: skip
    return pd.concat(parts).sample(frac=1, random_state=1)


PERFECT = [0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9]
FILM = [0.1, 0.2, 0.6, 0.4, 0.3, 0.7, 0.8, 0.9]
PAIR = [0.1, 0.7, 0.6, 0.1, 0.3, 0.5, 0.2, 0.4]


def draw(count, seed, quality=1.0):
    """Draw probabilities, better than chance for the second half of the children."""
    ill = np.arange(count) >= count / 2
    return norm.cdf(np.random.default_rng(seed).normal(quality * ill))


def test_the_sites_are_those_of_the_phantoms():
    assert tuple(SITES) == SITE_NAMES


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # resamples of four a site
def test_each_measure_by_hand():
    table = make_table(PERFECT, FILM, PAIR)
    rows = list_measures(measure_models({"one": [table]}, SEEDS, 20, 0))
    assert rows.measure.tolist() == list(MEASURES) and (rows.model == "one").all()
    value = rows.set_index("measure").value
    # Of 16 pairs of children, 0.3 lies below 0.6 and 0.4.
    assert value["test_auc"] == 14 / 16 and value["validation_auc"] == 1
    assert value["gap"] == 2 / 16
    # At A 0.1, 0.6 against 0.3, 0.8; at B 0.2, 0.4 against 0.7, 0.9.
    assert value["test_auc_at_A"] == 3 / 4 and value["test_auc_at_B"] == 1
    # The second child is answered PNEUMONIA at A alone; 0.5 is still PNEUMONIA.
    assert value["flips"] == 3 / 8
    assert value["change"] == pytest.approx((0.5 + 0.3 + 0.2 + 0.6 + 0.5) / 8)
    assert "seed_43" not in rows


def test_flips_are_counted_by_class_and_direction():
    rows = count_flips({"one": [make_table(PERFECT, FILM, PAIR)]}, SEEDS).set_index("class")
    assert rows.seed.isna().all() and rows.children.tolist() == [4, 4]
    columns = ["flips", "pneumonia_at_A_alone", "pneumonia_at_B_alone"]
    # The second NORMAL film was taken at B (0.2), its pair at A (0.7); of the ill, the seventh is
    # PNEUMONIA at A (0.8) and not at B (0.2), the eighth at B (0.9) and not at A (0.4).
    assert rows.loc["NORMAL", columns].tolist() == [0.25, 0.25, 0]
    assert rows.loc["PNEUMONIA", columns].tolist() == [0.5, 0.25, 0.25]
    both = count_flips({"one": [make_table(PERFECT, FILM, PAIR)] * 3}, SEEDS)
    assert both.seed.tolist() == [43, 43, 44, 44, 45, 45]


def test_flips_of_one_network_are_summarized_with_an_exact_interval():
    table = make_table(PERFECT, FILM, PAIR)
    found = summarize_flips(table[table.split != "validation"], RESAMPLES, 3)
    assert found.index.tolist() == ["flips", "change"] and (found.children == 8).all()
    # Clopper and Pearson's interval of 3 of 8.
    assert found.loc["flips", ["value", "low", "high"]].tolist() == [0.375, 0.085233, 0.755137]
    changes = np.abs(np.subtract(FILM, PAIR))
    value, low, high = found.loc["change", ["value", "low", "high"]]
    assert value == pytest.approx(changes.mean(), abs=1e-6)
    reach = 1.96 * changes.std() / np.sqrt(8)
    assert (low, high) == pytest.approx((value - reach, value + reach), abs=0.03)
    none = summarize_flips(make_table(PERFECT, FILM, FILM), 20, 3).loc["flips"]
    assert none.value == none.low == 0 and none.high == pytest.approx(
        1 - 0.025 ** (1 / 8), abs=1e-6
    )
    with pytest.raises(PredictionsError, match="predict both again"):
        summarize_flips(table[table.image_id != "test_pair/A/test-0001.png"], 20, 3)


@pytest.mark.slow
def test_flips_have_the_interval_of_a_proportion():
    flipped = np.arange(400) % 200 < 30  # 15% of each class
    film = np.full(400, 0.4)
    table = make_table(draw(200, 1), film, np.where(flipped, 0.6, film))
    found = measure_models({"one": [table]}, SEEDS, RESAMPLES, 3).compare("flips", "one")
    reach = 1.96 * np.sqrt(0.15 * 0.85 / 400)
    assert found["value"] == 0.15
    assert found["low"] == pytest.approx(0.15 - reach, abs=0.004)
    assert found["high"] == pytest.approx(0.15 + reach, abs=0.004)


@pytest.mark.slow
def test_the_gap_has_the_spread_of_two_independent_sets():
    validation, film = draw(200, 1, 2.0), draw(400, 2, 1.2)
    measured = measure_models({"one": [make_table(validation, film)]}, SEEDS, RESAMPLES, 3)
    found = measured.compare("gap", "one")
    spread = 0.0
    for values in (validation, film):
        label = (np.arange(len(values)) >= len(values) / 2).astype(int)
        assert label[-1] == PNEUMONIA
        spread += sum(part.var(ddof=1) / len(part) for part in _components(label, values))
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * np.sqrt(spread), rel=0.06)


@pytest.mark.slow
def test_a_difference_is_paired_by_children():
    film = draw(400, 2)
    other = np.clip(film + np.random.default_rng(5).normal(0, 0.1, 400), 0, 1)
    tables = {name: [make_table(draw(200, 1), values)]
              for name, values in (("one", film), ("other", other))}  # fmt: skip
    measured = measure_models(tables, SEEDS, RESAMPLES, 3)
    found = measured.compare("test_auc", "one", "other")
    expected = delong_difference(np.arange(400) >= 200, film, other)
    assert found["value"] == pytest.approx(expected["value"], abs=1e-5)
    width = expected["high"] - expected["low"]
    assert found["high"] - found["low"] == pytest.approx(width, rel=0.06)
    alone = measured.compare("test_auc", "one")
    assert width < 0.5 * (alone["high"] - alone["low"]), "unpaired it would be as wide"
    # Validation is the same for both, so the gaps differ by test alone.
    gaps = measured.compare("gap", "other", "one")
    assert gaps == pytest.approx(found, abs=1e-5)


@pytest.mark.slow
def test_seeds_are_resampled_the_same_for_both_models():
    film, never, always = np.full(40, 0.4), np.full(40, 0.4), np.full(40, 0.6)
    networks = [make_table(draw(20, 1), film, pair) for pair in (never, never, always)]
    steady = [make_table(draw(20, 1), film, never)] * 3
    tables = {"one": networks, "same": networks, "steady": steady, "single": steady[:1]}
    measured = measure_models(tables, SEEDS, RESAMPLES, 0)
    alone = measured.compare("flips", "one")
    # The mean of three draws is 0 in 8 of 27 resamples, and 1 in one of 27, above 2.5%.
    assert (alone["value"], alone["low"], alone["high"]) == (pytest.approx(1 / 3, abs=1e-5), 0, 1)
    assert [alone[f"seed_{seed}"] for seed in SEEDS] == [0, 0, 1]
    assert (measured.drawn["one"][:, 1] == 0).mean() == pytest.approx(8 / 27, abs=0.03)
    assert set(measured.compare("flips", "one", "same").values()) == {0.0}
    for other in ("steady", "single"):
        assert measured.compare("flips", "one", other) == alone


def test_questions_are_answered():
    film = np.full(400, 0.4)
    flipped = np.where(np.arange(400) % 200 < 30, 0.6, 0.4)
    good, bad = draw(400, 2, 3.0), draw(400, 2, 0.5)
    tables = {
        "worn": [make_table(draw(200, 1, 3.0), bad, flipped)] * 3,
        "sound": [make_table(draw(200, 1, 3.0), good, good)] * 3,
        "plain": [make_table(draw(200, 1, 3.0), film, film)],
        "alike": [make_table(draw(200, 1, 3.0), draw(400, 9, 3.0))],
    }
    questions = (
        ("gap", "worn", None, "at least 0.05"),
        ("gap", "sound", None, "at least 0.05"),
        ("flips", "sound", "worn", "interval below 0"),
        ("flips", "worn", "sound", "interval below 0"),
        ("test_auc", "sound", "plain", "interval above 0"),
        ("test_auc", "plain", "plain", "interval above 0"),
        ("test_auc", "sound", "alike", "interval above 0"),
        ("test_auc", "sound", "alike", "interval below 0"),
    )
    measured = measure_models(tables, SEEDS, 200, 0)
    answers = judge_questions(measured, questions)
    assert answers.met.tolist() == [True, False, True, False, True, False, False, False]
    assert answers.low[7] < 0 < answers.high[7]
    assert list(answers) == ["measure", "model", "minus", "value", "low", "high", "seed_43",
                             "seed_44", "seed_45", "goal", "met"]  # fmt: skip
    assert answers.seed_43[:5].notna().all() and np.isnan(answers.seed_43[5])


def test_what_cannot_be_compared_is_refused():
    table = make_table(PERFECT, FILM, PAIR)
    with pytest.raises(ValueError, match="one has 2 networks, not 1 or 3"):
        measure_models({"one": [table] * 2}, SEEDS, 20, 0)
    other = table.assign(image_id=table.image_id.str.replace("0003", "0009"))
    with pytest.raises(PredictionsError, match="two predicted other films of validation than one"):
        measure_models({"one": [table], "two": [other]}, SEEDS, 20, 0)
    no_pairs = table[table.split != "test_pair"]
    with pytest.raises(PredictionsError, match="no predictions for split 'test_pair'"):
        measure_models({"one": [no_pairs]}, SEEDS, 20, 0)
    swapped = {"test_pair/A": "test_pair/B", "test_pair/B": "test_pair/A"}
    here = table.image_id.str.extract(r"^(test_pair/.)")[0].map(swapped)
    same = table.assign(image_id=table.image_id.where(here.isna(), here + table.image_id.str[11:]))
    with pytest.raises(PredictionsError, match="the same child at the other site"):
        measure_models({"one": [same]}, SEEDS, 20, 0)
    elsewhere = table.assign(image_id=table.image_id.str.replace("test/A", "test/C"))
    with pytest.raises(PredictionsError, match="one film a child, named test/A/.*test/C/"):
        measure_models({"one": [elsewhere]}, SEEDS, 20, 0)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # resamples of four a site
def test_tables_to_be_read_say_what_was_measured():
    perfect, worse = make_table(PERFECT, FILM, PAIR), make_table(PERFECT, FILM, FILM)
    tables = {"one": [perfect] * 3, "two": [worse]}
    measured = measure_models(tables, SEEDS, 20, 0)
    asked = [("flips", "one", "two", "interval above 0"), ("gap", "one", None, "at least 0.05")]
    models = tabulate_models(list_measures(measured))
    found = measured.compare("flips", "one")
    shown = f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
    assert models.loc["one", "flips"] == shown
    assert models.loc["two", "flips"] == "0.000 [0.000, 0.000]"
    questions = tabulate_questions(judge_questions(measured, asked))
    assert questions.measure.tolist() == ["flips", "gap"]
    assert questions.model.tolist() == ["one minus two", "one"]
    assert questions.met.tolist() == [
        "yes" if found["low"] > 0 else "no",
        "yes" if measured.compare("gap", "one")["value"] >= 0.05 else "no",
    ]
    signed = f"{found['value']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"
    assert questions["mean"][0] == signed
