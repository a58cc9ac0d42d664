import csv
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from tests import hard_inputs
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
        color = value if mode == "L" else (value,) * 3 + (255,) * (len(mode) - 3)
        Image.new(mode, size, color).save(path)


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
    assert {row["remark"] for row in rows} == {""}
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "Model small: small of a test (threshold 0.500)"
    assert "not a medical device" in printed[1]
    assert printed[2:] == [
        f"4 images scored: {out}", "other files: 1 (notes.txt)",
        "hidden files and folders: 1 (b/.hidden.png)",
    ]  # fmt: skip


def test_an_unreadable_image_keeps_its_row(shipped, folder, tmp_path, capsys):
    (folder / "b" / "broken.png").write_bytes((folder / "b" / "gray.png").read_bytes()[:40])
    out = tmp_path / "scores.csv"
    assert run("--images", folder, "--out", out) == 1
    rows = {row["image"]: row for row in read(out)}
    assert len(rows) == 5
    broken = rows["b/broken.png"]
    assert [broken[name] for name in ("probability", "prediction", "threshold")] == [""] * 3
    assert "the PNG image is damaged or cut off" in broken["remark"]
    assert rows["deep/er/sixteen.png"]["prediction"] == "NORMAL", "everything else is written"
    assert "unreadable: b/broken.png: the PNG image is damaged" in capsys.readouterr().err


def test_batches_do_not_change_the_scores(shipped, folder, monkeypatch):
    network = choose_model("full").load()
    whole = score_folder(network, folder)
    monkeypatch.setattr(prediction, "BATCH_SIZE", 3)
    np.testing.assert_allclose(score_folder(network, folder).probabilities, whole.probabilities)


def test_without_a_name_the_shipped_model_scores_whatever_else_was_built(shipped, brightness):
    record(models_dir("full"), "ensemble", brightness, 0.3)
    record(models_dir("sample"), "small", brightness, 0.3)
    metrics = results_dir("full") / "metrics.json"
    metrics.write_text(json.dumps({"chosen_model": "ensemble"}))
    for study in ("full", "sample"):
        scorer = choose_model(study)
        assert (scorer.file, scorer.phantoms_only) == (shipped / "small.keras", False)
    (models_dir("full") / "models.json").write_text("{")
    assert choose_model("full").name == "small", "what is not asked for does not disturb"


def test_a_named_model_is_the_recorded_one_or_refused_with_a_remedy(shipped, brightness):
    record(models_dir("full"), "ensemble", brightness, 0.3)
    chosen = choose_model("full", "ensemble")
    assert (chosen.name, chosen.threshold) == ("ensemble", 0.3)
    chosen.file.write_bytes(b"something else")
    with pytest.raises(ModelError, match="not the file that was recorded; rebuild it: make chosen"):
        choose_model("full", "ensemble")
    chosen.file.unlink()
    with pytest.raises(ModelError, match="keras is missing; rebuild it: make chosen ROUND=1"):
        choose_model("full", "ensemble")
    (shipped / "small.keras").write_bytes(b"something else")
    with pytest.raises(ModelError, match="not the file that was recorded; restore it: git checko"):
        choose_model("full")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"small": {}}', '{"small": 1}', '{"small": {"file": 1}}', "\xff"]
)
def test_a_damaged_list_of_models_is_refused_with_a_remedy(shipped, content):
    (shipped / "models.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ModelError, match=r"models\.json is damaged; restore it: git checkout"):
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
    assert "holds no image (other files: 1 (text.txt))" in refused("--images", empty, "--out", out)
    (empty / "text.txt").unlink()
    assert "holds no image (it is empty)" in refused("--images", empty, "--out", out)
    assert "cannot be written" in refused("--images", folder, "--out", tmp_path)
    assert "cannot be written" in refused("--images", folder, "--out", folder / "a.JPEG" / "x.csv")
    assert not out.exists()
    assert "describe a model of your own" in refused(
        "--images", folder, "--out", out, "--scale", "0..1"
    )
    (shipped / "models.json").unlink()
    assert "no model is shipped" in refused("--images", folder, "--out", out)


def test_a_model_of_ones_own_scores(shipped, brightness, folder, tmp_path, capsys):
    own = tmp_path / "O'Brien's $5.keras"
    own.write_bytes(brightness.read_bytes())
    out = tmp_path / "scores.csv"
    arguments = ("--images", folder, "--out", out, "--model", own)
    assert run(*arguments) == 2
    assert "gives (None, 2) with activation linear" in capsys.readouterr().err
    model = keras.models.load_model(brightness, compile=False)
    model.layers[-1].activation = keras.activations.softmax
    model.save(own)
    assert run(*arguments) == 0
    assert {row["threshold"] for row in read(out)} == {"0.500000"}
    assert capsys.readouterr().out.startswith("Model O'Brien's $5.keras: a model of your own")


def test_labels_of_folders_are_evaluated(shipped, tmp_path, capsys):
    images = tmp_path / "images"
    for number in range(6):
        save(images / "NORMAL" / f"{number}.png", 40 + number)
        save(images / "pneumonia" / "series 1" / f"{number}.png", 200 + number)
    out = tmp_path / "scores.csv"
    assert run("--images", images, "--out", out, "--evaluate") == 0
    printed = capsys.readouterr().out
    assert "12 images, 95% intervals by image:" in printed
    assert "  ROC-AUC: 1.000 [0.541, 1.000]" in printed
    assert "every PNEUMONIA image is above every NORMAL one" in printed and "6 pairs" in printed
    assert "6 NORMAL images are few" in printed and "6 PNEUMONIA images are few" in printed
    assert "[1.000, 1.000]" not in printed


def test_labels_are_checked_before_anything_is_scored(shipped, tmp_path, monkeypatch, capsys):
    images = tmp_path / "images"
    save(images / "NORMAL" / "a.png", 40)
    save(images / "overview.png", 40)
    save(images / "other" / "x.png", 40)
    monkeypatch.setattr(registry.Scorer, "load", lambda _: pytest.fail("the model was loaded"))
    out = tmp_path / "scores.csv"
    assert run("--images", images, "--out", out, "--evaluate") == 2
    refused = capsys.readouterr().err
    assert "these images lie in none that is named NORMAL or PNEUMONIA: other/x.png, ov" in refused
    assert not out.exists()


def test_one_class_gets_what_can_be_computed_and_nothing_is_swallowed(shipped, tmp_path, capsys):
    images = tmp_path / "NORMAL"
    for number in range(3):
        save(images / f"{number}.png", 40)
    (images / "broken.png").write_bytes(b"x")
    out = tmp_path / "scores.csv"
    assert run("--images", images, "--out", out, "--evaluate") == 1
    printed = capsys.readouterr()
    assert "  specificity: 1.000 [0.292, 1.000]" in printed.out
    assert "  ROC-AUC: undefined" in printed.out and "There is no PNEUMONIA image" in printed.out
    assert "unreadable: broken.png: its content is no image" in printed.err
    assert len(read(out)) == 4


def test_nothing_readable_is_evaluated_in_words(shipped, tmp_path, capsys):
    (tmp_path / "NORMAL").mkdir()
    (tmp_path / "NORMAL" / "a.png").write_bytes(b"x")
    assert run("--images", tmp_path, "--out", tmp_path / "s.csv", "--evaluate") == 1
    assert "nothing to evaluate" in capsys.readouterr().out


def test_a_model_of_phantoms_is_announced(shipped, brightness, folder, tmp_path, capsys):
    record(models_dir("sample"), "resnet50", brightness, 0.4)
    arguments = ("--images", folder, "--out", tmp_path / "a.csv", "--study", "sample")
    assert run(*arguments, "--model", "resnet50") == 0
    assert "seen phantoms only" in capsys.readouterr().out
    assert run(*arguments) == 0
    assert "seen phantoms only" not in capsys.readouterr().out, (
        "the shipped model has seen radiographs"
    )


def test_files_are_listed_in_one_order(tmp_path):
    for name in ("b.png", "a/c.png", "B.png", "a.png"):
        save(tmp_path / name, 1)
    assert find_images(tmp_path).images == ["B.png", "a.png", "a/c.png", "b.png"]


def test_content_decides_what_is_an_image_and_the_rest_is_named(shipped, tmp_path, capsys):
    images = tmp_path / "images"
    chest = hard_inputs.draw_chest()
    for name in ("no_extension", "scan.TIFF", "scan.gif", "12_in_16.png", "lying_6.JPEG"):
        hard_inputs.save(images / name, hard_inputs.ENCODINGS[name][0](chest))
    hard_inputs.save(images / "IM000001", hard_inputs.dicom(4095 * chest))
    for number in range(12):
        (images / f"note {number:02}.txt").write_text("none")
    out = tmp_path / "scores.csv"
    assert run("--images", images, "--out", out) == 0
    rows = {row["image"]: row for row in read(out)}
    assert len(rows) == 6
    assert "whole range of its 12 bits" in rows["IM000001"]["remark"]
    assert rows["12_in_16.png"]["remark"] == "16-bit file whose values fit 12 bits: read as 12 bits"
    assert rows["lying_6.JPEG"]["remark"] == "turned as its orientation tag says"
    assert {rows[name]["remark"] for name in ("no_extension", "scan.TIFF", "scan.gif")} == {""}
    printed = capsys.readouterr().out
    assert "other files: 12 (note 00.txt, " in printed and "note 09.txt and 2 more)" in printed
    assert (
        "images with a remark, in the column of that name: 3" in printed
        and "  1 x turned as its orientation" in printed
    )
    probability = [float(row["probability"]) for row in rows.values()]
    assert max(probability) - min(probability) < 0.01, "it is one picture"


def test_images_of_other_kinds_are_unreadable_not_foreign(shipped, tmp_path, capsys):
    images = tmp_path / "images"
    save(images / "a.png", 40)
    hard_inputs.save(images / "IMG_1.heic", b"\0\0\0\x18ftypheic")
    assert run("--images", images, "--out", tmp_path / "s.csv") == 1
    assert "unreadable: IMG_1.heic: it is a HEIC" in capsys.readouterr().err
    for number in range(12):
        (images / f"{number:02}.png").write_bytes(b"")
    assert run("--images", images, "--out", tmp_path / "s.csv") == 1
    said = capsys.readouterr().err
    assert said.count("unreadable: ") == 11 and "unreadable: 3 more, all in the column" in said


def test_links_are_followed_once_hidden_folders_skipped_and_all_are_named(
    shipped, tmp_path, capsys
):
    store, images = tmp_path / "store", tmp_path / "images"
    for number in range(2):
        save(store / "NORMAL" / f"{number}.png", 40)
        save(store / "PNEUMONIA" / f"{number}.png", 220)
    images.mkdir()
    for name in ("NORMAL", "PNEUMONIA"):
        (images / name).symlink_to(store / name)
    (store / "NORMAL" / "loop").symlink_to(images)
    save(images / ".ipynb_checkpoints" / "0-checkpoint.png", 40)
    save(images / "NORMAL" / ".thumbnails" / "0.png", 40)
    out = tmp_path / "scores.csv"
    assert run("--images", images, "--out", out, "--evaluate") == 0
    printed = capsys.readouterr().out
    assert [row["image"] for row in read(out)] == [
        "NORMAL/0.png", "NORMAL/1.png", "PNEUMONIA/0.png", "PNEUMONIA/1.png",
    ]  # fmt: skip
    assert "hidden files and folders: 2 (.ipynb_checkpoints, NORMAL/.thumbnails)" in printed
    assert "links to folders that were read already: 1 (NORMAL/loop)" in printed
    (images / "dangling.png").symlink_to("gone.png")
    assert run("--images", images, "--out", out) == 1
    assert "links that lead nowhere: 1 (dangling.png)" in capsys.readouterr().err


def test_closed_folders_and_files_are_named(shipped, tmp_path, monkeypatch, capsys):
    for name in ("open.png", "closed/a.png", "shut.png"):
        save(tmp_path / name, 40)
    scan, opened = os.scandir, open

    def refuse_folder(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    def refuse_file(file, *arguments, **options):
        if str(file).endswith("shut.png"):
            raise PermissionError(13, "Permission denied")
        return opened(file, *arguments, **options)

    # Root, as whom tests may run, is refused nothing.
    monkeypatch.setattr(os, "scandir", refuse_folder)
    monkeypatch.setattr("builtins.open", refuse_file)
    out = tmp_path / "scores.csv"
    assert run("--images", tmp_path, "--out", out) == 1
    said = capsys.readouterr().err
    assert "closed folders, of which nothing was read: 1 (closed)" in said
    assert "unreadable: shut.png: it cannot be opened (Permission denied)" in said
    assert [row["image"] for row in read(out)] == ["open.png", "shut.png"]


NAMES = (b"O'Brien.png", b"cost $5 & (new).png", b'comma, quote" and\nnewline.png', b"=1+1.png",
         b"r\xf6ntgen.png", "肺 ñ.png".encode())  # fmt: skip


def test_names_of_any_bytes_survive(shipped, tmp_path, capsys):
    images = tmp_path / "O'Brien's $5"
    save(images / "a.png", 40)
    for name in NAMES:
        Path(os.fsdecode(os.fsencode(images) + b"/" + name)).write_bytes(
            (images / "a.png").read_bytes()
        )
    out = tmp_path / "scores 肺.csv"
    assert run("--images", images, "--out", out) == 0
    with open(out, newline="", encoding="utf-8", errors="surrogateescape") as stream:
        found = {os.fsencode(row["image"]) for row in csv.DictReader(stream)}
    assert found == {b"a.png", *NAMES}
    broken = Path(os.fsdecode(os.fsencode(images) + b"/\xff\n.png"))
    broken.write_bytes(b"x")
    assert run("--images", images, "--out", out) == 1
    assert r"unreadable: \udcff\n.png: " in capsys.readouterr().err


def test_outputs_go_where_a_shell_user_expects(shipped, tmp_path, monkeypatch, capsys):
    images, home = tmp_path / "images", tmp_path / "home"
    save(images / "a.png", 40)
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    assert run("--images", images, "--out", "~/s.csv") == 0
    assert len(read(home / "s.csv")) == 1 and not (tmp_path / "~").exists()

    (tmp_path / "link.csv").symlink_to(home / "target.csv")
    assert run("--images", images, "--out", "link.csv") == 0
    assert (tmp_path / "link.csv").is_symlink() and len(read(home / "target.csv")) == 1

    os.mkfifo(tmp_path / "pipe")
    received = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_text()))
    reader.start()
    assert run("--images", images, "--out", "pipe") == 0
    reader.join(10)
    assert received[0].startswith("image,probability") and (tmp_path / "pipe").is_fifo()
    assert run("--images", images, "--out", "/dev/null") == 0
    assert not Path("/dev/null").is_file()

    before = (images / "a.png").read_bytes()
    (tmp_path / "other.csv").symlink_to(images / "a.png")
    os.link(images / "a.png", tmp_path / "hard.csv")
    capsys.readouterr()
    for name in (images / "a.png", "other.csv", "hard.csv"):
        assert run("--images", images, "--out", name) == 2
        assert "is a.png, one of the images; name another file" in capsys.readouterr().err
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    assert run("--images", images, "--out", "loop.csv") == 2
    assert (images / "a.png").read_bytes() == before
    assert sorted(path.name for path in images.iterdir()) == ["a.png"]


def test_ctrl_c_is_said_in_one_line_and_leaves_an_older_file(
    shipped, tmp_path, monkeypatch, capsys
):
    save(tmp_path / "images" / "a.png", 40)
    out = tmp_path / "out" / "s.csv"
    out.parent.mkdir()
    out.write_text("older")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("utils.tools.predict.predict_files", interrupt)
    assert run("--images", tmp_path / "images", "--out", out) == 130
    assert capsys.readouterr().err.endswith("predict: stopped; no scores were written\n")
    assert out.read_text() == "older" and list(out.parent.iterdir()) == [out]


def test_a_write_protected_file_is_not_replaced(shipped, tmp_path, monkeypatch, capsys):
    images, out = tmp_path / "images", tmp_path / "kept.csv"
    save(images / "a.png", 40)
    out.write_text("kept")
    out.chmod(0o444)
    # Root, as whom tests may run, is refused nothing.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != out)
    assert run("--images", images, "--out", out) == 2
    assert "kept.csv is write-protected); name another file" in capsys.readouterr().err
    assert out.read_text() == "kept"


def test_a_folder_that_cannot_even_be_looked_for_is_a_request_that_cannot_be_done(
    shipped, tmp_path, capsys
):
    assert run("--images", tmp_path / ("a" * 300), "--out", tmp_path / "s.csv") == 2
    assert "cannot be read (File name too long)" in capsys.readouterr().err


def test_images_below_the_home_folder_are_found(shipped, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save(tmp_path / "images" / "a.png", 40)
    assert run("--images", "~/images", "--out", tmp_path / "s.csv") == 0


@pytest.mark.slow
def test_walking_and_reading_need_no_keras(tmp_path):
    save(tmp_path / "a.png", 40)
    code = (
        "import sys; sys.modules |= dict.fromkeys(('keras', 'tensorflow', 'tf_keras_vis'))\n"
        "from pathlib import Path\n"
        "from utils.data.images import load_image\n"
        "from utils.tools.predict import find_images\n"
        "folder = Path(sys.argv[1])\n"
        "print([load_image(folder / name).shape for name in find_images(folder).images])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[(224, 224, 3)]\n"


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
