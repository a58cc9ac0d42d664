import numpy as np
import pandas as pd
import pytest

from utils.explanation.measures import TITLES
from utils.explanation.summary import (
    SIZES,
    as_text,
    best_baselines,
    compare_with_baselines,
    networks_of,
    side_by_side,
    size_of_opacity,
    summarize,
    with_outcome,
)


@pytest.fixture
def truth():
    """Thirty phantoms, one per patient: center beats random cells, Grad-CAM beats center."""
    rows = []
    for number in range(30):
        wobble = 0.02 * np.sin(number)
        for network, name, energy in (
            ("none", "random", 0.1), ("none", "centre", 0.3 + wobble), ("none", "edges", 0.2),
            ("taught", "gradcam", 0.4 + 2 * wobble), ("taught", "smoothgrad", 0.25),
        ):  # fmt: skip
            rows.append({
                "image_id": f"{number}.png", "patient_id": f"p{number}", "network": network,
                "map": name, "energy_inside": energy, "mask_share": number / 100,
                "auc": None if network == "none" else 0.9,
                "probability": None if network == "none" else 0.7,
            })  # fmt: skip
    return pd.DataFrame(rows)


def test_means_have_intervals_and_zero_maps_are_counted(truth):
    truth.loc[truth.image_id == "0.png", "energy_inside"] = np.nan
    summary = summarize(truth, ["network", "map"], ["energy_inside"], 200, 0).set_index("map")
    assert list(summary.index) == ["random", "centre", "edges", "gradcam", "smoothgrad"]
    assert (summary.images == 30).all() and (summary.zero == 1).all()
    row = summary.loc["gradcam"]
    assert row.energy_inside_low < row.energy_inside < row.energy_inside_high
    assert row.energy_inside == pytest.approx(0.4, abs=0.01)


def test_a_group_without_two_patients_has_no_interval(truth):
    alone = truth[truth.image_id == "1.png"]
    summary = summarize(alone, ["map"], ["energy_inside"], 200, 0)
    assert summary.energy_inside.isna().all()
    assert set(as_text(summary, {"energy_inside": "energy"}).energy) == {"-"}


def test_a_method_beats_the_best_baseline_or_is_said_not_to(truth):
    assert best_baselines(truth, ["energy_inside"]) == {"energy_inside": "centre"}
    measures = {"energy_inside": "energy"}
    compared = compare_with_baselines(truth, measures, 200, 0).set_index("map")
    assert compared.better.to_dict() == {"gradcam": "energy", "smoothgrad": "no"}
    assert compared.energy_inside["gradcam"] == pytest.approx(0.1, abs=0.01)
    shown = as_text(compared.reset_index(), measures, signed=True)
    assert shown["map"].tolist() == [TITLES["gradcam"], TITLES["smoothgrad"]]
    assert shown.energy[1].startswith("-0.05")


def test_where_less_is_better_the_difference_is_reversed(truth):
    measures = {"energy_inside": "deletion"}
    less = ["energy_inside"]
    assert best_baselines(truth, less, less) == {"energy_inside": "random"}
    compared = compare_with_baselines(truth, measures, 200, 0, less).set_index("map")
    assert compared.energy_inside["smoothgrad"] == pytest.approx(0.1 - 0.25)
    assert (compared.better == "no").all()


def test_opposite_results_of_two_classes_are_told_apart(truth):
    small = truth.image_id.isin(truth.image_id.unique()[::2])
    truth = truth.assign(predicted=np.where(small, "NORMAL", "PNEUMONIA"))
    worse = small & (truth["map"] == "gradcam")
    truth.loc[worse, "energy_inside"] -= 0.3
    compared = compare_with_baselines(truth, {"energy_inside": "energy"}, 200, 0)
    better = compared.set_index(["predicted", "map"]).better
    assert better["PNEUMONIA", "gradcam"] == "energy" and better["NORMAL", "gradcam"] == "no"


def test_opacities_fall_into_thirds_by_image(truth):
    sizes = size_of_opacity(truth)
    per_image = truth.assign(size=sizes).groupby("image_id")["size"].nunique()
    assert (per_image == 1).all()
    assert sizes.value_counts().to_dict() == dict.fromkeys(SIZES, 50)
    assert side_by_side(
        summarize(truth.assign(size=sizes), ["network", "map", "size"], ["energy_inside"], 50, 0),
        "size", "energy_inside",
    ).columns.tolist() == list(SIZES)  # fmt: skip
    assert sizes[truth.image_id == "0.png"].iloc[0] == "small"


def test_outcomes_and_networks_are_named(truth):
    attention = pd.DataFrame({"y_true": [0, 1, 0, 1], "called": [1, 0, 0, 1]}, index=[9, 8, 7, 6])
    named = with_outcome(attention)
    assert named.outcome.to_dict() == {
        6: "true positive (PNEUMONIA)", 8: "false negative (PNEUMONIA)",
        7: "true negative (NORMAL)", 9: "false positive (NORMAL)",
    }  # fmt: skip
    assert named.index.tolist() == [6, 8, 7, 9]
    assert networks_of(truth).to_dict("records") == [
        {"network": "phantom-trained", "auc": 0.9, "probability": pytest.approx(0.7)}
    ]
