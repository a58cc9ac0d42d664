"""Say at the end of `make all` what a study found and what to open."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from utils.common.files import read_json
from utils.common.paths import figures_dir, final_metrics_file, metrics_file, results_dir, shown
from utils.common.study import load_study
from utils.evaluation.metrics import METRICS
from utils.evaluation.tables import format_interval
from utils.selection.choices import ENSEMBLE_TWO, RELEASED
from utils.selection.round_two_scores import METRICS_FILE

SHOWN_METRICS = ("roc_auc", "accuracy_at_0.5")
PHANTOM_DATA = "phantoms"


def describe_findings(study_name: str, dataset_name: str) -> str:
    """Return a few lines on the models of a study, read from its results.

    Args:
        study_name: Study whose notebooks have run.
        dataset_name: Its data; of phantoms it is said that they are no patients.
    """
    metrics = read_json(metrics_file(study_name))
    models = read_json(final_metrics_file(study_name)) | _read_round_two(study_name)
    images = metrics["counts"]["test"]["images"]
    of_phantoms = dataset_name == PHANTOM_DATA
    kind = "rendered phantoms, which say nothing about patients" if of_phantoms else "radiographs"
    lines = [f"Found on the {images} test images, {kind}, with 95% intervals:"]
    width = max(map(len, models))
    for name, scores in models.items():
        found = (
            f"{METRICS[each]} {format_interval(scores['test'][each])}" for each in SHOWN_METRICS
        )
        chosen = " (chosen)" if name == metrics.get("chosen_model") else ""
        lines.append(f"  {name:{width}}  {', '.join(found)}{chosen}")
    notebooks, figures = results_dir(study_name) / "notebooks", figures_dir(study_name)
    lines.append(f"Open the notebooks in {shown(notebooks)}, the figures in {shown(figures)}")
    return "\n".join(lines)


def _read_round_two(study_name: str) -> dict[str, dict[str, Any]]:
    """Return the scores of round two's models, where a study has it."""
    file = results_dir(study_name) / METRICS_FILE
    if not file.is_file():
        return {}
    models = read_json(file)["models"]
    return {name: models[name] for name in (ENSEMBLE_TWO, RELEASED)}


def main(argv: Sequence[str] | None = None) -> int:
    """Write the findings of the study that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m utils.tools.findings", description=__doc__)
    parser.add_argument("--study", default="sample", help="a file of studies/, without .yaml")
    study = load_study(parser.parse_args(argv).study)
    sys.stdout.write(f"{describe_findings(study.study, study.dataset_name)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
