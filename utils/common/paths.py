"""Where the study keeps its files, and the environment variables that move them."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _folder(variable: str, default: Path) -> Path:
    """Return the folder an environment variable names, else the default."""
    value = os.environ.get(variable)
    return Path(value).expanduser().resolve() if value else default


def data_dir() -> Path:
    """Return the folder of data sets, downloaded weights and caches (`DATA_DIR`)."""
    return _folder("DATA_DIR", ROOT / "data")


def dataset_dir(name: str) -> Path:
    """Return the root of one data set: `chest_xray` (real) or `phantoms` (the sample)."""
    return data_dir() / name


def activation_cache_dir() -> Path:
    """Return the folder of cached backbone activations (`ACTIVATION_CACHE_DIR`)."""
    return _folder("ACTIVATION_CACHE_DIR", data_dir() / "activations")


def downloaded_weights_dir() -> Path:
    """Return the folder in which downloaded and converted weights are kept."""
    return data_dir() / "weights"


def local_weights_dir() -> Path | None:
    """Return the folder of weights that the reader supplies (`WEIGHTS_DIR`), if any."""
    value = os.environ.get("WEIGHTS_DIR")
    return Path(value).expanduser().resolve() if value else None


def results_dir(study: str) -> Path:
    """Return the folder of a study's numbers (`RESULTS_DIR` moves all studies)."""
    return _folder("RESULTS_DIR", ROOT / "results") / study


def published_results_dir() -> Path:
    """Return the committed numbers of the full study, wherever `RESULTS_DIR` points."""
    return ROOT / "results" / "full"


def predictions_dir(study: str) -> Path:
    """Return the folder of a study's prediction files, one CSV a model."""
    return results_dir(study) / "predictions"


def models_dir(study: str) -> Path:
    """Return the folder of a study's exported Keras models."""
    return results_dir(study) / "models"


def figures_dir(study: str) -> Path:
    """Return the folder of a study's figures (`FIGURES_DIR` moves all studies)."""
    return _folder("FIGURES_DIR", ROOT / "figures") / study
