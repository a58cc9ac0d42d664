"""Images, folders and archives as people have them, drawn small; none shows a person.

Each kind of difficulty was reported by people who do this job. `reference` is the picture, and
every encoding of it in `ENCODINGS` must be read as that picture.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image, ImageDraw
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

SECRET = "Confidential^Someone"
"""Stands in every text of the DICOM headers that are drawn; it must appear nowhere else."""


def draw_chest(seed: int = 0, size: tuple[int, int] = (64, 80), opacity: bool = False):
    """Draw a crude frontal chest, (height, width) float in [0, 1], that has no symmetry."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    chest = 0.75 * np.exp(-(((x - 0.5) / 0.48) ** 6) - ((y - 0.55) / 0.6) ** 8)
    for center in (0.3, 0.7):
        chest -= 0.5 * np.exp(-(((x - center) / 0.15) ** 2) - ((y - 0.45) / 0.3) ** 2)
    chest += 0.4 * np.exp(-(((x - 0.58) / 0.12) ** 2) - ((y - 0.68) / 0.15) ** 2)
    if opacity:
        chest += 0.35 * np.exp(-(((x - 0.72) / 0.1) ** 2) - ((y - 0.6) / 0.1) ** 2)
    chest += np.random.default_rng(seed).normal(0, 0.02, size)
    chest -= chest.min()
    return chest / chest.max()


def to_bytes(chest: np.ndarray) -> np.ndarray:
    return np.round(255 * chest).astype(np.uint8)


def encode(image: Image.Image | np.ndarray, form: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(
        stream, form, **options
    )
    return stream.getvalue()


def save(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# Encodings of one picture ---------------------------------------------------------------------

LYING = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
}  # fmt: skip
"""How pixels lie in a file whose orientation tag has this value."""


def lay_down(image: Image.Image, tag: int, form: str) -> bytes:
    """Encode an image so that only its orientation tag sets it upright."""
    exif = Image.Exif()
    exif[0x0112] = tag
    options = {"quality": 100} if form in ("JPEG", "MPO") else {}
    if form == "WEBP":
        options = {"lossless": True}
    return encode(image.transpose(LYING[tag]), form, exif=exif, **options)


def in_alpha_alone(chest: np.ndarray) -> bytes:
    nothing = np.zeros_like(chest)
    return encode(to_bytes(np.dstack([nothing, nothing, nothing, 1 - chest])))


def in_bits(chest: np.ndarray, bits: int, form: str = "PNG") -> bytes:
    """Encode with 16 bits a value, of which fewer are in use."""
    return encode(np.round((2**bits - 1) * chest).astype(np.uint16), form)


def write_png(
    width: int, height: int, depth: int, color: int, rows: bytes, interlaced: int = 0,
    extra: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:  # fmt: skip
    """Write a PNG that Pillow may not be able to write, from rows with their filters."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def make_bomb(width: int, height: int) -> bytes:
    """Return a PNG of a few kilobytes that says it is large."""
    return write_png(width, height, 8, 0, bytes(1_000_000))


def in_deep_color(values: np.ndarray) -> bytes:
    """Encode (height, width, 2, 3 or 4) whole numbers as a PNG of 16 bits, which Pillow cannot."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return write_png(width, height, 16, {2: 4, 3: 2, 4: 6}[channels], rows)


def turn_negative(tiff: bytes) -> bytes:
    """Say in a little-endian TIFF that white is zero."""
    start = tiff.index(struct.pack("<HHI", 262, 3, 1))
    return tiff[: start + 8] + struct.pack("<H", 0) + tiff[start + 10 :]


LOSSY = 10
"""Levels of gray by which JPEG may change a pixel of this picture."""
ENCODINGS: dict[str, tuple[Callable[[np.ndarray], bytes], float, str]] = {
    "gray.png": (lambda c: encode(to_bytes(c)), 0, ""),
    "gray.jpeg": (lambda c: encode(to_bytes(c), "JPEG", quality=95), LOSSY, ""),
    "rgb.jpg": (lambda c: encode(gray(c).convert("RGB"), "JPEG", quality=95), LOSSY, ""),
    "progressive.jpg": (
        lambda c: encode(to_bytes(c), "JPEG", quality=95, progressive=True), LOSSY, "",
    ),
    "cmyk.jpg": (lambda c: encode(gray(c).convert("CMYK"), "JPEG", quality=95), LOSSY, ""),
    "phone.jpg": (
        lambda c: encode(gray(c).convert("RGB"), "MPO", quality=95, save_all=True,
                         append_images=[Image.new("RGB", (8, 8))]), LOSSY, "first of 2 frames",
    ),
    "scan.TIFF": (lambda c: encode(to_bytes(c), "TIFF"), 0, ""),
    "negative.tif": (lambda c: turn_negative(encode(to_bytes(1 - c), "TIFF")), 1, ""),
    "scan.BMP": (lambda c: encode(to_bytes(c), "BMP"), 0, ""),
    "scan.webp": (lambda c: encode(gray(c), "WEBP", lossless=True), 0, ""),
    "scan.gif": (lambda c: encode(to_bytes(c), "GIF"), 0, ""),
    "moving.gif": (
        lambda c: encode(to_bytes(c), "GIF", save_all=True, append_images=[gray(1 - c)]), 0,
        "first of 2 frames",
    ),
    "moving.png": (
        lambda c: encode(to_bytes(c), save_all=True, default_image=True,
                         append_images=[gray(1 - c)]), 0, "first of 2 frames",
    ),
    "pages.tif": (
        lambda c: encode(to_bytes(c), "TIFF", save_all=True, append_images=[gray(1 - c)]), 0,
        "first of 2 frames",
    ),
    "scan.jfif": (lambda c: encode(to_bytes(c), "JPEG", quality=95), LOSSY, ""),
    "no_extension": (lambda c: encode(to_bytes(c)), 0, ""),
    "jpeg_inside.png": (lambda c: encode(to_bytes(c), "JPEG", quality=95), LOSSY, ""),
    "webp_inside.jpg": (lambda c: encode(gray(c), "WEBP", lossless=True), 0, ""),
    "16_bits.png": (lambda c: in_bits(c, 16), 1, ""),
    "12_in_16.png": (lambda c: in_bits(c, 12), 1, "values fit 12 bits"),
    "10_in_16.png": (lambda c: in_bits(c, 10), 1, "values fit 10 bits"),
    "8_in_16.png": (lambda c: in_bits(c, 8), 0, "values fit 8 bits"),
    "12_in_16.tif": (lambda c: in_bits(c, 12, "TIFF"), 1, "values fit 12 bits"),
    "negative_16.tif": (lambda c: turn_negative(in_bits(1 - c, 16, "TIFF")), 1, ""),
    "12_in_32.tif": (
        lambda c: encode(np.round(4095 * c).astype(np.int32), "TIFF"), 1, "values fit 12 bits",
    ),
    "float.tif": (lambda c: encode(c.astype(np.float32), "TIFF"), 1, ""),
    "float_wide.tif": (
        lambda c: encode((3000 * c - 1000).astype(np.float32), "TIFF"), 1, "darkest value",
    ),
    "rgba_opaque.png": (lambda c: encode(gray(c).convert("RGBA")), 0, ""),
    "gray_alpha.png": (lambda c: encode(gray(c).convert("LA")), 0, ""),
    "alpha_alone.png": (in_alpha_alone, 1, "transparent parts shown on white"),
    "palette.png": (lambda c: encode(gray(c).convert("P")), 0, ""),
    "palette_clear.png": (
        lambda c: encode(gray(c).quantize(64), transparency=bytes([0] + [255] * 63)), 255,
        "transparent parts shown on white",
    ),
    "clear_gray.png": (
        lambda c: encode(gray(c), transparency=0), 255, "transparent parts shown on white",
    ),
    **{
        f"lying_{tag}.{form}": (
            lambda c, tag=tag, form=form: lay_down(gray(c), tag, form),
            LOSSY if form in ("JPEG", "MPO") else 0, "turned as its orientation tag says",
        )
        for tag in LYING for form in ("JPEG", "PNG", "WEBP", "TIFF", "MPO")
    },
    "lying_16_bits.png": (
        lambda c: lay_down(Image.fromarray(np.round(4095 * c).astype(np.uint16)), 6, "PNG"), 1,
        "turned as its orientation tag says",
    ),
}  # fmt: skip
"""By file name: how it is encoded, the largest difference from the reference that is right, and
what a remark must say; without words there must be none. 255: the picture is not the same."""


def gray(chest: np.ndarray) -> Image.Image:
    return Image.fromarray(to_bytes(chest))


# No radiographs, and radiographs the wrong way ----------------------------------------------------


def draw_letter() -> Image.Image:
    page = Image.new("L", (800, 1000), 255)
    pen = ImageDraw.Draw(page)
    for top in range(40, 840, 20):
        pen.text((40, top), "Dear colleague, this page is a letter, and no radiograph.", fill=0)
    return page


def draw_pattern() -> np.ndarray:
    """Draw three chests as the colors of one image, each under waves of its own."""
    waves = [0.3 * np.sin(np.mgrid[0:280, 0:350][n % 2] / (7 + 9 * n)) for n in range(3)]
    chests = [draw_chest(90 + n, (280, 350)) for n in range(3)]
    return to_bytes(np.dstack([c + w for c, w in zip(chests, waves, strict=True)]).clip(0, 1))


NO_RADIOGRAPHS: dict[str, tuple[Callable[[], bytes], str]] = {
    "letter.png": (lambda: encode(draw_letter()), "unlike any chest radiograph"),
    "pattern.png": (lambda: encode(draw_pattern()), "unlike any chest radiograph"),
    "white.png": (lambda: encode(np.full((300, 300), 255, np.uint8)), "nearly constant"),
    "black.png": (lambda: encode(np.zeros((300, 300), np.uint8)), "nearly constant"),
    "nearly_black.png": (lambda: encode(to_bytes(0.02 * draw_chest())), "nearly constant"),
    "one_pixel.png": (lambda: encode(np.full((1, 1), 128, np.uint8)), "nearly constant"),
    "flat.dcm": (
        lambda: dicom(np.full((90, 70), 900), WindowCenter=2048, WindowWidth=4096),
        "nearly constant",
    ),
}
"""By file name: how it is drawn, and what a remark must say."""
WRONG_WAY: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "inverted.png": (lambda pixels: 255 - pixels, "probably a negative"),
    "upside_down.png": (lambda pixels: pixels[::-1, ::-1], "probably upside down"),
    "on_its_left.png": (np.rot90, "probably rotated: turn it by"),
    "on_its_right.png": (lambda pixels: np.rot90(pixels, -1), "probably rotated: turn it by"),
}
"""By file name: how gray pixels are changed, and what a remark must say."""


# DICOM ------------------------------------------------------------------------------------------


def dicom(stored: np.ndarray, kind: str = "MONOCHROME2", bits: int = 12, **elements) -> bytes:
    """Write a DICOM file whose header names somebody.

    Args:
        stored: (height, width) or (height, width, 3) whole numbers as they are stored.
        kind: Photometric interpretation.
        bits: Bits stored.
        elements: More elements, or other values; None leaves one out. `syntax` and `compressed`
            say how the pixels are packed.
    """
    syntax = elements.pop("syntax", ExplicitVRLittleEndian)
    compressed = elements.pop("compressed", None)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["hard inputs"])
    meta.TransferSyntaxUID = syntax
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID,
    )  # fmt: skip
    for name in ("PatientName", "InstitutionName", "ReferringPhysicianName", "StudyDescription"):
        setattr(data, name, SECRET)
    data.PatientID, data.AccessionNumber, data.Modality = SECRET, SECRET[:16], "DX"
    data.Rows, data.Columns = stored.shape[:2]
    data.SamplesPerPixel = 3 if stored.ndim == 3 else 1
    if stored.ndim == 3:
        data.PlanarConfiguration = 0
    data.PhotometricInterpretation = kind
    data.BitsAllocated = 8 if bits <= 8 else 16
    data.BitsStored, data.HighBit = bits, bits - 1
    data.PixelRepresentation = int(stored.min() < 0)
    packed = stored.astype("<i2" if stored.min() < 0 else "u1" if bits <= 8 else "<u2").tobytes()
    data.PixelData = packed + bytes(len(packed) % 2) if compressed is None else encapsulate(
        [compressed]
    )  # fmt: skip
    if compressed is not None:
        data["PixelData"].VR = "OB"
    for name, value in elements.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    stream = io.BytesIO()
    data.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def lookup_table(values: Iterable[int], bits: int) -> list[pydicom.Dataset]:
    """Return a sequence of one lookup table from 0 on."""
    item, values = pydicom.Dataset(), list(values)
    item.LUTDescriptor = [len(values), 0, bits]
    item["LUTDescriptor"].VR = "US"
    item.LUTData = values
    item["LUTData"].VR = "US"
    return [item]


# Archives ---------------------------------------------------------------------------------------


def archive_files(names: Iterable[str]) -> dict[str, bytes]:
    """Return small different images under these names."""
    return {
        name: encode(to_bytes(draw_chest(number, (24, 24), "NORMAL" not in name)), "JPEG")
        for number, name in enumerate(names)
    }


def zip_of(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def say_deflate64(content: bytes) -> bytes:
    """Make the entries of a zip say that they are packed as Windows packs above 2 GB."""
    marked = bytearray(content)
    for mark, offset in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        start = marked.find(mark)
        while start >= 0:
            marked[start + offset : start + offset + 2] = struct.pack("<H", 9)
            start = marked.find(mark, start + 4)
    return bytes(marked)
