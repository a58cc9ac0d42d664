"""The steps behind the tables about heat maps; the tables themselves are made by `make explain`."""

import numpy as np
import pandas as pd
import pytest

from utils.common import jobs
from utils.common.files import read_json
from utils.common.provenance import count_threads
from utils.common.study import load_study
from utils.explanation.experiments import baseline_maps, measure_images
from utils.explanation.faithfulness import SHIFT, _overlap_of, small_perturbations
from utils.explanation.localization import regions_of_interest
from utils.explanation.measures import BASELINES
from utils.explanation.run import explain_study


def test_a_shift_is_undone_before_maps_are_compared():
    image = np.random.default_rng(0).uniform(0, 255, (224, 224, 3)).astype(np.float32)
    changes = small_perturbations(image)
    for view, move in changes.values():
        if move == (0, 0):
            continue
        first, second = _overlap_of(image[..., 0], view[..., 0], move)
        assert first.shape == (224 - 2 * SHIFT,) * 2
        np.testing.assert_allclose(first, second, atol=1e-4)
    assert changes["brighter"][0].max() <= 255 and changes["darker"][0].mean() < image.mean()


def test_regions_and_baselines_cover_what_they_say():
    regions = regions_of_interest()
    assert regions["border"].mean() == pytest.approx(1 - 0.75**2)
    assert regions["corners"].mean() == pytest.approx(0.16, abs=0.01)
    assert regions["lungs"][105, 70] and not regions["lungs"][105, 112]
    maps = baseline_maps(np.zeros((224, 224, 3), np.float32), cells=4, seed=0)
    assert tuple(maps) == BASELINES and maps["centre"].argmax() in (
        112 * 224 + 112,
        111 * 224 + 111,
    )


def name_images(count: int) -> pd.DataFrame:
    names = [f"image {number}" for number in range(count)]
    return pd.DataFrame({"image_id": names, "patient_id": "IM-1-normal", "label": 0})


def test_an_interrupted_table_goes_on_with_the_batch_it_was_at(tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    study, images = load_study("sample"), name_images(15)
    made = []

    def make(number):
        if number == 12 and len(made) < 13:
            made.append("interrupted")
            raise KeyboardInterrupt
        made.append(number)
        return [{"number": number}]

    with pytest.raises(KeyboardInterrupt):
        measure_images(study, "truth", {"network": "a"}, lambda study: (images, make))
    table = measure_images(study, "truth", {"network": "a"}, lambda study: (images, make))
    assert table.number.tolist() == list(range(15))
    assert list(table) == ["image_id", "patient_id", "number"]
    assert table.image_id.tolist() == images.image_id.tolist()
    counts = [made.count(number) for number in range(15)]
    assert counts == [1] * 8 + [2] * 4 + [1] * 3, (
        "only the batch that was interrupted is made again"
    )
    assert not list((tmp_path / "sample/explanation").glob(".*"))


def test_rows_of_another_network_are_not_taken_over(tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    study, images = load_study("sample"), name_images(12)

    def stop_at_the_last(number):
        if number == 11:
            raise KeyboardInterrupt
        return [{"made": "a"}]

    with pytest.raises(KeyboardInterrupt):
        measure_images(study, "truth", {"network": "a"}, lambda study: (images, stop_at_the_last))
    finished = images, lambda number: [{"made": "b"}]
    other = measure_images(study, "truth", {"network": "b"}, lambda study: finished)
    assert set(other.made) == {"b"} and len(other) == 12


def prepare_sums(study):
    """Prepare an experiment as workers can: by a function of a module."""
    images = name_images(7).assign(patient_id="")
    random = np.random.default_rng(study.seed).random(7)

    def measure(number):
        rows = [{"sum": random[:number].sum(), "of": number, "undefined": None}]
        return rows * (number % 3)  # some images have no row

    return images, measure


@pytest.mark.slow
def test_workers_make_the_table_that_one_process_makes(tmp_path, monkeypatch):
    study, tables = load_study("sample"), []
    for workers in ("0", "2"):
        monkeypatch.setenv("WORKERS", workers)
        monkeypatch.setenv("RESULTS_DIR", str(tmp_path / workers))
        measure_images(study, "truth", {"network": "a"}, prepare_sums)
        jobs.disconnect()
        folder = tmp_path / workers / "sample" / "explanation"
        tables.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert tables[0] == tables[1] and tables[0].keys() == {"truth.csv", "truth.json"}
    record = read_json(folder / "truth.json")
    assert record == {"network": "a", "threads": count_threads()}


def test_an_unknown_table_is_refused():
    with pytest.raises(ValueError, match="'truths'; choose of truth"):
        explain_study(load_study("sample"), ["truths"])


def test_a_kept_table_needs_no_data():
    """The committed table of attention, read as notebook 12 will."""
    table = explain_study(load_study("full"), ["attention"])["attention"]
    assert isinstance(table, pd.DataFrame) and table.groupby("network").size().eq(624).all()
    shares = table[["border", "corners", "lungs"]].dropna()
    assert ((shares >= 0) & (shares <= 1)).all(axis=None)
