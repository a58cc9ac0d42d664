import keras
import pytest

from utils.models.recipe import Candidate
from utils.selection.costs import count_operations, measure_costs


def test_operations_are_those_of_the_definition():
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, use_bias=False, padding="valid")(image)
    x = keras.layers.Flatten()(x)
    network = keras.Model(image, keras.layers.Dense(10, use_bias=False)(x))
    multiplications = 6 * 6 * 4 * 3 * 3 * 3 + 6 * 6 * 4 * 10
    assert count_operations(network) == 2 * multiplications


@pytest.mark.slow
def test_costs_are_kept_until_the_networks_change(tmp_path, monkeypatch):
    monkeypatch.delenv("REMAKE_TABLES")
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    small, large = (Candidate(f"cnn{size}", "small_cnn", size) for size in (32, 64))
    costs = measure_costs("sample", [small, large]).set_index("candidate")
    assert costs.parameters["cnn32"] == costs.parameters["cnn64"] > 1e5
    assert 3.5 < costs.gigaflops["cnn64"] / costs.gigaflops["cnn32"] < 4.5
    assert (costs.milliseconds > 0).all()
    assert costs.megabytes["cnn32"] == pytest.approx(costs.parameters["cnn32"] * 4e-6, abs=0.1)
    monkeypatch.setattr("utils.selection.costs.build_network", None)
    assert measure_costs("sample", [small, large]).gigaflops.tolist() == costs.gigaflops.tolist()
    with pytest.raises(TypeError):
        measure_costs("sample", [small])
