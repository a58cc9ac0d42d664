"""The page of the site that runs the model in the reader's browser, and how it is built."""

import base64
import csv
import functools
import io
import json
import re
import shutil
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Page, expect

from demo.app import color_heat
from demo.try_it import INTEGRITY, PACKAGE, POLICY, RUNTIME, TryIt, extract_runtime, write_page
from tests import hard_inputs
from tests.http_server import serve
from utils.common.constants import CLASS_NAMES, DISCLAIMER
from utils.common.npm import NpmError, fetch_package, measure_integrity
from utils.data.images import TURNED, read_picture, resize_image
from utils.evaluation.calibration import apply_temperature
from utils.models.guard import MEANINGLESS, describe, open_guard
from utils.models.onnx_scoring import OnnxNetwork
from utils.models.prediction import predict_guarded, predict_pixels
from utils.models.registry import PHANTOMS, REFERENCE_PREDICTIONS, open_shipped_model
from utils.tools.site import find_broken_links, find_loaded_from_elsewhere, read_site

PREFIX = "some/where"
"""A site may lie below the root of its server."""
PHONE, DESKTOP = {"width": 320, "height": 640}, {"width": 1000, "height": 900}
SECONDS = 60
needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not on the PATH")


# ---- the build, with a registry on this machine


@pytest.fixture
def registry(tmp_path, monkeypatch) -> str:
    """Serve a small package as npm's registry does; return its integrity."""
    folder = tmp_path / "registry"
    folder.mkdir()
    facts = {"name": "onnxruntime-web", "version": "1.30.0"}
    members = {"package/package.json": json.dumps(facts)} | dict.fromkeys(RUNTIME.values(), "code")
    with tarfile.open(folder / "small.tgz", "w:gz") as archive:
        for name, text in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    integrity = measure_integrity(folder / "small.tgz")
    with serve(folder) as server:
        facts["dist"] = {"tarball": f"{server.url}/small.tgz", "integrity": integrity}
        record = {"name": facts["name"], "versions": {facts["version"]: facts}}
        (folder / "onnxruntime-web").write_text(json.dumps(record))
        monkeypatch.setenv("npm_config_registry", server.url)
        monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
        yield integrity


@needs_npm
def test_the_package_is_taken_if_its_hash_is_the_pinned_one(registry, tmp_path):
    (tmp_path / "got").mkdir()
    package = fetch_package(PACKAGE, registry, tmp_path / "got")
    extract_runtime(package, tmp_path)
    assert {(tmp_path / name).read_text() for name in RUNTIME} == {"code"}
    assert "MIT" in (tmp_path / "onnxruntime-LICENSE").read_text()
    assert "Eigen" in (tmp_path / "onnxruntime-ThirdPartyNotices.txt").read_text(errors="replace")


@needs_npm
def test_another_package_is_left_out_whatever_the_registry_says_of_it(registry, tmp_path):
    assert TryIt().left_out == " (left out)"
    with pytest.raises(NpmError, match=f"{PACKAGE} does not have the expected SHA-512"):
        fetch_package(PACKAGE, INTEGRITY, tmp_path)


@needs_npm
def test_offline_the_page_the_links_and_the_build_say_that_it_was_left_out(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("npm_config_offline", "true")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    page = TryIt()
    source, context = ["a\n<!-- try it -->\nb"], {}
    page.link_front_page(None, "docs/index", source)
    page.link_navigation(None, "docs/index", "page.html", context, None)
    assert '<a href="../try.html">the model in your browser</a> (left out)' in source[0]
    assert context == {"try_it_page": "try.html", "try_it_left_out": " (left out)"}
    (tmp_path / "index.html").write_text("front")

    class App:
        outdir = str(tmp_path)

    page.write(App, None)
    assert "!!! try.html was LEFT OUT of the site: npm pack failed" in capsys.readouterr().err
    text = (tmp_path / "try.html").read_text()
    assert "left out when the site was built (npm pack failed: " in text and DISCLAIMER in text
    assert "<script" not in text and POLICY in text.replace("&#39;", "'")
    assert find_broken_links(read_site(tmp_path)) == []


def test_a_failed_build_writes_no_page(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "demo.try_it.fetch_package", lambda *_: (_ for _ in ()).throw(NpmError("x"))
    )

    class App:
        outdir = str(tmp_path)

    TryIt().write(App, ValueError("a page is wrong"))
    assert list(tmp_path.iterdir()) == []


# ---- the page, served and in a browser


@dataclass
class Served:
    """A site on this machine."""

    folder: Path
    address: str
    """Of the page."""


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Build the page alone, with the real package."""
    root = tmp_path_factory.mktemp("served")
    folder, runtime = root / PREFIX, tmp_path_factory.mktemp("runtime")
    try:
        package = fetch_package(PACKAGE, INTEGRITY, runtime)
    except NpmError as error:
        pytest.skip(f"{error}: the page in the browser is not tested")
    extract_runtime(package, runtime)
    package.unlink()
    folder.mkdir(parents=True)
    (folder / "index.html").write_text(f"<p>{DISCLAIMER}")
    write_page(folder, runtime)
    return folder


class QuietHandler(SimpleHTTPRequestHandler):
    """`python -m http.server` without its log."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def served(built) -> Iterator[Served]:
    root = built.parents[len(Path(PREFIX).parts) - 1]
    handler = functools.partial(QuietHandler, directory=str(root))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Served(built, f"http://127.0.0.1:{server.server_port}/{PREFIX}/try.html")
        server.shutdown()


@pytest.fixture(scope="module")
def opened(served, browser) -> Iterator[Page]:
    """Open the page once; complain about any message of the browser and any foreign request."""
    context = browser.new_context(viewport=DESKTOP)
    page = context.new_page()
    page.set_default_timeout(1000 * SECONDS)
    expect.set_options(timeout=1000 * SECONDS)
    complaints, asked = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    context.on("request", lambda request: asked.append(request.url))
    page.goto(served.address)
    expect(page.locator("#main")).to_be_visible()
    yield page
    assert complaints == []
    own = served.address.removesuffix("try.html")
    assert [url for url in asked if not url.startswith((own, "data:", "blob:"))] == []
    context.close()


@pytest.fixture
def page(opened) -> Page:
    opened.set_viewport_size(DESKTOP)
    return opened


@pytest.fixture(scope="module")
def network():
    return OnnxNetwork(open_shipped_model().onnx)


def predict(network: OnnxNetwork, content: bytes) -> float:
    """Return what `make predict` gives for an image."""
    seen = resize_image(read_picture(io.BytesIO(content)).pixels)
    return float(predict_pixels(network, seen[None])[0])


@contextmanager
def answered(page: Page) -> Iterator[None]:
    """Wait until the page has answered or refused what is asked."""
    page.evaluate("for (const each of [answer, error]) each.hidden = true")
    yield
    page.locator("#answer:not([hidden]), #error:not([hidden])").wait_for()


def upload(page: Page, content: bytes) -> None:
    """Give the page an image."""
    files = {"name": "image.png", "mimeType": "image/png", "buffer": content}
    with answered(page):
        page.get_by_label("Choose or drop a chest radiograph").set_input_files(files)


def read_probability(page: Page) -> float:
    """Return the probability, before calibration, that the page shows."""
    expect(page.locator("#error")).to_be_hidden()
    return float(re.search(r"scaling: probability ([\d.]+)", page.inner_text("#threshold"))[1])


def ask(page: Page, content: bytes) -> float:
    """Return the probability that the page shows for an image."""
    upload(page, content)
    return read_probability(page)


def read(page: Page, content: bytes) -> dict:
    """Return what the page's script reads: pixels, the same resized, and remarks, or a refusal."""
    found = page.evaluate(
        """async ([content, folder]) => {
            const [{readImage}, {resize}, facts] = await Promise.all([
                import(folder + "reading.js"), import(folder + "resizing.js"),
                fetch(folder + "facts.json").then((response) => response.json()),
            ]);
            const encode = (bytes) => {
                let text = "";
                for (const byte of bytes) text += String.fromCharCode(byte);
                return btoa(text);
            };
            try {
                const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
                const image = await readImage(new Blob([bytes]), facts.words);
                const resized = resize(image, 224, 224);
                return {...image, pixels: encode(image.pixels), resized: encode(resized.pixels)};
            } catch (error) {
                return {refused: error.message, kind: error.constructor.name};
            }
        }""",
        [base64.b64encode(content).decode(), page.url.replace("try.html", "try/")],
    )
    if "refused" in found:
        assert found["kind"] == "Refusal", found
        return found
    for name, size in {"pixels": (found["height"], found["width"]), "resized": (224, 224)}.items():
        pixels = np.frombuffer(base64.b64decode(found[name]), np.uint8)
        found[name] = np.broadcast_to(pixels.reshape(*size, found["channels"]), (*size, 3))
    return found


def check(page: Page, content: bytes, tolerance: int = 0) -> dict:
    """Compare what the page reads with what `make predict` reads, and return the former."""
    found, expected = read(page, content), read_picture(io.BytesIO(content))
    assert "refused" not in found, found
    pixels = np.asarray(Image.fromarray(expected.pixels).convert("RGB"))
    assert found["pixels"].shape == pixels.shape
    assert np.abs(found["pixels"].astype(int) - pixels).max() <= tolerance
    if tolerance == 0:
        np.testing.assert_array_equal(found["resized"], resize_image(expected.pixels))
    return found


PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
          (0, 1, 1, 2))  # fmt: skip
"""Of an interlaced PNG: first column and row, steps."""
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Of a pixel, by PNG's type of color."""


def draw_random_png(
    random: np.random.Generator, color: int, depth: int, interlaced: int, clear: bool
) -> bytes:
    """Write a PNG of random bytes under random filters, some of it transparent where asked for."""

    def draw_bytes(count: int) -> bytes:
        return random.integers(0, 256, count).astype(np.uint8).tobytes()

    width, height = (int(side) for side in random.integers(1, 40, 2))
    rows = b""
    for x, y, right, down in PASSES if interlaced else ((0, 0, 1, 1),):
        columns, lines = -(-(width - x) // right), -(-(height - y) // down)
        for _ in range(lines if columns > 0 else 0):
            length = -(-columns * depth * SAMPLES[color] // 8)
            rows += bytes([random.integers(0, 5)]) + draw_bytes(length)
    extra = [(b"PLTE", draw_bytes(3 * 2**depth))] if color == 3 else []
    if clear and color == 3:
        extra.append((b"tRNS", draw_bytes(random.integers(1, 2**depth + 1))))
    elif clear and color in (0, 2):
        values = random.integers(0, 2**depth, SAMPLES[color])
        extra.append((b"tRNS", values.astype(">u2").tobytes()))
    return hard_inputs.write_png(width, height, depth, color, rows, interlaced, extra)


def draw(width: int, height: int, mode: str, **options: object) -> bytes:
    """Encode a chest with transparent and colored parts, as far as the mode has them."""
    chest = (
        hard_inputs.draw_chest(1, (height, width), opacity=True) if width > 1 else np.ones((1, 1))
    )
    gray = hard_inputs.to_bytes(chest)
    layers = np.dstack(
        [gray, np.roll(gray, 3, 1), 255 - gray, gray // 2 + np.roll(gray, 5, 0) // 2]
    )
    image = Image.fromarray(layers).convert("RGBA")
    if mode in ("RGB", "L", "1"):
        image = image.convert("RGB")
    return hard_inputs.encode(image.convert(mode), **options)


PNGS = {
    "one pixel": draw(1, 1, "L"), "gray": draw(61, 47, "L"), "RGB": draw(224, 224, "RGB"),
    "a side that stays": draw(224, 500, "L"), "large": draw(2100, 1700, "L"),
    "wide": draw(700, 90, "RGB"), "palette": draw(300, 310, "P"),
    "palette of 2 bits": draw(301, 99, "P", bits=2), "palette of 1 bit": draw(77, 90, "P", bits=1),
    "black and white": draw(333, 200, "1"), "RGBA": draw(301, 299, "RGBA"),
    "gray with alpha": draw(150, 203, "LA"),
    "clear gray": draw(120, 130, "L", transparency=90),
    "clear color": draw(120, 130, "RGB", transparency=(0, 0, 255)),
    "clear palette": draw(120, 130, "P", transparency=bytes(range(256))),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", PNGS)
def test_a_png_gets_the_pixels_of_make_predict(page, name):
    found = check(page, PNGS[name])
    assert found["remarks"] == list(read_picture(io.BytesIO(PNGS[name])).remarks)


@pytest.mark.slow
@pytest.mark.parametrize("color, depth", [(0, 1), (0, 2), (0, 4), (0, 8), (2, 8), (3, 1), (3, 2),
                                          (3, 4), (3, 8), (4, 8), (6, 8)])  # fmt: skip
def test_a_png_of_any_form_gets_the_pixels_of_make_predict(page, color, depth):
    random = np.random.default_rng(depth)
    for _ in range(3):
        for interlaced in (0, 1):
            # Pillow compares a clear gray of 2 or 4 bits with the wrong values.
            for clear in (False,) if color == 0 and depth in (2, 4) else (False, True):
                content = draw_random_png(random, color, depth, interlaced, clear)
                remarks = read_picture(io.BytesIO(content)).remarks
                assert check(page, content)["remarks"] == list(remarks)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one pixel", "gray", "large", "wide", "palette", "RGBA"])
def test_a_png_gets_the_probability_of_make_predict(page, network, name):
    expected = predict(network, PNGS[name])
    assert ask(page, PNGS[name]) == pytest.approx(expected, abs=1e-3)


LOSSY = 2
"""Levels of gray by which two decoders of JPEG may differ."""
REFUSED_HERE = {
    **dict.fromkeys(
        ("16_bits.png", "12_in_16.png", "10_in_16.png", "8_in_16.png", "lying_16_bits.png"),
        "It has 16 bits per channel, and this page reads 8",
    ),
    "cmyk.jpg": "Browsers do not read CMYK colors as Pillow does",
    **dict.fromkeys(
        (f"lying_{tag}.WEBP" for tag in hard_inputs.LYING),
        "Not every browser heeds the orientation tag of a WEBP image",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", hard_inputs.ENCODINGS)
def test_an_image_is_read_as_make_predict_reads_it_or_refused(page, name):
    content = hard_inputs.ENCODINGS[name][0](hard_inputs.draw_chest())
    with Image.open(io.BytesIO(content)) as image:
        kind = image.format
    if kind == "TIFF" or name in REFUSED_HERE:
        reason = REFUSED_HERE.get(name, "Browsers do not read TIFF files")
        assert read(page, content)["refused"] == f"{reason}: score it with make predict."
        return
    found = check(page, content, LOSSY if kind in ("JPEG", "MPO") else 0)
    remarks = read_picture(io.BytesIO(content)).remarks
    # How many frames an image has is seen in a PNG alone.
    assert found["remarks"] == [each for each in remarks if kind == "PNG" or "frames" not in each]


def orient_by_xmp(form: str) -> bytes:
    """Encode an image that lies, as only its XMP says."""
    chest = hard_inputs.gray(hard_inputs.draw_chest()).transpose(hard_inputs.LYING[6])
    xmp = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>'
    if form == "JPEG":
        return hard_inputs.encode(chest, form, quality=95, xmp=xmp.encode())
    texts = PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", xmp)
    return hard_inputs.encode(chest, pnginfo=texts)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_an_orientation_in_xmp_alone_is_heeded(page, form):
    content = orient_by_xmp(form)
    assert read_picture(io.BytesIO(content)).remarks == (TURNED,)
    assert check(page, content, 0 if form == "PNG" else LOSSY)["remarks"] == [TURNED]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("tag", [0, 1, 9])
def test_an_orientation_that_asks_for_nothing_is_not_said_to_be_heeded(page, form, tag):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = tag
    content = hard_inputs.encode(hard_inputs.gray(hard_inputs.draw_chest()), form, exif=exif)
    assert read_picture(io.BytesIO(content)).remarks == ()
    assert check(page, content, 0 if form == "PNG" else LOSSY)["remarks"] == []


def jpegs() -> Iterator[tuple[str, bytes]]:
    """Encode the phantoms in the ways of JPEG."""
    for number, file in enumerate(sorted(PHANTOMS.rglob("*.jpeg"))):
        yield f"{file.name} as it is", file.read_bytes()
        with Image.open(file) as image:
            gray = image.convert("L")
        side = (180, 333, 640, 1024, 1500, 2000)[number]
        sized = gray.resize((side, side * 3 // 4))
        tinted = Image.merge("RGB", (sized, sized.point(lambda x: x * 0.9), sized))
        for quality in (60, 95):
            yield f"gray {side}, {quality}", hard_inputs.encode(sized, "JPEG", quality=quality)
            options = {"quality": quality, "subsampling": "4:2:0"}
            yield f"color {side}, {quality}", hard_inputs.encode(tinted, "JPEG", **options)


@pytest.mark.slow
def test_a_jpeg_gets_nearly_the_probability_of_make_predict(page, network, capsys):
    differences = {name: abs(ask(page, each) - predict(network, each)) for name, each in jpegs()}
    largest = max(differences, key=differences.get)
    with capsys.disabled():
        print(f"\nJPEG: {len(differences)} images, largest {differences[largest]:.4f} ({largest})")
    assert differences[largest] < 1e-3


CHEST = draw(90, 80, "L")
JPEG = hard_inputs.encode(hard_inputs.gray(hard_inputs.draw_chest()), "JPEG", quality=95)
REFUSED = {
    "text": (b"hello", "no PNG, JPEG, BMP, GIF or WEBP image"),
    "nothing": (b"", "no PNG, JPEG, BMP, GIF or WEBP image"),
    "DICOM": (hard_inputs.dicom(4095 * hard_inputs.draw_chest()), "do not read DICOM files"),
    "deep color": (
        hard_inputs.in_deep_color(np.full((4, 4, 3), 9000)), "16 bits per channel",
    ),
    "cut PNG": (CHEST[: len(CHEST) // 2], "the PNG image may be damaged or cut off"),
    "PNG without a width": (
        hard_inputs.write_png(0, 8, 8, 0, bytes(8)), "the PNG image may be damaged or cut off",
    ),
    "PNG of an unknown color": (
        hard_inputs.write_png(8, 8, 8, 5, bytes(72)), "the PNG image may be damaged or cut off",
    ),
    "PNG without pixels": (CHEST[:33], "the PNG image may be damaged or cut off"),
    "cut JPEG": (JPEG[: len(JPEG) // 2], "the JPEG image may be damaged or cut off"),
    "start of a JPEG": (JPEG[:40], "the JPEG image may be damaged or cut off"),
    "broken GIF": (b"GIF89a" + bytes(40), "the GIF image may be damaged or cut off"),
    "bomb": (hard_inputs.make_bomb(8000, 8000), "8000 x 8000 pixels are more than the 40 million"),
    "larger bomb": (hard_inputs.make_bomb(60000, 60000), "pixels are more than the 40 million"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_rightly_is_refused_by_name(page, name):
    content, reason = REFUSED[name]
    refused = read(page, content)["refused"]
    assert reason in refused
    assert "score it with make predict." in refused or "bomb" in name
    upload(page, content)
    expect(page.get_by_role("alert")).to_have_text(refused)


@pytest.mark.slow
def test_a_png_that_unfolds_to_more_than_it_says_fills_no_memory(page):
    """Its header says 8 x 8, and 200 million zeros follow."""
    content = hard_inputs.write_png(8, 8, 8, 0, bytes(200_000_000))
    assert read(page, content)["pixels"].max() == 0


# ---- what the page shows


def phantom(number: int = 6) -> bytes:
    return sorted(PHANTOMS.rglob("*.jpeg"))[number - 1].read_bytes()


def as_png(pixels: np.ndarray) -> bytes:
    return hard_inputs.encode(pixels)


def list_strange() -> list[bytes]:
    """Return images of which the guard has something to say, and one of which it has not."""
    chest = read_picture(io.BytesIO(phantom())).pixels
    random = np.random.default_rng(0)
    turned = [np.rot90(image, turns) for image in (chest, 255 - chest) for turns in range(4)]
    noise = random.integers(0, 256, (300, 200, 3)).astype(np.uint8)
    dark = random.integers(0, 3, (50, 60)).astype(np.uint8)
    return [as_png(np.ascontiguousarray(each)) for each in (*turned, noise, dark)]


@pytest.mark.slow
def test_the_guard_finds_what_make_predict_finds(page, network):
    guarded = open_guard(open_shipped_model(), network)
    said = set()
    for content in list_strange():
        seen = resize_image(read_picture(io.BytesIO(content)).pixels)[None]
        found = predict_guarded(guarded.network, seen, guarded, seen)[1][0]
        upload(page, content)
        shown = page.inner_text("#warnings") if page.is_visible("#warnings") else ""
        assert shown.rstrip(".").lower() == "; ".join(describe(found)).lower()
        heading = page.inner_text("#label")
        assert (heading == "No meaningful prediction") == bool({*found} & {*MEANINGLESS})
        said.add(shown)
    assert len(said) > 2


@pytest.mark.slow
def test_the_map_is_the_class_activation_map_of_make_demo(page, network):
    content = as_png(read_picture(io.BytesIO(phantom())).pixels)
    seen = resize_image(read_picture(io.BytesIO(content)).pixels)
    upload(page, content)
    label = page.inner_text("#label").removeprefix("The model predicts ")
    heat = network.explain(seen[None].astype(np.float32), CLASS_NAMES.index(label))[0]
    for place, expected in {"heat": color_heat(heat)[..., 3], "image": seen[..., 0]}.items():
        shown = base64.b64decode(page.get_attribute(f"#{place}", "src").split(",")[1])
        with Image.open(io.BytesIO(shown)) as image:
            drawn = np.asarray(image)[..., 3 if place == "heat" else 0].astype(int)
        assert np.abs(drawn - expected).max() <= (1 if place == "heat" else 0)
    page.get_by_label("Show the class activation map").check()
    expect(page.locator("#maximum")).to_contain_text(f"{heat.max():.3g}")
    page.get_by_label("Show the class activation map").uncheck()


@pytest.mark.slow
def test_numbers_are_those_of_the_model(page):
    scorer = open_shipped_model()
    probability = ask(page, phantom())
    shown = page.inner_text("#answer")
    calibrated = [apply_temperature(each, scorer.temperature)
                  for each in (probability, scorer.threshold)]  # fmt: skip
    assert f"Probability of PNEUMONIA: {calibrated[0]:.1%}"[:-2] in shown
    assert f"From {calibrated[1]:.1%} on" in shown and f"threshold {scorer.threshold:.4f}" in shown
    assert scorer.description in shown and DISCLAIMER in shown


@pytest.mark.slow
def test_the_samples_are_answered_and_the_page_says_how_unsure_it_is_of_them(page):
    with open(REFERENCE_PREDICTIONS, newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows, 1):
        with answered(page):
            page.get_by_role("button", name=f"Phantom {number}").click()
        assert read_probability(page) == pytest.approx(float(row["probability"]), abs=2e-3)
        expect(page.locator("#label")).to_have_text(f"The model predicts {row['prediction']}")
        expect(page.locator("#label")).to_be_focused()
    missed = sum(row["prediction"] == "NORMAL" for row in rows if "PNEUMONIA/" in row["image"])
    assert f"and predicts NORMAL for {missed} of 3." in page.inner_text("#main")


@pytest.mark.slow
def test_a_phantom_and_the_map_work_with_the_keyboard_alone(page):
    page.evaluate("document.activeElement.blur()")
    page.reload()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.sample || ''"):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="The model predicts")).to_be_focused()
    expect(page.locator("#heat")).to_be_hidden()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.locator("#heat")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("slider", name="Opacity of the map")).to_be_focused()
    page.keyboard.press("End")
    expect(page.locator("#heat")).to_have_css("opacity", "1")


@pytest.mark.slow
def test_a_phone_shows_all_of_it_without_scrolling_sideways(page):
    upload(page, phantom())
    page.get_by_label("Show the class activation map").check()
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for name in ("#disclaimer", "#image", "#heat", "#bar", "#opacity"):
        box = page.locator(name).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"]


@pytest.mark.slow
def test_everything_that_can_be_used_has_a_name_and_the_warning_comes_first(page):
    assert (
        page.evaluate(
            """() => [...document.querySelectorAll("button, input, a")]
            .filter(each => !(each.textContent.trim() || each.labels?.length)).length"""
        )
        == 0
    )
    assert page.locator("#status").get_attribute("role") == "status"
    assert page.locator("#disclaimer").bounding_box()["y"] < 150


# ---- where it runs


@pytest.mark.slow
def test_nothing_of_an_image_is_sent_and_once_loaded_no_server_is_needed(served, browser):
    context = browser.new_context()
    page, asked = context.new_page(), []
    context.on("request", lambda request: asked.append((request.method, request.url)))
    page.goto(served.address)
    ask(page, phantom())
    loaded = len(asked)
    assert any(url.endswith(".wasm") for _, url in asked)
    context.set_offline(True)
    ask(page, CHEST)
    assert {method for method, _ in asked} == {"GET"}
    assert [url for _, url in asked[loaded:] if not url.startswith("data:")] == []
    context.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["facts.json", "released.onnx", "ort-wasm-simd-threaded.wasm"])
def test_a_file_that_does_not_come_is_said_and_asked_for_again(served, browser, name):
    page = browser.new_page()
    page.goto(served.address)
    page.route(f"**/{name}", lambda route: route.abort())
    upload(page, CHEST)
    expect(page.get_by_role("alert")).to_contain_text("The network could not be loaded")
    page.unroute(f"**/{name}")
    ask(page, CHEST)
    page.close()


@pytest.mark.slow
def test_the_policy_stops_requests_to_other_hosts(served, browser):
    page, asked = browser.new_page(), []
    page.goto(served.address)
    with serve(served.folder) as other:
        for script in (
            f"fetch('{other.url}/index.html').then(() => 'went', () => 'stopped')",
            f"import('{other.url}/try/reading.js').then(() => 'went', () => 'stopped')",
            f"""new Promise((say) => Object.assign(new Image(), {{
                onload: () => say("went"), onerror: () => say("stopped"),
                src: "{other.url}/try/phantom_1.jpeg"}}))""",
        ):
            assert page.evaluate(script) == "stopped"
        asked += other.requests
    assert asked == []
    page.close()


@pytest.mark.slow
def test_opened_as_a_file_the_page_says_what_to_type(built, browser):
    page = browser.new_page()
    page.goto((built / "try.html").as_uri())
    expect(page.locator("#stopped")).to_contain_text("python -m http.server")
    expect(page.locator("#main")).to_be_hidden()
    page.close()


@pytest.mark.slow
def test_what_is_written_stands_alone(built):
    site = read_site(built)
    assert find_broken_links(site) == [] and find_loaded_from_elsewhere(site) == []
    text = (built / "try.html").read_text()
    assert text.index("Content-Security-Policy") < text.index("<link") < text.index("<script")
    assert re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=|javascript:", text) is None
    assert "'unsafe-inline'" not in POLICY and "http" not in POLICY
    names = {file.name for file in (built / "try").iterdir()}
    assert {"onnxruntime-LICENSE", "onnxruntime-ThirdPartyNotices.txt", *RUNTIME} <= names
    assert [name for name in names if name.endswith((".wasm", ".mjs"))] == [
        "ort-wasm-simd-threaded.wasm"
    ]
    assert sum(file.stat().st_size for file in built.rglob("*")) < 25_000_000
