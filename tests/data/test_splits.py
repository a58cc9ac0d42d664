import numpy as np
import pandas as pd
import pytest

from tests.builders import write_dataset
from utils.data.index import build_index, patient_number
from utils.data.splits import (
    BLOCKS,
    ForbiddenTestSetError,
    block_folds,
    development_index,
    load_development_images,
    plain_fold,
    reduce_images,
    rows_of,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = write_dataset(tmp_path_factory.mktemp("data"))
    return root, build_index(root, 42, 0.3)


def test_the_test_split_is_left_out_and_refused(data):
    root, index = data
    images = development_index(index)
    assert set(images.split) == {"train", "validation"}
    assert len(images) == (index.split != "test").sum()
    pixels = load_development_images(root, images, 32)
    assert pixels.shape == (len(images), 32, 32, 1) and pixels.dtype == np.uint8
    first = index[index.split == "test"].image_id.iloc[0]
    with pytest.raises(ForbiddenTestSetError, match=f"{first} and 31 more belong to the test set"):
        load_development_images(root, index, 32)
    with pytest.raises(ForbiddenTestSetError, match="development_index"):
        plain_fold(index)


def test_the_plain_fold_is_the_studys_split(data):
    images = development_index(data[1])
    fold = plain_fold(images)
    assert set(fold.held_out) == set(images.image_id[images.split == "validation"])
    assert set(fold.train) == set(images.image_id[images.split == "train"])


def test_blocks_are_consecutive_numbers_and_share_no_patient(data):
    images = development_index(data[1])
    folds = block_folds(images)
    assert [fold.name for fold in folds] == [f"block{k}" for k in range(1, BLOCKS + 1)]
    numbers = images.set_index("image_id").patient_id.map(patient_number)
    held_out = [set(fold.held_out) for fold in folds]
    assert set.union(*held_out) == set(images.image_id)
    assert sum(map(len, held_out)) == len(images)
    for fold in folds:
        assert set(fold.train).isdisjoint(fold.held_out)
        assert set(numbers[list(fold.train)]).isdisjoint(numbers[list(fold.held_out)])
    for family in ("person", "IM", "NORMAL2-IM"):
        ranges = []
        for fold in folds:
            own = numbers[list(fold.held_out)]
            own = own[own.str.rsplit("-", n=1).str[0] == family]
            values = own.str.rsplit("-", n=1).str[1].astype(int)
            ranges.append((values.min(), values.max()))
        assert all(low > before for (_, before), (low, _) in zip(ranges, ranges[1:], strict=False))


def test_blocks_need_patients_and_enough_of_them(data):
    images = development_index(data[1])
    with pytest.raises(ValueError, match="needs? patient numbers"):
        block_folds(images.assign(patient_id=""))
    few = images.groupby("etiology").head(2)
    with pytest.raises(ValueError, match="fewer than 4"):
        block_folds(few)


def test_reduced_images_keep_their_mean_and_range():
    images = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    images[0] = 255
    reduced = reduce_images(images, 56)
    assert reduced.shape == (3, 56, 56, 1)
    assert (reduced[0] == 255).all()
    assert np.abs(reduced[1:].mean((1, 2, 3)) - images[1:].mean((1, 2, 3))).max() < 1
    assert (reduce_images(images, 224)[..., 0] == np.round(images.mean(-1))).all()


def test_rows_are_found_by_image(data):
    images = development_index(data[1])
    chosen = images.image_id.iloc[[3, 1]]
    assert rows_of(images, chosen).tolist() == [3, 1]
    assert isinstance(images, pd.DataFrame)
