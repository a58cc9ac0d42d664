"""Which models there are: shipped ones in `models/`, those of a study in its results.

Each folder of models has a `models.json`, which says for every model its file, hash and threshold,
so that nobody scores with a file that is not the recorded one.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from utils.common.files import file_sha256, read_json, write_json
from utils.common.paths import ROOT, metrics_file, models_dir

if TYPE_CHECKING:
    import keras

SHIPPED = ROOT / "models"
SHIPPED_MODEL = "small"
ONNX_FILE = "shipped.onnx"
"""The shipped network once more, which is scored without TensorFlow."""
RECORD = "models.json"
PHANTOMS = SHIPPED / "phantoms"
"""Rendered chests by which an installation is checked, and which the demo offers."""
DETECTOR_FILE = "small_novelty.npz"
"""Beside the shipped model: tells images that are no chest radiographs."""
PHANTOMS_ONLY = "WARNING: this model has seen phantoms only, no radiograph of a patient."
"""Said of every model of the sample study."""


class ModelError(ValueError):
    """A model that cannot be used; the message names the remedy."""


class Network(Protocol):
    """What scores images: a Keras model, or `onnx_scoring.OnnxNetwork`."""

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        """Return the (n, 2) probabilities of (n, 224, 224, 3) RGB in [0, 255]."""


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
    """The same network for ONNX Runtime; the shipped one has it."""

    def open(self) -> Network:
        """Open the network for scoring, without TensorFlow where that is possible."""
        if self.onnx is None:
            return self.load()
        from utils.models.onnx_scoring import OnnxNetwork  # not before the model has been named

        return OnnxNetwork(self.onnx)

    def load(self) -> "keras.Model":
        """Load the network in Keras, from (n, 224, 224, 3) RGB in [0, 255] to probabilities."""
        import keras  # not before the terminal has said which model is taken: it takes seconds

        return keras.models.load_model(self.file, compile=False, safe_mode=True)


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


def _read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the records of a folder's models by name; none where nothing is registered."""
    file = folder / RECORD
    return read_json(file) if file.is_file() else {}


def choose_model(study_name: str, name: str | None = None) -> Scorer:
    """Return the model to score with.

    Shipped models come from `models/`, those of a study from `results/<study>/models/`; a study's
    model hides a shipped one of the same name. Without a name: the model that the study chose
    (`chosen_model` in its `metrics.json`) if its file is there and is the recorded one, else the
    shipped one.

    Raises:
        ModelError: if the named model is unknown, its file is missing or has changed, or there
            is no model at all.
    """
    models = {
        known: (folder, record)
        for folder in (SHIPPED, models_dir(study_name))
        for known, record in _read_records(folder).items()
    }
    if name is not None:
        if name not in models:
            raise ModelError(
                f"there is no model {name!r}; known are {', '.join(sorted(models)) or 'none'}"
            )
        return _open_model(name, *models[name])
    metrics = metrics_file(study_name)
    chosen = read_json(metrics).get("chosen_model") if metrics.is_file() else None
    note = ""
    if chosen is not None:
        try:
            if chosen not in models:
                raise ModelError("it has not been trained here")
            return _open_model(chosen, *models[chosen])
        except ModelError as reason:
            if study_name == "sample":
                raise
            # The chosen model is large and made by training; the shipped one stands in for it.
            note = f"; the chosen model {chosen} is not used: {reason}"
    if study_name == "sample":
        raise ModelError("the sample study has no model yet; run `make all STUDY=sample`")
    scorer = open_shipped_model()
    return replace(scorer, description=scorer.description + note)


def open_shipped_model() -> Scorer:
    """Return the model that ships with the repository.

    Raises:
        ModelError: if there is none, or its file is not the recorded one.
    """
    records = _read_records(SHIPPED)
    if not records:
        raise ModelError("no model is shipped; run `make all STUDY=full` to train one")
    name, record = next(iter(records.items()))
    return _open_model(name, SHIPPED, record)


def _open_model(name: str, folder: Path, record: dict[str, Any]) -> Scorer:
    """Return a recorded model, if its files are there and are the recorded ones."""
    return Scorer(
        name, _find_recorded(folder, record), float(record["threshold"]), record["description"],
        float(record["temperature"]),
        _find_recorded(folder, record["onnx"]) if "onnx" in record else None,
    )  # fmt: skip


def _find_recorded(folder: Path, record: dict[str, Any]) -> Path:
    file = folder / record["file"]
    remedy = "restore it with git" if folder == SHIPPED else "rebuild it with `make all`"
    if not file.is_file():
        raise ModelError(f"{file} is missing; {remedy}")
    if file_sha256(file) != record["sha256"]:
        raise ModelError(f"{file} is not the file that was recorded; {remedy}")
    return file
