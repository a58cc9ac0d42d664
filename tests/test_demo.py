"""The demo's answers and refusals, without a browser: a small network behind Flask's client."""

import base64
import io
import logging
import re
import tempfile

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from demo.__main__ import main as serve
from demo.answers import Answerer, load_answerer
from demo.app import HEADERS, MAX_BYTES, color_heat, create_app
from demo.page import describe_uncertainty
from tests import hard_inputs
from tests.hard_inputs import make_bomb
from utils.common.constants import DISCLAIMER
from utils.common.paths import ROOT
from utils.data.images import MAX_PIXELS, read_picture, resize_image
from utils.evaluation.calibration import apply_temperature
from utils.explanation.heat_maps import build_explainer
from utils.models.architectures import build_network
from utils.models.guard import CONSTANT, FOREIGN, POSES, REMARKS, Guard, GuardedNetwork
from utils.models.registry import PHANTOMS, ModelError, Scorer, choose_model
from utils.tools.predict import score_folder

THRESHOLD, TEMPERATURE = 0.4, 2.0


class SmallScorer(Scorer):
    """A scorer whose network is built instead of loaded."""

    def load(self):
        return build_network("small_cnn", 32, seed=0, full_size=True)


class ConstantFeatures:
    """Stands for the shipped network: the same features for every image."""

    def measure_features(self, images: np.ndarray) -> np.ndarray:
        assert images.shape[1:] == (224, 224, 3)
        return np.ones((len(images), 4), np.float32)


def build_guarded(
    limit: float = 2.0, pose_limit: float = 0.0, constant_limit: float = 0.0
) -> GuardedNetwork:
    """Return a guard that says nothing, or where a limit is changed its remark of every image."""
    eye, weights = np.eye(4, dtype=np.float32), np.zeros((4, 8), np.float32)
    weights[:, POSES.index("rotated_180")] = 1
    guard = Guard(eye, eye, limit, weights, np.zeros(8), pose_limit, constant_limit)
    return GuardedNetwork(ConstantFeatures(), guard)


def build_answerer(threshold: float = THRESHOLD, **limits: float) -> Answerer:
    scorer = SmallScorer("tiny", ROOT, threshold, "a network of a test", TEMPERATURE)
    return Answerer(scorer, scorer.load(), build_guarded(**limits))


@pytest.fixture(scope="module")
def answerer():
    return build_answerer()


@pytest.fixture(scope="module")
def client(answerer):
    return create_app(answerer).test_client()


def encode(size=(60, 50), form="PNG", mode="RGB", noise=False) -> bytes:
    stream = io.BytesIO()
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (*size[::-1], 3), np.uint8)
    image = Image.fromarray(pixels) if noise else Image.new("RGB", size, (90, 90, 90))
    image.convert(mode).save(stream, form)
    return stream.getvalue()


def send(client, content: bytes, name: str = "image.png", **form):
    data = {"image": (io.BytesIO(content), name, "text/plain"), **form}
    return client.post("/api/predict", data=data, content_type="multipart/form-data")


def test_an_answer_says_everything_that_the_page_shows(client, answerer):
    answer = send(client, encode(noise=True)).json
    assert set(answer) == {
        "label", "probability", "threshold", "calibrated_probability", "calibrated_threshold",
        "is_own", "strange", "warnings", "remarks", "model", "provenance", "explained", "image",
        "heat_map", "heat_maximum", "milliseconds", "disclaimer",
    }  # fmt: skip
    assert (answer["model"], answer["provenance"]) == ("tiny", "a network of a test")
    assert (
        answer["remarks"] == []
        and answer["disclaimer"] == DISCLAIMER
        and answer["threshold"] == THRESHOLD
    )
    for name in ("probability", "threshold"):
        expected = apply_temperature(answer[name], TEMPERATURE)
        assert answer[f"calibrated_{name}"] == pytest.approx(float(expected), abs=1e-5)
    for name, mode in {"image": "RGB", "heat_map": "RGBA"}.items():
        kind, content = answer[name].split(",")
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
            assert picture.size == (224, 224) and picture.mode == mode
    assert isinstance(answer["milliseconds"], int) and answer["heat_maximum"] >= 0


@pytest.mark.parametrize("threshold, label", [(0.0, "PNEUMONIA"), (1.0, "NORMAL")])
def test_the_label_depends_on_the_threshold_and_the_map_on_the_label(threshold, label):
    answerer = build_answerer(threshold)
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    answer = answerer.answer(pixels)
    assert answer.label == label
    class_index = ["NORMAL", "PNEUMONIA"].index(label)
    expected = build_explainer(answerer.scorer.load())
    batch = pixels[None].astype(np.float32)
    np.testing.assert_allclose(answer.heat, expected(batch, class_index)[0], rtol=1e-4)


@pytest.mark.slow
def test_the_guard_warns_and_says_when_the_prediction_means_nothing(client):
    answer = send(client, encode()).json
    assert (answer["strange"], answer["warnings"]) == (False, [])
    for limits, strange, warnings in (
        ({"limit": -1.0}, True, [REMARKS[FOREIGN]]),
        ({"constant_limit": 1.0}, True, [REMARKS[CONSTANT]]),
        ({"pose_limit": 1.0}, False, [REMARKS["rotated_180"]]),
    ):
        suspicious = create_app(build_answerer(**limits)).test_client()
        answer = send(suspicious, encode()).json
        assert (answer["strange"], answer["warnings"]) == (strange, warnings)


@pytest.mark.slow
def test_the_shipped_model_says_what_make_predict_says(tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    scorer = choose_model("full", "small")
    client = create_app(load_answerer(scorer)).test_client()
    scores = score_folder(scorer.load(), PHANTOMS)
    for image, probability in zip(scores.images, scores.probabilities, strict=True):
        answer = send(client, (PHANTOMS / image).read_bytes()).json
        assert answer["probability"] == pytest.approx(probability, abs=1e-5)
        assert answer["strange"] is False and answer["warnings"] == []


@pytest.mark.parametrize("form, mode", [("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "P"),
                                        ("PNG", "RGBA"), ("PNG", "1")])  # fmt: skip
def test_the_type_is_decided_by_decoding(client, form, mode):
    assert send(client, encode(form=form, mode=mode), "report.exe").status_code == 200


@pytest.mark.parametrize("name", ["12_in_16.png", "lying_6.JPEG", "alpha_alone.png", "scan.TIFF"])
def test_an_image_is_read_as_make_predict_reads_it_and_the_page_says_how(client, tmp_path, name):
    encoded, _, words = hard_inputs.ENCODINGS[name]
    file = hard_inputs.save(tmp_path / name, encoded(hard_inputs.draw_chest()))
    answer = send(client, file.read_bytes()).json
    picture = read_picture(file)
    assert answer["remarks"] == list(picture.remarks) and words in " ".join(answer["remarks"])
    shown = base64.b64decode(answer["image"].split(",")[1])
    with Image.open(io.BytesIO(shown)) as image:
        np.testing.assert_array_equal(np.asarray(image), resize_image(picture.pixels))


def test_a_header_of_dicom_stays_with_the_person_who_sends_it(client, caplog):
    content = hard_inputs.dicom(4095 * hard_inputs.draw_chest())
    with caplog.at_level(logging.DEBUG):
        response = send(client, content, "IM000001")
    assert response.status_code == 200 and "12 bits" in response.json["remarks"][0]
    assert hard_inputs.SECRET[:12] not in response.text + caplog.text


def test_a_model_of_another_size_sees_the_image_at_its_own():
    class WideScorer(SmallScorer):
        def load(self):
            image = keras.Input((32, 48, 3))
            x = layers.Conv2D(2, 3)(image)
            x = layers.GlobalAveragePooling2D()(x)
            return keras.Model(image, layers.Dense(2, "softmax")(x))

    scorer = WideScorer("wide", ROOT, 0.5, "of a test", 1.0)
    answerer = Answerer(scorer, scorer.load(), build_guarded())
    answer = answerer.answer(np.zeros((100, 70), np.uint8))
    assert answer.pixels.shape == (32, 48, 3) and answer.heat.shape == (32, 48)


def test_a_model_that_cannot_be_explained_is_refused_with_words():
    class FlatScorer(SmallScorer):
        def load(self):
            image = keras.Input((8, 8, 3))
            return keras.Model(image, layers.Dense(2, "softmax")(layers.Flatten()(image)))

    scorer = FlatScorer("flat", ROOT, 0.5, "of a test", 1.0)
    with pytest.raises(ModelError, match="make predict can use it, which draws no map"):
        Answerer(scorer, scorer.load(), None)


WHOLE = encode(noise=True)
REFUSED = {
    "nothing": (b"", 400, "no image was sent"),
    "text": (b"hello", 415, "no image of a known kind"),
    "other format": (encode(form="PPM"), 415, "no image of a known kind"),
    "page": (b"<!doctype html>", 415, "it is a web page"),
    "frames": (
        hard_inputs.dicom(np.ones((16, 8)), Rows=8, NumberOfFrames=2),
        422,
        "holds 2 frames",
    ),
    "cut off": (WHOLE[: len(WHOLE) // 2], 422, "damaged or cut off"),
    "too large": (bytes(MAX_BYTES + 1), 413, "larger than 16 MB"),
    "bomb": (
        make_bomb(8000, 8000),
        413,
        "8000 x 8000 pixels are more than the 40 million",
    ),
    "larger bomb": (
        make_bomb(60000, 60000),
        413,
        "pixels are more than the 40 million",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_image_is_refused_with_status_and_reason(client, name):
    content, status, reason = REFUSED[name]
    response = send(client, content)
    assert response.status_code == status and reason in response.json["error"]


def test_a_bomb_is_refused_before_it_unfolds(client, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("it was decoded"))
    assert send(client, make_bomb(MAX_PIXELS // 5000 + 1, 5000)).status_code == 413


def test_a_missing_field_and_other_addresses_are_refused_in_json(client):
    assert "form field 'image'" in client.post("/api/predict").json["error"]
    assert (
        client.get("/api/predict").status_code == 405 and client.get("/api/predict").json["error"]
    )
    for address in ("/nowhere", "/samples/0", "/samples/7", "/samples/../models.json"):
        response = client.get(address)
        assert response.status_code == 404 and response.json["error"]


def test_the_page_offers_the_phantoms(client):
    page = client.get("/").text
    addresses = re.findall(r'data-sample="(/samples/\d+)"', page)
    assert len(addresses) == 6 and DISCLAIMER in page
    for address in addresses:
        response = client.get(address)
        assert response.mimetype == "image/jpeg"
        assert send(client, response.data).status_code == 200


@pytest.mark.parametrize("port", ["99999", "-1", "eight", "", "65536"])
def test_a_number_that_is_no_port_is_refused(caplog, port):
    assert serve([f"--port={port}"]) == 2
    assert f"PORT={port} is no port; name one from 0 to 65535" in caplog.text


def test_health(client):
    assert client.get("/healthz").json == {"status": "ok", "model": "tiny"}


def test_names_of_files_are_never_used(client, caplog):
    name = '../../<script>alert("patient Smith")</script>.png'
    with caplog.at_level(logging.DEBUG):
        response = send(client, encode(), name)
    assert response.status_code == 200
    assert "Smith" not in response.text and "Smith" not in caplog.text


def test_nothing_is_written_to_disk(client, monkeypatch):
    def refuse(*_, **__):
        pytest.fail("a temporary file was opened")

    for name in ("TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile", "mkstemp"):
        monkeypatch.setattr(tempfile, name, refuse)
    monkeypatch.setattr("werkzeug.formparser.SpooledTemporaryFile", refuse)
    large = encode((1500, 1200), noise=True)
    assert len(large) > 5_000_000
    assert send(client, large).status_code == 200


@pytest.mark.parametrize("address", ["/", "/static/demo.js", "/healthz", "/nowhere", "/samples/1"])
def test_every_response_is_guarded(client, address):
    headers = client.get(address).headers
    assert {name: headers[name] for name in HEADERS} == HEADERS
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy


def test_the_page_loads_nothing_from_elsewhere_and_has_no_inline_script(client):
    page = client.get("/").text
    sources = page + client.get("/static/demo.js").text + client.get("/static/demo.css").text
    assert re.findall(r"[\"'(](?:https?:)?//", sources) == []
    assert re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|javascript:", page) is None


def test_heat_is_redder_and_more_opaque_the_hotter():
    heat = np.array([[0.0, 1.0, 2.0]])
    pixels = color_heat(heat)
    assert pixels[0, :, 3].tolist() == [0, 128, 255] and pixels[0, :, 1].tolist() == [170, 85, 0]
    assert color_heat(np.zeros((2, 2)))[..., 3].max() == 0


def test_the_page_says_how_unsure_the_shipped_model_alone_is_of_phantoms(client, monkeypatch):
    assert "phantoms are none" not in client.get("/").text
    said = describe_uncertainty(choose_model("full"))
    assert "a probability of 75% to 89%, and predicts NORMAL for 0 of 3." in said
    monkeypatch.setattr("demo.app.describe_uncertainty", lambda _: said)
    assert said in client.get("/").text
