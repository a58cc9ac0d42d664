import csv
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from utils.common.paths import models_dir, results_dir
from utils.models import prediction, registry
from utils.models.registry import ModelError, choose_model, register_model
from utils.tools.predict import find_images, main, score_folder


@pytest.fixture(scope="module")
def brightness(tmp_path_factory):
    """Return the file of a network whose probability of PNEUMONIA is the mean pixel over 255."""
    image = keras.Input((224, 224, 3))
    mean = layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 255)(image))
    outputs = layers.Dense(2, use_bias=False)(mean)
    model = keras.Model(image, outputs)
    model.layers[-1].set_weights([np.array([[-1 / 3, 1 / 3]] * 3, "float32")])
    file = tmp_path_factory.mktemp("model") / "brightness.keras"
    model.save(file)
    return file


@pytest.fixture
def shipped(brightness, tmp_path, monkeypatch):
    """Ship that network as `small`, and keep a study's results in an empty folder."""
    folder = tmp_path / "models"
    monkeypatch.setattr(registry, "SHIPPED", folder)
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "results"))
    record(folder, "small", brightness, 0.5)
    return folder


def record(folder, name, source, threshold):
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.keras"
    file.write_bytes(source.read_bytes())
    register_model(folder, name, file, threshold, 1.0, f"{name} of a test")


def save(path, value, mode="L", size=(50, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "I;16":
        Image.fromarray(np.full(size[::-1], value * 257, np.uint16)).save(path)
    else:
        Image.new(mode, size, value if mode == "L" else (value,) * len(mode)).save(path)


def read(file):
    with open(file, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    save(images / "b" / "gray.png", 204)
    save(images / "b" / "RGBA.PNG", 51, "RGBA")
    save(images / "a.JPEG", 204, "RGB", (300, 400))
    save(images / "deep" / "er" / "sixteen.png", 51, "I;16")
    (images / "notes.txt").write_text("no image")
    (images / "b" / ".hidden.png").write_text("no image")
    return images


def test_every_kind_of_image_is_scored(shipped, folder, tmp_path, capsys):
    out = tmp_path / "new" / "scores.csv"
    assert run("--images", folder, "--out", out) == 0
    rows = read(out)
    assert [row["image"] for row in rows] == [
        "a.JPEG", "b/RGBA.PNG", "b/gray.png", "deep/er/sixteen.png",
    ]  # fmt: skip
    probability = [float(row["probability"]) for row in rows]
    np.testing.assert_allclose(probability, [0.8, 0.2, 0.8, 0.2], atol=0.005)
    assert [row["prediction"] for row in rows] == ["PNEUMONIA", "NORMAL"] * 2
    assert {row["threshold"] for row in rows} == {"0.500000"}
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "Model small: small of a test (threshold 0.500)"
    assert "not a medical device" in printed[1]
    assert "4 images scored, 2 other files ignored" in printed[-1]


def test_an_unreadable_image_keeps_its_row(shipped, folder, tmp_path, capsys):
    (folder / "b" / "broken.png").write_bytes((folder / "b" / "gray.png").read_bytes()[:40])
    out = tmp_path / "scores.csv"
    assert run("--images", folder, "--out", out) == 1
    rows = {row["image"]: row for row in read(out)}
    assert len(rows) == 5
    assert set(rows["b/broken.png"].values()) == {"b/broken.png", ""}
    assert rows["deep/er/sixteen.png"]["prediction"] == "NORMAL", "everything else is written"
    assert "broken.png cannot be read" in capsys.readouterr().err


def test_batches_do_not_change_the_scores(shipped, folder, monkeypatch):
    network = choose_model("full").load()
    whole = score_folder(network, folder)
    monkeypatch.setattr(prediction, "BATCH_SIZE", 3)
    np.testing.assert_allclose(score_folder(network, folder).probabilities, whole.probabilities)


def test_the_chosen_model_comes_first_where_it_is_whole(shipped, brightness):
    assert choose_model("full").name == "small"
    record(models_dir("full"), "ensemble", brightness, 0.3)
    metrics = results_dir("full") / "metrics.json"
    metrics.write_text(json.dumps({"chosen_model": "ensemble"}))
    chosen = choose_model("full")
    assert (chosen.name, chosen.threshold) == ("ensemble", 0.3)
    assert choose_model("full", "small").name == "small"
    chosen.file.write_bytes(b"something else")
    fallback = choose_model("full")
    assert fallback.name == "small"
    assert "chosen model ensemble is not used" in fallback.description
    assert "not the file that was recorded" in fallback.description
    with pytest.raises(ModelError, match="not the file that was recorded"):
        choose_model("full", "ensemble")
    chosen.file.unlink()
    assert "is missing" in choose_model("full").description
    with pytest.raises(ModelError, match="ensemble.keras is missing; rebuild it with `make all`"):
        choose_model("full", "ensemble")
    (shipped / "small.keras").write_bytes(b"something else")
    with pytest.raises(ModelError, match="not the file that was recorded; restore it with git"):
        choose_model("full")


def test_bad_requests_name_the_remedy(shipped, folder, tmp_path, capsys):
    out = tmp_path / "scores.csv"

    def refused(*arguments):
        assert run(*arguments) == 2
        return capsys.readouterr().err

    assert "known are small" in refused("--images", folder, "--out", out, "--model", "vgg")
    assert "is no folder" in refused("--images", tmp_path / "none", "--out", out)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "text.txt").touch()
    assert "holds no image (1 other files)" in refused("--images", empty, "--out", out)
    assert "cannot be written" in refused("--images", folder, "--out", tmp_path)
    assert "cannot be written" in refused("--images", folder, "--out", folder / "a.JPEG" / "x.csv")
    assert not out.exists()
    assert "has no model yet" in refused("--images", folder, "--out", out, "--study", "sample")
    (shipped / "models.json").unlink()
    assert "no model is shipped" in refused("--images", folder, "--out", out)


def test_labels_of_folders_are_evaluated(shipped, tmp_path, capsys):
    images = tmp_path / "images"
    for number in range(6):
        save(images / "NORMAL" / f"{number}.png", 40 + number)
        save(images / "pneumonia" / f"{number}.png", 200 + number)
    out = tmp_path / "scores.csv"
    assert run("--images", images, "--out", out, "--evaluate") == 0
    printed = capsys.readouterr().out
    assert "12 images, 95% intervals by image:" in printed
    assert "ROC-AUC: 1.000 [1.000, 1.000]" in printed
    save(images / "other" / "x.png", 1)
    assert run("--images", images, "--out", out, "--evaluate") == 2
    assert "other/x.png lies in OTHER" in capsys.readouterr().err
    assert len(read(out)) == 13, "the scores are written before labels are read"


def test_a_model_of_phantoms_is_announced(shipped, brightness, folder, tmp_path, capsys):
    record(models_dir("sample"), "resnet50", brightness, 0.4)
    metrics = results_dir("sample") / "metrics.json"
    metrics.write_text(json.dumps({"chosen_model": "resnet50"}))
    assert run("--images", folder, "--out", tmp_path / "a.csv", "--study", "sample") == 0
    assert "seen phantoms only" in capsys.readouterr().out


def test_files_are_listed_in_one_order(tmp_path):
    for name in ("b.png", "a/c.png", "B.png", "a.png"):
        save(tmp_path / name, 1)
    assert find_images(tmp_path) == (["B.png", "a.png", "a/c.png", "b.png"], 0)


@pytest.mark.slow
def test_the_model_is_named_before_anything_else(shipped, folder, tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from utils.models import registry; from utils.tools import predict\n"
        f"registry.SHIPPED = Path({str(shipped)!r})\n"
        f"arguments = ['--images', {str(folder)!r}, '--out', {str(tmp_path / 'o.csv')!r}]\n"
        "sys.exit(predict.main(arguments))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[0].startswith("Model small: ")
