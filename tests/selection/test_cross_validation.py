import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.builders import open_small_study
from utils.common import jobs
from utils.common.files import read_json, write_json
from utils.common.paths import dataset_dir, held_out_dir, held_out_file, results_dir
from utils.common.provenance import count_threads
from utils.data.index import build_index
from utils.data.perturbations import PERTURBATIONS
from utils.evaluation.predictions import write_predictions
from utils.models.recipe import Candidate
from utils.selection import cross_validation
from utils.selection.rule import make_choices

TWO = [
    Candidate("few", "small_cnn", 32, epochs=1, batch_size=8),
    Candidate("many", "small_cnn", 32, ("exposure", "frame"), epochs=1, batch_size=8),
]


@pytest.fixture
def study(tmp_path, monkeypatch):
    return open_small_study(tmp_path, monkeypatch)


def choices(study):
    folder = held_out_dir(study.study)
    return json.dumps(make_choices(folder, TWO, ["block1"], [42]))


@pytest.mark.slow
def test_choices_do_not_see_the_test_set(study, tmp_path, monkeypatch):
    """Noise for test images and predictions, and the other label for each, change no choice."""
    cross_validation.cross_validate(study, TWO, ["plain", "block1"], [42])
    before = choices(study)
    root = dataset_dir("chest_xray")
    random = np.random.default_rng(9)
    test_files = sorted((root / "test").rglob("*.jpeg"))
    assert test_files
    for number, file in enumerate(test_files, start=9000):
        was_normal = file.parent.name == "NORMAL"
        name = f"person{number}_virus_1.jpeg" if was_normal else f"IM-{number}-0001.jpeg"
        target = root / "test" / ("PNEUMONIA" if was_normal else "NORMAL") / name
        file.unlink()
        pixels = random.integers(0, 256, (16, 16), np.uint8)
        Image.fromarray(pixels).save(target, format="JPEG")
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "again"))
    index = build_index(root, study.seed, study.validation_fraction)
    noise = {"test": random.random((index.split == "test").sum())}
    for name in ("resnet50", "final/few_seed42", "final/many_seed42"):
        write_predictions(study.study, name, index, noise)
    cross_validation.cross_validate(study, TWO, ["plain", "block1"], [42])
    assert choices(study) == before


@pytest.mark.slow
def test_what_is_there_is_not_trained_again(study, monkeypatch):
    cross_validation.cross_validate(study, TWO[:1], ["block1"], [42])
    file = held_out_file(study.study, "few", "block1", 42)
    table = pd.read_csv(file)
    assert {"image_id", "patient_id", "y_true", *PERTURBATIONS} == set(table.columns)
    record = json.loads(file.with_suffix(".json").read_text())
    assert record["held_out_images"] == len(table) and record["seed"] == 42

    def refuse(*arguments, **options):
        raise AssertionError("trained again")

    with monkeypatch.context() as patch:
        patch.setattr(cross_validation, "train_candidate", refuse)
        cross_validation.cross_validate(study, TWO[:1], ["block1"], [42])
        with pytest.raises(AssertionError, match="trained again"):
            cross_validation.cross_validate(study, TWO[1:], ["block1"], [42])
    record["version"] -= 1
    write_json(file.with_suffix(".json"), record)
    assert not cross_validation.is_cross_validated(study, TWO[0], "block1", 42), "older code"
    record["version"] += 1
    write_json(file.with_suffix(".json"), record)
    assert cross_validation.is_cross_validated(study, TWO[0], "block1", 42)
    provenance = results_dir(study.study) / "provenance" / "resnet50.json"
    write_json(provenance, {"dataset": {"fingerprint": "of other radiographs"}})
    assert not cross_validation.is_cross_validated(study, TWO[0], "block1", 42)
    provenance.unlink()
    longer = Candidate("few", "small_cnn", 32, epochs=2, batch_size=8)
    cross_validation.cross_validate(study, [longer], ["block1"], [42])
    record = json.loads(file.with_suffix(".json").read_text())
    assert record["candidate"]["epochs"] == 2, "another recipe of the same name is trained again"


@pytest.mark.slow
def test_workers_train_what_one_process_trains(study, tmp_path, monkeypatch):
    def held_out(workers):
        monkeypatch.setenv("WORKERS", workers)
        monkeypatch.setenv("RESULTS_DIR", str(tmp_path / workers))
        cross_validation.cross_validate(study, TWO, ["block1"], [42])
        jobs.disconnect()
        files = [held_out_file(study.study, each.name, "block1", 42) for each in TWO]
        records = [read_json(file.with_suffix(".json")) | {"minutes": 0} for file in files]
        return [file.read_bytes() for file in files], records

    here = held_out("0")
    assert here == held_out("2")
    assert here[1][0]["threads"] == count_threads()


def test_an_unknown_fold_is_refused(study):
    with pytest.raises(KeyError, match="no fold 'block5'; choose of plain, block1"):
        cross_validation.cross_validate(study, TWO, ["plain", "block5"], [42])
