"""The bench runs `make predict` itself, once on ONNX Runtime and once in Keras."""

import numpy as np
import pandas as pd
import pytest

from utils.benchmark import scoring
from utils.benchmark.preparation import Bench, BenchError, BenchSettings
from utils.benchmark.scoring import measure_scoring, register_in_keras, run_predict
from utils.models.registry import PHANTOMS

NAMES = sorted(file.relative_to(PHANTOMS).as_posix() for file in PHANTOMS.rglob("*.jpeg"))


def make_bench(folder) -> Bench:
    index = pd.DataFrame(
        {
            "image_id": NAMES,
            "split": ["train", "train", "validation"] * 2,
            "label": [0, 0, 0, 1, 1, 1],
            "pixel_sha256": NAMES,
        }
    )
    settings = BenchSettings("sample", 6, repetitions=2, scored_images=5)
    return Bench(settings, folder / "scratch", PHANTOMS, index, None)


def test_both_ways_score_one_image_and_all_in_turn(tmp_path, monkeypatch):
    ran = []

    def run(folder, model, images):
        ran.append((model, images, len(list((folder / images).iterdir()))))
        return float(len(ran)), 100.0 * len(ran)

    monkeypatch.setattr(scoring, "run_predict", run)
    record = measure_scoring(make_bench(tmp_path))
    assert record["images"] == 5
    first, second = ("released", "released_in_keras")
    assert ran[:2] == [(first, "one", 1), (second, "one", 1)], "packages are read from the disk"
    once = [(name, *of) for name in (first, second) for of in (("one", 1), ("many", 5))]
    assert ran[2:] == 2 * once
    assert record["onnx"]["first_seconds"] == np.mean([3, 7])
    assert record["keras"]["seconds"] == np.mean([6, 10])
    assert record["keras"]["peak_mb"] == np.mean([600, 1000])
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.slow
def test_the_command_answers_the_same_both_ways(tmp_path):
    scores = {}
    for model in ("released", register_in_keras(tmp_path / "results" / "full" / "models")):
        (tmp_path / "many").mkdir(exist_ok=True)
        (tmp_path / "many" / "a.jpeg").write_bytes((PHANTOMS / NAMES[-1]).read_bytes())
        seconds, peak = run_predict(tmp_path, model, "many")
        scores[model] = pd.read_csv(tmp_path / "scores.csv").probability[0], peak
        assert seconds > 0
    (onnx, onnx_peak), (keras, keras_peak) = scores.values()
    assert onnx == pytest.approx(keras, abs=1e-4)
    assert onnx_peak is None or onnx_peak < keras_peak / 2, "TensorFlow was loaded for it"


@pytest.mark.slow
def test_a_command_that_fails_says_why(tmp_path):
    with pytest.raises(BenchError, match="there is no model 'nobody'"):
        run_predict(tmp_path, "nobody", "many")
