import numpy as np
import pandas as pd
import pytest

from utils.explanation.heat_maps import CASES, METHODS
from utils.explanation.measures import BASELINES, TITLES
from utils.explanation.plots import (
    plot_attention,
    plot_cascade,
    plot_faithfulness,
    plot_methods,
    plot_truth,
)


def make_maps(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((2, 8, 8))


def test_every_method_has_its_own_scale_and_every_map_its_height():
    images = np.full((2, 8, 8, 3), 100.0)
    maps = {"Grad-CAM": make_maps(0), "SmoothGrad": 1000 * make_maps(1)}
    maps["Grad-CAM"][1] = 0
    figure = plot_methods(images, maps, ["true", "false"], masks=np.eye(8)[None].repeat(2, 0))
    axes, bars = figure.axes[:6], figure.axes[6:]
    assert axes[0].get_ylabel() == "true"
    assert axes[1].get_title().startswith("Grad-CAM\nmax ")
    assert axes[4].get_title() == "zero everywhere"
    for column, method in enumerate(maps, start=1):
        scales = {axes[row * 3 + column].images[1].get_clim() for row in (0, 1)}
        assert scales == {(0.0, maps[method].max())}
    assert all(ax.collections for ax in axes)
    ends = [
        [text.get_text() for text in bar.get_xticklabels()] for bar in bars if bar.get_visible()
    ]
    assert ends == [["0", f"{values.max():.3g}"] for values in maps.values()]
    apart = plot_methods(images, maps, ["one network", "another"], same_units=False).axes
    assert apart[2].images[1].get_clim()[1] == maps["SmoothGrad"][0].max()
    assert apart[4].images[1].get_clim() == (0, 1)


def test_maps_that_do_not_fit_are_refused():
    images = np.full((2, 8, 8, 3), 100.0)
    with pytest.raises(ValueError, match=r"Grad-CAM: maps \(1, 8, 8\) do not fit"):
        plot_methods(images, {"Grad-CAM": make_maps(0)[:1]}, "ab")
    with pytest.raises(ValueError, match="Grad-CAM: maps must be finite and not negative"):
        plot_methods(images, {"Grad-CAM": make_maps(0) - 2}, "ab")
    with pytest.raises(ValueError, match="2 images but 3 titles"):
        plot_methods(images, {"Grad-CAM": make_maps(0)}, "abc")


def summary_of(keys: pd.DataFrame, measures: list[str]) -> pd.DataFrame:
    values = np.linspace(0.2, 0.8, len(keys))
    for measure in measures:
        keys[measure], keys[f"{measure}_low"] = values, values - 0.1
        keys[f"{measure}_high"] = values + 0.1
    return keys


def test_truth_has_a_panel_per_measure_and_the_best_baseline_as_a_line():
    keys = [("none", name) for name in BASELINES] + [
        (network, name) for network in ("small", "taught") for name in METHODS
    ]
    summary = summary_of(pd.DataFrame(keys, columns=["network", "map"]), ["energy", "hit"])
    figure = plot_truth(summary, {"energy": "energy inside", "hit": "pointing game"})
    axes = figure.axes
    assert [ax.get_xlabel() for ax in axes] == [
        f"{name}\n(higher is better)" for name in ("energy inside", "pointing game")
    ]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == list(TITLES.values())
    assert axes[0].lines[0].get_xdata()[0] == summary.energy[:3].max()
    assert [bars.get_label() for bars in axes[0].containers] == [
        "baselines", "shipped network", "phantom-trained network",
    ]  # fmt: skip


def test_the_cascade_begins_where_maps_are_themselves():
    keys = [(name, step) for name in METHODS for step in (1, 2, 3)]
    summary = summary_of(pd.DataFrame(keys, columns=["map", "step"]), ["spearman"])
    summary.loc[0, "spearman_low"] = -0.6
    (ax,) = plot_cascade(summary, {"spearman": "Spearman"}).axes
    curves = [line for line in ax.lines if line.get_label() in TITLES.values()]
    assert len(curves) == len(METHODS)
    assert all(line.get_ydata()[0] == 1 for line in curves)
    starts = [line.get_xdata()[0] for line in curves]
    assert len(set(starts)) == len(METHODS) and max(map(abs, starts)) < 0.25  # none hides another
    low, high = ax.get_ylim()
    assert low < summary.spearman_low.min() and summary.spearman_high.max() < high


def test_faithfulness_distinguishes_methods_from_baselines():
    names = [*METHODS, *BASELINES]
    summary = summary_of(pd.DataFrame({"map": names}), ["deletion", "insertion"])
    (ax,) = plot_faithfulness(summary).axes
    filled = [container[0].get_markerfacecolor() != "white" for container in ax.containers]
    assert filled == [True] * len(METHODS) + [False] * len(BASELINES)


def test_attention_has_a_row_per_outcome_and_a_color_per_network():
    keys = [(network, outcome) for network in ("small", "plain") for outcome in CASES.values()]
    summary = summary_of(pd.DataFrame(keys, columns=["network", "outcome"]), ["border", "lungs"])
    summary[["lungs", "lungs_low", "lungs_high"]] /= 2
    shares = {"border": 0.4, "lungs": 0.3}
    axes = plot_attention(summary, {"border": "border", "lungs": "lungs"}, shares).axes
    assert axes[1].lines[0].get_xdata()[0] == 0.3
    assert axes[0].get_xlim() == axes[1].get_xlim()
    assert axes[0].get_xlim()[1] >= summary[["border_high", "lungs_high"]].to_numpy().max()
    labels = [label.get_text() for label in axes[0].get_yticklabels()]
    assert labels == list(CASES.values())[::-1] and [
        bars.get_label() for bars in axes[1].containers
    ] == ["shipped", "plain"]
