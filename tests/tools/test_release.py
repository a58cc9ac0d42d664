import shutil

import keras
import numpy as np
import pandas as pd
import pytest

from tests import hard_inputs
from tests.builders import open_small_study
from utils.common.files import file_sha256, read_json, write_json
from utils.common.paths import final_name, model_file, table_file
from utils.data.images import read_image
from utils.data.index import open_study_index
from utils.evaluation.predictions import write_predictions
from utils.models import registry
from utils.models.export import with_ten_crops
from utils.models.prediction import predict_files
from utils.models.recipe import Candidate
from utils.models.registry import SHIPPED, choose_model, open_shipped_model
from utils.selection.choices import RELEASED, ROUND_TWO_RECIPES, ROUND_TWO_SEEDS
from utils.selection.round_two import train_network
from utils.tools import release
from utils.tools.predict import main as predict

SMALL = Candidate(ROUND_TWO_RECIPES[0], "small_cnn", 32, epochs=1, batch_size=8, smallest_crop=0.5)


@pytest.mark.slow
def test_a_released_network_scores_without_any_training(tmp_path, monkeypatch):
    study = open_small_study(tmp_path, monkeypatch)
    folder = tmp_path / "models"
    monkeypatch.setattr(registry, "SHIPPED", folder)
    for name in ("SHIPPED", "PHANTOMS", "REFERENCE_PREDICTIONS"):
        below = getattr(release, name).relative_to(SHIPPED)
        monkeypatch.setattr(release, name, folder / below)
    write_json(folder / "models.json", {"small": read_json(SHIPPED / "models.json")["small"]})
    train_network(study, SMALL, ROUND_TWO_SEEDS[0])
    trained = model_file("full", final_name(SMALL.name, ROUND_TWO_SEEDS[0]))
    ten_crops = with_ten_crops(keras.models.load_model(trained, compile=False))
    root, index = open_study_index(study)
    probability = {
        split: predict_files(ten_crops, root, rows.image_id, split)
        for split, rows in index[index.split != "train"].groupby("split")
    }
    write_predictions("full", RELEASED, index, probability)
    file = release.release_model("full")
    assert file.stat().st_size < 10_000_000
    records = read_json(folder / "models.json")
    assert list(records) == ["released", "small"], "the first is taken where none is named"
    assert records["released"]["registered"]["document"] == "docs/round_two.md"
    measured = pd.read_csv(table_file("full", "guard"))
    assert set(measured.images) == {"validation", "test", "foreign"}, "there are no adults"

    monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "a fresh clone"))
    scorer = choose_model("full")
    assert scorer.file == file and scorer.onnx == folder / "released.onnx"
    assert scorer.guard == folder / "released_guard.npz" and scorer.threshold == 0.5
    names = index.image_id[index.split == "validation"]
    rounded = predict_files(scorer.open(), root, names, "validation")
    assert np.abs(rounded - probability["validation"]).max() < 0.01
    out = tmp_path / "scores.csv"
    assert predict(["--images", str(folder / "phantoms"), "--out", str(out)]) == 0
    reference = pd.read_csv(folder / "reference_predictions.csv")
    assert len(reference) == 6
    scored = list(reference.columns[:-1])  # remarks of a guard of a few images are of no use
    pd.testing.assert_frame_equal(pd.read_csv(out)[scored], reference[scored], atol=1e-4)


@pytest.mark.slow
def test_the_onnx_file_alone_is_written_again_and_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(release, "SHIPPED", tmp_path)
    shutil.copy(SHIPPED / "released.keras", tmp_path)
    before = read_json(SHIPPED / "models.json")
    del before["released"]["onnx"]
    write_json(tmp_path / "models.json", before)
    monkeypatch.setattr("sys.argv", ["release", "--onnx"])
    release.main()
    after = read_json(tmp_path / "models.json")
    record = after["released"].pop("onnx")
    assert after == before, "what was measured stays"
    assert record["sha256"] == file_sha256(tmp_path / "released.onnx")
    assert {file.name for file in tmp_path.iterdir()} == {
        "released.keras", "models.json", "released.onnx",
    }  # fmt: skip


def test_the_guard_alone_is_fitted_on_the_full_study(monkeypatch, tmp_path):
    fitted = []

    def fit(study):
        fitted.append(study.study)
        return shutil.copy(SHIPPED / "released_guard.npz", tmp_path / "released_guard.npz")

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


@pytest.mark.slow
def test_the_shipped_model_says_here_what_it_said_there(tmp_path, monkeypatch):
    """The check that `models/README.md` offers to everybody."""
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    out = tmp_path / "scores.csv"
    assert predict(["--images", str(release.PHANTOMS), "--out", str(out)]) == 0
    reference, scores = pd.read_csv(release.REFERENCE_PREDICTIONS), pd.read_csv(out)
    assert scores.remark.notna().sum() == 1, "of one phantom the guard is wrong"
    pd.testing.assert_frame_equal(scores, reference, atol=2e-3)
    plain = tmp_path / "plain.csv"
    assert predict(["--images", str(release.PHANTOMS), "--out", str(plain), "--plain"]) == 0
    whole = open_shipped_model().open(plain=True)
    expected = predict_files(whole, release.PHANTOMS, scores.image, "phantoms")
    probability = pd.read_csv(plain).probability
    np.testing.assert_allclose(probability, expected, atol=1e-6)
    assert (probability - scores.probability).abs().max() > 0.01


def test_a_model_without_ten_crops_has_none_to_leave_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    arguments = ["--images", str(release.PHANTOMS), "--out", str(tmp_path / "scores.csv")]
    assert predict([*arguments, "--model", "small", "--plain"]) == 2
    assert "small always answers by the whole image: leave PLAIN out" in capsys.readouterr().err


@pytest.mark.slow
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
