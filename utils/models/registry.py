"""Which models there are: shipped ones in `models/`, those of a study in its results.

Each folder of models has a `models.json`, which says for every model its file, hash and threshold,
so that nobody scores with a file that is not the recorded one. A model of one's own is named by
its path.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from utils.common.files import file_sha256, read_json, write_json
from utils.common.paths import ROOT, models_dir

if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)

SHIPPED = ROOT / "models"
RELEASED_MODEL = "released"
"""Round two's, taken where no model is named."""
SHIPPED_MODEL = "small"
"""Round one's, which stays."""
ONNX_FILE = "released.onnx"
"""The released network once more, which is scored without TensorFlow."""
RECORD = "models.json"
PHANTOMS = SHIPPED / "phantoms"
"""Rendered chests by which an installation is checked, and which the demo offers."""
REFERENCE_PREDICTIONS = SHIPPED / "reference_predictions.csv"
"""What the released model predicts for them."""
PHANTOMS_ONLY = "WARNING: this model has seen phantoms only, no radiograph of a patient."
"""Said of every model of the sample study."""


class ModelError(ValueError):
    """A model that cannot be used; the message names the remedy."""


class Network(Protocol):
    """What scores images: a Keras model, or `onnx_scoring.OnnxNetwork`."""

    input_shape: tuple[int | None, ...]
    """(None, height, width, 3); 224 x 224 for the networks of the study."""

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        """Return the (n, 2) probabilities of (n, height, width, 3) RGB in [0, 255]."""


@dataclass(frozen=True)
class Scorer:
    """A model that scores images, and where it comes from."""

    name: str
    file: Path
    threshold: float
    description: str
    temperature: float
    """By which the logits are divided for a calibrated probability; fitted on validation."""
    onnx: Path | None = None
    """The same network for ONNX Runtime; the released one has it, and round one's."""
    guard: Path | None = None
    """Of the same network: what `utils.models.guard` finds in images."""
    phantoms_only: bool = False
    """Whether it has been trained on phantoms, as every model of the sample study."""

    def open(self, plain: bool = False) -> Network:
        """Open the network for scoring, without TensorFlow where that is possible.

        Args:
            plain: Whether to answer by the whole image and not by ten crops.

        Raises:
            ModelError: if Keras is not installed, or the model has no ten crops to leave out.
        """
        if self.onnx is not None:
            from utils.models.onnx_scoring import OnnxNetwork  # not before the model has been named

            network = OnnxNetwork(self.onnx, plain)
            if network.ten_crops or not plain:
                return network
        elif not plain:
            return self.load()
        raise ModelError(f"{self.name} always answers by the whole image: leave PLAIN out")

    def load(self) -> "keras.Model":
        """Load the network in Keras, from (n, 224, 224, 3) RGB in [0, 255] to probabilities.

        Raises:
            ModelError: if Keras is not installed.
        """
        with _needing_keras(self.name):
            import keras  # not before the terminal has said which model is taken: it takes seconds

        return keras.models.load_model(self.file, compile=False, safe_mode=True)


@dataclass(frozen=True)
class OwnScorer(Scorer):
    """A model that the user brings as a file."""

    scale: str | None = None
    """Range of the pixels that it expects, a key of `own_model.SCALES`; None has it assumed."""
    positive: str = "1"
    """Which of its classes is PNEUMONIA."""

    def load(self) -> "keras.Model":
        """Load the network, from (n, h, w, 3) RGB in [0, 255]; say what is assumed of it.

        Raises:
            ModelError: if the file cannot be opened, its shapes do not fit, or Keras is not
                installed.
        """
        with _needing_keras(self.name):
            from utils.models.own_model import OwnModelError, open_own_model

        try:
            network, assumed = open_own_model(self.file, self.scale, self.positive)
        except OwnModelError as error:
            raise ModelError(str(error)) from error
        for each in assumed:
            logger.warning("%s: %s", self.name, each)
        return network


@contextmanager
def _needing_keras(name: str) -> Iterator[None]:
    """Say what helps where Keras or TensorFlow cannot be imported for a model."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{name} needs Keras and TensorFlow, and {error.name} is not installed here; install "
            "requirements.txt instead of requirements-score.txt (make setup does), or leave MODEL "
            "out: the released model needs neither"
        ) from error


def register_model(
    folder: Path, name: str, file: Path, threshold: float, temperature: float, description: str,
    **origin: Any,
) -> None:  # fmt: skip
    """Record a model in `models.json` of its folder.

    Args:
        folder: That holds the file.
        name: By which `make predict MODEL=` asks for it.
        file: Exported `.keras` file, from (n, 224, 224, 3) RGB in [0, 255] to probabilities.
        threshold: On the probability of PNEUMONIA, fixed on development images.
        temperature: Of the calibration, from `calibration.fit_temperature`.
        description: One line for the terminal.
        origin: Provenance that belongs to the file: seed, candidate, weights.
    """
    models = _read_records(folder)
    models[name] = {
        "file": file.relative_to(folder).as_posix(),
        "sha256": file_sha256(file),
        "threshold": threshold,
        "temperature": temperature,
        "description": description,
    } | origin
    write_json(folder / RECORD, models)


def guard_file(onnx: Path) -> Path:
    """Return where the guard of a network lies: beside it and named after it."""
    return onnx.with_name(f"{onnx.stem}_guard.npz")


def _read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the records of a folder's models by name; none where nothing is registered."""
    file = folder / RECORD
    if not file.is_file():
        return {}
    try:
        records = read_json(file)
        for record in records.values():
            str(record["file"]), str(record["sha256"]), str(record["description"])
            float(record["threshold"]), float(record["temperature"])
    except (JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError, TypeError, ValueError):
        raise ModelError(f"{file} is damaged; {_remedy(folder)}") from None
    return records


def _remedy(folder: Path) -> str:
    if folder == SHIPPED:
        return "restore it: git checkout -- models, or copy it from a fresh clone"
    return f"rebuild it: make chosen ROUND=1 STUDY={folder.parent.name}"


def choose_model(
    study_name: str, name: str | None = None, scale: str | None = None, positive: str | None = None
) -> Scorer:
    """Return the model to score with; without a name the released one, whatever else was built.

    Shipped models come from `models/`, those of a study from `results/<study>/models/`; a study's
    model hides a shipped one of the same name.

    Args:
        study_name: Of the study.
        name: Of a model, or the path of a `.keras` or `.h5` file.
        scale: Of a file's pixels, `0..255`, `0..1` or `-1..1`.
        positive: `0` or `1`: which class of a file's model is PNEUMONIA.

    Raises:
        ModelError: if the named model is unknown, or its file is missing or has changed.
    """
    models = {
        known: (folder, record)
        for folder in (SHIPPED, *([models_dir(study_name)] if name is not None else []))
        for known, record in _read_records(folder).items()
    }
    if name is not None and name not in models and _is_path(name):
        return _own(name, scale, positive)
    if scale is not None or positive is not None:
        raise ModelError(
            "SCALE= and POSITIVE= describe a model of your own, MODEL=file.keras; the models of "
            "the study say so themselves"
        )
    if name is None:
        return open_shipped_model()
    if name not in models:
        raise ModelError(
            f"there is no model {name!r}; known are {', '.join(sorted(models)) or 'none'}, and a "
            "model of your own by its path, such as MODEL=./mine.keras"
        )
    return _open_model(name, *models[name])


def _is_path(name: str) -> bool:
    return os.sep in name or bool(Path(name).suffix) or Path(name).exists()


def _own(name: str, scale: str | None, positive: str | None) -> OwnScorer:
    file = Path(os.path.expanduser(name))
    return OwnScorer(
        file.name, file, 0.5, "a model of your own, opened in safe mode", 1.0,
        scale=scale, positive=positive or "1",
    )  # fmt: skip


def open_shipped_model(name: str | None = None) -> Scorer:
    """Return a model that ships with the repository, by default the first of the record.

    Raises:
        ModelError: if there is none, or its file is not the recorded one.
    """
    records = _read_records(SHIPPED)
    if not records:
        raise ModelError(f"no model is shipped: {SHIPPED / RECORD} is missing; {_remedy(SHIPPED)}")
    name = next(iter(records)) if name is None else name
    return _open_model(name, SHIPPED, records[name])


def _open_model(name: str, folder: Path, record: dict[str, Any]) -> Scorer:
    """Return a recorded model, if its files are there and are the recorded ones."""
    return Scorer(
        name, _find_recorded(folder, record), float(record["threshold"]), record["description"],
        float(record["temperature"]),
        onnx=_find_recorded(folder, record["onnx"]) if "onnx" in record else None,
        guard=_find_recorded(folder, record["guard"]) if "guard" in record else None,
        phantoms_only=folder == models_dir("sample"),
    )  # fmt: skip


def _find_recorded(folder: Path, record: dict[str, Any]) -> Path:
    file = folder / record["file"]
    if not file.is_file():
        raise ModelError(f"{file} is missing; {_remedy(folder)}")
    if file_sha256(file) != record["sha256"]:
        raise ModelError(f"{file} is not the file that was recorded; {_remedy(folder)}")
    return file
