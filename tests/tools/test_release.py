import json
import shutil

import numpy as np
import pandas as pd
import pytest

from tests import hard_inputs
from tests.builders import open_small_study
from utils.common.files import file_sha256, read_json, write_json
from utils.common.paths import predictions_dir, table_file
from utils.data.images import read_image
from utils.evaluation.predictions import load_predictions
from utils.models import registry
from utils.models.recipe import Candidate
from utils.models.registry import SHIPPED, choose_model
from utils.selection.cross_validation import cross_validate
from utils.selection.final_models import train_final
from utils.tools import release
from utils.tools.predict import main as predict

SMALL = Candidate("tiny", "small_cnn", 32, epochs=1, batch_size=8)


@pytest.mark.slow
def test_a_shipped_model_scores_without_any_training(tmp_path, monkeypatch):
    study = open_small_study(tmp_path, monkeypatch)
    folder = tmp_path / "models"
    monkeypatch.setattr(registry, "SHIPPED", folder)
    for name in ("SHIPPED", "PHANTOMS", "REFERENCE_PREDICTIONS"):
        below = getattr(release, name).relative_to(SHIPPED)
        monkeypatch.setattr(release, name, folder / below)
    train_final(study, SMALL, 42)
    cross_validate(study, [SMALL], ["block1", "block2"], [42])
    file = release.release_model("full", "tiny", 42, ["block1", "block2"])
    assert file.stat().st_size < 10_000_000
    record = json.loads((folder / "models.json").read_text())["small"]
    assert record["candidate"]["name"] == "tiny" and record["dataset"]["images"]["test"]
    whole = load_predictions(predictions_dir("full") / "final/tiny_seed42.csv")
    small = load_predictions(predictions_dir("full") / "final/small.csv")
    assert small.image_id.tolist() == whole.image_id.tolist()
    assert (small.probability - whole.probability).abs().max() < 0.01
    measured = pd.read_csv(table_file("full", "guard"))
    assert set(measured.images) == {"validation", "test", "foreign"}, "there are no adults"

    monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "a fresh clone"))
    scorer = choose_model("full")
    assert scorer.file == file and scorer.onnx == folder / "shipped.onnx"
    assert scorer.guard == folder / "shipped_guard.npz"
    out = tmp_path / "scores.csv"
    assert predict(["--images", str(folder / "phantoms"), "--out", str(out)]) == 0
    reference = pd.read_csv(folder / "reference_predictions.csv")
    assert len(reference) == 6
    scored = list(reference.columns[:-1])  # remarks of a guard of a few images are of no use
    pd.testing.assert_frame_equal(pd.read_csv(out)[scored], reference[scored], atol=1e-4)


@pytest.mark.slow
def test_the_onnx_file_alone_is_written_again_and_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(release, "SHIPPED", tmp_path)
    shutil.copy(SHIPPED / "small.keras", tmp_path)
    before = read_json(SHIPPED / "models.json")
    del before["small"]["onnx"]
    write_json(tmp_path / "models.json", before)
    monkeypatch.setattr("sys.argv", ["release", "--onnx"])
    release.main()
    after = read_json(tmp_path / "models.json")
    record = after["small"].pop("onnx")
    assert after == before, "what was measured stays"
    assert record["sha256"] == file_sha256(tmp_path / "shipped.onnx")
    assert {file.name for file in tmp_path.iterdir()} == {
        "small.keras", "models.json", "shipped.onnx",
    }  # fmt: skip


def test_the_guard_alone_is_fitted_on_the_full_study(monkeypatch, tmp_path):
    fitted = []

    def fit(study):
        fitted.append(study.study)
        return shutil.copy(SHIPPED / "shipped_guard.npz", tmp_path / "shipped_guard.npz")

    monkeypatch.setattr(release, "release_guard", fit)
    monkeypatch.setattr("sys.argv", ["release", "--guard"])
    release.main()
    assert fitted == ["full"]


@pytest.mark.slow
def test_the_committed_phantoms_are_rendered_and_nothing_else(tmp_path):
    release.copy_phantoms(tmp_path)
    rendered = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.jpeg"))
    committed = sorted(path.relative_to(release.PHANTOMS)
                       for path in release.PHANTOMS.rglob("*") if path.is_file())  # fmt: skip
    assert committed == rendered and len(committed) == 6
    for name in committed:
        here, there = (read_image(folder / name).astype(float)
                       for folder in (tmp_path, release.PHANTOMS))  # fmt: skip
        assert np.abs(here - there).mean() < 2, f"{name} is not the phantom of that name"


def test_the_shipped_model_says_here_what_it_said_there(tmp_path, monkeypatch):
    """The check that `models/README.md` offers to everybody."""
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    out = tmp_path / "scores.csv"
    assert predict(["--images", str(release.PHANTOMS), "--out", str(out), "--model", "small"]) == 0
    reference = pd.read_csv(release.REFERENCE_PREDICTIONS)
    scores = pd.read_csv(out)
    assert scores.remark.isna().all()
    # The committed file was written before there was a column of remarks.
    pd.testing.assert_frame_equal(scores[reference.columns], reference, atol=2e-3)


def test_the_shipped_model_is_guarded(tmp_path, monkeypatch, capsys):
    """What is no radiograph, or one the wrong way, has a probability and a remark."""
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "results"))
    folder, out = tmp_path / "images", tmp_path / "scores.csv"
    expected = {}
    for name, (draw, words) in hard_inputs.NO_RADIOGRAPHS.items():
        hard_inputs.save(folder / name, draw())
        expected[name] = words
    phantoms = sorted(release.PHANTOMS.rglob("*.jpeg"))
    for phantom in phantoms:
        pixels = read_image(phantom)
        for name, (change, words) in hard_inputs.WRONG_WAY.items():
            changed = np.ascontiguousarray(change(pixels))
            hard_inputs.save(folder / phantom.stem / name, hard_inputs.encode(changed))
            expected[f"{phantom.stem}/{name}"] = words
    assert predict(["--images", str(folder), "--out", str(out)]) == 0
    scores = pd.read_csv(out, keep_default_na=False)
    assert len(scores) == len(expected) == 7 + 6 * 4
    for row in scores.itertuples():
        assert expected[row.image] in row.remark, row.image
        assert 0 <= float(row.probability) <= 1 and row.prediction
    said = capsys.readouterr().out
    assert f"images with a remark, in the column of that name: {len(expected)}" in said
    assert "probably a negative: invert it" in said and "docs/using.md" in said


ENCODINGS = ("12_in_16.png", "10_in_16.png", "lying_6.JPEG", "lying_3.TIFF", "alpha_alone.png",
             "negative_16.tif", "rgb.jpg", "scan.webp")  # fmt: skip


@pytest.mark.slow
def test_the_shipped_model_says_the_same_of_a_picture_however_it_is_encoded(tmp_path, monkeypatch):
    """The labels of NORMAL phantoms flipped when they lay on their side or had 12 bits."""
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "results"))
    folder, out = tmp_path / "images", tmp_path / "scores.csv"
    for phantom in sorted(release.PHANTOMS.rglob("*.jpeg")):
        chest = read_image(phantom) / 255
        for name in ("gray.png", *ENCODINGS):
            hard_inputs.save(folder / phantom.stem / name, hard_inputs.ENCODINGS[name][0](chest))
        stored = np.round(4095 * (1 - chest))
        hard_inputs.save(
            folder / phantom.stem / "IM000001", hard_inputs.dicom(stored, "MONOCHROME1")
        )
    assert predict(["--images", str(folder), "--out", str(out)]) == 0
    scores = pd.read_csv(out)
    scores[["phantom", "encoding"]] = scores.image.str.split("/", n=1, expand=True).to_numpy()
    table = scores.pivot(index="phantom", columns="encoding", values="probability")
    assert table.shape == (6, len(ENCODINGS) + 2)
    difference = table.sub(table["gray.png"], axis=0).abs()
    assert difference.to_numpy().max() < 0.02
    labels = scores.pivot(index="phantom", columns="encoding", values="prediction")
    assert (labels.nunique(axis=1) == 1).all()
