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


def results_dir(study_name: str) -> Path:
    """Return the folder of a study's numbers (`RESULTS_DIR` moves all studies)."""
    return _folder("RESULTS_DIR", ROOT / "results") / study_name


def published_results_dir() -> Path:
    """Return the committed numbers of the full study, wherever `RESULTS_DIR` points."""
    return ROOT / "results" / "full"


def predictions_dir(study_name: str) -> Path:
    """Return the folder of a study's prediction files, one CSV a model."""
    return results_dir(study_name) / "predictions"


def predictions_file(study_name: str, model: str) -> Path:
    """Return where the predictions of a model are kept."""
    return predictions_dir(study_name) / f"{model}.csv"


def external_file(study_name: str, model: str) -> Path:
    """Return where the predictions of a model for another hospital's images are kept."""
    return results_dir(study_name) / "external" / f"{model}.csv"


def models_dir(study_name: str) -> Path:
    """Return the folder of a study's exported Keras models."""
    return results_dir(study_name) / "models"


def figures_dir(study_name: str) -> Path:
    """Return the folder of a study's figures (`FIGURES_DIR` moves all studies)."""
    return _folder("FIGURES_DIR", ROOT / "figures") / study_name


def choices_file(study_name: str) -> Path:
    """Return where the choices of a study are kept."""
    return results_dir(study_name) / "choices.json"


def metrics_file(study_name: str) -> Path:
    """Return where the metrics of a study are kept."""
    return results_dir(study_name) / "metrics.json"


def final_metrics_file(study_name: str) -> Path:
    """Return where the metrics of the final models are kept."""
    return results_dir(study_name) / "final_metrics.json"


def held_out_dir(study_name: str) -> Path:
    """Return the folder of a study's held-out predictions of candidates."""
    return results_dir(study_name) / "screening"


def held_out_file(study_name: str, candidate: str, fold: str, seed: int) -> Path:
    """Return where the held-out predictions of one training are kept."""
    return held_out_dir(study_name) / candidate / f"{fold}_seed{seed}.csv"


def final_name(candidate: str, seed: int) -> str:
    """Return the name of one final model in all folders of results."""
    return f"final/{candidate}_seed{seed}"


def model_file(study_name: str, name: str) -> Path:
    """Return where a model's network is exported to, on the machine that trained it."""
    return models_dir(study_name) / f"{name}.keras"


def provenance_file(study_name: str, name: str) -> Path:
    """Return where the provenance of a model is recorded."""
    return results_dir(study_name) / "provenance" / f"{name}.json"


def history_file(study_name: str, name: str) -> Path:
    """Return where the history of a training is kept, one row per epoch."""
    return results_dir(study_name) / "histories" / f"{name}.csv"


def table_file(study_name: str, name: str) -> Path:
    """Return where a table of a study is kept, such as `regions` or `tables/09_scores`."""
    return results_dir(study_name) / f"{name}.csv"


def minutes_file(study_name: str) -> Path:
    """Return where the minutes of a study's notebooks are recorded."""
    return results_dir(study_name) / "provenance" / "minutes.json"


def shown(path: Path) -> str:
    """Return a path as a reader would type it here: relative, if it lies in the repository."""
    return os.path.relpath(path) if path.absolute().is_relative_to(ROOT) else str(path)
