"""DICOM files: the picture that one holds as a viewer shows it, and nothing else of its header.

A header names a patient. Only the elements that say how the pixels are stored are read, and what
pydicom says, whose warnings and errors quote values, is not passed on.
"""

import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

DIRECTORY = "DICOMDIR"
"""Name of the table of contents that a CD carries beside its images."""
_WITHOUT_PREAMBLE = re.compile(
    rb"[\x02\x08]\0[\0-\x18]\0(UL|CS|UI|OB|DA|[\0-\x40]\0\0\0)", re.DOTALL
)
"""How a file begins that lacks the 128 bytes and the mark: the first element of group 2 or 8."""
_OPTIONAL = (
    "NumberOfFrames", "PlanarConfiguration", "PixelRepresentation", "HighBit",
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
    "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction",
    "RedPaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData", "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
)  # fmt: skip
_NEEDED = (
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated",
    "BitsStored", "PixelData",
)  # fmt: skip
_COLORS = (
    "MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT",
    "YBR_RCT",
)  # fmt: skip
_GDCM = "python-gdcm (Apache and BSD licenses)"
_LIBJPEG = "pylibjpeg with pylibjpeg-libjpeg (MIT and GPL 3)"
_OPENJPEG = "pylibjpeg with pylibjpeg-openjpeg (MIT)"
DECODERS = {
    "1.2.840.10008.1.2.4.50": ("JPEG", f"{_GDCM} or {_LIBJPEG}"),
    "1.2.840.10008.1.2.4.51": ("JPEG of 12 bits", f"{_GDCM} or {_LIBJPEG}"),
    "1.2.840.10008.1.2.4.57": ("lossless JPEG", f"{_GDCM} or {_LIBJPEG}"),
    "1.2.840.10008.1.2.4.70": ("lossless JPEG", f"{_GDCM} or {_LIBJPEG}"),
    "1.2.840.10008.1.2.4.80": ("JPEG-LS", f"pyjpegls (MIT) or {_GDCM}"),
    "1.2.840.10008.1.2.4.81": ("JPEG-LS", f"pyjpegls (MIT) or {_GDCM}"),
    "1.2.840.10008.1.2.4.90": ("JPEG 2000", f"{_OPENJPEG} or {_GDCM}"),
    "1.2.840.10008.1.2.4.91": ("JPEG 2000", f"{_OPENJPEG} or {_GDCM}"),
    "1.2.840.10008.1.2.4.201": ("high-throughput JPEG 2000", _OPENJPEG),
    "1.2.840.10008.1.2.4.202": ("high-throughput JPEG 2000", _OPENJPEG),
    "1.2.840.10008.1.2.4.203": ("high-throughput JPEG 2000", _OPENJPEG),
}
"""By transfer syntax how pixels are compressed, and the pip packages that decode it. None is
required: the first two and JPEG 2000 are mostly read by Pillow, the others need one of them."""
HALF_USED = (
    "{bits}-bit file whose values span less than half of the range, read as it is: it may look too "
    "dark, too bright or too pale"
)
"""Remark on a range that may be another one, such as 15 bits, or values that begin far above 0."""
_ASSUMED_BITS = (8, 10, 12, 14, 16, 24, 32)
_QUIET = threading.Lock()


class DicomError(ValueError):
    """A DICOM file whose picture cannot be read; the message quotes nothing of its header."""


class DicomTooLargeError(DicomError):
    """One with more pixels than are read; the message is its size."""


def is_dicom(start: bytes) -> bool:
    """Tell from the first 132 bytes or more whether a file is a DICOM file."""
    return start[128:132] == b"DICM" or bool(_WITHOUT_PREAMBLE.match(start))


def scale_to_bytes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return values as uint8, `low` as 0 and `high` as 255, what lies outside cut off.

    Args:
        values: Of any numeric dtype, finite.
        low: Smallest value that can be told from black.
        high: Above `low`; where it is not, all becomes 0.
    """
    width = max(float(high) - float(low), 1e-12)
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / width)
    return np.round(scaled).clip(0, 255).astype(np.uint8)


def scale_by_content(values: np.ndarray, bits: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return gray values whose range is not recorded as uint8, and what was assumed of it.

    A detector's 10 or 12 bits are often stored in 16. The range is the narrowest of the usual
    ones that holds the largest value, or all of it where the values come in steps that only an
    image widened to all bits has.

    Args:
        values: Integers, or floats that are not all in [0, 1].
        bits: In which a value is stored.
    """
    low, high = values.min(), values.max()
    if low < 0 or not np.issubdtype(values.dtype, np.integer):
        return scale_to_bytes(values, low, high), (
            "range of gray not recorded: the darkest value taken as black, the brightest as white",
        )
    fitting = next(each for each in _ASSUMED_BITS if high < 2**each)
    if fitting < bits and np.gcd.reduce(values, axis=None) >= 2 ** (bits - fitting):
        fitting = bits
    elif fitting == bits and high - low < 2 ** (bits - 1):
        return scale_to_bytes(values, 0, 2**bits - 1), (HALF_USED.format(bits=bits),)
    remarks = ()
    if fitting != bits:
        remarks = (f"{bits}-bit file whose values fit {fitting} bits: read as {fitting} bits",)
    return scale_to_bytes(values, 0, 2**fitting - 1), remarks


def read_dicom(stream: BinaryIO, largest: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read the picture of a DICOM file as a viewer shows it: LUTs or window applied.

    Args:
        stream: Of the file.
        largest: Most pixels that are decoded.

    Returns:
        (height, width) or (height, width, 3) uint8 in [0, 255], high is bright; and what was
        assumed.

    Raises:
        DicomTooLargeError: if it has more pixels than `largest`.
        DicomError: if it is damaged, has several frames, or needs a decoder that is not there.
    """
    with _without_words_of_pydicom():
        try:
            data = _read_header(stream, largest)
            return _render(data, _decode(data))
        except DicomError:
            raise
        except Exception:  # whatever a damaged header leads to; the words may quote it
            raise DicomError("the DICOM file is damaged or cut off; fetch it again") from None


@contextmanager
def _without_words_of_pydicom() -> Iterator[None]:
    """Keep pydicom's warnings from terminal and log, one thread at a time: filters are global."""
    logger = logging.getLogger("pydicom")
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        propagate, logger.propagate = logger.propagate, False
        try:
            yield
        finally:
            logger.propagate = propagate


def _read_header(stream: BinaryIO, largest: int) -> "Dataset":
    """Read the elements that describe the pixels, and the pixels as they are stored."""
    import pydicom  # takes most of a second, and few folders hold DICOM
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    data = pydicom.dcmread(stream, force=True, specific_tags=[*_NEEDED, *_OPTIONAL])
    if "PixelData" not in data:
        raise DicomError("the DICOM file holds no picture (a report, a directory or the like)")
    for name in _OPTIONAL:
        if name in data and data[name].is_empty:
            del data[name]
    frames = int(data.get("NumberOfFrames", 1))
    if frames > 1:
        raise DicomError(
            f"the DICOM file holds {frames} frames, and a radiograph is one; save the frame that "
            "is meant as a file of its own"
        )
    if data.PhotometricInterpretation not in _COLORS:
        raise DicomError("the colors of the DICOM file are coded in a way that is not read")
    if data.Rows * data.Columns > largest:
        raise DicomTooLargeError(f"{data.Columns} x {data.Rows}")
    if "TransferSyntaxUID" not in data.file_meta:
        implicit = data.original_encoding[0]
        data.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        )
    return data


def _decode(data: "Dataset") -> np.ndarray:
    """Return the stored values; colors, if there are three, as RGB."""
    from pydicom.pixels import get_decoder, pixel_array

    syntax = data.file_meta.TransferSyntaxUID
    compression, packages = DECODERS.get(str(syntax), ("", ""))
    try:
        readable = get_decoder(syntax).is_available
    except NotImplementedError:
        raise DicomError(
            "the DICOM file is compressed as a video or in a way that nothing here reads; export "
            "it uncompressed"
        ) from None
    needs = f"pip install one of these, or export it uncompressed: {packages}"
    if not readable:
        raise DicomError(f"the pixels of the DICOM file are compressed ({compression}); {needs}")
    try:
        return pixel_array(data)
    except Exception:
        if not compression:
            raise
        raise DicomError(
            f"the compressed pixels of the DICOM file ({compression}) are damaged, or need another "
            f"decoder; fetch it again, or {needs}"
        ) from None


def _render(data: "Dataset", stored: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    from pydicom.pixels import apply_color_lut, apply_modality_lut

    colors = data.PhotometricInterpretation
    if colors == "PALETTE COLOR":
        stored = apply_color_lut(stored, data)
        return scale_to_bytes(stored, 0, np.iinfo(stored.dtype).max), ()
    if stored.ndim == 3:
        return scale_to_bytes(stored, 0, 2**data.BitsStored - 1), ()
    pixels, remarks = _apply_window(data, apply_modality_lut(stored, data))
    # MONOCHROME1 shows low values bright.
    return (255 - pixels if colors == "MONOCHROME1" else pixels), remarks


def _apply_window(data: "Dataset", values: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Bring gray values to [0, 255] by the file's VOI LUT, its window, or the range it stores."""
    if "VOILUTSequence" in data:
        from pydicom.pixels import apply_voi

        remarks = _say_first(len(data.VOILUTSequence), "lookup tables")
        shown = apply_voi(np.rint(values).astype(np.int32), data)
        return scale_to_bytes(shown, 0, 2 ** int(data.VOILUTSequence[0].LUTDescriptor[2]) - 1), (
            remarks
        )
    if "WindowCenter" in data and "WindowWidth" in data:
        centers, widths = (
            np.atleast_1d(np.asarray(data[name].value, float))
            for name in ("WindowCenter", "WindowWidth")
        )
        function = data.get("VOILUTFunction", "LINEAR").upper()
        shown = _through_window(values, centers[0], widths[0], function)
        return scale_to_bytes(shown, 0, 1), _say_first(len(centers), "windows")
    bits, is_signed = int(data.BitsStored), data.get("PixelRepresentation", 0) == 1
    rescaled = "ModalityLUTSequence" in data or "RescaleSlope" in data
    if is_signed or rescaled or bits < data.BitsAllocated:
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_signed else (0, 2**bits - 1)
        if "ModalityLUTSequence" in data:
            low, high = 0, 2 ** int(data.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
        elif rescaled and "RescaleIntercept" in data:
            slope, intercept = float(data.RescaleSlope), float(data.RescaleIntercept)
            low, high = sorted((low * slope + intercept, high * slope + intercept))
        return scale_to_bytes(values, low, high), (
            f"DICOM without a window: the whole range of its {bits} bits taken",
        )
    if bits <= 8:
        return scale_to_bytes(values, 0, 2**bits - 1), ()
    pixels, remarks = scale_by_content(values, bits)
    return pixels, ("DICOM without a window", *remarks)


def _say_first(count: int, what: str) -> tuple[str, ...]:
    return (f"DICOM with {count} {what}: the first taken",) if count > 1 else ()


def _through_window(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """Return values as shares of white (DICOM PS3.3, C.11.2.1.2 and C.11.2.1.3)."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - center) / width))
    if function != "LINEAR_EXACT":
        center, width = center - 0.5, width - 1
    if width <= 0:  # a width of 1 in a linear window is a threshold
        return (values > center).astype(float)
    return ((values - center) / width + 0.5).clip(0, 1)
