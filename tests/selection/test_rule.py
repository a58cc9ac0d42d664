import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from utils.common.files import write_json
from utils.data.perturbations import PERTURBATIONS, UNCHANGED
from utils.models.recipe import Candidate
from utils.selection.choices import ENSEMBLE, SelectionError, read_choices
from utils.selection.rule import (
    HeldOut,
    auc_by_perturbation,
    average_members,
    choose_block_threshold,
    choose_ensemble,
    choose_second_round,
    compare,
    covered_cues,
    make_choices,
    mean_auc,
    rank,
    read_held_out,
    resample_mean_auc,
)


def held_out(name, fold, separation, seed=42, patients=40):
    """Return predictions whose classes are `separation` standard deviations apart."""
    random = np.random.default_rng([seed, len(fold), patients])
    y_true = np.arange(2 * patients) // 2 % 2
    table = pd.DataFrame({
        "image_id": [f"{fold}-{row}" for row in range(2 * patients)],
        "patient_id": [f"{fold}-patient{row // 2}" for row in range(2 * patients)],
        "y_true": y_true,
    })  # fmt: skip
    for change in PERTURBATIONS:
        score = separation * y_true + random.normal(size=2 * patients)
        table[change] = 1 / (1 + np.exp(-score))
    return HeldOut(name, fold, seed, table)


def small(name, size):
    return Candidate(name, "small_cnn", size)


def write(folder, record, candidate=None):
    file = folder / record.candidate / f"{record.fold}_seed{record.seed}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    record.table.to_csv(file, index=False)
    made_by = candidate or small(record.candidate, 64 if record.candidate in ("b", "far") else 32)
    write_json(file.with_suffix(".json"), {"candidate": made_by.describe()})


def test_the_mean_auc_is_scikit_learns():
    records = [held_out("a", fold, 1.0) for fold in ("block1", "block22")]
    records[0].table[UNCHANGED] = records[0].table[UNCHANGED].round(1)  # ties
    expected = np.mean([
        roc_auc_score(record.table.y_true, record.table[change])
        for record in records for change in PERTURBATIONS
    ])  # fmt: skip
    assert mean_auc(records, PERTURBATIONS) == pytest.approx(expected)


def standard_error(records):
    return resample_mean_auc(records, [UNCHANGED]).std(ddof=1)


def test_the_standard_error_is_that_of_patients():
    few = standard_error([held_out("a", "block1", 1.0, patients=20)])
    many = standard_error([held_out("a", "block1", 1.0, patients=320)])
    assert 2.5 < few / many < 6.5, "it falls with the root of the patients"
    once = held_out("a", "block1", 1.0, patients=320)
    doubled = HeldOut("a", "block1", 42, pd.concat([once.table, once.table], ignore_index=True))
    same = standard_error([doubled])
    assert same == pytest.approx(many, rel=0.2), "more images of the same patients say no more"


def test_all_are_compared_on_the_folds_that_were_asked_for(tmp_path):
    for name, separation in (("a", 1.0), ("b", 2.0)):
        for fold in ("plain", "block1"):
            write(tmp_path, held_out(name, fold, separation))
    both = [small("a", 32), small("b", 64)]
    comparison = compare(tmp_path, both, ["plain", "block1"], [42])
    # Another fold and another seed that lie beside them change nothing.
    for name in ("a", "b"):
        write(tmp_path, held_out(name, "block2", 0.0))
        write(tmp_path, held_out(name, "block1", 0.0, seed=43))
    again = compare(tmp_path, both, ["plain", "block1"], [42])
    pd.testing.assert_frame_equal(again, comparison)
    rows = comparison.set_index("candidate")
    assert rows.trainings.tolist() == [1, 1]
    assert rows.criterion["b"] > rows.criterion["a"] + 0.05
    (block,) = read_held_out(tmp_path, both[0], ["block1"], [42])
    assert rows.block["a"] == pytest.approx(mean_auc([block], [UNCHANGED]))
    assert rows.block_error["a"] == pytest.approx(standard_error([block]))


def test_what_cannot_be_compared_is_named(tmp_path):
    candidate = small("a", 32)
    with pytest.raises(SelectionError, match=r"a has no predictions on block1 .* python -m"):
        compare(tmp_path, [candidate], ["block1"], [42])
    write(tmp_path, held_out("a", "plain", 1.0))
    with pytest.raises(SelectionError, match="needs a block fold, not only plain"):
        compare(tmp_path, [candidate], ["plain"], [42])
    broken = held_out("a", "block1", 1.0)
    write(tmp_path, HeldOut("a", "block1", 42, broken.table.drop(columns="noise")))
    with pytest.raises(SelectionError, match=r"block1_seed42\.csv lacks the columns noise"):
        compare(tmp_path, [candidate], ["block1"], [42])
    write(tmp_path, broken, small("a", 64))
    with pytest.raises(SelectionError, match=r"block1_seed42\.csv comes from another recipe"):
        compare(tmp_path, [candidate], ["block1"], [42])


def table(*rows):
    columns = ["candidate", "criterion", "standard_error", "cues", "size"]
    return pd.DataFrame(rows, columns=columns)


def test_preference_decides_within_one_standard_error_alone():
    ranked = rank(table(
        ("highest", 0.960, 0.010, 0, 224),
        ("robust", 0.951, 0.020, 3, 96),
        ("robust and small", 0.9505, 0.020, 3, 64),
        ("robust but worse", 0.949, 0.020, 3, 32),
        ("worst", 0.900, 0.500, 3, 32),
    ))  # fmt: skip
    assert ranked.candidate.tolist() == [
        "robust and small", "robust", "highest", "robust but worse", "worst",
    ]  # fmt: skip
    assert ranked.within.tolist() == [True, True, True, False, False]


def test_an_ensemble_has_the_best_of_each_size():
    ranked = rank(table(
        ("a64", 0.955, 0.01, 3, 64), ("b64", 0.956, 0.01, 3, 64), ("a96", 0.960, 0.01, 0, 96),
        ("a128", 0.951, 0.01, 3, 128), ("a160", 0.952, 0.01, 3, 160), ("a224", 0.9, 0.01, 3, 224),
    ))  # fmt: skip
    assert choose_ensemble(ranked) == ["a96", "b64", "a160"]


def test_the_second_round_has_whoever_may_be_taken():
    ranked = rank(table(
        ("best", 0.960, 0.004, 3, 96), ("within", 0.957, 0.004, 3, 96),
        ("near 64", 0.951, 0.004, 3, 64), ("second of 64", 0.9505, 0.004, 3, 64),
        ("far", 0.949, 0.004, 3, 128),
    ))  # fmt: skip
    assert set(choose_second_round(ranked)) == {"best", "within", "near 64"}


def test_differences_are_paired(tmp_path):
    """Two candidates alike but for a little: each is uncertain, their difference is not."""
    first = held_out("a", "block1", 1.5, patients=100)
    better = first.table.copy()
    better[list(PERTURBATIONS)] = np.clip(
        better[list(PERTURBATIONS)].to_numpy() + 0.05 * better.y_true.to_numpy()[:, None], 0, 1
    )
    write(tmp_path, first)
    write(tmp_path, HeldOut("b", "block1", 42, better))
    both = [small("a", 32), small("b", 64)]
    compared = compare(tmp_path, both, ["block1"], [42], base="a").set_index("candidate")
    assert compared.loc["a", ["difference", "low", "high"]].tolist() == [0, 0, 0]
    row = compared.loc["b"]
    assert row.difference == pytest.approx(row.criterion - compared.criterion["a"])
    assert 0 < row.low < row.difference < row.high
    assert row.high - row.low < 2 * row.standard_error
    with pytest.raises(SelectionError, match="c is not among the candidates a, b"):
        compare(tmp_path, both, ["block1"], [42], base="c")


def test_auc_is_told_apart_by_perturbation(tmp_path):
    record = held_out("a", "block1", 2.0)
    record.table["noise"] = 0.5
    write(tmp_path, record)
    row = auc_by_perturbation(tmp_path, [small("a", 32)], ["block1"], [42]).loc["a"]
    assert row["noise"] == 0.5 and row[UNCHANGED] > 0.8 and tuple(row.index) == PERTURBATIONS


@pytest.mark.slow
def test_choices_follow_the_rule(tmp_path):
    candidates = [small("a", 32), small("b", 64), small("far", 64)]
    for fold in ("block1", "block22"):
        write(tmp_path, held_out("a", fold, 3.0))
        write(tmp_path, held_out("b", fold, 3.0))
        write(tmp_path, held_out("far", fold, 0.5))
    folds = ["block1", "block22"]
    choices = make_choices(tmp_path, candidates, folds, [42])
    assert choices["single"] == "a" and set(choices["members"]) == {"a", "b"}
    assert choices["chosen"] == ENSEMBLE
    assert set(choices["thresholds"]) == {"a", "b", "far", ENSEMBLE}
    expected = choose_block_threshold([held_out("a", fold, 3.0) for fold in ("block1", "block22")])
    assert choices["thresholds"]["a"] == pytest.approx(expected, abs=1e-6)
    assert choices["trainings"] == ["block1, seed 42", "block22, seed 42"]
    alone = make_choices(tmp_path, [candidates[0], candidates[2]], folds, [42])
    assert alone["members"] == [] and alone["chosen"] == "a", "one size is no ensemble"
    assert ENSEMBLE not in alone["thresholds"]


def test_choices_are_read_or_missed_with_a_remedy(tmp_path, monkeypatch):
    assert read_choices("full")["single"] == "lite0_128_long"
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    with pytest.raises(SelectionError, match=r"'full' has chosen nothing yet.*run notebook 08"):
        read_choices("full")


def test_members_are_averaged_image_by_image():
    first, second = held_out("a", "block1", 1.0), held_out("b", "block1", 1.0, patients=40)
    shuffled = second.table.sample(frac=1, random_state=1).reset_index(drop=True)
    (mean,) = average_members([[first], [HeldOut("b", "block1", 42, shuffled)]])
    for change in PERTURBATIONS:
        np.testing.assert_allclose(
            mean.table[change], (first.table[change] + second.table[change]) / 2
        )
    with pytest.raises(SelectionError, match="different training runs"):
        average_members([[first], [held_out("b", "block2", 1.0)]])


def test_the_threshold_is_out_of_fold():
    records = [held_out("a", fold, 6.0) for fold in ("block1", "block22", "plain")]
    threshold = choose_block_threshold(records)
    assert 0.5 < threshold < 1
    assert choose_block_threshold(records[:2]) == threshold, "the plain fold has no say"
    with pytest.raises(SelectionError, match="block folds"):
        choose_block_threshold(records[2:])


def test_cues_are_counted_once_each():
    def trained_under(*transforms):
        return covered_cues(Candidate("a", "small_cnn", 32, transforms))

    assert trained_under() == trained_under("flip", "noise") == 0
    assert trained_under("exposure", "histogram_transfer") == 1
    assert trained_under("exposure", "resample", "frame") == 3
