"""Every result says where it comes from, and the record changes with what it describes."""

import pytest

from tests.builders import write_dataset
from utils.common.provenance import Stopwatch, read_provenance, write_provenance
from utils.data.index import build_index, describe_dataset
from utils.models.weights import resolve_weights


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = write_dataset(tmp_path_factory.mktemp("data"), range(1, 11))
    return root, build_index(root, 1, 0.3)


def test_round_trip(data, tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    root, index = data
    written = write_provenance(
        "sample", "vgg19", dataset=describe_dataset(root, index),
        weights=resolve_weights("vgg19", "random").provenance(),
        recipe={"seed": 1, "views": 3}, minutes=0.5,
    )  # fmt: skip
    assert read_provenance(tmp_path / "sample", "vgg19") == written
    assert written["weights"]["banner"].startswith("!!! vgg19")
    assert written["dataset"]["split"] == "patient-level split"
    assert sum(written["dataset"]["images"].values()) == len(index)
    assert "not a medical device" in written["run"]["disclaimer"]
    assert set(written["run"]["packages"]) >= {"keras", "tensorflow"}


def test_the_fingerprint_follows_pixels_and_split(data):
    root, index = data
    fingerprint = describe_dataset(root, index)["fingerprint"]
    assert (
        fingerprint == describe_dataset(root, index.sample(frac=1, random_state=0))["fingerprint"]
    )
    moved = index.assign(split=index.split.replace("validation", "train"))
    assert fingerprint != describe_dataset(root, moved)["fingerprint"]
    repainted = index.assign(pixel_sha256=["0" * 64, *index.pixel_sha256[1:]])
    assert fingerprint != describe_dataset(root, repainted)["fingerprint"]


def test_the_stopwatch_counts_minutes():
    assert 0 <= Stopwatch().minutes < 1
