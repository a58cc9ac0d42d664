"""The cache says what it keeps and what can be deleted, and its parts are filled and counted."""

import os
import time

import pytest

from tests.builders import build_small_backbone, write_dataset
from utils.common.files import read_json, write_json
from utils.common.study import load_study
from utils.data.index import build_index
from utils.models.pretrained import Weights
from utils.training import activation_cache
from utils.training.activations import ActivationStore, AugmentedCopy


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = write_dataset(tmp_path_factory.mktemp("data"), range(1, 11))
    return root, build_index(root, 1, 0.3)


@pytest.fixture
def store(data, tmp_path):
    root, index = data
    store = ActivationStore(tmp_path, build_small_backbone())
    store.fill(root, index, [AugmentedCopy(0), AugmentedCopy(1)])
    return store


def test_the_listing_names_store_size_and_age(store, tmp_path):
    (summary,) = activation_cache.list_stores(tmp_path)
    assert (summary.entries, summary.remark) == (80, "")
    text = activation_cache.describe_stores([summary], tmp_path)
    assert "small up to conv, computed in float32, kept in float16" in text
    assert "80 images and augmented copies" in text and "0.0 hours ago" in text
    assert "can be deleted" not in text
    assert "no activations" in activation_cache.describe_stores([], tmp_path)


def test_what_may_go_is_named_and_goes(store, tmp_path, data):
    record = store.folder / "store.json"
    write_json(record, read_json(record) | {"code_version": 0})
    old = tmp_path / "resnet50-float16-0123"
    old.mkdir()
    (old / "a.npy").write_bytes(b"0" * 1000)
    kept = ActivationStore(tmp_path, build_small_backbone(channels=3))
    kept.fill(*data, [AugmentedCopy(0)])
    leftover = kept.folder / ".block-1.abc.npy"
    leftover.write_bytes(b"0")
    fresh = kept.folder / ".block-2.abc.npy"
    fresh.write_bytes(b"0")
    past = time.time() - 24 * 3600
    os.utime(leftover, (past, past))
    text = activation_cache.describe_stores(activation_cache.list_stores(tmp_path), tmp_path)
    assert "of version 0" in text and "older version" in text and "1 files of killed" in text
    assert activation_cache.clean_cache(tmp_path, unused_only=True) > 0
    assert [summary.folder for summary in activation_cache.list_stores(tmp_path)] == [kept.folder]
    assert fresh.exists() and not leftover.exists()
    activation_cache.clean_cache(tmp_path)
    assert activation_cache.list_stores(tmp_path) == []


@pytest.fixture
def small_study(data, tmp_path, monkeypatch):
    """Replace data, weights and backbone by small ones; the command stays what it is."""
    monkeypatch.setenv("ACTIVATION_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("utils.data.index.open_dataset", lambda name: data[0])
    weights = Weights("resnet50", "ImageNet", "npm", "0" * 64, None)
    monkeypatch.setattr(activation_cache, "resolve_study_weights", lambda *args, **kwargs: weights)
    monkeypatch.setattr(
        "utils.training.head.build_backbone", lambda *args, **kwargs: build_small_backbone()
    )
    return load_study("sample").model_copy(update={"seed": 1, "validation_fraction": 0.3})


def test_filling_computes_what_notebooks_need_and_once(small_study, data, tmp_path):
    activation_cache.fill_cache(small_study, "resnet50")
    half, single = activation_cache.list_stores(tmp_path)
    _, index = data
    train = (index.split == "train").sum()
    assert half.entries == small_study.views * train and "float16" in half.folder.name
    assert single.entries == len(index) - train
    blocks = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*/block-*")}
    activation_cache.fill_cache(small_study, "resnet50")
    assert {file: file.stat().st_mtime_ns for file in tmp_path.glob("*/block-*")} == blocks


def test_the_command_line(small_study, monkeypatch):
    assert activation_cache.main(["fill", "--study", "nothing"]) == 1
    monkeypatch.setattr(activation_cache, "load_study", lambda name: small_study)
    assert activation_cache.main(["fill"]) == 0
    monkeypatch.setenv("WORKERS", "many")
    monkeypatch.setenv("ACTIVATION_CACHE_DIR", os.environ["ACTIVATION_CACHE_DIR"] + "/empty")
    assert activation_cache.main(["fill"]) == 1
    assert activation_cache.main(["list"]) == 0
    assert activation_cache.main(["clean"]) == 0
    with pytest.raises(SystemExit):
        activation_cache.main(["fill", "--backbone", "alexnet"])
