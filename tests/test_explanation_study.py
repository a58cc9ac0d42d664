"""The steps behind the tables about heat maps; the tables themselves are made by `make explain`."""

from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest

from utils import explanation_networks, explanation_study
from utils.candidate_list import find_candidate
from utils.candidates import train_candidate
from utils.explanation_networks import LEVELS, randomise_in_steps
from utils.explanation_study import (
    BASELINES,
    SHIFT,
    baseline_maps,
    explain_study,
    regions_of_interest,
    small_changes,
)
from utils.networks import build_network
from utils.study import load_study


def test_weights_are_randomised_from_the_output_on_and_the_network_is_left_alone():
    network = build_network("efficientnet_lite0", 64, seed=0)
    before = network.get_weights()
    still_equal = []
    for _, copy in randomise_in_steps(network, seed=0):
        pairs = zip(network.layers, copy.layers, strict=True)
        still_equal.append([
            all(np.array_equal(a, b) for a, b in zip(x.get_weights(), y.get_weights(), strict=True))
            for x, y in pairs
            if isinstance(x, keras.layers.Conv2D | keras.layers.Dense)
        ])  # fmt: skip
    assert len(still_equal) == LEVELS
    counts = [sum(step) for step in still_equal]
    assert counts[0] == len(still_equal[0]) - 1 and not still_equal[0][-1], "the output is first"
    assert counts == sorted(counts, reverse=True) and counts[-1] == 0
    assert all(np.array_equal(a, b) for a, b in zip(before, network.get_weights(), strict=True))


def test_a_shift_is_undone_before_maps_are_compared():
    image = np.random.default_rng(0).uniform(0, 255, (224, 224, 3)).astype(np.float32)
    changes = small_changes(image)
    for view, move in changes.values():
        if move == (0, 0):
            continue
        first, second = explanation_study._overlap_of(image[..., 0], view[..., 0], move)
        assert first.shape == (224 - 2 * SHIFT,) * 2
        np.testing.assert_allclose(first, second, atol=1e-4)
    assert changes["brighter"][0].max() <= 255 and changes["darker"][0].mean() < image.mean()


def test_regions_and_baselines_cover_what_they_say():
    regions = regions_of_interest()
    assert regions["border"].mean() == pytest.approx(1 - 0.75**2)
    assert regions["corners"].mean() == pytest.approx(0.16, abs=0.01)
    assert regions["lungs"][105, 70] and not regions["lungs"][105, 112]
    maps = baseline_maps(np.zeros((224, 224, 3), np.float32), cells=4, seed=0)
    assert tuple(maps) == BASELINES and maps["centre"].argmax() in (
        112 * 224 + 112,
        111 * 224 + 111,
    )


def test_an_interrupted_table_goes_on_with_the_next_image(tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    study, keys = load_study("sample"), [f"image {number}" for number in range(15)]
    made = []

    def make(number):
        if number == 12 and len(made) < 13:
            made.append("interrupted")
            raise KeyboardInterrupt
        made.append(number)
        return [{"number": number}]

    with pytest.raises(KeyboardInterrupt):
        explanation_study._row_by_row(study, "truth", {"network": "a"}, keys, make)
    table = explanation_study._row_by_row(study, "truth", {"network": "a"}, keys, make)
    assert table.number.tolist() == list(range(15))
    assert made.count(3) == 1, "what was kept is not made again"
    assert made.count(11) == 2, "what was not kept yet is"
    assert not list((tmp_path / "sample/explanation").glob(".*"))


@pytest.mark.slow
def test_a_network_is_trained_once_for_the_same_images(tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    recipe = replace(find_candidate("small_cnn_64_robust"), name="once", epochs=1)
    images = np.random.default_rng(0).integers(0, 256, (32, recipe.size, recipe.size, 1), np.uint8)
    labels, trained = np.arange(32) % 2, []

    def train(*arguments):
        trained.append(arguments[0].name)
        return train_candidate(*arguments)

    monkeypatch.setattr(explanation_networks, "train_candidate", train)
    first, again = (
        explanation_networks._train_full_size(load_study("sample"), recipe, images, labels)
        for _ in range(2)
    )
    assert trained == ["once"]
    pairs = zip(first.get_weights(), again.get_weights(), strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)
    explanation_networks._train_full_size(load_study("sample"), recipe, images, labels[::-1])
    assert trained == ["once", "once"], "other labels are another network"


def test_rows_of_another_network_are_not_taken_over(tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    study, keys = load_study("sample"), [f"image {number}" for number in range(12)]

    def stop_at_the_last(number):
        if number == 11:
            raise KeyboardInterrupt
        return [{"made": "a"}]

    with pytest.raises(KeyboardInterrupt):
        explanation_study._row_by_row(study, "truth", {"network": "a"}, keys, stop_at_the_last)
    other = explanation_study._row_by_row(
        study, "truth", {"network": "b"}, keys, lambda number: [{"made": "b"}]
    )
    assert set(other.made) == {"b"} and len(other) == 12


def test_an_unknown_table_is_refused():
    with pytest.raises(ValueError, match="'truths'; choose of truth"):
        explain_study(load_study("sample"), ["truths"])


def test_a_kept_table_needs_no_data():
    """The committed table of attention, read as notebook 10 will."""
    table = explain_study(load_study("full"), ["attention"])["attention"]
    assert isinstance(table, pd.DataFrame) and table.groupby("network").size().eq(624).all()
    shares = table[["border", "corners", "lungs"]].dropna()
    assert ((shares >= 0) & (shares <= 1)).all(axis=None)
