"""Score a folder of radiographs that the study has never seen.

`make predict IMAGES=folder OUT=file.csv [MODEL=name or file]` writes one row per image.
Teaching and research material, not a medical device.

Exit status: 0 where all images were scored, 1 where an image, a folder or a link could not be
read, 2 where the request cannot be fulfilled; 130, as of any command, after Ctrl-C.
"""

import argparse
import csv
import io
import os
import signal
import stat
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from utils.common.constants import CLASS_NAMES, DISCLAIMER, NORMAL, PNEUMONIA
from utils.common.files import write_atomically
from utils.common.folders import SHOWN, Found, printable, some, walk_folder
from utils.data.images import IMAGE_SUFFIXES, is_image
from utils.evaluation.thresholds import is_positive
from utils.models.guard import GuardedNetwork, open_guard
from utils.models.prediction import predict_files
from utils.models.registry import PHANTOMS_ONLY, ModelError, Network, Scorer, choose_model

COLUMNS = ("image", "probability", "prediction", "threshold", "remark")
RESAMPLES, SEED = 2000, 42


class PredictError(ValueError):
    """A request that cannot be fulfilled; the message names the remedy."""


@dataclass(frozen=True)
class Content:
    """What a folder holds, as POSIX paths below it."""

    images: list[str]
    others: list[str]
    """Files that are no images."""
    found: Found
    """What else was met: hidden, closed, linked."""


@dataclass(frozen=True)
class Scores:
    """What was found in a folder."""

    images: list[str]
    """POSIX paths below the folder."""
    probabilities: np.ndarray
    """(n,) float64 in [0, 1], of PNEUMONIA; NaN where the image cannot be read."""
    unreadable: dict[str, str]
    """Reason by image."""
    remarks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """What was assumed in reading and what the guard found, by image."""


def find_images(folder: Path) -> Content:
    """List the images below a folder, in one order everywhere, and what is no image.

    What is an image, its suffix or its content says. Hidden files and folders are left out;
    linked folders are followed once.

    Raises:
        PredictError: if there is no such folder or it holds no image.
    """
    try:
        is_folder = folder.is_dir()
    except OSError as error:  # a folder above it is closed, or its name is too long
        raise PredictError(f"IMAGES={folder} cannot be read ({error.strerror})") from error
    if not is_folder:
        raise PredictError(f"IMAGES={folder} is no folder; name one that holds radiographs")
    found = walk_folder(folder)
    images = [name for name in found.files if is_image(folder / name)]
    others = sorted({*found.files, *found.special} - {*images})
    content = Content(images, others, found)
    if not images:
        met = "; ".join(describe_others(content) + describe_unread(content)) or "it is empty"
        raise PredictError(
            f"IMAGES={folder} holds no image ({met}); known by their content, whatever their name, "
            f"are {', '.join(suffix[1:] for suffix in IMAGE_SUFFIXES)}"
        )
    return content


def describe_others(content: Content) -> list[str]:
    """Name what was left out and needs no image to be read."""
    kinds = {
        "other files": content.others,
        "hidden files and folders": content.found.hidden,
        "links to folders that were read already": content.found.repeated,
    }
    return _list_kinds(kinds)


def describe_unread(content: Content) -> list[str]:
    """Name what may hold images and could not be read."""
    kinds = {
        "closed folders, of which nothing was read": content.found.closed,
        "links that lead nowhere": content.found.broken,
    }
    return _list_kinds(kinds)


def _list_kinds(kinds: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{kind}: {len(names)} ({some(names)})" for kind, names in kinds.items() if names]


def score_folder(
    network: Network,
    folder: Path,
    images: Sequence[str] | None = None,
    guarded: GuardedNetwork | None = None,
) -> Scores:
    """Score all images of a folder; those that cannot be read are listed.

    Args:
        network: From (n, height, width, 3) RGB in [0, 255] to (n, 2) probabilities.
        folder: Of images, nested or not.
        images: Their paths below it; by default those of `find_images`.
        guarded: Guard that looks at the images.
    """
    names = find_images(folder).images if images is None else list(images)
    unreadable: dict[str, str] = {}
    remarks: dict[str, tuple[str, ...]] = {}
    probabilities = predict_files(
        network, folder, names, "scoring images", unreadable, remarks, guarded
    )
    return Scores(names, probabilities, unreadable, remarks)


def write_scores(file: Path, scores: Scores, threshold: float) -> None:
    """Write the scores: image, probability, prediction, threshold, remark.

    A file is written atomically, a link's target in its place; a pipe or device is written into.
    Names keep their bytes, whatever they mean.

    Raises:
        PredictError: if the file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for image, probability in zip(scores.images, scores.probabilities, strict=True):
        if image in scores.unreadable:
            writer.writerow([image, "", "", "", scores.unreadable[image]])
            continue
        name = CLASS_NAMES[PNEUMONIA if is_positive(probability, threshold) else NORMAL]
        remark = "; ".join(scores.remarks.get(image, ()))
        writer.writerow([image, f"{probability:.6f}", name, f"{threshold:.6f}", remark])
    content = text.getvalue().encode("utf-8", "surrogateescape")
    try:
        if _is_stream(file):
            with open(file, "ab") as stream:
                stream.write(content)
        else:
            with write_atomically(file.resolve()) as temporary:
                temporary.write_bytes(content)
    except OSError as error:
        raise PredictError(f"OUT={file} cannot be written ({error}); name another file") from error


def _is_stream(file: Path) -> bool:
    """Tell whether a file is written into, not replaced: a pipe, a device, or /dev/stdout."""
    if file.is_relative_to("/dev"):
        return True
    return file.exists() and not stat.S_ISREG(file.stat().st_mode)


def check_writable(file: Path, folder: Path, images: Sequence[str]) -> Path:
    """Find out before an hour of scoring whether the scores can be written.

    Args:
        file: As the user names it.
        folder: Of the images.
        images: Paths below it, none of which is overwritten.

    Returns:
        The file, with the user's own folder in place of `~`.

    Raises:
        PredictError: if they cannot.
    """
    file = Path(os.path.expanduser(file))
    try:
        if file.is_dir():
            raise IsADirectoryError(f"{file} is a folder")
        if not _is_stream(file):
            if file.exists() and (image := _find_same(file, folder, images)):
                raise PredictError(
                    f"OUT={file} is {printable(image)}, one of the images; name another file"
                )
            if file.exists() and not os.access(file, os.W_OK):  # renaming would replace it
                raise PermissionError(f"{file} is write-protected")
            target = file.resolve()
            target.parent.mkdir(parents=True, exist_ok=True)
            probe = target.with_name(f".{target.name}.probe")
            probe.touch()
            probe.unlink()
    except (OSError, RuntimeError) as error:  # the latter of a link to itself
        raise PredictError(f"OUT={file} cannot be written ({error}); name another file") from error
    return file


def _find_same(file: Path, folder: Path, images: Sequence[str]) -> str | None:
    """Return the image that a file is, under whatever name, if it is one."""
    for image in images:
        with suppress(OSError):
            if (folder / image).samefile(file):
                return image
    return None


def read_labels(folder: Path, images: Sequence[str]) -> np.ndarray:
    """Return the labels of images, (n,) int: the nearest folder named after a class says it.

    Raises:
        PredictError: naming the images that lie in no such folder.
    """
    labels, without = [], []
    above = folder.resolve().name
    for image in images:
        folders = [above, *PurePosixPath(image).parts[:-1]]
        named = [name.upper() for name in folders if name.upper() in CLASS_NAMES]
        if named:
            labels.append(CLASS_NAMES.index(named[-1]))
        else:
            without.append(image)
    if without:
        raise PredictError(
            "EVALUATE=1 reads labels from the names of folders, and these images lie in none that "
            f"is named {' or '.join(CLASS_NAMES)}: {some(without)}; move them, or leave EVALUATE "
            "out"
        )
    return np.array(labels)


def evaluate_scores(scores: Scores, labels: np.ndarray, threshold: float) -> list[str]:
    """Return lines of metrics with intervals.

    Patients are unknown, so every image counts for itself.

    Args:
        scores: Of a folder.
        labels: (n,) from `read_labels`.
        threshold: At or above which PNEUMONIA is predicted.
    """
    # SciPy and scikit-learn take longer than scoring an image.
    from utils.evaluation.exact import warn_of_few
    from utils.evaluation.metrics import METRICS, evaluate_images
    from utils.evaluation.tables import format_interval

    scored = ~np.isnan(scores.probabilities)
    y_true, probabilities = labels[scored], scores.probabilities[scored]
    if not len(y_true):
        return ["No image was scored, so there is nothing to evaluate."]
    metrics = evaluate_images(y_true, probabilities, threshold, RESAMPLES, SEED)
    lines = [f"{len(y_true)} images, 95% intervals by image:"]
    lines += [f"  {METRICS[name]}: {format_interval(metrics[name])}" for name in metrics]
    if metrics["roc_auc"]["value"] == 1:
        fewer = min((y_true == label).sum() for label in (NORMAL, PNEUMONIA))
        lines.append(
            "ROC-AUC 1.000: every PNEUMONIA image is above every NORMAL one. Its interval is the "
            f"exact one of {fewer} pairs, as many as the smaller class has images."
        )
    return lines + warn_of_few(y_true)


def describe_remarks(scores: Scores) -> list[str]:
    """Count what was assumed in reading and what the guard found, the most frequent first."""
    counts = Counter(remark for remarks in scores.remarks.values() for remark in remarks)
    if not counts:
        return []
    lines = [f"images with a remark, in the column of that name: {len(scores.remarks)}"]
    lines += [f"  {count} x {remark}" for remark, count in counts.most_common(SHOWN)]
    return [*lines, "  (what remarks mean, and what they miss: docs/using.md)"]


def describe_unreadable(scores: Scores) -> list[str]:
    """Name the images that could not be read, the first ten with their reasons."""
    lines = [
        f"unreadable: {printable(image)}: {reason}"
        for image, reason in list(scores.unreadable.items())[:SHOWN]
    ]
    if (rest := len(scores.unreadable) - SHOWN) > 0:
        lines.append(f"unreadable: {rest} more, all in the column remark")
    return lines


def open_any_guard(scorer: Scorer, network: Network) -> GuardedNetwork | None:
    """Return the guard of the released model; where another model scores, it may be missing.

    Raises:
        ModelError: if the released model scores, and its guard is not there.
    """
    try:
        return open_guard(scorer, network)
    except ModelError as error:
        if scorer.onnx is not None:
            raise
        print(f"No guard looks at the images: {error}", file=sys.stderr)
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Score a folder from the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", help="name, or path of a .keras or .h5 file")
    parser.add_argument("--scale", help="of a model of your own: 0..255, 0..1 or -1..1")
    parser.add_argument("--positive", help="of a model of your own: its class PNEUMONIA, 0 or 1")
    parser.add_argument("--plain", action="store_true", help="whole image instead of ten crops")
    parser.add_argument("--study", default="full")
    parser.add_argument("--evaluate", action="store_true")
    options = parser.parse_args(arguments)
    sys.stdout.reconfigure(errors="backslashreplace")  # names may be of any bytes
    folder = Path(os.path.expanduser(options.images))
    try:
        scorer = choose_model(options.study, options.model, options.scale, options.positive)
        print(
            f"Model {scorer.name}: {scorer.description} (threshold {scorer.threshold:.3f})",
            flush=True,
        )
        print(DISCLAIMER)
        if scorer.phantoms_only:
            print(PHANTOMS_ONLY)
        content = find_images(folder)
        labels = read_labels(folder, content.images) if options.evaluate else None
        out = check_writable(options.out, folder, content.images)
        network = scorer.open(options.plain)
        guarded = open_any_guard(scorer, network)
        scores = score_folder(network, folder, content.images, guarded)
        write_scores(out, scores, scorer.threshold)
    except (PredictError, ModelError) as error:
        print(f"predict: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\npredict: stopped; no scores were written", file=sys.stderr)
        return 128 + signal.SIGINT
    lines = [f"{len(scores.images) - len(scores.unreadable)} images scored: {out}"]
    lines += describe_others(content) + describe_remarks(scores)
    if labels is not None:
        lines += evaluate_scores(scores, labels, scorer.threshold)
    print("\n".join(lines), flush=True)
    unread = describe_unread(content) + describe_unreadable(scores)
    for line in unread:
        print(line, file=sys.stderr)
    return 1 if unread else 0


if __name__ == "__main__":
    sys.exit(main())
