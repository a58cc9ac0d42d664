"""The demo as a person meets it: its command, its server under load, its page in a browser."""

import json
import os
import re
import signal
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import pandas as pd
import pytest
import requests
import skimage
from playwright.sync_api import Page, expect

from demo.app import HEADERS
from demo.picture import read_address, start_demo
from tests import hard_inputs
from utils.common.constants import DISCLAIMER
from utils.models.registry import PHANTOMS, REFERENCE_PREDICTIONS

pytestmark = pytest.mark.slow

CLIENTS = 50
PHONE, DESKTOP = {"width": 320, "height": 640}, {"width": 1000, "height": 900}
SECONDS = 60
"""An answer takes less than one; slow machines and fifty clients get more."""


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[tuple[str, subprocess.Popen]]:
    """Serve the shipped model as in a fresh clone; yield the address and the process."""
    process = start_demo("--port", "0", RESULTS_DIR=str(tmp_path_factory.mktemp("results")))
    yield read_address(process), process
    process.send_signal(signal.SIGINT)
    assert process.wait(SECONDS) == 0


def test_the_first_lines_say_which_model_answers_and_what_it_is_not(tmp_path):
    process = start_demo("--port", "0", RESULTS_DIR=str(tmp_path))
    first, second = (process.stdout.readline() for _ in range(2))
    process.kill()
    assert first.startswith("Model released: ") and DISCLAIMER in second


def memory_of(process: subprocess.Popen) -> float:
    """Return the resident memory of a process in megabytes."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1000


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc (Linux)")
def test_fifty_clients_at_once_get_the_answers_of_make_predict(server, capsys):
    address, process = server
    reference = pd.read_csv(REFERENCE_PREDICTIONS).set_index("image").probability
    images = [list(reference.index)[number % len(reference)] for number in range(CLIENTS)]

    def ask(image: str) -> tuple[float, float]:
        start = time.perf_counter()
        content = (PHANTOMS / image).read_bytes()
        response = requests.post(
            f"{address}/api/predict", files={"image": content}, timeout=10 * SECONDS
        )
        assert response.status_code == 200, response.text
        return response.json()["probability"], time.perf_counter() - start

    before = memory_of(process)
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(ask, images))
    for image, (probability, _) in zip(images, answers, strict=True):
        assert probability == pytest.approx(reference[image], abs=2e-3)  # of another processor
    grown = memory_of(process) - before
    seconds = [each for _, each in answers]
    with capsys.disabled():
        print(
            f"\n{CLIENTS} clients at once: median {statistics.median(seconds):.1f} s, longest "
            f"{max(seconds):.1f} s, memory {before:.0f} MB and {grown:+.0f} MB"
        )
    assert grown < 500
    os.set_blocking(process.stdout.fileno(), False)
    with pytest.raises(BlockingIOError):  # nothing: not even that they had to wait
        os.read(process.stdout.fileno(), 1)


def test_a_body_far_too_large_is_not_even_read_and_refused_in_json(server):
    address, _ = server
    response = requests.post(f"{address}/api/predict", data=bytes(40_000_000), timeout=SECONDS)
    assert response.status_code == 413
    assert response.json() == {"error": "the file is larger than 16 MB"}
    assert {name: response.headers[name] for name in HEADERS} == HEADERS


def test_what_is_no_request_is_refused_in_json_too(server):
    host, port = server[0].removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
        connection.sendall(b"POST /api/predict HTTP/1.1\r\nContent-Length: many\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, body = answer.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 400") and b"application/json" in head
    assert json.loads(body)["error"].startswith("Bad Request")


def test_a_port_in_use_and_an_unknown_model_are_clear_errors(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        process = start_demo("--port", port, RESULTS_DIR=str(tmp_path))
        output, _ = process.communicate(timeout=5 * SECONDS)
    assert process.returncode == 2
    assert f"port {port} cannot be used" in output and "name another: PORT=" in output
    process = start_demo("--model", "nobody", RESULTS_DIR=str(tmp_path))
    output, _ = process.communicate(timeout=5 * SECONDS)
    assert process.returncode == 2
    assert "there is no model 'nobody'; known are released, small" in output


# --- In a browser ----------------------------------------------------------------------------


@pytest.fixture
def page(server, browser) -> Iterator[Page]:
    """Open the page; complain about any message of the browser and any foreign request."""
    address, _ = server
    page = browser.new_page(viewport=DESKTOP)
    page.set_default_timeout(1000 * SECONDS)
    expect.set_options(timeout=1000 * SECONDS)
    complaints, asked = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    yield page
    page.close()
    # The browser itself reports what is refused or unreachable; nothing else is expected.
    assert [text for text in complaints if "Failed to load resource" not in text] == []
    assert [url for url in asked if not url.startswith((address, "data:"))] == []


def upload(page: Page, content: bytes, name: str = "image.png") -> None:
    files = {"name": name, "mimeType": "image/png", "buffer": content}
    page.get_by_label("Choose or drop a chest radiograph").set_input_files(files)


def read_phantom() -> bytes:
    return next(PHANTOMS.glob("PNEUMONIA/*.jpeg")).read_bytes()


def test_the_warning_is_the_first_thing_to_read(page):
    warning = page.locator("#disclaimer")
    expect(warning).to_contain_text("not a medical device")
    assert warning.bounding_box()["y"] < 150


def test_an_upload_is_answered_in_words_and_pictures(page):
    upload(page, read_phantom())
    heading = page.get_by_role("heading", name="The model predicts")
    expect(heading).to_be_focused()
    expect(page.locator("#words")).to_contain_text("Probability of PNEUMONIA: ")
    expect(page.locator("#threshold")).to_contain_text("the model predicts PNEUMONIA")
    bar = page.get_by_role("img", name="Probability of PNEUMONIA")
    share = float(re.search(r"PNEUMONIA ([\d.]+)%", bar.get_attribute("aria-label"))[1]) / 100
    drawn = page.locator("#share").bounding_box()["width"] / bar.bounding_box()["width"]
    assert drawn == pytest.approx(share, abs=0.01)
    heat = page.locator("#heat")
    expect(heat).to_be_hidden()
    page.get_by_label("Show the class activation map for").check()
    expect(heat).to_be_visible()
    expect(page.locator("#maximum")).to_contain_text("in units of the class score")
    for name in ("The image as the model receives it", "Heat map over the image"):
        picture = page.get_by_role("img", name=name)
        assert picture.evaluate("image => image.complete && image.naturalWidth") == 224
    expect(page.locator("#model")).to_have_text("released")
    expect(page.locator("#provenance")).to_contain_text("ten crops, in half precision")
    expect(page.locator("#time")).to_contain_text(" ms")
    expect(page.locator("#warnings")).to_be_hidden()


def test_an_image_can_be_dropped(page):
    pixels = list(read_phantom())
    data = page.evaluate_handle(
        """bytes => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "x.jpeg", {type: "image/jpeg"}));
            return data;
        }""",
        pixels,
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": data})
    expect(page.get_by_role("heading", name="The model predicts")).to_be_visible()


def test_a_phantom_and_the_slider_work_with_the_keyboard_alone(page):
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.sample || ''"):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="The model predicts")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Show the class activation map")).to_be_focused()
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    slider = page.get_by_role("slider", name="Opacity of the map")
    expect(slider).to_be_focused()
    page.keyboard.press("End")
    expect(page.locator("#heat")).to_have_css("opacity", "1")
    page.keyboard.press("Home")
    expect(page.locator("#heat")).to_have_css("opacity", "0")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#heat")).to_have_css("opacity", "0.01")


def test_errors_are_said_and_the_old_answer_goes(page):
    upload(page, read_phantom())
    answer = page.locator("#answer")
    expect(answer).to_be_visible()
    whole = read_phantom()
    for content, reason in (
        (b"hello", "no image of a known kind"),
        (whole[: len(whole) // 2], "damaged or cut off"),
        (bytes(16_500_000), "larger than 16 MB"),
        (bytes(40_000_000), "larger than 16 MB"),
    ):
        upload(page, content)
        expect(page.get_by_role("alert")).to_contain_text(reason)
        expect(answer).to_be_hidden()
    upload(page, whole)
    expect(answer).to_be_visible()
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_photograph_gets_a_warning_instead_of_an_answer(page):
    upload(page, (Path(skimage.__file__).parent / "data" / "astronaut.png").read_bytes())
    expect(page.locator("#warnings")).to_contain_text("Unlike any chest radiograph")
    expect(page.get_by_role("heading", name="No meaningful prediction")).to_be_visible()


def test_a_server_that_is_gone_is_said_so(page):
    page.route("**/api/predict", lambda route: route.abort())
    upload(page, read_phantom())
    expect(page.get_by_role("alert")).to_contain_text("The server gave no answer")


def test_a_phone_shows_all_of_it_without_scrolling_sideways(page):
    page.set_viewport_size(PHONE)
    upload(page, read_phantom())
    page.get_by_label("Show the class activation map").check()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for name in ("#image", "#heat", "#bar", "#opacity"):
        box = page.locator(name).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"]


def test_everything_that_can_be_used_has_a_name(page):
    upload(page, read_phantom())
    expect(page.locator("#answer")).to_be_visible()
    assert (
        page.evaluate(
            """() => [...document.querySelectorAll("button, input, select, a")]
            .filter(each => !(each.textContent.trim() || each.labels?.length)).length"""
        )
        == 0
    )
    assert page.evaluate("document.querySelectorAll('img:not([alt])').length") == 0
    assert page.evaluate("document.documentElement.lang") == "en"
    expect(page.get_by_role("button", name="Phantom 1")).to_be_visible()


def test_of_a_model_of_ones_own_nothing_is_said_that_only_the_shipped_one_has(tmp_path, browser):
    layers = keras.layers.Conv2D(2, 3), keras.layers.GlobalAveragePooling2D()
    last = keras.layers.Dense(1, activation="sigmoid")
    keras.Sequential([keras.Input((32, 32, 1)), *layers, last]).save(tmp_path / "mine.keras")
    process = start_demo("--port", "0", "--model", str(tmp_path / "mine.keras"))
    try:
        page = browser.new_page()
        page.goto(read_address(process))
        page.get_by_role("button", name="Phantom 1").click()
        answer = page.locator("#answer")
        expect(answer).to_contain_text("This threshold is assumed", timeout=1000 * SECONDS)
        expect(answer).to_contain_text("as your model gives it")
        for untrue in ("temperature", "held-out patients", "model card"):
            expect(answer).not_to_contain_text(untrue)
        page.close()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(SECONDS)


def test_16_bit_images_are_answered_too(page):
    upload(page, hard_inputs.in_bits(hard_inputs.draw_chest(), 12))
    expect(page.locator("#answer")).to_be_visible()
    expect(page.locator("#remarks")).to_contain_text("read as 12 bits")
    upload(page, read_phantom())
    expect(page.locator("#remarks")).to_be_hidden()
