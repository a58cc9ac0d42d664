"""Score a folder of radiographs that the study has never seen.

`make predict IMAGES=folder OUT=file.csv [MODEL=name]` writes one row per image. Teaching and
research material, not a medical device.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from utils.common.constants import CLASS_NAMES, DISCLAIMER, NORMAL, PNEUMONIA, PREDICTION_COLUMNS
from utils.common.files import write_csv
from utils.data.images import IMAGE_SUFFIXES
from utils.evaluation.predictions import PredictionsError
from utils.evaluation.thresholds import is_positive
from utils.models.prediction import predict_files
from utils.models.registry import PHANTOMS_ONLY, ModelError, Network, choose_model

COLUMNS = ("image", "probability", "prediction", "threshold")
RESAMPLES, SEED = 2000, 42


class PredictError(ValueError):
    """A request that cannot be fulfilled; the message names the remedy."""


@dataclass(frozen=True)
class Scores:
    """What was found in a folder."""

    images: list[str]
    """POSIX paths below the folder."""
    probabilities: np.ndarray
    """(n,) float64 in [0, 1], of PNEUMONIA; NaN where the image cannot be read."""
    unreadable: dict[str, str]
    """Reason by image."""
    ignored: int
    """Files that are no images."""


def find_images(folder: Path) -> tuple[list[str], int]:
    """List the image files below a folder, in one order everywhere; count what is no image.

    Returns:
        POSIX paths below the folder, and the number of the other files.

    Raises:
        PredictError: if there is no such folder or it holds no image.
    """
    if not folder.is_dir():
        raise PredictError(f"IMAGES={folder} is no folder; name one that holds PNG or JPEG files")
    files = [path for path in folder.rglob("*") if path.is_file()]
    images = sorted(
        path.relative_to(folder).as_posix() for path in files
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )  # fmt: skip
    if not images:
        raise PredictError(
            f"IMAGES={folder} holds no image ({len(files)} other files); "
            f"known are {', '.join(IMAGE_SUFFIXES)}"
        )
    return images, len(files) - len(images)


def score_folder(network: Network, folder: Path) -> Scores:
    """Score all images of a folder; those that cannot be read are listed.

    Args:
        network: From (n, 224, 224, 3) RGB in [0, 255] to (n, 2) probabilities.
        folder: Of PNG and JPEG files, nested or not.
    """
    names, ignored = find_images(folder)
    unreadable: dict[str, str] = {}
    probabilities = predict_files(network, folder, names, "scoring images", unreadable)
    return Scores(names, probabilities, unreadable, ignored)


def write_scores(file: Path, scores: Scores, threshold: float) -> None:
    """Write the scores, atomically: image, probability, prediction, threshold.

    Raises:
        PredictError: if the file cannot be written.
    """
    rows = []
    for image, probability in zip(scores.images, scores.probabilities, strict=True):
        if image in scores.unreadable:
            rows.append([image, "", "", ""])
        else:
            name = CLASS_NAMES[PNEUMONIA if is_positive(probability, threshold) else NORMAL]
            rows.append([image, f"{probability:.6f}", name, f"{threshold:.6f}"])
    try:
        write_csv(file, pd.DataFrame(rows, columns=list(COLUMNS)))
    except OSError as error:
        raise PredictError(f"OUT={file} cannot be written ({error}); name another file") from error


def check_writable(file: Path) -> None:
    """Find out before an hour of scoring whether the scores can be written.

    Raises:
        PredictError: if they cannot.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_dir():
            raise IsADirectoryError(f"{file} is a folder")
        probe = file.with_name(f".{file.name}.probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise PredictError(f"OUT={file} cannot be written ({error}); name another file") from error


def evaluate_scores(scores: Scores, threshold: float) -> list[str]:
    """Return lines of metrics with intervals, labels being the names of the images' folders.

    Patients are unknown, so every image counts for itself.

    Raises:
        PredictError: if a folder is not NORMAL or PNEUMONIA, or one class alone was scored.
    """
    # SciPy and scikit-learn take longer than scoring an image.
    from utils.evaluation.metrics import METRICS, evaluate_predictions
    from utils.evaluation.tables import format_interval

    rows = []
    for image, probability in zip(scores.images, scores.probabilities, strict=True):
        parent = Path(image).parent.name.upper()
        if parent not in CLASS_NAMES:
            raise PredictError(
                f"EVALUATE=1 reads labels from folder names, and {image} lies in {parent or '.'}; "
                f"name the folders {' and '.join(CLASS_NAMES)}"
            )
        if image not in scores.unreadable:
            rows.append((image, "", "test", CLASS_NAMES.index(parent), probability))
    predictions = pd.DataFrame(rows, columns=list(PREDICTION_COLUMNS))
    if predictions.y_true.nunique() < 2:
        raise PredictError("EVALUATE=1 needs images of both classes; only one has been scored")
    try:
        metrics = evaluate_predictions(predictions, threshold, RESAMPLES, SEED, level="image")
    except PredictionsError as error:
        raise PredictError(str(error)) from error
    lines = [f"{len(predictions)} images, 95% intervals by image:"]
    return lines + [f"  {METRICS[name]}: {format_interval(metrics[name])}" for name in metrics]


def main(arguments: Sequence[str] | None = None) -> int:
    """Score a folder from the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default=None)
    parser.add_argument("--study", default="full")
    parser.add_argument("--evaluate", action="store_true")
    options = parser.parse_args(arguments)
    try:
        scorer = choose_model(options.study, options.model)
        print(
            f"Model {scorer.name}: {scorer.description} (threshold {scorer.threshold:.3f})",
            flush=True,
        )
        print(DISCLAIMER)
        if options.study == "sample":
            print(PHANTOMS_ONLY)
        find_images(options.images)
        check_writable(options.out)
        scores = score_folder(scorer.open(), options.images)
        write_scores(options.out, scores, scorer.threshold)
        scored = len(scores.images) - len(scores.unreadable)
        print(f"{scored} images scored, {scores.ignored} other files ignored: {options.out}")
        if options.evaluate:
            print("\n".join(evaluate_scores(scores, scorer.threshold)))
    except (PredictError, ModelError) as error:
        print(f"predict: {error}", file=sys.stderr)
        return 2
    for reason in scores.unreadable.values():
        print(f"unreadable: {reason}", file=sys.stderr)
    return 1 if scores.unreadable else 0


if __name__ == "__main__":
    sys.exit(main())
