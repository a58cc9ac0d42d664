"""One reader: what a file holds is read rightly, or refused with a remedy."""

import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.hard_inputs import (
    ENCODINGS,
    LYING,
    dicom,
    draw_chest,
    encode,
    in_bits,
    in_deep_color,
    lay_down,
    save,
    to_bytes,
)
from utils.data import images as module
from utils.data.dicom import HALF_USED
from utils.data.download import fetch
from utils.data.images import (
    NoImageError,
    TooManyPixelsError,
    UnreadableImageError,
    is_image,
    load_image,
    read_image,
    read_picture,
)

CHEST = draw_chest()
REFERENCE = to_bytes(CHEST).astype(float)


def spread(pixels: np.ndarray) -> np.ndarray:
    """Return gray or RGB pixels as (height, width, 3) float."""
    return np.broadcast_to(pixels.reshape(*pixels.shape[:2], -1), (*pixels.shape[:2], 3)).astype(
        float
    )


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_encoding_is_read_as_the_picture_that_it_holds(tmp_path, name):
    encoded, largest, words = ENCODINGS[name]
    file = save(tmp_path / name, encoded(CHEST))
    picture = read_picture(file)
    assert picture.pixels.dtype == np.uint8 and picture.pixels.shape[:2] == REFERENCE.shape
    assert is_image(file)
    difference = np.abs(spread(picture.pixels) - REFERENCE[..., None])
    assert difference.max() <= largest
    assert np.median(difference) <= 4
    assert (words in " ".join(picture.remarks)) if words else picture.remarks == ()
    stream = read_picture(io.BytesIO(file.read_bytes()))
    np.testing.assert_array_equal(stream.pixels, picture.pixels)
    assert stream.remarks == picture.remarks


def test_what_is_transparent_becomes_white(tmp_path):
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4, :, 3] = 255
    picture = read_picture(save(tmp_path / "half.png", encode(pixels)))
    assert (picture.pixels[:4] == 0).all() and (picture.pixels[4:] == 255).all()


def test_one_bit_is_read_and_said(tmp_path):
    picture = read_picture(save(tmp_path / "a.png", encode(Image.new("1", (9, 9), 1))))
    assert (picture.pixels == 255).all() and "1 bit" in picture.remarks[0]


def test_twelve_bits_that_the_file_records_are_not_assumed(tmp_path):
    values = np.round(4095 * draw_chest(size=(16, 16))).astype(np.uint16)
    file = save(tmp_path / "a.tif", pack_twelve_bits(values))
    picture = read_picture(file)
    expected = np.round(values * (255 / 4095))
    assert np.abs(picture.pixels - expected).max() <= 1 and picture.remarks == ()


def pack_twelve_bits(values: np.ndarray) -> bytes:
    """Write a TIFF whose header says that a value has 12 bits."""
    first, second = values.ravel()[0::2].astype(int), values.ravel()[1::2].astype(int)
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1)
    height, width = values.shape
    entries = {
        256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: height,
        279: packed.size,
    }  # fmt: skip
    directory = len(entries).to_bytes(2, "little")
    for tag, value in entries.items():
        directory += tag.to_bytes(2, "little") + (4).to_bytes(2, "little")
        directory += (1).to_bytes(4, "little") + value.to_bytes(4, "little")
    offset = (8 + packed.size).to_bytes(4, "little")
    return b"II*\0" + offset + packed.astype(np.uint8).tobytes() + directory + bytes(4)


def test_a_dark_image_of_all_16_bits_is_not_taken_for_one_of_fewer(tmp_path):
    gray = (to_bytes(CHEST) // 8).astype(np.uint16)  # at most 31 of 255
    for step in (257, 256):
        picture = read_picture(save(tmp_path / "a.png", encode(gray * step)))
        np.testing.assert_array_equal(picture.pixels, gray)
        assert picture.remarks == ()


@pytest.mark.parametrize(("low", "high"), [(0, 2**15 - 1), (30000, 46000), (60000, 65535)])
def test_values_that_fill_less_than_half_of_16_bits_are_said(tmp_path, low, high):
    values = np.round(low + (high - low) * CHEST).astype(np.uint16)
    picture = read_picture(save(tmp_path / "a.png", encode(values)))
    assert np.abs(picture.pixels - values / 257).max() <= 0.51
    assert picture.remarks == (HALF_USED.format(bits=16),)
    if low == 0:
        colors = in_deep_color(np.repeat(values[..., None], 3, axis=2))
        assert read_picture(save(tmp_path / "b.png", colors)).remarks == picture.remarks


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colors_of_16_bits_are_refused_where_they_would_look_black(tmp_path, channels):
    def encode_deep(bits: int) -> bytes:
        values = np.repeat(np.round((2**bits - 1) * CHEST)[..., None], channels, axis=2)
        if channels != 3:
            values[..., -1] = 2**16 - 1
        return in_deep_color(values)

    with pytest.raises(UnreadableImageError, match="would look black; save it as gray of 16 bits"):
        read_picture(save(tmp_path / "dark.png", encode_deep(12)))
    picture = read_picture(save(tmp_path / "bright.png", encode_deep(16)))
    assert np.abs(picture.pixels - REFERENCE[..., None]).max() <= 1 and picture.remarks == ()


def read_as_before(file: Path) -> np.ndarray:
    """Read an image as the study's committed numbers were made."""
    with Image.open(file, formats=("JPEG", "PNG")) as image:
        image.load()
        return np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))


def test_plain_images_are_read_to_the_bit_as_ever(tmp_path):
    phantoms = sorted(Path(__file__).parents[2].glob("models/phantoms/*/*.jpeg"))
    plain = [
        save(tmp_path / name, ENCODINGS[name][0](CHEST))
        for name in ("gray.png", "gray.jpeg", "rgb.jpg", "progressive.jpg")
    ]
    assert len(phantoms) == 6
    for file in (*phantoms, *plain):
        picture = read_picture(file)
        np.testing.assert_array_equal(picture.pixels, read_as_before(file))
        assert picture.remarks == ()


@pytest.mark.slow
@pytest.mark.skipif("XRAY_ARCHIVE" not in os.environ, reason="XRAY_ARCHIVE names no archive")
def test_real_radiographs_are_read_to_the_bit_as_ever(tmp_path):
    root = tmp_path / "chest_xray"
    fetch(root, archive=Path(os.environ["XRAY_ARCHIVE"]))
    files = sorted(root.glob("*/*/*"))
    assert len(files) > 5000

    def differs(file: Path) -> bool:
        picture = read_picture(file)
        return bool(picture.remarks) or not np.array_equal(picture.pixels, read_as_before(file))

    with ThreadPoolExecutor() as pool:
        assert [
            file for file, bad in zip(files, pool.map(differs, files), strict=True) if bad
        ] == []


PNG = encode(to_bytes(CHEST))
REFUSED = {
    "empty.png": (b"", NoImageError, "it is empty; fetch it again"),
    "zeros.png": (bytes(5000), NoImageError, "it is empty; fetch it again"),
    "drawing.jpg": (b"<svg xmlns='", NoImageError, "it is an SVG drawing; save it as PNG"),
    "start.png": (PNG[:29] + bytes(4) + PNG[33:], UnreadableImageError,
                  "the PNG image is damaged or cut off at its start; fetch it again"),
    "login.jpg": (b"<!DOCTYPE html><title>Sign in", NoImageError, "a web page; fetch it again"),
    "late.jpg": (b"\n  <html>", NoImageError, "it is a web page"),
    "letter.png": (b"%PDF-1.7 ...", NoImageError, "a PDF document; save it as PNG"),
    "photo.jpg": (b"\0\0\0\x18ftypheic", NoImageError, "a HEIC, AVIF or video file"),
    "scan.jpg": (b"\0\0\0\x0cjP  \r\n\x87\n", NoImageError, "a JPEG 2000 image; save it as PNG"),
    "._good.png": (b"\0\5\x16\7\0\2\0\0Mac OS X", NoImageError, "no image of a known kind"),
    "cut.jpeg": (encode(to_bytes(CHEST), "JPEG")[:-200], UnreadableImageError,
                 "the JPEG image is damaged or cut off .*fetch it again"),
    "cut.png": (encode(to_bytes(CHEST))[:-60], UnreadableImageError, "the PNG image is damaged"),
    "cut.tif": (encode(to_bytes(CHEST), "TIFF")[:900], UnreadableImageError, "TIFF image is damag"),
    "cut.gif": (encode(to_bytes(CHEST), "GIF")[:30], UnreadableImageError, "the GIF image is dama"),
    "renamed.jpg": (dicom(np.ones((8, 8)))[:-100], UnreadableImageError, "the DICOM file is damag"),
    "not a number.tif": (encode(np.full((8, 8), np.nan, np.float32), "TIFF"), UnreadableImageError,
                         "some values are no numbers"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_said_to_be_what_it_is(tmp_path, name):
    content, error, reason = REFUSED[name]
    file = save(tmp_path / name, content)
    with pytest.raises(error, match=f"{name} cannot be read: .*{reason}"):
        read_picture(file)
    assert is_image(file), "its name says that it is meant as an image"


def test_names_of_other_files_do_not_make_them_images(tmp_path):
    for name, content in {
        "notes.txt": b"none\n", "Thumbs.db": b"\xd0\xcf\x11\xe0", "empty": b"", "a.pdf": b"%PDF",
        "DICOMDIR": bytes(128) + b"DICM",
    }.items():  # fmt: skip
        assert not is_image(save(tmp_path / name, content)), name
    assert is_image(save(tmp_path / "IMG_0001.HEIC", b"\0\0\0\x18ftypheic")), "refused by name"


def test_damaged_metadata_do_not_keep_an_image_from_being_read(tmp_path, monkeypatch):
    file = save(tmp_path / "a.jpg", encode(to_bytes(CHEST), "JPEG"))

    def fail(self):
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr(Image.Image, "getexif", fail)
    picture = read_picture(file)
    np.testing.assert_array_equal(picture.pixels, read_as_before(file))
    assert "metadata are damaged" in picture.remarks[0]


@pytest.mark.parametrize("place", [0.4, 0.9])
def test_damaged_pixels_of_a_png_are_not_taken_for_damaged_metadata(tmp_path, place):
    content = bytearray(encode(to_bytes(CHEST)))
    at = round(place * len(content))
    content[at : at + 8] = bytes(each ^ 255 for each in content[at : at + 8])
    with pytest.raises(UnreadableImageError, match="the PNG image is damaged or cut off"):
        read_picture(save(tmp_path / "a.png", content))


def test_a_file_that_may_not_be_opened_is_named(tmp_path, monkeypatch):
    file = save(tmp_path / "closed", b"")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    assert is_image(file)
    with pytest.raises(UnreadableImageError, match="closed cannot be read: .*Permission denied"):
        read_picture(file)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [200, 400])
def test_one_limit_of_pixels_is_stated_with_a_remedy_that_works(tmp_path, monkeypatch, side):
    # The limit is 40 million; Pillow's own is reached at twice its number.
    monkeypatch.setattr(module, "MAX_PIXELS", 30_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)
    large = Image.new("L", (side, side), 60)
    for name, content in {
        "large.png": encode(large), "large.dcm": dicom(np.full((side, side), 60)),
    }.items():  # fmt: skip
        with pytest.raises(TooManyPixelsError, match="more than the 0 million.*make it smaller"):
            read_picture(save(tmp_path / name, content))
    large.thumbnail((170, 170))  # what the remedy does
    assert read_image(save(tmp_path / "small.png", encode(large))).shape == (170, 170)


def test_the_limit_is_said_without_pillows_warning():
    assert module.MAX_PIXELS == 40_000_000
    code = (
        "import io; from PIL import Image; from utils.data.images import read_image\n"
        "stream = io.BytesIO(); Image.new('L', (10_000, 9_500)).save(stream, 'PNG')\n"
        "stream.seek(0)\n"
        "try: read_image(stream)\n"
        "except ValueError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "10000 x 9500 pixels are more than the 40 million" in done.stdout
    assert done.stderr == ""


def test_every_orientation_has_its_own_picture():
    lying = {tag: lay_down(Image.fromarray(to_bytes(CHEST)), tag, "PNG") for tag in LYING}
    assert len(set(lying.values())) == len(LYING)


def test_load_image_reads_what_read_picture_reads(tmp_path):
    file = save(tmp_path / "a.png", in_bits(CHEST, 12))
    expected = Image.fromarray(read_picture(file).pixels).convert("RGB").resize(
        (32, 32), Image.Resampling.BILINEAR
    )  # fmt: skip
    np.testing.assert_array_equal(load_image(file, 32), np.asarray(expected))
