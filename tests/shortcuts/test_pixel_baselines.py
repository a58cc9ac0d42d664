"""Pixel baselines see what they claim to see, and learn from the train split alone."""

import numpy as np
import pandas as pd
import pytest

from tests.builders import write_dataset
from utils.common.constants import PREDICTION_COLUMNS
from utils.data.images import load_images
from utils.data.index import build_index
from utils.shortcuts.pixel_baselines import (
    BASELINES,
    baselines_table,
    cross_predict_pixel_baseline,
    load_pixel_features,
    pixel_features,
    predict_pixel_baseline,
    score_pixel_baselines,
)


def gray_images(values: np.ndarray) -> np.ndarray:
    """Turn (n, size, size) gray values into (n, size, size, 3) uint8."""
    return np.repeat(values[..., None], 3, axis=3).astype(np.uint8)


def make_index(patients: int = 30) -> pd.DataFrame:
    """Make the index of one image per patient, a third of them in each split."""
    rows = []
    for number in range(patients * 2):
        etiology, family = [("normal", "IM"), ("virus", "person")][number % 2]
        split = ("train", "validation", "test")[number // 2 % 3]
        patient_id = f"{family}-{number}-{etiology}"
        rows.append((f"{split}/{patient_id}.jpeg", split, number % 2, etiology, patient_id))
    return pd.DataFrame(rows, columns=["image_id", "split", "label", "etiology", "patient_id"])


# ---- features


@pytest.mark.parametrize(
    ("kind", "count"),
    [("majority_class", 1), ("mean_intensity", 1), ("border_frame", 432), ("thumbnail", 64)],
)
def test_the_number_of_features(kind, count):
    features = pixel_features(np.zeros((2, 224, 224, 3), np.uint8), kind)
    assert features.shape == (2, count)
    assert features.dtype == np.float32


def test_a_frame_is_blind_to_the_inside_and_sees_all_of_the_frame():
    images = np.full((1, 224, 224, 3), 7, np.uint8)
    images[:, 8:-8, 8:-8] = 255
    assert (pixel_features(images, "border_frame") == 7).all()
    for row, column in ((0, 0), (7, 100), (100, 7), (223, 223), (216, 100), (100, 216)):
        changed = images.copy()
        changed[0, row, column] = 255
        assert (pixel_features(changed, "border_frame") != 7).sum() == 1


def test_a_thumbnail_is_the_image_averaged_row_by_row():
    blocks = np.arange(64).reshape(8, 8)
    images = gray_images(np.kron(blocks, np.ones((28, 28)))[None])
    assert pixel_features(images, "thumbnail")[0].tolist() == list(range(64))


def test_mean_intensity_averages_pixels_and_channels():
    images = np.zeros((1, 24, 24, 3), np.uint8)
    images[..., 0] = 30
    images[:, :12, :, 1] = 60
    assert pixel_features(images, "mean_intensity")[0, 0] == pytest.approx(20)


@pytest.mark.parametrize(
    ("shape", "kind", "named"),
    [
        ((2, 224, 224, 3), "corner", "unknown baseline 'corner'"),
        ((2, 224, 224), "thumbnail", r"\(2, 224, 224\)"),
        ((2, 224, 200, 3), "thumbnail", r"\(2, 224, 200, 3\)"),
        ((2, 100, 100, 3), "thumbnail", "multiple of 8"),
        ((2, 16, 16, 3), "border_frame", "more than 16"),
    ],
)
def test_other_images_are_refused(shape, kind, named):
    with pytest.raises(ValueError, match=named):
        pixel_features(np.zeros(shape, np.uint8), kind)


def test_features_of_files_are_those_of_their_pixels(tmp_path):
    root = write_dataset(tmp_path, range(1, 21))
    index = build_index(root, 42, 0.5)
    features = load_pixel_features(root, index)
    images = load_images(root, index.image_id)
    assert list(features) == list(BASELINES)
    for kind, values in features.items():
        np.testing.assert_array_equal(values, pixel_features(images, kind))


# ---- scores


def test_a_baseline_learns_from_train_alone():
    index = make_index()
    features = np.random.default_rng(0).normal(index.label.to_numpy())[:, None]
    predictions = predict_pixel_baseline(features, index)
    assert tuple(predictions.columns) == PREDICTION_COLUMNS
    assert set(predictions.split) == {"validation", "test"}
    elsewhere = index.split != "train"
    turned = index.assign(label=index.label.where(~elsewhere, 1 - index.label))
    relearned = predict_pixel_baseline(features, turned)
    assert (relearned.probability == predictions.probability).all()
    assert (relearned.y_true == 1 - predictions.y_true).all()


def test_scores_tell_an_informative_baseline_from_the_others():
    index = make_index()
    random = np.random.default_rng(0)
    features = {kind: random.normal(size=(len(index), 1)) for kind in BASELINES}
    features["majority_class"] = np.zeros((len(index), 1))
    features["thumbnail"] = random.normal(3 * index.label.to_numpy())[:, None]
    scores = score_pixel_baselines(features, index, resamples=50, seed=0)
    assert list(scores.index) == list(BASELINES)
    assert scores.loc["thumbnail", "test_roc_auc"] > 0.9
    assert scores.loc["majority_class", "test_roc_auc"] == 0.5
    assert scores.loc["majority_class", "test_accuracy_at_0.5"] == 0.5
    assert scores.loc["mean_intensity", "validation_roc_auc"] < 0.8
    ordered = scores.test_roc_auc_low <= scores.test_roc_auc
    assert (ordered & (scores.test_roc_auc <= scores.test_roc_auc_high)).all()
    again = score_pixel_baselines(features, index, resamples=50, seed=0)
    pd.testing.assert_frame_equal(scores, again, check_exact=True)


def test_the_majority_class_follows_the_train_split():
    index = make_index()
    index = index[(index.split != "train") | (index.label == 1) | (index.index % 3 == 0)]
    predictions = predict_pixel_baseline(np.zeros((len(index), 1)), index)
    train = index.label[index.split == "train"]
    assert predictions.probability.to_numpy() == pytest.approx(train.mean())


def test_images_are_resampled_where_patients_are_unknown():
    index = make_index().assign(patient_id="")
    features = {kind: np.random.default_rng(0).normal(size=(len(index), 1)) for kind in BASELINES}
    scores = score_pixel_baselines(features, index, resamples=20, seed=0)
    assert (scores.test_roc_auc_low <= scores.test_roc_auc_high).all()


def test_the_table_is_made_for_reading():
    index = make_index()
    features = {kind: np.zeros((len(index), 1)) for kind in BASELINES}
    table = baselines_table(score_pixel_baselines(features, index, resamples=20, seed=0))
    assert list(table.index) == list(BASELINES.values())
    assert table.loc["majority class", "test ROC-AUC"] == "0.50 [0.50, 0.50]"
    assert list(table.columns)[1] == "validation accuracy at 0.5"


def test_what_cannot_be_trained_is_refused():
    index = make_index()
    with pytest.raises(ValueError, match="features of 3 images, but the index has 60"):
        predict_pixel_baseline(np.zeros((3, 1)), index)
    one_class = index[(index.split != "train") | (index.label == 1)]
    with pytest.raises(ValueError, match="both classes"):
        predict_pixel_baseline(np.zeros((len(one_class), 1)), one_class)


def test_another_split_is_predicted_where_it_is_asked_for():
    index = make_index()
    features = np.stack([index.label, np.arange(len(index)) % 7], axis=1).astype(np.float32)
    predictions = predict_pixel_baseline(features, index, ["test"])
    assert set(predictions.split) == {"test"}
    both = predict_pixel_baseline(features, index)
    pd.testing.assert_frame_equal(predictions, both[both.split == "test"])


def test_within_a_set_nobody_is_predicted_by_a_fit_on_himself():
    random = np.random.default_rng(0)
    index = make_index(60).assign(split="external")
    index = pd.concat([index, index.assign(image_id="copy of " + index.image_id)])
    index = index.sample(frac=1, random_state=1).reset_index(drop=True)
    telling = index.label + random.normal(scale=0.2, size=len(index))
    scored = cross_predict_pixel_baseline(telling.to_numpy()[:, None], index, seed=1)
    assert list(scored.columns) == list(PREDICTION_COLUMNS)
    assert ((scored.probability > 0.5) == scored.y_true).mean() > 0.9
    # Two images of a patient are alike beyond all measure: only folds by patient hide it.
    codes = pd.factorize(index.patient_id)[0]
    alike = random.normal(size=(codes.max() + 1, 200))[codes].astype(np.float32)
    blind = cross_predict_pixel_baseline(alike, index, seed=1)
    assert ((blind.probability > 0.5) == blind.y_true).mean() < 0.65
