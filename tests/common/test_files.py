"""Files are written whole or not at all."""

import hashlib

import pandas as pd
import pytest

from utils.common.files import file_sha256, read_json, write_atomically, write_csv, write_json


def test_a_failed_write_leaves_the_old_file_and_no_debris(tmp_path):
    target = tmp_path / "numbers.json"
    write_json(target, {"auc": 0.5})
    with pytest.raises(RuntimeError, match="half-way"), write_atomically(target) as temporary:
        temporary.write_text("{")
        raise RuntimeError("half-way")
    assert read_json(target) == {"auc": 0.5}
    assert [path.name for path in tmp_path.iterdir()] == ["numbers.json"]


@pytest.mark.parametrize("name", ["model.keras", "resnet50_notop.weights.h5"])
def test_the_temporary_file_keeps_every_suffix(tmp_path, name):
    with write_atomically(tmp_path / "folder" / name) as temporary:
        assert temporary.name.startswith(".") and temporary.name.endswith(f".{name}")
        temporary.write_bytes(b"model")
    assert (tmp_path / "folder" / name).read_bytes() == b"model"


def test_json_refuses_what_is_not_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "nan.json", {"auc": float("nan")})
    assert not list(tmp_path.iterdir())


def test_csv_round_trip(tmp_path):
    table = pd.DataFrame({"image_id": ["a", "b"], "probability": [0.1, 1 / 3]})
    write_csv(tmp_path / "table.csv", table)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "table.csv"), table, check_exact=True)


def test_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"chest")
    assert file_sha256(tmp_path / "file") == hashlib.sha256(b"chest").hexdigest()
