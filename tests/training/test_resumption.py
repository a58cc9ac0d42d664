"""An interrupted training goes on from its last epoch, and ends with the same bits."""

import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from tests.builders import build_small_backbone, write_dataset
from utils.data.index import build_index
from utils.models.backbones import build_head
from utils.training.activations import ActivationStore, AugmentedCopy
from utils.training.head import CopyBatches, Recipe, train_head
from utils.training.resumption import TrainingState


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"), range(1, 11))


INTERRUPTED = """
import sys
from pathlib import Path
from tests.training.test_resumption import train_small
train_small(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), epochs=60)
"""


def train_small(root, cache, folder, epochs, **options):
    """Train a small head with dropout, early stopping far away."""
    index = build_index(root, 1, 0.3)
    backbone = build_small_backbone()
    store = ActivationStore(cache, backbone, "float32")
    train, held_out = (index[index.split == split] for split in ("train", "validation"))
    head = build_head(backbone.output_shape[1:], seed=5)
    recipe = Recipe(epochs=epochs, batch_size=8, learning_rate=1e-3, stopping_patience=9, seed=3)
    views = store.load_copies(root, train, [AugmentedCopy(0), AugmentedCopy(1)])
    history = train_head(
        head, views, train.label.to_numpy(), store.load(root, held_out),
        held_out.label.to_numpy(), recipe, folder / "best.weights.h5", state_share=1.0, **options,
    )  # fmt: skip
    return head, history


class _Stop(Exception):
    pass


@pytest.mark.slow
def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(root, tmp_path, monkeypatch):
    whole, history = train_small(root, tmp_path, tmp_path / "whole", 7)
    original = TrainingState.on_epoch_end

    def interrupt(self, epoch, logs=None):
        original(self, epoch, logs)
        if epoch + 1 == 4:
            raise _Stop

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "on_epoch_end", interrupt)
        with pytest.raises(_Stop):
            train_small(root, tmp_path, tmp_path / "parts", 7)
    started = []
    monkeypatch.setattr(
        CopyBatches, "_start_epoch",
        lambda self, epoch, start=CopyBatches._start_epoch: started.append(epoch)
        or start(self, epoch),
    )  # fmt: skip
    resumed, second = train_small(root, tmp_path, tmp_path / "parts", 7)
    assert started[0] == 4, "the first epochs were run again"
    pd.testing.assert_frame_equal(history, second)
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not list((tmp_path / "parts").glob("*.state")), "a finished training leaves no state"


@pytest.mark.slow
def test_the_state_of_another_training_is_left_alone(root, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "forget", lambda self: None)
        train_small(root, tmp_path, tmp_path / "one", 2)
    _, history = train_small(root, tmp_path, tmp_path / "one", 3)
    assert len(history) == 3
    _, fresh = train_small(root, tmp_path, tmp_path / "fresh", 3)
    pd.testing.assert_frame_equal(history, fresh)


@pytest.mark.slow
def test_a_damaged_state_is_reported_and_left(root, tmp_path):
    (tmp_path / "best.state").write_bytes(b"half a file")
    with pytest.warns(UserWarning, match="best.state is damaged .* starts again"):
        _, history = train_small(root, tmp_path, tmp_path, 2)
    assert len(history) == 2


@pytest.mark.slow
def test_a_killed_training_is_picked_up(root, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(root), str(tmp_path), str(tmp_path / "killed")]
    )
    state = tmp_path / "killed" / "best.state"
    deadline = time.monotonic() + 120
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    process.kill()
    process.wait()
    assert state.exists(), "the training was not killed half-way"
    resumed, history = train_small(root, tmp_path, tmp_path / "killed", 60)
    whole, expected = train_small(root, tmp_path, tmp_path / "whole", 60)
    pd.testing.assert_frame_equal(history, expected)
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
