"""The web application of the demo: one page, and JSON at `/api/predict` and `/healthz`.

Nothing of an image is written to disk or logged, and names of files are never used.
"""

import base64
import io
import time
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
from flask import Flask, Request, Response, jsonify, render_template, request, send_file, url_for
from PIL import Image
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from demo.answers import Answer, Answerer
from demo.page import TEMPLATE, Sample, describe_uncertainty, list_samples
from utils.common.constants import DISCLAIMER
from utils.data.images import (
    NoImageError,
    Picture,
    TooManyPixelsError,
    UnreadableImageError,
    read_picture,
)
from utils.models.guard import MEANINGLESS, describe
from utils.models.registry import OwnScorer

MAX_BYTES = 16_000_000
TOO_LARGE = f"the file is larger than {MAX_BYTES // 1_000_000} MB"
KINDS = (
    f"PNG, JPEG, TIFF, BMP, WEBP, GIF or DICOM, at most {MAX_BYTES // 1_000_000} MB. It is read in "
    "the memory of the machine that serves this page, and not kept."
)
FIELD = "image"
"""Field of the form that holds the image."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class RefusedImage(Exception):
    """An image that is not answered; the message says why, the status goes to the client."""

    def __init__(self, status: int, message: str) -> None:
        """Keep the HTTP status next to the message."""
        super().__init__(message)
        self.status = status


class RequestInMemory(Request):
    """A request whose upload stays in memory; Werkzeug would put a large one on disk."""

    def _get_file_stream(self, *_: Any, **__: Any) -> BinaryIO:
        return io.BytesIO()


class DemoApp(Flask):
    """Flask with uploads in memory."""

    request_class = RequestInMemory


def create_app(answerer: Answerer) -> Flask:
    """Return the application.

    Args:
        answerer: Model that answers.
    """
    app = DemoApp(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BYTES
    offered = list_samples()

    @app.get("/")
    def show_page() -> str:
        return render_template(
            TEMPLATE,
            static=url_for("static", filename=""),
            script="server.js",
            disclaimer=DISCLAIMER,
            stopped="This page needs JavaScript, which has not started.",
            kinds=KINDS,
            megabytes=MAX_BYTES // 1_000_000,
            too_large=TOO_LARGE,
            samples=[
                Sample(url_for("send_sample", number=number), file.parent.name)
                for number, file in enumerate(offered, 1)
            ],
            unsure=describe_uncertainty(answerer.scorer),
        )

    @app.get("/samples/<int:number>")
    def send_sample(number: int) -> Response:
        if not 1 <= number <= len(offered):
            raise RefusedImage(404, f"there is no sample {number}; there are {len(offered)}")
        return send_file(offered[number - 1])

    @app.get("/healthz")
    def say_health() -> Response:
        return jsonify(status="ok", model=answerer.scorer.name)

    @app.post("/api/predict")
    def predict() -> Response:
        start = time.perf_counter()
        picture = decode_image(read_upload())
        answer = answerer.answer(picture.pixels)
        milliseconds = round(1000 * (time.perf_counter() - start))
        described = describe_answer(answerer, answer, picture.remarks)
        return jsonify(described | {"milliseconds": milliseconds})

    @app.errorhandler(RefusedImage)
    def explain_refusal(refusal: RefusedImage) -> tuple[Response, int]:
        return jsonify(error=str(refusal)), refusal.status

    @app.errorhandler(RequestEntityTooLarge)
    def explain_size(_: RequestEntityTooLarge) -> tuple[Response, int]:
        return jsonify(error=TOO_LARGE), 413

    @app.errorhandler(HTTPException)
    def explain_status(error: HTTPException) -> tuple[Response, int]:
        return jsonify(error=error.description), error.code or 500

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(HEADERS)
        return response

    return app


def read_upload() -> bytes:
    """Return the bytes of the uploaded image, whatever its name.

    Raises:
        RefusedImage: if there is none.
    """
    upload = request.files.get(FIELD)
    content = upload.read() if upload is not None else b""
    if not content:
        raise RefusedImage(400, f"no image was sent; send one as the form field {FIELD!r}")
    return content


def decode_image(content: bytes) -> Picture:
    """Return an uploaded image as `make predict` reads it.

    Raises:
        RefusedImage: if it is no image of a kind that is read, too large, or damaged.
    """
    try:
        return read_picture(io.BytesIO(content))
    except UnreadableImageError as error:
        status = {NoImageError: 415, TooManyPixelsError: 413}.get(type(error), 422)
        raise RefusedImage(status, error.reason) from error


def describe_answer(
    answerer: Answerer, answer: Answer, remarks: Sequence[str] = ()
) -> dict[str, Any]:
    """Return an answer as JSON holds it; pictures are PNG files in data addresses.

    Args:
        answerer: That gave it.
        answer: To describe.
        remarks: What was assumed in reading the image.

    Returns:
        Among others `is_own`, whether the user brought the model, whose threshold and calibration
        nobody has chosen; `warnings`, what the guard says of the image, and `strange`, whether its
        prediction means nothing.
    """
    scorer = answerer.scorer
    return {
        "is_own": isinstance(scorer, OwnScorer),
        "label": answer.label,
        "probability": round(answer.probability, 6),
        "threshold": round(scorer.threshold, 6),
        "calibrated_probability": round(answer.calibrated_probability, 6),
        "calibrated_threshold": round(answerer.calibrated_threshold, 6),
        "strange": not set(answer.findings).isdisjoint(MEANINGLESS),
        "warnings": list(describe(answer.findings)),
        "remarks": list(remarks),
        "model": scorer.name,
        "provenance": scorer.description,
        "explained": answerer.explained,
        "image": _to_data_address(answer.pixels),
        "heat_map": _to_data_address(color_heat(answer.heat)),
        "heat_maximum": float(answer.heat.max()),
        "disclaimer": DISCLAIMER,
    }


def color_heat(heat: np.ndarray) -> np.ndarray:
    """Return a heat map as (h, w, 4) uint8 RGBA: the hotter the redder; clear where it is zero.

    Args:
        heat: (h, w), not negative; stretched to its maximum, which the page states as a number.
    """
    share = heat / heat.max() if heat.max() > 0 else np.zeros_like(heat)
    pixels = np.zeros((*heat.shape, 4), np.uint8)
    pixels[..., 0] = 255
    pixels[..., 1] = np.round(170 * (1 - share))
    pixels[..., 3] = np.round(255 * share)
    return pixels


def _to_data_address(pixels: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
