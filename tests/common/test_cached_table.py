"""A kept table is made again when what it was made from has changed, and not otherwise."""

from dataclasses import asdict, dataclass

import pandas as pd
import pytest

from utils.common.files import (
    StaleResultError,
    cached_table,
    find_changed_inputs,
    is_made_from,
    read_json,
    write_json,
)


@pytest.fixture(autouse=True)
def remaking(monkeypatch):
    monkeypatch.delenv("REMAKE_TABLES")


@dataclass(frozen=True)
class Recipe:
    """Stands for a recipe that has gained a field since results were recorded."""

    epochs: int
    gained: float = 0.5

    @classmethod
    def from_record(cls, record):
        return cls(**record)

    def describe(self):
        return asdict(self)


def test_a_table_is_made_once_for_the_same_inputs(tmp_path):
    file, made = tmp_path / "a" / "table.csv", []

    def make():
        made.append(len(made))
        return pd.DataFrame({"value": [0.1 + len(made)]})

    first = cached_table(file, {"model": "a"}, make)
    assert first.value.tolist() == [1.1]
    pd.testing.assert_frame_equal(cached_table(file, {"model": "a"}, make), first)
    assert len(made) == 1
    assert cached_table(file, {"model": "b"}, make).value.tolist() == [2.1]


def test_a_table_whose_making_failed_is_not_trusted(tmp_path):
    file = tmp_path / "table.csv"
    cached_table(file, {"model": "a"}, lambda: pd.DataFrame({"value": [1]}))

    def fail():
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        cached_table(file, {"model": "b"}, fail)
    made = cached_table(file, {"model": "a"}, lambda: pd.DataFrame({"value": [3]}))
    assert made.value.tolist() == [3]


@pytest.mark.parametrize(
    ("record", "inputs", "changed"),
    [
        ({"a": 1, "minutes": 3.2, "old_key": "x"}, {"a": 1}, []),
        ({"a": {"b": 1, "note": "x"}}, {"a": {"b": 1}}, []),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, ["a"]),
        ({"a": 1}, {"a": 1, "c": 2}, ["c"]),
        ({"names": {"x": "title", "y": "another"}}, {"names": ["x", "y"]}, []),
        ({"names": {"x": "title"}}, {"names": ["x", "y"]}, ["names"]),
        ({"names": ["x", "y"]}, {"names": ("x", "y")}, []),
        ({"names": ["y", "x"]}, {"names": ["x", "y"]}, ["names"]),
        ({"recipe": {"epochs": 6}}, {"recipe": Recipe(6)}, []),
        ({"recipe": {"epochs": 6}}, {"recipe": Recipe(7)}, ["recipe"]),
        ({"recipe": {"epochs": 6}}, {"recipe": Recipe(6, gained=0.4)}, ["recipe"]),
        ({}, {"b": 1, "a": 2}, ["a", "b"]),
    ],
)
def test_the_inputs_that_are_named_are_compared_and_no_others(record, inputs, changed):
    assert find_changed_inputs(record, inputs) == changed


def test_a_result_needs_its_record_and_all_its_files(tmp_path):
    record, first, second = tmp_path / "a.json", tmp_path / "a.csv", tmp_path / "b.csv"
    write_json(record, {"a": 1})
    first.touch()
    assert is_made_from(record, {"a": 1}, first)
    assert not is_made_from(record, {"a": 1}, first, second)
    assert not is_made_from(tmp_path / "none.json", {"a": 1}, first)


def test_what_a_table_was_made_from_is_described_in_its_record(tmp_path):
    file = tmp_path / "table.csv"
    cached_table(file, {"recipe": Recipe(6), "seed": 1}, lambda: pd.DataFrame({"value": [1]}))
    assert read_json(tmp_path / "table.json") == {
        "recipe": {"epochs": 6, "gained": 0.5}, "seed": 1
    }  # fmt: skip


def test_making_a_table_again_can_be_forbidden(tmp_path, monkeypatch):
    file = tmp_path / "table.csv"
    monkeypatch.setenv("REMAKE_TABLES", "0")
    cached_table(file, {"model": "a"}, lambda: pd.DataFrame({"value": [1]}))
    before = file.read_bytes(), (tmp_path / "table.json").read_bytes()
    with pytest.raises(StaleResultError, match=r"table\.csv would be made again: .* other model"):
        cached_table(file, {"model": "b"}, lambda: pd.DataFrame({"value": [2]}))
    assert (file.read_bytes(), (tmp_path / "table.json").read_bytes()) == before
    (tmp_path / "table.json").unlink()
    with pytest.raises(StaleResultError, match="it has no record"):
        cached_table(file, {"model": "a"}, lambda: pd.DataFrame({"value": [2]}))


def test_making_a_table_again_is_announced(tmp_path, caplog):
    file = tmp_path / "table.csv"
    for model in ("a", "b"):
        cached_table(file, {"model": model}, lambda: pd.DataFrame({"value": [1]}))
    assert [record.message for record in caplog.records] == [
        f"{file} is made again: its record names other model"
    ]
