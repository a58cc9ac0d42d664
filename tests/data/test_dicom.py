"""DICOM is read as a viewer shows it, or refused; and nobody's name leaves its header."""

import io
import logging
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    MPEG2MPML,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tests.hard_inputs import SECRET, dicom, draw_chest, encode, lookup_table, save, to_bytes
from utils.data.images import UnreadableImageError, is_image, read_picture

CHEST = draw_chest()
REFERENCE = to_bytes(CHEST).astype(float)
TWELVE = np.round(4095 * CHEST).astype(np.uint16)
EIGHT = to_bytes(CHEST)
WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}


def read(content: bytes):
    return read_picture(io.BytesIO(content))


def rescaled(chest, slope, intercept):
    return np.round((4095 * chest - intercept) / slope).astype(int)


AS_THE_REFERENCE = {
    "window": lambda: dicom(TWELVE, **WINDOW),
    "MONOCHROME1": lambda: dicom(4095 - TWELVE, "MONOCHROME1", **WINDOW),
    "exact window": lambda: dicom(
        TWELVE, WindowCenter=2047.5, WindowWidth=4095, VOILUTFunction="LINEAR_EXACT"
    ),
    "window of rescaled values": lambda: dicom(
        rescaled(CHEST, 0.5, -1000), bits=16, RescaleSlope=0.5, RescaleIntercept=-1000, **WINDOW
    ),
    "window of a modality LUT": lambda: dicom(
        np.round(1023 * CHEST).astype(np.uint16), bits=10,
        ModalityLUTSequence=lookup_table((4 * n for n in range(1024)), 16), **WINDOW,
    ),
    "VOI LUT": lambda: dicom(
        4095 - TWELVE, VOILUTSequence=lookup_table((4095 - n for n in range(4096)), 12)
    ),
    "VOI LUT before window": lambda: dicom(
        TWELVE, VOILUTSequence=lookup_table(range(4096), 12), WindowCenter=1, WindowWidth=2
    ),
    "signed": lambda: dicom(
        TWELVE.astype(int) - 2048, PixelRepresentation=1, WindowCenter=0, WindowWidth=4096
    ),
    "8 bits": lambda: dicom(EIGHT, bits=8),
    "RGB": lambda: dicom(np.dstack([EIGHT] * 3), "RGB", 8),
    "YBR": lambda: dicom(np.dstack([EIGHT, *[np.full_like(EIGHT, 128)] * 2]), "YBR_FULL", 8),
    "palette": lambda: dicom(
        EIGHT, "PALETTE COLOR", 8,
        **{
            f"{color}PaletteColorLookupTable{part}": value
            for color in ("Red", "Green", "Blue")
            for part, value in (
                ("Descriptor", [256, 0, 16]),
                ("Data", (257 * np.arange(256)).astype("<u2").tobytes()),
            )
        },
    ),
    "implicit": lambda: dicom(TWELVE, syntax=ImplicitVRLittleEndian, **WINDOW),
    "without preamble": lambda: dicom(TWELVE, **WINDOW)[132:],
    "RLE": lambda: pack_rle(TWELVE, **WINDOW),
    "JPEG 2000": lambda: dicom(
        EIGHT, bits=8, syntax=JPEG2000Lossless, compressed=encode(EIGHT, "JPEG2000", no_jp2=True)
    ),
    "empty elements": lambda: dicom(
        TWELVE, RescaleSlope="", RescaleIntercept="", NumberOfFrames="", **WINDOW
    ),
}  # fmt: skip


def pack_rle(stored, **elements) -> bytes:
    data = pydicom.dcmread(io.BytesIO(dicom(stored, **elements)))
    data.compress(RLELossless)
    stream = io.BytesIO()
    data.save_as(stream)
    return stream.getvalue()


@pytest.mark.parametrize("name", AS_THE_REFERENCE)
def test_it_is_read_as_a_viewer_shows_it(name):
    picture = read(AS_THE_REFERENCE[name]())
    pixels = picture.pixels.reshape(*REFERENCE.shape, -1)
    assert np.abs(pixels - REFERENCE[..., None]).max() <= 1
    assert picture.mode == "DICOM" and picture.remarks == ()


def test_lossy_compression_is_read():
    content = encode(EIGHT, "JPEG", quality=95)
    picture = read(dicom(EIGHT, bits=8, syntax=JPEGBaseline8Bit, compressed=content))
    assert np.abs(picture.pixels - REFERENCE).max() <= 10


def test_a_window_cuts_off_what_lies_outside():
    values = np.arange(4096).reshape(64, 64)
    pixels = read(dicom(values, WindowCenter=1000, WindowWidth=201)).pixels.ravel()
    assert (pixels[:900] == 0).all() and (pixels[1100:] == 255).all()
    assert pixels[1000] in (127, 128) and (np.diff(pixels.astype(int)) >= 0).all()
    soft = read(dicom(values, WindowCenter=1000, WindowWidth=201, VOILUTFunction="SIGMOID"))
    assert soft.pixels.ravel()[1000] in (127, 128) and soft.pixels.ravel()[900] > 20
    threshold = read(dicom(values, WindowCenter=1000, WindowWidth=1)).pixels.ravel()
    assert threshold[999] == 0 and threshold[1000] == 255


ASSUMED = {
    "bits stored": (dicom(TWELVE), "without a window: the whole range of its 12 bits taken"),
    "no bits": (dicom(TWELVE, bits=16), "values fit 12 bits: read as 12 bits"),
    "two windows": (
        dicom(TWELVE, WindowCenter=[2048, 1], WindowWidth=[4096, 2]),
        "DICOM with 2 windows: the first taken",
    ),
    "two tables": (
        dicom(TWELVE, VOILUTSequence=[
            *lookup_table(range(4096), 12), *lookup_table([0] * 4096, 12),
        ]), "DICOM with 2 lookup tables: the first taken",
    ),
    "rescaled": (
        dicom(TWELVE, RescaleSlope=2, RescaleIntercept=-1000), "whole range of its 12 bits",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ASSUMED)
def test_what_is_assumed_is_said(name):
    content, words = ASSUMED[name]
    picture = read(content)
    assert np.abs(picture.pixels - REFERENCE).max() <= 1
    assert words in " ".join(picture.remarks)


REFUSED = {
    "frames": (dicom(np.concatenate([TWELVE] * 3), Rows=64, NumberOfFrames=3), "holds 3 frames"),
    "report": (dicom(TWELVE, PixelData=None), "holds no picture"),
    "cut off": (dicom(TWELVE)[:-500], "damaged or cut off; fetch it again"),
    "letters for numbers": (
        dicom(TWELVE).replace(b"\x28\0\x02\0US\2\0\1\0", b"\x28\0\x02\0US\2\0\7\0"), "damaged",
    ),
    "unknown colors": (dicom(TWELVE, "HSV"), "coded in a way that is not read"),
    "lossless JPEG": (
        dicom(TWELVE, syntax=JPEGLosslessSV1, compressed=b"\xff\xd8\xff\xd9"),
        r"compressed \(lossless JPEG\); pip install one of these.*python-gdcm \(Apache and BSD "
        r"licenses\) or pylibjpeg with pylibjpeg-libjpeg \(MIT and GPL 3\)",
    ),
    "JPEG-LS": (
        dicom(TWELVE, syntax=JPEGLSLossless, compressed=b"\xff\xd8\xff\xd9"),
        r"compressed \(JPEG-LS\).*pyjpegls \(MIT\)",
    ),
    "JPEG of 12 bits": (
        dicom(TWELVE, syntax=JPEGExtended12Bit, compressed=b"\xff\xd8\xff\xd9"),
        r"\(JPEG of 12 bits\) are damaged, or need another decoder.*GPL 3",
    ),
    "video": (dicom(TWELVE, syntax=MPEG2MPML, compressed=b"0"), "video.*export it uncompressed"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_radiograph_that_can_be_read_is_refused_with_a_remedy(name):
    content, reason = REFUSED[name]
    with pytest.raises(UnreadableImageError, match=reason) as caught:
        read(content)
    assert SECRET[:12] not in str(caught.value)


def test_content_decides_and_not_the_name(tmp_path):
    content = dicom(TWELVE, **WINDOW)
    for name in ("IM000001", "renamed.png", "a.dcm", "a.DICOM", "old"):
        file = save(tmp_path / name, content[132:] if name == "old" else content)
        assert is_image(file), name
        assert read_picture(file).mode == "DICOM"


HOSTILE = {
    "text for a window": {"WindowCenter": SECRET[:16], "WindowWidth": SECRET[:16]},
    "text for frames": {"NumberOfFrames": SECRET[:12]},
    "text for a slope": {"RescaleSlope": SECRET[:16], "RescaleIntercept": SECRET[:16]},
    "text for a function": {"VOILUTFunction": SECRET[:16], **WINDOW},
    "text for colors": {"PhotometricInterpretation": SECRET[:16]},
    "text for an age": {"PatientAge": SECRET[:16], "StudyDate": SECRET[:16]},
    "a private syntax": {},
    "everything right": WINDOW,
}  # fmt: skip


def write_carelessly(elements: dict) -> bytes:
    """Write values that are not what the standard allows, as careless programs do."""
    before = pydicom.config.settings.writing_validation_mode
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    reading = pydicom.config.settings.reading_validation_mode
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    try:
        texts = {
            name: elements[name] for name in elements
            if isinstance(elements[name], str) and name != "PhotometricInterpretation"
        }  # fmt: skip
        numbers = {name: "9" * len(text) for name, text in texts.items()}
        numbers |= {n: texts[n] for n in texts if n in ("VOILUTFunction", "PatientAge")}
        numbers |= {n: "20" + "0" * 6 for n in texts if n == "StudyDate"}
        content = dicom(TWELVE, **(elements | numbers))
        for name, text in texts.items():
            if numbers[name].startswith("9"):
                content = content.replace(numbers[name].encode(), text.encode())
        return content
    finally:
        pydicom.config.settings.writing_validation_mode = before
        pydicom.config.settings.reading_validation_mode = reading


@pytest.mark.parametrize("name", HOSTILE)
def test_no_value_of_a_header_is_said(name, caplog, capfd):
    content = write_carelessly(HOSTILE[name])
    if name == "a private syntax":
        content = content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.999.4242.11111\0\0")
    assert SECRET.encode() in content
    said = []
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            said.append(str(read(content)))
        except UnreadableImageError as error:
            said += [str(error), error.reason]
            assert error.__suppress_context__ and error.__cause__ is None
    said += [str(each.message) for each in warned]
    said += [caplog.text, *capfd.readouterr()]
    for word in (SECRET[:12], "4242", "PHANTOM"):
        assert not [text for text in said if word in text]
    assert warned == []


def test_silence_ends_with_the_reading():
    before = list(warnings.filters)
    read(dicom(TWELVE, **WINDOW))
    assert warnings.filters == before and logging.getLogger("pydicom").propagate


def test_reading_in_threads_gives_the_same():
    content = dicom(TWELVE, **WINDOW)
    with ThreadPoolExecutor(8) as pool:
        pictures = list(pool.map(lambda _: read(content).pixels, range(32)))
    assert all(np.array_equal(pixels, pictures[0]) for pixels in pictures)


def test_one_bit_is_black_and_white():
    drawn = np.random.default_rng(0).integers(0, 2, (16, 16))
    packed = np.packbits(drawn, bitorder="little").tobytes()
    picture = read_picture(io.BytesIO(dicom(drawn, bits=1, BitsAllocated=1, PixelData=packed)))
    np.testing.assert_array_equal(picture.pixels, 255 * drawn)
