"""The page in the site: the released network in the reader's browser, by ONNX Runtime for the web.

An extension of Sphinx, which `make site` runs. Where npm cannot fetch ONNX Runtime, the page says
that it was left out, and so does the build.
"""

import shutil
import sys
import tarfile
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from flask import Flask
from sphinx.application import Sphinx

from demo.answers import CLASS_ACTIVATION_MAP
from demo.page import DEMO, TEMPLATE, Sample, describe_uncertainty, list_samples
from utils.common.constants import CLASS_NAMES, DISCLAIMER, IMAGE_SIZE, PNEUMONIA
from utils.common.files import write_json
from utils.common.npm import NpmError, fetch_package
from utils.data.images import FRAMES, MAX_PIXELS, ON_WHITE, ONE_BIT, TURNED, describe_too_large
from utils.evaluation.calibration import apply_temperature
from utils.models.guard import CONSTANT, FOREIGN, IF_ONE, MEANINGLESS, POSES, REMARKS, load_guard
from utils.models.onnx_scoring import INPUT, OnnxNetwork
from utils.models.registry import Scorer, open_shipped_model

PACKAGE = "onnxruntime-web@1.30.0"
INTEGRITY = (
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZ"
    "ClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
RUNTIME = {
    # As .js, because some servers do not know .mjs, and browsers then do not run it.
    "onnxruntime.js": "package/dist/ort.wasm.bundle.min.mjs",
    "ort-wasm-simd-threaded.wasm": "package/dist/ort-wasm-simd-threaded.wasm",
}
"""Files of the package that the page needs; more than one thread is never asked for."""
LICENSES = ("LICENSE", "ThirdPartyNotices.txt")
"""Of ONNX Runtime; its npm package has none, its Python package has them."""
PAGE, FOLDER = "try.html", "try"
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'; "
    "img-src 'self' blob: data:; style-src 'self'; form-action 'none'; base-uri 'none'"
)
KINDS = (
    "PNG, JPEG, BMP, WEBP or GIF. It is read and scored by your browser, and never leaves it. The "
    "network is loaded with the first image."
)
STOPPED = (
    "This page has not started. It needs JavaScript and a web server; opened as a file it cannot "
    "run. In the folder that holds try.html, type: python -m http.server — then open "
    "http://localhost:8000/try.html"
)
MARK = "<!-- try it -->"
"""Where the front page is to have its link."""
LEFT_OUT = (
    "This page was left out when the site was built ({reason}). It would run the model in your "
    "browser. In the repository, make demo serves the same on your machine."
)


def extract_runtime(package: Path, folder: Path) -> None:
    """Write the files of ONNX Runtime that the page needs, and its licenses."""
    with tarfile.open(package) as archive:
        for name, member in RUNTIME.items():
            with archive.extractfile(member) as source, open(folder / name, "wb") as target:
                shutil.copyfileobj(source, target)
    package_folder = Path(find_spec("onnxruntime").origin).parent
    for name in LICENSES:
        shutil.copy(package_folder / name, folder / f"onnxruntime-{name}")


def write_page(site: Path, runtime: Path | None, reason: str = "") -> None:
    """Write `try.html` and the folder `try` into the site.

    Args:
        site: Folder of the site.
        runtime: Folder of `extract_runtime`; without one the page says that it was left out.
        reason: Why.
    """
    folder = site / FOLDER
    folder.mkdir(parents=True)
    shutil.copy(DEMO / "static" / "demo.css", folder)
    content = {
        "policy": POLICY, "static": f"{FOLDER}/", "home": "index.html", "disclaimer": DISCLAIMER
    }  # fmt: skip
    if runtime is None:
        content["stopped"] = LEFT_OUT.format(reason=reason)
    else:
        scorer = open_shipped_model()
        scripts = [*(DEMO / "browser").iterdir(), DEMO / "static" / "demo.js"]
        for file in [*scripts, *runtime.iterdir(), scorer.onnx]:
            shutil.copy(file, folder)
        write_facts(folder, scorer)
        content |= {
            "script": "browser.js",
            "stopped": STOPPED,
            "kinds": KINDS,
            "samples": copy_samples(folder),
            "unsure": describe_uncertainty(scorer),
        }
    text = Flask(__package__).jinja_env.get_template(TEMPLATE).render(content)
    (site / PAGE).write_text(text, encoding="utf-8")


def copy_samples(folder: Path) -> list[Sample]:
    """Copy the phantoms that the page offers."""
    samples = []
    for number, file in enumerate(list_samples(), 1):
        name = f"phantom_{number}.jpeg"
        shutil.copy(file, folder / name)
        samples.append(Sample(f"{FOLDER}/{name}", file.parent.name))
    return samples


def write_facts(folder: Path, scorer: Scorer) -> None:
    """Write what the page's scripts have to know of the model: numbers, words and arrays."""
    network = OnnxNetwork(scorer.onnx)
    guard = load_guard(scorer.guard)
    arrays = {
        "class_weights": network.class_weights,
        **{name: getattr(guard, name) for name in ("directions", "references", "weights", "bias")},
    }
    values, places = b"", {}
    for name, array in arrays.items():
        places[name] = {"start": len(values), "length": array.size}
        values += np.ascontiguousarray(array, "<f4").tobytes()
    (folder / "values.bin").write_bytes(values)
    loaded = ["values.bin", scorer.onnx.name, *RUNTIME]
    facts: dict[str, Any] = {
        "model": scorer.name,
        "provenance": scorer.description,
        "explained": CLASS_ACTIVATION_MAP,
        "classes": CLASS_NAMES,
        "positive": PNEUMONIA,
        "image_size": IMAGE_SIZE,
        "threshold": scorer.threshold,
        "calibrated_threshold": float(apply_temperature(scorer.threshold, scorer.temperature)),
        "temperature": scorer.temperature,
        "input": INPUT,
        "network": scorer.onnx.name,
        "runtime": "onnxruntime.js",
        "wasm": "ort-wasm-simd-threaded.wasm",
        "values": "values.bin",
        "arrays": places,
        "megabytes": round(sum((folder / name).stat().st_size for name in loaded) / 1e6),
        "guard": {
            "limit": guard.limit, "pose_limit": guard.pose_limit,
            "constant_limit": guard.constant_limit, "constant": CONSTANT, "foreign": FOREIGN,
            "poses": POSES, "meaningless": MEANINGLESS, "remarks": REMARKS, "if_one": IF_ONE,
        },
        "words": {
            "max_pixels": MAX_PIXELS, "too_large": describe_too_large("{size}"),
            "turned": TURNED, "on_white": ON_WHITE, "one_bit": ONE_BIT, "frames": FRAMES,
        },
    }  # fmt: skip
    write_json(folder / "facts.json", facts)


class TryIt:
    """The page while Sphinx builds a site: fetched first, linked by all pages, written last."""

    def __init__(self) -> None:
        """Fetch ONNX Runtime."""
        self._scratch = tempfile.TemporaryDirectory()
        self._runtime: Path | None = Path(self._scratch.name)
        self._reason = ""
        try:
            package = fetch_package(PACKAGE, INTEGRITY, self._runtime)
            extract_runtime(package, self._runtime)
            package.unlink()
        except NpmError as error:
            self._runtime, self._reason = None, str(error)

    @property
    def left_out(self) -> str:
        """What links add where the page was left out."""
        return "" if self._runtime else " (left out)"

    def link_front_page(self, app: Sphinx, page: str, source: list[str]) -> None:
        """Put a line in place of the mark in a page's source."""
        link = f'<a href="../{PAGE}">the model in your browser</a>{self.left_out}'
        line = f"- **To try it**: {link}. Nothing is installed, and no image leaves the page."
        source[0] = source[0].replace(MARK, line)

    def link_navigation(
        self, app: Sphinx, page: str, template: str, context: dict[str, Any], tree: object
    ) -> None:
        """Give the navigation its link."""
        context |= {"try_it_page": PAGE, "try_it_left_out": self.left_out}

    def write(self, app: Sphinx, error: Exception | None) -> None:
        """Write the page, unless the build has failed."""
        if error is None:
            write_page(Path(app.outdir), self._runtime, self._reason)
        self._scratch.cleanup()
        if self._reason:
            sys.stderr.write(f"!!! {PAGE} was LEFT OUT of the site: {self._reason}\n")


def setup(app: Sphinx) -> None:
    """Let Sphinx write the page."""
    page = TryIt()
    app.connect("source-read", page.link_front_page)
    app.connect("html-page-context", page.link_navigation)
    app.connect("build-finished", page.write)
