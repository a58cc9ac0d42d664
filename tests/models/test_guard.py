import numpy as np
import pytest

from utils.common.files import file_sha256, read_json
from utils.data.images import load_image
from utils.models import guard, registry
from utils.models.guard import (
    DIRECTIONS,
    FALSE_POSITIVE_RATE,
    REFERENCES,
    build_feature_model,
    fit_detector,
    load_detector,
    make_out_of_distribution_images,
    measure_rates,
)
from utils.models.registry import SHIPPED, ModelError, choose_model

KNOWN, UNKNOWN = slice(0, 5), slice(5, 10)


def draw_features(random: np.random.Generator, count: int, places: slice) -> np.ndarray:
    """Return features that are positive in some of ten places and zero elsewhere."""
    features = np.zeros((count, 10))
    features[:, places] = random.uniform(0.5, 1, (count, 5))
    return features


@pytest.fixture
def features():
    random = np.random.default_rng(0)
    return [draw_features(random, count, KNOWN) for count in (300, 200)]


def test_the_limit_flags_the_stated_share_of_validation(features):
    detector = fit_detector(*features, seed=0)
    assert detector.is_out_of_distribution(features[1]).mean() == pytest.approx(
        FALSE_POSITIVE_RATE, abs=0.01
    )


def test_other_features_are_out_of_distribution_whatever_their_length(features):
    detector = fit_detector(*features, seed=0)
    others = draw_features(np.random.default_rng(1), 50, UNKNOWN)
    assert detector.measure_distance(others) == pytest.approx(1, abs=1e-3)
    assert (
        detector.is_out_of_distribution(others).all()
        and detector.is_out_of_distribution(1000 * others).all()
    )
    assert detector.is_out_of_distribution(np.zeros((1, 10))).all()
    assert not detector.is_out_of_distribution(1000 * features[0]).all()


def test_a_training_image_is_known(features):
    detector = fit_detector(features[0][:100], features[1], seed=0)
    assert detector.measure_distance(features[0][:100]).max() < 0.01


def test_the_file_gives_the_detector_back(features, tmp_path):
    detector = fit_detector(*features, seed=0)
    detector.save(tmp_path / "detector.npz")
    loaded = load_detector(tmp_path / "detector.npz")
    np.testing.assert_array_equal(
        loaded.measure_distance(features[1]), detector.measure_distance(features[1])
    )
    assert loaded.limit == detector.limit


def test_a_file_that_is_no_detector_is_refused(tmp_path):
    (tmp_path / "text.npz").write_text("no detector")
    np.savez(tmp_path / "other.npz", limit=1)
    for name in ("missing.npz", "text.npz", "other.npz"):
        with pytest.raises(ModelError, match=f"{name} is no detector.*restore it with git"):
            load_detector(tmp_path / name)


def test_other_images_are_pictures_of_the_networks_size():
    others = make_out_of_distribution_images()
    assert set(others) == {"photographs", "noise", "flat"}
    for images in others.values():
        assert images.shape[1:] == (224, 224, 3) and images.dtype == np.uint8
    assert len(others["photographs"]) == 24 and len(others["noise"]) == 30
    assert others["noise"].std(axis=(1, 2, 3)).min() > 10


def test_rates_are_shares_of_what_is_flagged(features, monkeypatch):
    detector = fit_detector(*features, seed=0)
    monkeypatch.setattr(guard, "make_out_of_distribution_images", lambda: {"half": np.arange(4)})
    mixed = np.concatenate([features[0][:2], draw_features(np.random.default_rng(1), 2, UNKNOWN)])
    assert measure_rates(detector, lambda images: mixed[images]) == {"half": 0.5}


@pytest.mark.slow
def test_the_shipped_detector_knows_phantoms_and_flags_other_images():
    """What `models/README.md` states of it."""
    record = read_json(SHIPPED / registry.RECORD)["small"]["novelty"]
    file = SHIPPED / record["file"]
    assert file_sha256(file) == record["sha256"]
    assert 0 < record["flagged"]["validation"] <= 0.05
    with np.load(file) as content:
        shapes = {name: content[name].shape for name in content.files}
    assert shapes == {
        "directions": (DIRECTIONS, 1280), "references": (REFERENCES, DIRECTIONS), "limit": (),
    }  # fmt: skip
    detector = load_detector(file)
    features = build_feature_model(choose_model("full", "small").load())

    def measure(images: np.ndarray) -> np.ndarray:
        return features.predict(images.astype(np.float32), verbose=0)

    phantoms = np.stack([load_image(path) for path in SHIPPED.glob("phantoms/*/*.jpeg")])
    assert not detector.is_out_of_distribution(measure(phantoms)).any()
    for kind, rate in measure_rates(detector, measure).items():
        assert rate == pytest.approx(record["flagged"][kind], abs=0.05)
        assert rate >= 0.9
