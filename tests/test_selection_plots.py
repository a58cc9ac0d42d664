import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from utils.selection_plots import plot_cost, plot_criteria, plot_reliability


def drawn(figure):
    """Return the pixels of a figure."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=60)
    return np.asarray(Image.open(stream).convert("L"), float)


@pytest.fixture
def ranked():
    return pd.DataFrame({
        "candidate": ["robust", "plain recipe", "no augmentation"],
        "criterion": [0.95, 0.94, 0.90], "standard_error": [0.01, 0.01, 0.02],
        "block": [0.98, 0.985, 0.98], "plain": [0.99, 0.998, 0.999],
        "within": [True, True, False],
    })  # fmt: skip


def test_criteria_are_drawn_in_order(ranked):
    figure = plot_criteria(ranked)
    ax = figure.axes[0]
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ranked.candidate.tolist()
    assert ax.get_yticks()[0] > ax.get_yticks()[-1], "the choice is on top"
    assert ax.get_yticklabels()[0].get_fontweight() == "bold"
    assert ax.get_yticklabels()[2].get_color() != "black"
    assert drawn(figure).std() > 5
    plot_criteria(ranked.assign(plain=None))
    with pytest.raises(ValueError, match="criteria need rows"):
        plot_criteria(ranked.drop(columns="block"))


def test_costs_are_on_a_logarithmic_scale():
    costs = pd.DataFrame({
        "network": ["small", "large"], "criterion": [0.9, 0.95], "standard_error": [0.01, 0.01],
        "milliseconds": [2.0, 90.0],
    })  # fmt: skip
    figure = plot_cost(costs, "milliseconds", "ms an image")
    ax = figure.axes[0]
    assert ax.get_xscale() == "log" and ax.get_xlabel() == "ms an image"
    assert {text.get_text() for text in ax.texts} == {"small", "large"}
    with pytest.raises(ValueError, match="megabytes"):
        plot_cost(costs, "megabytes", "MB")


def test_reliability_is_drawn_against_the_diagonal():
    tables = {"before": [(0.1, 0.3, 10), (0.9, 0.7, 30)], "after": [(0.3, 0.3, 40)]}
    figure = plot_reliability(tables)
    lines = figure.axes[0].get_lines()
    assert lines[0].get_xydata().tolist() == [[0, 0], [1, 1]]
    assert lines[1].get_xydata().tolist() == [[0.1, 0.3], [0.9, 0.7]]
    with pytest.raises(ValueError, match="filled bin"):
        plot_reliability({"none": []})
