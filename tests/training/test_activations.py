"""Each image and view is computed once, and nothing stale or damaged is ever read."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from tests.builders import build_small_backbone, write_dataset
from utils.common.files import file_sha256, read_json
from utils.common.jobs import disconnect
from utils.common.provenance import count_threads
from utils.data.augmentation import AugmentationRanges, augment_images
from utils.data.images import load_image, load_images
from utils.data.index import build_index
from utils.models.backbones import build_head, join, split_model
from utils.training import activations
from utils.training.activations import ActivationStore, AugmentedCopy, CacheSpaceError
from utils.training.head import predict_pneumonia


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = write_dataset(tmp_path_factory.mktemp("data"), range(1, 11))
    return root, build_index(root, 1, 0.3)


@pytest.fixture(scope="module")
def backbone():
    return build_small_backbone()


@pytest.fixture
def computed(monkeypatch):
    """Count the forward passes that are really run."""
    counts = []
    original = ActivationStore._compute

    def count(self, root, tasks):
        counts.append(len(tasks))
        return original(self, root, tasks)

    monkeypatch.setattr(ActivationStore, "_compute", count)
    return counts


def test_activations_are_those_of_the_trunk(data, backbone, tmp_path):
    root, index = data
    table = ActivationStore(tmp_path, backbone, "float32").load(root, index)
    expected = backbone.predict(load_images(root, index.image_id).astype("float32"), verbose=0)
    assert table.shape == expected.shape
    np.testing.assert_allclose(table[:], expected, atol=1e-6)
    np.testing.assert_array_equal(table[np.array([3, 1])], table[:][[3, 1]])


def test_views_are_augmented_images(data, backbone, tmp_path):
    root, index = data
    view = AugmentedCopy(2, seed=5)
    table = ActivationStore(tmp_path, backbone, "float32").load(root, index, view)
    drawn = [view.augmentation(sha256) for sha256 in index.pixel_sha256]
    images = augment_images(load_images(root, index.image_id), drawn)
    np.testing.assert_allclose(table[:], backbone.predict(images, verbose=0), atol=1e-5)


def test_nothing_is_computed_twice(data, backbone, tmp_path, computed):
    root, index = data
    part = index.iloc[:10]
    ActivationStore(tmp_path, backbone).load(root, part)
    ActivationStore(tmp_path, backbone).load(root, part)
    assert computed == [10]
    ActivationStore(tmp_path, backbone).load(root, index)
    assert computed == [10, len(index) - 10]
    assert ActivationStore(tmp_path, backbone).count_missing(index) == 0


@pytest.mark.parametrize(
    "view",
    [
        AugmentedCopy(0, 1),
        AugmentedCopy(1, 0),
        AugmentedCopy(0, 0, AugmentationRanges(rotation=5)),
        activations.PLAIN,
    ],
)
def test_another_view_is_another_entry(data, backbone, tmp_path, view):
    root, index = data
    store = ActivationStore(tmp_path, backbone)
    store.load(root, index.iloc[:4], AugmentedCopy(0, 0))
    assert store.count_missing(index.iloc[:4], [view]) == 4


def test_other_weights_cut_and_format_are_other_stores(data, backbone, tmp_path):
    other = build_small_backbone()
    other.get_layer("conv").bias.assign([1.0, 0, 0, 0])
    shallow = build_small_backbone(channels=3)
    folders = {
        ActivationStore(tmp_path, backbone).folder,
        ActivationStore(tmp_path, backbone, "float32").folder,
        ActivationStore(tmp_path, other).folder,
        ActivationStore(tmp_path, shallow).folder,
    }
    assert len(folders) == 4
    assert ActivationStore(tmp_path, build_small_backbone()).folder in folders


def test_a_new_version_of_the_code_reads_nothing_old(data, backbone, tmp_path, monkeypatch):
    root, index = data
    ActivationStore(tmp_path, backbone).load(root, index.iloc[:4])
    monkeypatch.setattr(activations, "CODE_VERSION", activations.CODE_VERSION + 1)
    assert ActivationStore(tmp_path, backbone).count_missing(index.iloc[:4]) == 4


def test_changed_pixels_are_computed_anew(data, backbone, tmp_path):
    root, index = data
    store = ActivationStore(tmp_path, backbone)
    store.load(root, index.iloc[:4])
    changed = index.iloc[:4].assign(pixel_sha256=["0" * 64, *index.pixel_sha256[1:4]])
    assert store.count_missing(changed) == 1


def test_a_damaged_block_is_reported_and_computed_again(data, backbone, tmp_path, computed):
    root, index = data
    store = ActivationStore(tmp_path, backbone)
    before = store.load(root, index)[:]
    (block,) = store.folder.glob("block-*.npy")
    content = bytearray(block.read_bytes())
    content[-1] ^= 1
    block.write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged; its images will be computed again"):
        after = store.load(root, index)[:]
    np.testing.assert_array_equal(before, after)
    assert computed == [40, 40]


def test_half_precision_moves_activations_by_a_thousandth_at_most(data, backbone, tmp_path):
    root, index = data
    single = ActivationStore(tmp_path, backbone, "float32").load(root, index)[:]
    half = ActivationStore(tmp_path, backbone, "float16").load(root, index)[:]
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, single, rtol=1e-3, atol=1e-6)


def test_half_precision_hardly_moves_probabilities(data, backbone, tmp_path):
    root, index = data
    head = build_head(backbone.output_shape[1:], seed=1)
    half, single = (
        predict_pneumonia(head, ActivationStore(tmp_path, backbone, dtype).load(root, index))
        for dtype in ("float16", "float32")
    )
    assert 0 < np.abs(half - single).max() < 1e-3


def test_activations_too_large_for_half_precision_are_refused(data, tmp_path):
    root, index = data
    backbone = build_small_backbone()
    backbone.get_layer("conv").bias.assign([1e6] * 4)
    with pytest.raises(ValueError, match="do not fit float16; use dtype='float32'"):
        ActivationStore(tmp_path, backbone).load(root, index.iloc[:4])


def test_unknown_number_formats_are_refused(backbone, tmp_path):
    with pytest.raises(ValueError, match="float16 or float32, not 'int8'"):
        ActivationStore(tmp_path, backbone, "int8")


def test_a_damaged_record_is_reported_and_computed_again(data, backbone, tmp_path, computed):
    root, index = data
    store = ActivationStore(tmp_path, backbone)
    store.load(root, index)
    (record,) = store.folder.glob("block-*.json")
    record.write_text(record.read_text()[:-20])
    with pytest.warns(UserWarning, match="is damaged"):
        store.load(root, index)
    assert computed == [40, 40]


def test_a_block_is_hashed_once_until_it_is_touched(data, backbone, tmp_path, monkeypatch):
    root, index = data
    hashed = []
    monkeypatch.setattr(
        activations, "file_sha256", lambda file: hashed.append(file) or file_sha256(file)
    )
    store = ActivationStore(tmp_path, backbone)
    store.load(root, index)
    written = len(hashed)
    store.load(root, index)
    assert len(hashed) == written
    ActivationStore(tmp_path, backbone).load(root, index)
    assert len(hashed) == written + 1


def test_an_image_is_decoded_once_for_all_its_views(data, backbone, tmp_path, monkeypatch):
    root, index = data
    decoded = []
    monkeypatch.setattr(
        activations, "load_image", lambda path: decoded.append(path) or load_image(path)
    )
    views = [AugmentedCopy(number, seed=1) for number in range(3)]
    tables = ActivationStore(tmp_path, backbone, "float32").load_copies(root, index, views)
    assert len(decoded) == len(set(decoded)) == len(index)
    for view, table in zip(views, tables, strict=True):
        alone = ActivationStore(tmp_path / "alone", backbone, "float32").load(root, index, view)
        np.testing.assert_array_equal(table[:], alone[:])
    assert len({table.fingerprint for table in tables}) == 3


def test_changing_the_head_computes_nothing(data, tmp_path, computed):
    root, index = data
    backbone = build_small_backbone()
    store = ActivationStore(tmp_path, backbone)
    store.load(root, index)
    for seed in (1, 2):
        model = join(backbone, build_head(backbone.output_shape[1:], seed))
        ActivationStore(tmp_path, split_model(model, "conv")[0]).load(root, index)
    assert computed == [40]


def test_other_preprocessing_is_another_store(tmp_path):
    def build(scale):
        image = keras.Input((224, 224, 3))
        x = keras.layers.Rescaling(scale)(image)
        return keras.Model(image, keras.layers.AveragePooling2D(32)(x), name="small")

    same, again, other = (ActivationStore(tmp_path, build(s)) for s in (1.0, 1.0, 0.5))
    assert same.folder == again.folder != other.folder


def test_another_precision_is_another_store(tmp_path):
    policies = ("float32", "mixed_bfloat16")
    folders = set()
    for policy in policies:
        keras.config.set_dtype_policy(policy)
        try:
            folders.add(ActivationStore(tmp_path, build_small_backbone()).folder)
        finally:
            keras.config.set_dtype_policy("float32")
    assert len(folders) == 2


def test_what_the_disk_cannot_hold_is_refused_before_it_starts(
    data, backbone, tmp_path, monkeypatch, computed
):
    root, index = data
    row = 7 * 7 * 4 * 2
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=40 * row - 1))
    with pytest.raises(
        CacheSpaceError, match="40 images and augmented copies need .* ACTIVATION_CACHE_DIR"
    ):
        ActivationStore(tmp_path, backbone).load(root, index)
    assert computed == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=40 * row))
    ActivationStore(tmp_path, backbone).load(root, index)
    assert computed == [40]


FILL = """
import sys
from pathlib import Path
from tests.builders import build_small_backbone
from utils.data.index import build_index
from utils.training import activations
activations.BLOCK_SIZE = activations.BATCH_SIZE = 2
root, cache = map(Path, sys.argv[1:])
activations.ActivationStore(cache, build_small_backbone()).load(root, build_index(root, 1, 0.3))
"""


def _start_filling(root: Path, cache: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", FILL, str(root), str(cache)])


def _count_blocks(cache: Path) -> int:
    return len(list(cache.glob("*/block-*.json")))


@pytest.mark.slow
def test_a_killed_run_is_resumed(backbone, tmp_path, computed):
    root = write_dataset(tmp_path / "data", range(1, 101))
    index = build_index(root, 1, 0.3)
    cache = tmp_path / "cache"
    process = _start_filling(root, cache)
    deadline = time.monotonic() + 120
    while _count_blocks(cache) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = 2 * _count_blocks(cache)
    assert 10 <= kept < len(index), "the process was not killed half-way"
    table = ActivationStore(cache, backbone).load(root, index)
    assert sum(computed) == len(index) - kept
    fresh = ActivationStore(tmp_path / "fresh", backbone).load(root, index)
    np.testing.assert_array_equal(table[:], fresh[:])


@pytest.mark.slow
def test_two_processes_may_fill_one_cache(backbone, tmp_path, computed):
    root = write_dataset(tmp_path / "data", range(1, 41))
    index = build_index(root, 1, 0.3)
    processes = [_start_filling(root, tmp_path / "cache") for _ in range(2)]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    shared = ActivationStore(tmp_path / "cache", backbone).load(root, index)
    assert computed == []
    alone = ActivationStore(tmp_path / "alone", backbone).load(root, index)
    np.testing.assert_array_equal(shared[:], alone[:])


@pytest.mark.slow
def test_the_cache_is_the_same_for_any_number_of_workers(data, backbone, tmp_path, monkeypatch):
    root, index = data
    views = [AugmentedCopy(number, seed=1) for number in range(3)]
    caches = []
    for workers in ("0", "1", "2"):
        monkeypatch.setenv("WORKERS", workers)
        store = ActivationStore(tmp_path / workers, backbone)
        assert store.fill(root, index, views) == 3 * len(index)
        disconnect()
        assert store.fill(root, index, views) == 0
        caches.append({file.name: file.read_bytes() for file in store.folder.glob("block-*")})
        assert (store.folder / activations.NETWORK_FILE).is_file() == (workers != "0")
        assert [file.name for file in store.folder.glob(".*")] == []
    assert len(caches[0]) == 4 and caches[0] == caches[1] == caches[2]
    (record, _) = sorted(store.folder.glob("block-*.json"))
    assert read_json(record)["threads"] == count_threads()
