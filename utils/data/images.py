"""How an image file is read: every pixel that the study uses comes through here.

What a file is, its content decides and not its name. Whatever is assumed in reading it is said in
the picture's remarks. Nothing here imports Keras.
"""

import hashlib
import re
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from utils.common.constants import IMAGE_SIZE
from utils.common.folders import one_line
from utils.common.progress import track
from utils.data.dicom import (
    DIRECTORY,
    HALF_USED,
    DicomError,
    DicomTooLargeError,
    is_dicom,
    read_dicom,
    scale_by_content,
    scale_to_bytes,
)

MAX_PIXELS = 40_000_000
"""A radiograph has ten million pixels; a file that says it has more than this is not decoded."""
DICOM = "DICOM"
IMAGE_SUFFIXES = (
    ".jpeg", ".jpg", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".dcm", ".dicom",
)  # fmt: skip
"""By which a file claims to be an image; others are images by their content alone."""
_SIGNATURES = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"), (0, b"\xff\xd8\xff", "JPEG"), (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"), (0, b"MM\0*", "TIFF"), (0, b"II+\0", "TIFF"), (0, b"MM\0+", "TIFF"),
    (0, b"GIF87a", "GIF"), (0, b"GIF89a", "GIF"), (8, b"WEBP", "WEBP"),
)  # fmt: skip
"""Where in a file, which bytes, and the decoder of Pillow; no other one is let near a file."""
_OTHER_IMAGES = (
    (4, b"ftyp", "a HEIC, AVIF or video file"), (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"), (0, b"8BPS", "a Photoshop file"),
    (0, b"\xff\x0a", "a JPEG XL image"), (0, b"\0\0\0\x0cJXL ", "a JPEG XL image"),
)  # fmt: skip
_OTHER_FILES = (
    (0, b"%PDF", "a PDF document"), (0, b"PK\3\4", "a zip archive"),
    (0, b"\x1f\x8b", "a gzip archive"), (0, b"Rar!", "a RAR archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"), (0, b"\xd0\xcf\x11\xe0", "an Office document"),
    (0, b"<!doctype", "a web page"), (0, b"<html", "a web page"), (0, b"<svg", "an SVG drawing"),
    (0, b"<?xml", "an XML file"), (0, b"\x89HDF", "an HDF5 file"), (0, b"\x93NUMPY", "an array"),
)  # fmt: skip
_START = 512
"""Bytes by which a file is recognized."""
_GRAY_OF_16_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
_WHITE_IS_ZERO = 0
"""TIFF's photometric interpretation of a negative."""
_TRUNCATED_DARK = 64
"""Pillow keeps the upper 8 of a color's 16 bits; below this, 14 bits or fewer were in use."""
TURNED = "turned as its orientation tag says"
ON_WHITE = "transparent parts shown on white"
ONE_BIT = "black and white alone (1 bit)"
FRAMES = "first of {frames} frames"
"""Remarks on how an image was read, which the page in the browser makes, too."""
_TURNED = range(2, 9)
"""Values of the orientation tag that ask for turning or mirroring."""
# Pillow warns from 90 million pixels on. Those images are refused here, in words that help more.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class DatasetError(ValueError):
    """A data set that cannot be used as it is; the message names the file and the remedy."""


class UnreadableImageError(DatasetError):
    """A file that cannot be read as an image."""

    def __init__(self, source: Path | BinaryIO, reason: str) -> None:
        """Keep the reason and its remedy, without the name of the file."""
        self.reason = reason
        name = source if isinstance(source, str | Path) else "the image"
        super().__init__(f"{name} cannot be read: {reason}")


class NoImageError(UnreadableImageError):
    """A file whose content is not one of the kinds that are read."""


class TooManyPixelsError(UnreadableImageError):
    """An image of more than `MAX_PIXELS`."""


@dataclass(frozen=True)
class Picture:
    """What an image file holds."""

    pixels: np.ndarray
    """(height, width) or (height, width, 3) uint8 in [0, 255], upright."""
    mode: str
    """How it is stored: Pillow's mode, such as L, RGB or I;16, or DICOM."""
    remarks: tuple[str, ...] = ()
    """What was assumed or changed; none for a plain image of 8 bits."""


def recognize(start: bytes) -> str | None:
    """Return the kind of image that a file's first bytes belong to, one that is read.

    Args:
        start: The first 512 bytes, or all of a shorter file.
    """
    if is_dicom(start):
        return DICOM
    return _look_up(_SIGNATURES, start)


def describe_content(start: bytes) -> str:
    """Say what a file is that is no image of the kinds that are read."""
    if not start.strip(b"\0"):
        return "it is empty"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    found = (
        _look_up(_OTHER_IMAGES, start) or _look_up(_OTHER_FILES, start)
        or _look_up(_OTHER_FILES, text)
    )  # fmt: skip
    return f"it is {found}" if found else "its content is no image of a known kind"


def is_image(file: Path) -> bool:
    """Tell whether a file is meant as an image: by its suffix, or by its content.

    One that may not be opened counts, so that reading says so.
    """
    if file.name.upper() == DIRECTORY:
        return False
    if file.suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        with open(file, "rb") as stream:
            start = stream.read(_START)
    except OSError:
        return True
    return bool(recognize(start) or _look_up(_OTHER_IMAGES, start))


def _look_up(table: Sequence[tuple[int, bytes, str]], start: bytes) -> str | None:
    return next(
        (name for place, mark, name in table if start[place : place + len(mark)] == mark), None
    )


def read_picture(source: Path | BinaryIO) -> Picture:
    """Read an image: PNG, JPEG, TIFF, BMP, WEBP, a GIF's first frame or DICOM, by its content.

    It is turned upright by its orientation tag, laid on white where it is transparent, and brought
    to 8 bits by the range that is stored. An image of 8 bits in gray or RGB without tag and
    transparency is read as it is, to the bit.

    Args:
        source: A file, or its content as a stream.

    Raises:
        UnreadableImageError: if it cannot be read; the message names the remedy.
    """
    with _open(source) as stream:
        start = stream.read(_START)
        stream.seek(0)
        kind = recognize(start)
        if kind is None:
            content = describe_content(start)
            was_lost = content in ("it is empty", "it is a web page")
            remedy = "fetch it again" if was_lost else "save it as PNG"
            raise NoImageError(source, f"{content}; {remedy}")
        try:
            if kind == DICOM:
                pixels, remarks = read_dicom(stream, MAX_PIXELS)
                return Picture(pixels, DICOM, remarks)
            return _read_with_pillow(source, stream, kind)
        except DicomTooLargeError as error:
            raise _too_large(source, str(error)) from None
        except DicomError as error:
            raise UnreadableImageError(source, str(error)) from None
        except Image.DecompressionBombError as error:
            pixels = int(re.search(r"\d+", str(error))[0])
            raise _too_large(source, f"{pixels:,}") from error
        except UnreadableImageError:
            raise
        except UnidentifiedImageError as error:  # its words name the stream, not what is wrong
            reason = f"the {kind} image is damaged or cut off at its start; fetch it again"
            raise UnreadableImageError(source, reason) from error
        except Exception as error:  # a damaged file makes decoders fail in any way
            reason = (
                f"the {kind} image is damaged or cut off ({one_line(error, 200)}); fetch it again"
            )
            raise UnreadableImageError(source, reason) from error


@contextmanager
def _open(source: Path | BinaryIO) -> Iterator[BinaryIO]:
    """Open a file; a stream is taken as it is."""
    if not isinstance(source, str | Path):
        yield source
        return
    try:
        stream = open(source, "rb")
    except OSError as error:
        reason = f"it cannot be opened ({error.strerror}); change its permissions or remove it"
        raise UnreadableImageError(source, reason) from error
    with stream:
        yield stream


def _too_large(source: Path | BinaryIO, size: str) -> TooManyPixelsError:
    return TooManyPixelsError(source, describe_too_large(size))


def describe_too_large(size: str) -> str:
    """Say why an image is refused for its size, and what helps."""
    return (
        f"{size} pixels are more than the {MAX_PIXELS // 1_000_000} million that are read; make "
        "it smaller with an image editor, or: magick large.png -resize 4000x4000 small.png"
    )


def _read_with_pillow(source: Path | BinaryIO, stream: BinaryIO, kind: str) -> Picture:
    with Image.open(stream, formats=(kind,)) as image:
        if image.width * image.height > MAX_PIXELS:
            raise _too_large(source, f"{image.width} x {image.height}")
        mode, remarks = image.mode, []
        if (frames := getattr(image, "n_frames", 1)) > 1:
            remarks.append(FRAMES.format(frames=frames))
        rows = [str(tile.args) for tile in image.tile]
        is_negative = kind == "TIFF" and image.tag_v2.get(262) == _WHITE_IS_ZERO
        upright = _turn_upright(image, remarks)
        if mode in (*_GRAY_OF_16_BITS, "I", "F"):
            pixels = _read_deep_gray(upright, mode, rows, remarks)
            # Pillow inverts negatives of 8 bits only.
            return Picture(255 - pixels if is_negative else pixels, mode, tuple(remarks))
        is_deep = any(";16" in row for row in rows)
        shown = _lay_on_white(upright, remarks)
        if is_deep and _is_dark(upright, _TRUNCATED_DARK):
            raise UnreadableImageError(
                source,
                "its colors are stored in 16 bits and use few of them, so that it would look "
                "black; save it as gray of 16 bits, or with 8 bits",
            )
        if is_deep and _is_dark(upright, 128):
            remarks.append(HALF_USED.format(bits=16))
        if mode == "1":
            remarks.append(ONE_BIT)
        return Picture(np.asarray(shown), mode, tuple(remarks))


def _turn_upright(image: Image.Image, remarks: list[str]) -> Image.Image:
    """Load an image and turn it as its orientation tag says, in every format that has one."""
    if image.format != "TIFF":
        # Looking for a PNG's tag loads its pixels; damage there would pass for that of the tag.
        image.load()
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in _TURNED
    except Exception:  # damaged metadata, in as many ways as there are
        turned = False
        remarks.append("its metadata are damaged: an orientation tag was not looked for")
    image.load()
    if not turned:
        return image
    remarks.append(TURNED)
    # TIFF is turned by Pillow when it is loaded, and has lost the tag by now.
    return ImageOps.exif_transpose(image)


def _read_deep_gray(
    image: Image.Image, mode: str, rows: list[str], remarks: list[str]
) -> np.ndarray:
    """Return gray of more than 8 bits as (height, width) uint8 in [0, 255]."""
    values = np.asarray(image)
    if mode == "F":
        if not np.isfinite(values).all():
            raise ValueError("some values are no numbers")
        if values.min() >= 0 and values.max() <= 1:
            return scale_to_bytes(values, 0, 1)
    elif any(";12" in row for row in rows):
        return scale_to_bytes(values, 0, 2**12 - 1)
    pixels, said = scale_by_content(values, 16 if mode in _GRAY_OF_16_BITS else 32)
    remarks.extend(said)
    return pixels


def _lay_on_white(image: Image.Image, remarks: list[str]) -> Image.Image:
    """Return an image of 8 bits as gray or RGB; what is transparent becomes white."""
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        if layers.getextrema()[3][0] < 255:
            remarks.append(ON_WHITE)
            white = Image.new("RGBA", layers.size, "white")
            return Image.alpha_composite(white, layers).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _is_dark(image: Image.Image, limit: int) -> bool:
    """Tell whether the upper 8 of 16 bits, which were kept of an image, stay below a limit."""
    extrema = image.convert("RGBA").getextrema()
    brightest = max(high for _, high in extrema[:3])
    is_drawn_in_alpha = brightest == 0 and extrema[3][0] < extrema[3][1]
    return brightest < limit and not is_drawn_in_alpha


def read_image(source: Path | BinaryIO) -> np.ndarray:
    """Read an image as (height, width) or (height, width, 3) uint8 in [0, 255].

    Raises:
        UnreadableImageError: see `read_picture`.
    """
    return read_picture(source).pixels


def pixel_sha256(pixels: np.ndarray) -> str:
    """Return the SHA-256 of an image's shape and pixels, however its file is encoded."""
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def resize_image(pixels: np.ndarray, size: int | tuple[int, int] = IMAGE_SIZE) -> np.ndarray:
    """Return pixels as (height, width, 3) uint8 RGB in [0, 255], resized without keeping aspect.

    Args:
        pixels: Of a `Picture`.
        size: Height and width, or one side of a square.
    """
    height, width = (size, size) if isinstance(size, int) else size
    image = Image.fromarray(pixels).convert("RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)


def load_image(source: Path | BinaryIO, size: int = IMAGE_SIZE) -> np.ndarray:
    """Read an image as (size, size, 3) uint8 RGB in [0, 255], resized without keeping aspect.

    Every image of the study goes through here: of training, `make predict` and `make demo`.
    """
    return resize_image(read_image(source), size)


def load_images(root: Path, image_ids: Sequence[str], size: int = IMAGE_SIZE) -> np.ndarray:
    """Read images as (n, size, size, 3) uint8 RGB in [0, 255], in the order of `image_ids`."""
    images = np.empty((len(image_ids), size, size, 3), np.uint8)
    with ThreadPoolExecutor() as pool:
        pixels = pool.map(lambda image_id: load_image(root / image_id, size), image_ids)
        for row, image in enumerate(track(pixels, "reading images", len(image_ids))):
            images[row] = image
    return images
