import pandas as pd
import pytest

from utils.common.files import cached_table


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
