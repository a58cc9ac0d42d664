import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from utils.data.perturbations import PERTURBATIONS
from utils.evaluation.plots import plot_reliability
from utils.selection.plots import (
    plot_auc_by_perturbation,
    plot_cost,
    plot_criteria,
    plot_crop_area,
    plot_differences,
)


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
    with pytest.raises(ValueError, match="table of criteria lacks the column block"):
        plot_criteria(ranked.drop(columns="block"))


def test_differences_are_drawn_around_the_base():
    compared = pd.DataFrame({
        "candidate": ["base", "better", "worse"], "difference": [0.0, 0.004, -0.01],
        "low": [0.0, 0.001, -0.02], "high": [0.0, 0.007, -0.005],
    })  # fmt: skip
    figure = plot_differences(compared, "base", "What augmentation does")
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["better", "worse"]
    points = next(line for line in ax.get_lines() if len(line.get_xdata()) == 2
                  and line.get_marker() == "o")  # fmt: skip
    assert points.get_xdata().tolist() == [0.004, -0.01]
    assert ax.get_xlim()[0] < -0.02 and drawn(figure).std() > 5
    with pytest.raises(ValueError, match="table of differences lacks the column low"):
        plot_differences(compared.drop(columns="low"), "base", "")


def test_every_auc_is_written_into_its_field():
    table = pd.DataFrame(
        [np.linspace(0.9, 0.97, len(PERTURBATIONS))], index=["a"], columns=PERTURBATIONS
    )
    figure = plot_auc_by_perturbation(table)
    written = [text.get_text() for text in figure.axes[0].texts]
    assert written == [f"{value:.3f}" for value in table.loc["a"]]
    with pytest.raises(ValueError, match="table of AUCs by perturbation lacks the column noise"):
        plot_auc_by_perturbation(table.drop(columns="noise"))


def test_costs_are_on_a_logarithmic_scale():
    costs = pd.DataFrame({
        "network": ["small", "large"], "criterion": [0.9, 0.95], "standard_error": [0.01, 0.01],
        "milliseconds": [2.0, 90.0],
    })  # fmt: skip
    figure = plot_cost(costs, "milliseconds", "ms an image")
    ax = figure.axes[0]
    assert ax.get_xscale() == "log" and ax.get_xlabel() == "ms an image"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["small", "large"]
    assert ax.get_ylim()[1] > 0.96 and ax.get_ylim()[0] < 0.89
    colors = {bars.lines[0].get_color() for bars in ax.containers}
    assert len(colors) == 2, "networks are told apart by color, too"
    with pytest.raises(ValueError, match="megabytes"):
        plot_cost(costs, "megabytes", "MB")


def test_a_poor_row_leaves_the_others_their_shades():
    table = pd.DataFrame(
        [np.linspace(0.98, 0.995, len(PERTURBATIONS)), [0.75] * len(PERTURBATIONS)],
        index=["lite0_96_mild", "plain_vit_64_robust"], columns=PERTURBATIONS,
    )  # fmt: skip
    ax = plot_auc_by_perturbation(table).axes[0]
    shades = ax.collections[0].norm(table.to_numpy())
    assert shades[0].max() - shades[0].min() > 0.3
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["EfficientNet-Lite0, 96 px, mild", "plain transformer, 64 px, robust"]


def test_a_poor_candidate_leaves_the_others_their_room(ranked):
    poor = ranked.assign(criterion=[0.995, 0.985, 0.8], standard_error=0.001, block=0.99)
    ax = plot_criteria(poor.assign(plain=None)).axes[0]
    first, second, last = ax.transAxes.inverted().transform(
        ax.transData.transform([(value, 0) for value in poor.criterion])
    )[:, 0]
    assert first - second > 0.25 * (first - last)


def test_reliability_is_drawn_against_the_diagonal():
    tables = {"before": [(0.1, 0.3, 10), (0.9, 0.7, 30)], "after": [(0.3, 0.3, 40)]}
    figure = plot_reliability(tables)
    lines = figure.axes[0].get_lines()
    assert lines[0].get_xydata().tolist() == [[0, 0], [1, 1]]
    assert lines[1].get_xydata().tolist() == [[0.1, 0.3], [0.9, 0.7]]
    with pytest.raises(ValueError, match="filled bin"):
        plot_reliability({"none": []})


def test_the_area_of_the_crop_is_drawn_for_validation_and_test():
    crops = [1.0, 0.8, 0.08, 0.08]
    networks = pd.DataFrame({
        "smallest_crop": np.repeat(crops, 3),
        "transforms": np.repeat(["flip", "flip", "flip", "flip noise"], 3),
        "validation": np.repeat([0.998, 0.997, 0.992, 0.5], 3),
        "test": np.repeat([0.95, 0.97, 0.985, 0.5], 3),
    })  # fmt: skip
    figure = plot_crop_area(networks)
    ax = figure.axes[0]
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert labels == ["no crop", "80% to 100%", "8% to 100%"]
    lines = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
    np.testing.assert_allclose(lines["test"], [0.95, 0.97, 0.985])
    assert min(min(values) for values in lines.values()) > 0.9, "other transforms are left out"
    assert drawn(figure).std() > 5
    with pytest.raises(ValueError, match="nothing but a crop and a flip"):
        plot_crop_area(networks[networks.transforms != "flip"])
