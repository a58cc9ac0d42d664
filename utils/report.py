"""Write the README's tables from the committed results of the full study.

`python -m utils.report` rewrites what lies between the markers `<!-- results:begin -->` and
`<!-- results:end -->`, and likewise `minutes`; with `--check` it writes nothing, shows what would
change, and fails where something would.
"""

import argparse
import difflib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.evaluation import METRICS, NOT_REPORTED, REPORTED_ROW, format_interval, reported_row
from utils.facts import BACKBONES, CLASS_NAMES, PNEUMONIA
from utils.files import read_json, write_atomically
from utils.paths import ROOT

logger = logging.getLogger(__name__)

README = ROOT / "README.md"
RESULTS = ROOT / "results" / "full"
"""What is committed, wherever `RESULTS_DIR` sends the results of a run."""

COLUMNS = (
    "accuracy_at_0.5", "accuracy_at_threshold", "weighted_f1", "roc_auc", "sensitivity",
    "specificity",
)  # fmt: skip


class ReportError(ValueError):
    """A README or results from which no table can be made; the message names the remedy."""


def _read(file: Path) -> Any:
    if not file.is_file():
        raise ReportError(f"there is no {file.name} in {file.parent}; run `make all STUDY=full`")
    return read_json(file)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = f"|{'---|' * len(header)}"
    return "\n".join([_row(header), rule, *map(_row, rows)])


def results_table(metrics: dict[str, Any], provenance: dict[str, dict[str, Any]]) -> str:
    """Return the Markdown table of the models on test, with the sentences that explain it.

    Args:
        metrics: Content of `metrics.json`; see `utils.evaluation.evaluate_study`.
        provenance: For each model its record; see `utils.provenance.write_provenance`.
    """
    header = [
        "on test", *(METRICS[metric] for metric in COLUMNS), "validation ROC-AUC",
        "backbone weights", "augmented views",
    ]  # fmt: skip
    try:
        rows = [_model_row(model, metrics, provenance[model]) for model in metrics["models"]]
        explanation = _explanation(metrics)
    except KeyError as error:
        raise ReportError(f"the results lack {error}; run `make all STUDY=full`") from error
    rows.append([REPORTED_ROW, *reported_row(COLUMNS), *[NOT_REPORTED] * 3])
    return f"{_table(header, rows)}\n\n{explanation}"


def _model_row(model: str, metrics: dict[str, Any], record: dict[str, Any]) -> list[str]:
    splits = metrics["models"][model]
    weights = record["weights"]
    # There is a banner where these are not plain ImageNet weights.
    mark = "**" if weights["banner"] else ""
    return [
        BACKBONES[model].keras_name,
        *(format_interval(splits["test"][metric]) for metric in COLUMNS),
        format_interval(splits["validation"]["roc_auc"]),
        f"{mark}{weights['description']}{mark}",
        str(record["recipe"]["views"]),
    ]


def _explanation(metrics: dict[str, Any]) -> str:
    """Say what the numbers were computed from, and how their intervals were."""

    def size(split: str) -> str:
        counts = metrics["counts"][split]
        patients = f" of {counts['patients']:,} patients" if "patients" in counts else ""
        return f"{counts['images']:,} images{patients}"

    intervals = metrics["intervals"]
    thresholds = " and ".join(
        f"{threshold:.3f} for {BACKBONES[model].keras_name}"
        for model, threshold in metrics["thresholds"].items()
    )
    return (
        f"Test: {size('test')}; validation: {size('validation')} ({metrics['split']}). "
        f"In brackets: {intervals['confidence']:.0%} intervals from {intervals['resamples']:,} "
        f"bootstrap resamples of {intervals['resampled']}, seed {intervals['seed']}. "
        f"Sensitivity and specificity are those at the threshold on the probability of "
        f"{CLASS_NAMES[PNEUMONIA]}, frozen on validation: {thresholds}. "
        "Weighted F1 is taken at 0.5."
    )


def minutes_table(minutes: dict[str, float]) -> str:
    """Return the Markdown table of how long each notebook took in the full study."""
    if not minutes:
        raise ReportError("minutes.json names no notebook; run `make all STUDY=full`")
    rows = [
        [notebook, f"{value:.1f}" if value >= 0.1 else "less than 0.1"]
        for notebook, value in sorted(minutes.items())
    ]
    return _table(["notebook", "minutes, full study"], rows)


def replace_block(text: str, name: str, content: str) -> str:
    """Replace what lies between `<!-- name:begin -->` and `<!-- name:end -->`.

    Raises:
        ReportError: if the two markers are not there once each, in this order.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if (text.count(begin), text.count(end)) != (1, 1) or text.index(begin) > text.index(end):
        raise ReportError(
            f"the README must hold {begin} and, after it, {end}, once each; put them back where "
            "the table belongs"
        )
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    return f"{before}{begin}\n{content}\n{end}{after}"


def render_readme(text: str, results: Path = RESULTS) -> str:
    """Return the README with its tables made anew from a folder of results."""
    metrics = _read(results / "metrics.json")
    provenance = {
        model: _read(results / "provenance" / f"{model}.json") for model in metrics["models"]
    }
    minutes = _read(results / "provenance" / "minutes.json")
    text = replace_block(text, "results", results_table(metrics, provenance))
    return replace_block(text, "minutes", minutes_table(minutes))


def find_drift(text: str, results: Path = RESULTS) -> list[str]:
    """Return the lines of a diff from the README to what the results say; none where they agree."""
    return list(
        difflib.unified_diff(
            text.splitlines(keepends=True),
            render_readme(text, results).splitlines(keepends=True),
            "README.md",
            "README.md from the results",
        )
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m utils.report", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    parser.add_argument("--readme", type=Path, default=README)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        text = arguments.readme.read_text(encoding="utf-8")
        drift = find_drift(text, arguments.results)
        if not drift:
            logger.info("%s agrees with the results", arguments.readme.name)
        elif arguments.check:
            logger.error("%s has drifted; run `make readme`\n%s", arguments.readme, "".join(drift))
            return 1
        else:
            with write_atomically(arguments.readme) as temporary:
                temporary.write_text(render_readme(text, arguments.results), encoding="utf-8")
            logger.info("%s rewritten from the results", arguments.readme.name)
    except (ReportError, OSError) as error:
        logger.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
