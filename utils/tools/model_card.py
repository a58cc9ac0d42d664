"""The numbers of MODEL_CARD.md and models/README.md, from the results of the full study."""

from pathlib import Path
from typing import Any

import pandas as pd

from utils.common.files import read_json
from utils.common.names import displayed
from utils.evaluation.metrics import METRICS
from utils.evaluation.tables import calibration_table, format_interval
from utils.models.registry import RELEASED_MODEL, SHIPPED_MODEL
from utils.selection.choices import ENSEMBLE_TWO
from utils.selection.comparison import WRONG_AND_SURE
from utils.selection.round_two_scores import METRICS_FILE

WATTS_PER_CORE = 10
"""Assumed for one busy core of a server, its share of memory and cooling included: the energy is
an estimate from minutes, not a measurement."""
CORES = 2
RESULT_METRICS = (
    "roc_auc", "accuracy_at_0.5", "accuracy_at_threshold", "sensitivity", "specificity", "ppv",
    "npv", "specificity_at_95",
)  # fmt: skip
RELEASED_METRICS = tuple(each for each in RESULT_METRICS if each != "accuracy_at_threshold")
"""The released model's threshold is 0.5."""

POSE_WORDS = {
    "upright": "as they are", "rotated_90": "turned 90° counterclockwise",
    "rotated_180": "upside down", "rotated_270": "turned 90° clockwise", "negative": "negative",
    "negative_90": "negative, turned 90° counterclockwise",
    "negative_180": "negative, upside down", "negative_270": "negative, turned 90° clockwise",
    "mirrored": "mirrored", "mirrored_90": "mirrored, turned 90° counterclockwise",
    "mirrored_180": "mirrored, upside down", "mirrored_270": "mirrored, turned 90° clockwise",
}  # fmt: skip
"""How the card calls the kinds of `results/full/guard.csv`."""
CARD_BLOCKS = (
    "card-model", "card-results", "card-subgroups", "card-calibration-two", "card-calibration",
    "card-failures", "card-cost", "card-guard",
)  # fmt: skip
"""Names of the markers between which the card is generated."""


def card_blocks(results: Path, shipped: Path) -> dict[str, str]:
    """Return the generated parts of the model card, by the name of their markers.

    Args:
        results: Folder of the full study's results.
        shipped: Folder of the shipped model and its `models.json`.

    Raises:
        FileNotFoundError: if a round has not been scored on the full study.
    """
    choices = read_json(results / "choices.json")
    records = read_json(shipped / "models.json")
    scored_first = read_json(results / "final_metrics.json")
    scored_second = read_json(results / METRICS_FILE)["models"]
    names = (choices["chosen"], choices["single"], SHIPPED_MODEL)
    first = {name: scored_first[name] for name in names if name in scored_first}
    second = {name: scored_second[name] for name in (RELEASED_MODEL, ENSEMBLE_TWO)}
    both = second | first
    contents = (
        _describe_models(choices, records),
        _results(both),
        _subgroups(both),
        _calibration_of_second(second),
        _calibration(first),
        _failures(both),
        _cost(results),
        _guard(results),
    )
    return dict(zip(CARD_BLOCKS, contents, strict=True))


def shipped_block(results: Path, shipped: Path) -> str:
    """Return the record of the released model, with what it reached where that is measured.

    Args:
        results: Folder of the full study's results.
        shipped: Folder of the released model.
    """
    record = read_json(shipped / "models.json")[RELEASED_MODEL]
    file = shipped / record["file"]
    recipe, onnx = record["candidate"], record["onnx"]
    facts = [
        ["file", f"`{record['file']}`, {file.stat().st_size / 1e6:.1f} MB"],
        ["SHA-256", f"`{record['sha256']}`"],
        ["the same as ONNX", f"`{onnx['file']}`, {onnx['bytes'] / 1e6:.1f} MB, opset "
                             f"{onnx['opset']}, written by {onnx['producer']}"],
        ["its SHA-256", f"`{onnx['sha256']}`"],
        ["network", f"{recipe['architecture']} at {recipe['size']} x {recipe['size']} pixels"],
        ["recipe", f"`{recipe['name']}` in `utils/selection/round_two.py`, seed {record['seed']}"],
        ["weights before training", record["weights"]],
        ["trained on", f"{record['dataset']['images']['train']:,} radiographs, data fingerprint "
                       f"`{record['dataset']['fingerprint'][:16]}`"],
        ["threshold", f"{record['threshold']:.1f}, fixed beforehand"],
        ["temperature", f"{record['temperature']:.3f}, fitted on validation: probabilities that "
                        "`make demo` shows are calibrated by it"],
        ["its guard", f"`{record['guard']['file']}`, SHA-256 `{record['guard']['sha256']}`"],
    ]  # fmt: skip
    if (results / METRICS_FILE).is_file():
        test = read_json(results / METRICS_FILE)["models"][RELEASED_MODEL]["test"]
        facts += [
            [f"{METRICS[each]}, test", format_interval(test[each])] for each in RELEASED_METRICS
        ]
    return _table(["", ""], facts)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _describe_models(choices: dict[str, Any], records: dict[str, Any]) -> str:
    released, record = records[RELEASED_MODEL], records[SHIPPED_MODEL]
    members = ", ".join(f"`{name}`" for name in choices["members"] or [choices["single"]])
    recipe = record["candidate"]
    first, size = released["candidate"], recipe["size"]
    threshold = choices["thresholds"][choices["chosen"]]
    return (
        f"- **Released model** (`released`, round two): `{first['name']}` with seed "
        f"{released['seed']}, by ten crops, in half precision ({first['architecture']} at "
        f"{first['size']} pixels, weights before training: {released['weights']}). Threshold "
        f"{released['threshold']:.1f}, SHA-256 `{released['sha256']}`. It is what `make predict` "
        "and `make demo` use.\n"
        "- **Ensemble of round two** (`ensemble_two`): six networks of that recipe, two sizes with "
        "three seeds each, by ten crops, averaged in log-odds. Threshold 0.5.\n"
        f"- **Chosen model of round one**: `{choices['chosen']}`, the mean probability of "
        f"{members}, each with three seeds. Threshold {threshold:.3f} on the probability of "
        "PNEUMONIA.\n"
        f"- **Shipped model of round one** (stored as `small`): `{recipe['name']}` with seed "
        f"{record['seed']} in half precision ({recipe['architecture']} at {size} pixels, weights "
        f"before training: {record['weights']}). Threshold {record['threshold']:.3f}, SHA-256 "
        f"`{record['sha256']}`."
    )


def _results(scores: dict[str, Any]) -> str:
    rows = [
        [
            displayed(name),
            *(format_interval(scored["test"][metric]) for metric in RESULT_METRICS),
        ]
        for name, scored in scores.items()
    ]
    return _table(["on test", *(METRICS[metric] for metric in RESULT_METRICS)], rows)


def _subgroups(scores: dict[str, Any]) -> str:
    rows = [
        [
            displayed(name), kind,
            *(format_interval(values[key]) for key in ("roc_auc", "sensitivity")),
        ]
        for name, scored in scores.items()
        for kind, values in scored["by_etiology"].items()
    ]  # fmt: skip
    return _table(["model", "pneumonia", "ROC-AUC", "sensitivity"], rows)


def _calibration(scores: dict[str, Any]) -> str:
    rows = []
    for name, scored in scores.items():
        measured = scored["calibration"]
        for split in ("validation", "test"):
            part = measured[split]
            rows.append([
                displayed(name), split, f"{measured['temperature']:.2f}",
                *(
                    f"{part[f'{measure}_{how}']:.3f}"
                    for measure in ("ece", "brier")
                    for how in ("before", "after", "with_bias")
                ),
            ])  # fmt: skip
    header = [
        "model", "split", "temperature", "ECE before", "after", "with a bias",
        "Brier before", "after", "with a bias",
    ]  # fmt: skip
    return _table(header, rows)


def _calibration_of_second(scores: dict[str, Any]) -> str:
    table = calibration_table({"models": scores})
    rows = [[name, *cells] for name, cells in zip(table.index, table.to_numpy(), strict=True)]
    return _table(["model, split", *table.columns], rows)


def _failures(scores: dict[str, Any]) -> str:
    rows = [
        [
            displayed(name),
            group["group"],
            *(str(group[key]) for key in ("images", "wrong", "sure and wrong")),
        ]
        for name, scored in scores.items()
        for group in scored["errors"]
    ]
    return _table(["model", "test images of", "images", "wrong", WRONG_AND_SURE], rows)


def _guard(results: Path) -> str:
    """Return what the guard flags: radiographs by pose, then foreign images."""
    table = pd.read_csv(results / "guard.csv")
    radiographs = table[table.images != "foreign"]
    sets = list(radiographs.images.unique())
    numbers = radiographs.groupby("images", sort=False).n.first()
    rows = []
    for kind in radiographs.kind.unique():
        of_kind = radiographs[radiographs.kind == kind].set_index("images")
        right = of_kind.right[sets[0]]
        rows.append([
            POSE_WORDS[kind],
            *(_share(of_kind.loc[name]) for name in sets),
            "" if pd.isna(right) else f"{right:.1%}",
        ])  # fmt: skip
    header = [
        "radiographs, with any remark", *(f"{name} ({numbers[name]})" for name in sets),
        f"right remark, {sets[0]}",
    ]  # fmt: skip
    foreign = [
        [f"{row.kind} ({row.n})", _share(row), f"{row.constant + row.foreign:.1%}"]
        for _, row in table[table.images == "foreign"].iterrows()
    ]
    return "\n\n".join((
        _table(header, rows),
        _table(["other images", "with any remark", "as unlike or nearly constant"], foreign),
    ))  # fmt: skip


def _share(row: pd.Series) -> str:
    return f"{row.flagged:.1%} [{row.low:.1%}, {row.high:.1%}]"


def _cost(results: Path) -> str:
    """Return the hours of all training runs, and their energy at an assumed power."""
    validated = [read_json(file)["minutes"] for file in results.glob("screening/*/block*.json")]
    final = [
        record.get("training_minutes") or record["run"]["minutes"]
        for record in map(read_json, sorted(results.glob("provenance/final/*.json")))
    ]
    hours = (sum(validated) + sum(final)) / 60
    energy = hours * CORES * WATTS_PER_CORE / 1000
    return (
        f"{len(validated)} training runs on folds took {sum(validated) / 60:.1f} hours and "
        f"{len(final)} final runs {sum(final) / 60:.1f} hours of wall-clock time, often two at a "
        f"time on {CORES} cores. Assuming {WATTS_PER_CORE} W per core, this is at most "
        f"{energy:.2f} kWh."
    )
