"""How the guard is fitted and measured, on features that were made up, and what was measured."""

import numpy as np
import pandas as pd
import pytest

from utils.common.files import read_json, write_json
from utils.common.paths import published_results_dir, table_file
from utils.common.study import load_study
from utils.data.images import DatasetError
from utils.models import registry
from utils.models.guard import CONSTANT, FOREIGN, POSES, REMARKS, open_guard
from utils.models.registry import SHIPPED, open_shipped_model
from utils.tools import guard as guard_tool
from utils.tools.foreign import NUMBER, make_foreign_images
from utils.tools.guard import (
    CONSTANT_SHARE,
    FOREIGN_RATE,
    POSE_RATE,
    count_findings,
    fit_guard,
    turn_images,
)

MEND = {
    "by 90 degrees clockwise": -1, "by 180 degrees": 2, "by 90 degrees counterclockwise": 1,
}  # fmt: skip


@pytest.mark.parametrize("pose", POSES)
def test_an_image_is_upright_again_when_it_is_mended_as_the_remark_says(pose):
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3), np.uint8)
    turned = turn_images(images, pose)
    remark = REMARKS.get(pose, "")
    quarters = next((turns for words, turns in MEND.items() if remark.endswith(words)), 0)
    mended = np.rot90(turned, quarters, axes=(1, 2))
    np.testing.assert_array_equal(255 - mended if "invert it" in remark else mended, images)
    assert (pose == "upright") == (turned == images).all()


def test_a_mirrored_image_is_mirrored_before_it_is_turned():
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3), np.uint8)
    np.testing.assert_array_equal(turn_images(images, "mirrored"), images[:, :, ::-1])
    np.testing.assert_array_equal(turn_images(images, "mirrored_180"), images[:, ::-1])


def draw_features(seed: int, count: int) -> np.ndarray:
    """Return features of images in eight poses, each pose with a part of its own."""
    random = np.random.default_rng(seed)
    drawn = random.uniform(0.5, 1, (8, count, 40))
    for pose in range(8):
        drawn[pose, :, pose] += random.uniform(0, 3, count)
    return drawn.astype(np.float32)


@pytest.fixture(scope="module")
def features():
    return draw_features(0, 400)


@pytest.fixture(scope="module")
def fitted(features):
    contrast = np.linspace(20, 60, 400)
    patients = [f"patient {number // 2}" for number in range(400)]
    return fit_guard(features, contrast, np.arange(400) // 2 % 2, patients, seed=0)


@pytest.mark.slow
def test_limits_flag_about_the_stated_proportions_of_other_patients(fitted, features):
    assert fitted.constant_limit == CONSTANT_SHARE * 20
    other = draw_features(1, 2000)
    foreign = (fitted.measure_distance(other[0]) > fitted.limit).mean()
    turned = (fitted.estimate_poses(other[0])[:, 0] < fitted.pose_limit).mean()
    assert foreign == pytest.approx(FOREIGN_RATE, abs=0.015)
    assert turned == pytest.approx(POSE_RATE, abs=0.01)


def test_the_poses_are_told_apart(fitted, features):
    for pose in range(8):
        named = fitted.estimate_poses(features[pose]).argmax(axis=1)
        assert (named == pose).mean() > 0.8


def test_scaling_is_folded_into_the_weights(features, monkeypatch):
    """Features of other units give the same poses."""
    weights, bias = guard_tool._fit_poses(features)
    scales = np.geomspace(0.1, 10, 40).astype(np.float32)
    others, other_bias = guard_tool._fit_poses(features * scales + 1)
    np.testing.assert_allclose(
        (features * scales + 1) @ others + other_bias, features @ weights + bias, atol=0.02
    )


def test_findings_are_counted():
    findings = [(), (FOREIGN, "rotated_90"), ("negative",), (CONSTANT,)]
    row = count_findings("test", "rotated_90", findings)
    assert row == {
        "images": "test", "kind": "rotated_90", "n": 4, "flagged": 0.75, "low": 0.194120,
        "high": 0.993691, CONSTANT: 0.25, FOREIGN: 0.25, "pose": 0.5, "right": 0.25,
    }  # fmt: skip
    assert count_findings("test", "mirrored_90", findings)["right"] == 0.25
    assert count_findings("test", "upright", findings)["right"] is None


@pytest.mark.slow
def test_foreign_images_are_pictures_of_the_networks_size():
    foreign = make_foreign_images()
    assert list(foreign) == [
        "photographs", "noise", "documents", "drawings", "flat", "nearly black",
    ]  # fmt: skip
    for images in foreign.values():
        assert images.shape[1:] == (224, 224, 3) and images.dtype == np.uint8
    assert len(foreign["photographs"]) == 24 and len(foreign["drawings"]) == NUMBER
    for kind in ("noise", "documents", "drawings"):
        assert foreign[kind].std(axis=(1, 2, 3)).min() > 8
        assert len(np.unique(foreign[kind], axis=0)) == NUMBER
    assert foreign["nearly black"].max() < 6


@pytest.mark.slow
def test_a_guard_is_not_fitted_to_other_data_than_its_network(tmp_path, monkeypatch):
    for file in SHIPPED.iterdir():
        if file.is_file() and file.name != registry.RECORD:
            (tmp_path / file.name).symlink_to(file)
    records = read_json(SHIPPED / registry.RECORD)
    records["released"]["dataset"]["fingerprint"] = "another"
    write_json(tmp_path / registry.RECORD, records)
    monkeypatch.setattr(registry, "SHIPPED", tmp_path)
    index = pd.DataFrame({"image_id": ["a"], "split": ["train"], "pixel_sha256": ["0"]})
    monkeypatch.setattr(guard_tool, "open_study_index", lambda study: (tmp_path, index))
    with pytest.raises(DatasetError, match="is not the data that released was trained on"):
        guard_tool.release_guard(load_study("full"))


# ---- what was measured

TABLE = pd.read_csv(published_results_dir() / "guard.csv").set_index(["images", "kind"])


def test_the_published_rates_reach_their_goals():
    assert TABLE.flagged["validation", "upright"] <= 0.05
    for pose in ("negative", "rotated_90", "rotated_180", "rotated_270"):
        assert TABLE.flagged["validation", pose] >= 0.9
        assert TABLE.right["validation", pose] >= 0.9
    for kind in ("photographs", "noise", "documents", "drawings"):
        assert TABLE.flagged["foreign", kind] >= 0.95


def test_every_set_of_radiographs_is_measured_in_every_pose():
    numbers = TABLE.n.unstack("kind").loc[["validation", "test", "adults"]]
    radiographs = numbers[[*POSES, "mirrored", "mirrored_90", "mirrored_180", "mirrored_270"]]
    assert (radiographs.T == [811, 624, 295]).all(axis=None)
    assert TABLE.index.is_unique and table_file("full", "guard").name == "guard.csv"


@pytest.mark.slow
def test_the_shipped_guard_flags_here_what_the_table_says():
    shipped = open_shipped_model()
    guarded = open_guard(shipped, shipped.open())
    for kind, images in make_foreign_images().items():
        findings = guarded.guard.judge(images, guarded.network.measure_features(images))
        flagged = np.mean([bool(found) for found in findings])
        assert flagged == pytest.approx(TABLE.flagged["foreign", kind], abs=0.05)
