"""Write the tables of README.md and other documents from the committed results of the full study.

`python -m utils.tools.report` rewrites what lies between the markers `<!-- results:begin -->` and
`<!-- results:end -->`, and likewise `final`, `minutes`, and the blocks of docs/scaling.md,
MODEL_CARD.md and models/README.md; with `--check` it writes nothing, shows what would change, and
fails where something would.
"""

import argparse
import difflib
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd

from utils.benchmark import summary as bench_summary
from utils.common.constants import CLASS_NAMES, PNEUMONIA
from utils.common.files import read_json, write_atomically
from utils.common.names import displayed
from utils.common.paths import ROOT
from utils.evaluation.metrics import METRICS
from utils.evaluation.predictions import load_seeds
from utils.evaluation.study_metrics import SEED_METRICS
from utils.evaluation.tables import (
    NOT_REPORTED,
    REPORTED_ROW,
    external_table,
    format_interval,
    models_table,
    reported_row,
    seeds_table,
)
from utils.models.catalogue import BACKBONES
from utils.models.registry import SHIPPED
from utils.selection.round_two_scores import EXTERNAL_FILE, HEADLINE, METRICS_FILE
from utils.tools.model_card import CARD_BLOCKS, card_blocks, shipped_block
from utils.tools.references import format_references

logger = logging.getLogger(__name__)

README = ROOT / "README.md"
SCALING = ROOT / "docs" / "scaling.md"
MODEL_CARD = ROOT / "MODEL_CARD.md"
SHIPPED_README = SHIPPED / "README.md"
REFERENCES = ROOT / "docs" / "references.md"
RESULTS = ROOT / "results" / "full"
"""What is committed, wherever `RESULTS_DIR` sends the results of a run."""

NOT_MEASURED = "Not measured yet; `make bench STUDY=full` followed by `make readme` writes this."
NOT_FINISHED = "Not measured yet; notebook 09 on the full study, then `make readme`, writes this."
NOT_SCORED = "Not measured yet; `make chosen`, then `make readme`, writes this."
SCALING_BLOCKS = ("speed", "constants", "measured", "precision", "predictions", "workers")
PREDICTED_IMAGES = (100_000, 1_000_000)
PREDICTED_PROCESSORS = (2, 16, 64, 512)

COLUMNS = (
    "accuracy_at_0.5", "accuracy_at_threshold", "weighted_f1", "roc_auc", "sensitivity",
    "specificity",
)  # fmt: skip
SEED_COLUMNS = ("accuracy_at_0.5", "accuracy_at_threshold", "weighted_f1", "roc_auc")
SEED_42 = "The networks of seed 42, those of notebooks 03 to 06, with intervals:"
FINAL_COLUMNS = (
    "roc_auc", "accuracy_at_0.5", "accuracy_at_threshold", "sensitivity", "specificity",
    "specificity_at_95",
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


def baselines_table(seeds: dict[str, list[pd.DataFrame]]) -> str:
    """Return the Markdown table of both baselines on test: mean and range of their seeds.

    Args:
        seeds: For each model the predictions of its seeds, see `predictions.load_seeds`.
    """
    named = {BACKBONES[model].keras_name: tables for model, tables in seeds.items()}
    table = seeds_table(named, SEED_COLUMNS, with_reported=True)
    rows = [[name, *row] for name, row in zip(table.index, table.to_numpy(), strict=True)]
    return _table(["on test, mean (range)", *table.columns], rows)


def results_table(metrics: dict[str, Any], provenance: dict[str, dict[str, Any]]) -> str:
    """Return the Markdown table of the models on test, with the sentences that explain it.

    Args:
        metrics: Content of `metrics.json`; see `utils.evaluation.study_metrics.evaluate_study`.
        provenance: For each model its record; see `utils.common.provenance.write_provenance`.
    """
    header = [
        "on test", *(METRICS[metric] for metric in COLUMNS), "validation ROC-AUC",
        "backbone weights", "augmented copies",
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
        f"{CLASS_NAMES[PNEUMONIA]}, fixed on validation: {thresholds}. "
        "Weighted F1 is taken at 0.5."
    )


def final_table(scores: dict[str, Any]) -> str:
    """Return the Markdown table of the final models on test.

    Args:
        scores: Content of `final_metrics.json`; see
        `utils.selection.comparison.score_final_models`.
    """
    header = [
        "on test", "seeds", *(METRICS[metric] for metric in FINAL_COLUMNS),
        "difference in ROC-AUC from our ResNet50",
    ]  # fmt: skip
    rows = [
        [
            displayed(name), str(len(scored["seeds"])),
            *(format_interval(scored["test"][metric]) for metric in FINAL_COLUMNS),
            format_interval(scored["difference"]["roc_auc"], signed=True)
            if "difference" in scored else NOT_REPORTED,
        ]
        for name, scored in scores.items()
    ]  # fmt: skip
    return _table(header, rows)


def round_two_table(scores: dict[str, Any], external: dict[str, Any]) -> str:
    """Return the Markdown table of both rounds' models at 0.5, on test and on adults.

    Args:
        scores: Content of `round_two_metrics.json`.
        external: Content of `external_metrics.json`; both of `utils.selection.round_two_scores`.
    """
    on_test = models_table(scores, SEED_METRICS).drop(columns="images").add_suffix(", test")
    adults = external_table(external)[["ROC-AUC", "specificity at 0.5"]].add_suffix(", adults")
    table = on_test.join(adults).loc[[displayed(name) for name in HEADLINE]].fillna(NOT_REPORTED)
    return _table(["model", *table], [[name, *cells] for name, *cells in table.itertuples()])


def notebooks_table(minutes: dict[str, float]) -> str:
    """Return the Markdown table of the notebooks: question, and minutes in the full study."""
    if not minutes:
        raise ReportError("minutes.json names no notebook; run `make all STUDY=full`")
    rows = []
    for file in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        if "." in file.stem:  # what a failed run leaves
            continue
        title = nbformat.read(file, as_version=4).cells[0].source.splitlines()[0]
        took = minutes.get(file.stem)
        shown = NOT_REPORTED if took is None else f"{took:.1f}" if took >= 0.1 else "less than 0.1"
        rows.append([f"[{file.stem}](notebooks/{file.name})", title.removeprefix("# "), shown])
    return _table(["notebook", "question", "minutes, full study"], rows)


def speed_section(record: dict[str, Any]) -> str:
    """Return the numbers on speed: the loops, the goals, and what limits them.

    Args:
        record: Content of `results/bench/full.json`; see `utils.benchmark.run`.
    """
    images, machine, settings = record["images"], record["machine"], record["settings"]
    ratios, ceiling = record["ratios"], record["ceiling"]
    instructions = [name for name, there in machine["instructions"].items() if there]
    parts = [
        f"{images['train']:,} training and {images['validation']:,} validation radiographs, "
        f"{settings['epochs']} epochs of the same recipe without early stopping, on "
        f"{machine['processors']} processors ({machine['processor']}, "
        f"{', '.join(instructions) or 'no vector instructions named'}, "
        f"{machine['memory_gb']:.0f} GB), TensorFlow {record['versions']['tensorflow']}:",
        _table(*bench_summary.contender_rows(record)),
        f"A loop through the frozen base repeats the forward pass in every epoch; the cache of "
        f"{settings['views']} augmented copies computes it once: {ratios['cold']:.1f} times as "
        f"fast from an empty cache, {ratios['warm']:.1f} times from a full one. The bare forward "
        f"passes and the memory traffic of the steps alone would take "
        f"{ceiling['cold']:.0f} s and {ceiling['warm']:.0f} s. {_quality_sentence(record)}",
        _table(*bench_summary.goal_rows(record)),
    ]
    if sentences := bench_summary.limit_sentences(record):
        parts.append("What stands in the way of the goals that are missed:")
        parts.append("\n".join(f"- {sentence}" for sentence in sentences))
    return "\n\n".join(parts)


def _quality_sentence(record: dict[str, Any]) -> str:
    quality = record["quality"]
    if not quality["differences"]:
        return f"The validation AUCs cannot be compared: {quality['reason']}."
    difference = quality["differences"]["ours_warm"]
    apart = difference["low"] > 0 or difference["high"] < 0
    return (
        f"The difference of its validation AUC from that of `tf_data_loop` is "
        f"{difference['value']:+.4f} "
        f"[{difference['low']:+.4f}, {difference['high']:+.4f}], resampling "
        f"{quality['resampled']}: {'the two differ' if apart else 'no difference is seen'}."
    )


def scaling_blocks(record: dict[str, Any]) -> dict[str, str]:
    """Return the generated blocks of docs/scaling.md by the names of `SCALING_BLOCKS`."""
    rate, step = record["extraction"]["ours"]["median"], record["step"]["seconds"]["median"]
    machine = record["machine"]
    settings, fit = record["settings"], record["cost_per_image"]["fit"]
    share = record["images"]["validation"] / sum(record["images"].values())
    views, epochs = settings["views"], settings["epochs"]
    constants = _table(
        ["constant", "value"],
        [
            ["filling the cache, decoding and writing included",
             f"{rate:.1f} images and augmented copies per second"],
            ["a training step of 32 images", f"{1000 * step:.0f} ms"],
            ["measured on", f"{machine['processors']} processors, {machine['processor']}"],
            ["a run, whatever the number of images", f"{fit['fixed_seconds']:.1f} s"],
            ["each image, one copy, "
             f"{settings['size_epochs']} epochs", f"{1000 * fit['seconds_per_image']:.0f} ms"],
        ],
    )  # fmt: skip
    rows = []
    for images in PREDICTED_IMAGES:
        validation = round(images * share)
        train = images - validation
        rows.append(
            [
                f"{images:,}",
                *(
                    _duration(
                        bench_summary.fill_seconds(record, train, validation, views, processors)
                    )
                    for processors in PREDICTED_PROCESSORS
                ),
                _duration(bench_summary.train_seconds(record, train, epochs)),
                f"{bench_summary.cache_gigabytes(train, validation, views):,.0f} GB",
            ]
        )
    header = [
        "images",
        *(f"filling on {processors} cores" for processors in PREDICTED_PROCESSORS),
        f"{epochs} epochs on one machine", "cache",
    ]  # fmt: skip
    return {
        "speed": speed_section(record),
        "constants": constants,
        "predictions": f"{views} augmented copies, {share:.0%} of the images for validation:\n\n"
        + _table(header, rows),
        "measured": _table(*bench_summary.size_rows(record)),
        "precision": _table(*bench_summary.precision_rows(record)),
        "workers": _table(*bench_summary.worker_rows(record))
        if "workers" in record
        else NOT_MEASURED,
    }


def _duration(seconds: float) -> str:
    """Return seconds in the unit that a reader would take."""
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def render_scaling(text: str, results: Path) -> str:
    """Return docs/scaling.md with its blocks written again from the benchmark on the real data."""
    blocks, file = dict.fromkeys(SCALING_BLOCKS, NOT_MEASURED), results.parent / "bench/full.json"
    if file.is_file():
        blocks = scaling_blocks(read_json(file))
    return replace_blocks(text, blocks)


def render_card(text: str, results: Path) -> str:
    """Return MODEL_CARD.md with its blocks written again."""
    blocks = dict.fromkeys(CARD_BLOCKS, NOT_FINISHED)
    if (results / "final_metrics.json").is_file():
        blocks = card_blocks(results, SHIPPED)
    return replace_blocks(text, blocks)


def render_shipped(text: str, results: Path) -> str:
    """Return models/README.md with the record of the shipped model written again."""
    return replace_block(text, "shipped", shipped_block(results, SHIPPED))


def replace_blocks(text: str, blocks: dict[str, str]) -> str:
    """Replace what lies between several pairs of markers; see `replace_block`."""
    for name, content in blocks.items():
        text = replace_block(text, name, content)
    return text


def replace_block(text: str, name: str, content: str) -> str:
    """Replace what lies between `<!-- name:begin -->` and `<!-- name:end -->`.

    Raises:
        ReportError: if the two markers are not there once each, in this order.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if (text.count(begin), text.count(end)) != (1, 1) or text.index(begin) > text.index(end):
        raise ReportError(
            f"the document must hold {begin} and, after it, {end}, once each; put them back where "
            "the table belongs"
        )
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    return f"{before}{begin}\n{content}\n{end}{after}"


def render_readme(text: str, results: Path) -> str:
    """Return the README with its tables written again from a folder of results."""
    metrics = _read(results / "metrics.json")
    provenance = {
        model: _read(results / "provenance" / f"{model}.json") for model in metrics["models"]
    }
    seeds = {model: load_seeds(results / "predictions", model) for model in metrics["models"]}
    final, second = results / "final_metrics.json", results / METRICS_FILE
    blocks = {
        "results": f"{baselines_table(seeds)}\n\n{SEED_42}\n\n"
        + results_table(metrics, provenance),
        "final": final_table(read_json(final)) if final.is_file() else NOT_FINISHED,
        "round-two": round_two_table(read_json(second), _read(results / EXTERNAL_FILE))
        if second.is_file()
        else NOT_SCORED,
        "minutes": notebooks_table(_read(results / "provenance" / "minutes.json")),
    }
    return replace_blocks(text, blocks)


def render_references(text: str, results: Path) -> str:
    """Return the page of references with its list written again; no result is needed."""
    return replace_blocks(text, {"references": format_references()})


def find_drift(
    text: str, results: Path, render: Callable[[str, Path], str], name: str
) -> list[str]:
    """Return the lines of a diff from a document to what the results say; none where they agree."""
    return list(
        difflib.unified_diff(
            text.splitlines(keepends=True),
            render(text, results).splitlines(keepends=True),
            name,
            f"{name} from the results",
        )
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m utils.tools.report", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    parser.add_argument("--readme", type=Path, default=README)
    parser.add_argument("--scaling", type=Path, default=SCALING)
    parser.add_argument("--card", type=Path, default=MODEL_CARD)
    parser.add_argument("--shipped", type=Path, default=SHIPPED_README)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    documents = {
        arguments.readme: render_readme,
        arguments.scaling: render_scaling,
        arguments.card: render_card,
        arguments.shipped: render_shipped,
        REFERENCES: render_references,
    }
    try:
        updates = [
            _update(file, arguments.results, render, arguments.check)
            for file, render in documents.items()
        ]
    except (ReportError, OSError) as error:
        logger.error("%s", error)
        return 1
    return 0 if all(updates) else 1


def _update(file: Path, results: Path, render: Callable[[str, Path], str], check: bool) -> bool:
    """Bring a document up to date, or with `check` only say whether it is."""
    text = file.read_text(encoding="utf-8")
    drift = find_drift(text, results, render, file.name)
    if not drift:
        logger.info("%s agrees with the results", file.name)
    elif check:
        logger.error("%s has drifted; run `make readme`\n%s", file, "".join(drift))
        return False
    else:
        with write_atomically(file) as temporary:
            temporary.write_text(render(text, results), encoding="utf-8")
        logger.info("%s rewritten from the results", file.name)
    return True


if __name__ == "__main__":
    sys.exit(main())
