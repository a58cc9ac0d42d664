import keras
import numpy as np
import pytest

from tests.builders import open_small_study
from tests.data.test_acquisition import smooth_images
from utils.common.files import write_json
from utils.common.paths import models_dir, predictions_dir, results_dir
from utils.data.regions import REGIONS, cover_region, lung_template
from utils.shortcuts.domain_shift import measure_domain_shift, tell_domains_apart
from utils.shortcuts.features import CUES, measure_cues, measure_training_cues, score_cues
from utils.shortcuts.regions import measure_regions


def test_cues_of_known_images():
    flat = np.full((1, 64, 64, 1), 100, np.uint8)
    flat[:, :21] = 160
    cues = measure_cues(flat).iloc[0]
    assert set(cues.index) == set(CUES)
    assert cues["mean"] == pytest.approx(flat.mean(), abs=0.01)
    assert cues.percentile_99 == 160 and cues.top_third == pytest.approx(160)
    assert cues.frame_mean != pytest.approx(cues["mean"], abs=1)


def test_bands_tell_detail_from_structure():
    board = np.indices((64, 64)).sum(0)
    fine, coarse = (
        np.where(board // part % 2 == 0, 90, 160)[None, :, :, None].astype(np.uint8)
        for part in (1, 10)
    )
    of_fine, of_coarse = measure_cues(fine).iloc[0], measure_cues(coarse).iloc[0]
    # The edges of coarse squares are fine themselves, so the bands are compared.
    assert of_fine.fine_band / of_fine.coarse_band > 5 * of_coarse.fine_band / of_coarse.coarse_band


def test_a_cue_counts_in_either_direction():
    labels = np.arange(40) % 2
    images = np.where(labels[:, None, None, None], 80, 120) + np.zeros((40, 32, 32, 1))
    scores = score_cues(measure_cues(images.astype(np.uint8)), labels)
    assert scores["mean"] == 1 and scores.contrast == 0.5


def test_regions_cover_what_they_say():
    images = smooth_images(2)
    means = images.mean((1, 2, 3))
    lungs = lung_template(32)
    assert 0.2 < lungs.mean() < 0.4 and np.array_equal(lungs, lungs[:, ::-1])
    for region in REGIONS:
        covered = cover_region(images, region)
        changed = np.abs(covered - images).max((0, 3)) > 1e-3
        if region == "whole image":
            assert not changed.any()
        if region == "lungs removed":
            assert not changed[~lungs].any() and changed[lungs].mean() > 0.9
        if region == "lungs only":
            assert not changed[lungs].any() and changed[~lungs].mean() > 0.9
        if region == "border covered":
            assert not changed[4:28, 4:28].any() and changed[:4].mean() > 0.9
    only = cover_region(images, "lungs only")
    np.testing.assert_allclose(only[:, 0, 0, 0], means, rtol=1e-5)
    with pytest.raises(ValueError, match="choose one of whole image"):
        cover_region(images, "heart")


def test_places_are_told_apart_where_they_differ():
    random = np.random.default_rng(0)
    elsewhere = np.arange(200) % 2 == 0
    patients = [f"person-{row // 2}-virus" for row in range(200)]
    noise = random.normal(size=(200, 5))
    assert tell_domains_apart(noise, elsewhere, patients, 1) < 0.65
    shifted = noise + elsewhere[:, None] * 2
    assert tell_domains_apart(shifted, elsewhere, patients, 1) > 0.95


@pytest.fixture
def study(tmp_path, monkeypatch):
    study = open_small_study(tmp_path, monkeypatch)
    record = results_dir("full") / "provenance" / "resnet50.json"
    write_json(record, {"dataset": {"fingerprint": "a"}})
    return study


def test_what_a_model_makes_of_covered_images_is_kept(study, monkeypatch):
    monkeypatch.delenv("REMAKE_TABLES")
    image = keras.Input((224, 224, 3))
    center = keras.layers.Cropping2D(80)(image)
    mean = keras.layers.GlobalAveragePooling2D()(center)
    network = keras.Model(image, keras.layers.Dense(2, "softmax")(mean))
    file = models_dir("full") / "final" / "small.keras"
    file.parent.mkdir(parents=True)
    network.save(file)
    predictions = predictions_dir("full") / "final" / "small.csv"
    predictions.parent.mkdir(parents=True)
    predictions.write_text("as they were")
    regions = measure_regions(study, ["final/small"], 50, 1)
    assert regions.region.tolist() == list(REGIONS) and set(regions.model) == {"small"}
    auc = regions.set_index("region").roc_auc
    assert auc["whole image"] == pytest.approx(auc["border covered"], abs=0.05)
    file.unlink()
    assert measure_regions(study, ["final/small"], 50, 1).equals(regions)
    predictions.write_text("of another training")
    with pytest.raises(ValueError, match=r"small\.keras"):
        measure_regions(study, ["final/small"], 50, 1)


def test_places_are_told_apart_by_cues_alone(study):
    places = measure_domain_shift(study)
    assert places["class"].tolist() == ["NORMAL", "NORMAL", "PNEUMONIA", "PNEUMONIA"]
    assert places.split.tolist() == ["validation", "test"] * 2
    assert places.roc_auc.between(0, 1).all()


def test_cues_of_the_training_split_are_kept(study, monkeypatch):
    cues = measure_training_cues(study)
    assert cues.roc_auc.is_monotonic_decreasing and set(cues.cue) == set(CUES)
    monkeypatch.setattr("utils.shortcuts.features.open_study_index", None)
    assert measure_training_cues(study).equals(cues)
