"""Measure this repository's training against the loops that others would write.

`python -m utils.benchmark.run --study full --images 500` trains five contenders on the same images,
each in a process of its own, measures the machine's limits beside them, and writes
`results/bench/<study>.json` and two figures. An interrupted benchmark is taken up where it was by
the same command; `--fresh` begins anew. What makes the comparison fair is written down in
`utils.benchmark.loops`; what follows from the numbers is computed in `utils.benchmark.summary`.
"""

import argparse
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.benchmark import limits
from utils.benchmark.loops import (
    fill_ours,
    run_bottleneck_once,
    run_ours,
    run_reference_loop,
    run_size,
    run_tf_data_loop,
)
from utils.benchmark.plots import plot_contenders, plot_scaling, save_bench_figure
from utils.benchmark.preparation import Bench, BenchError, BenchSettings, choose_sizes, prepare
from utils.benchmark.summary import (
    CONTENDERS,
    OTHERS,
    STEPS,
    align,
    backbone_rows,
    ceiling_seconds,
    compute_ratios,
    contender_rows,
    cost_model,
    count_steps,
    goal_rows,
    judge_goals,
    limit_sentences,
    precision_rows,
    size_rows,
    step_bounds,
    step_rows,
    summarise_sizes,
    trial_rows,
)
from utils.common.files import read_json, write_json
from utils.common.paths import ROOT, results_dir
from utils.common.provenance import PACKAGES
from utils.common.study import Study, StudyError
from utils.data.images import DatasetError
from utils.evaluation.metrics import paired_difference
from utils.evaluation.predictions import PredictionsError
from utils.models.pretrained import WeightsError
from utils.training.precision import CPU_FACTS, cpu_flags

logger = logging.getLogger(__name__)
tables = logging.getLogger(f"{__name__}.tables")
"""What the reader asked for, on stdout; progress goes to stderr."""

BENCH = "bench"
"""Name of the folder of results and of figures."""
REPORTED_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
BFC = "TF_CPU_ALLOCATOR_USE_BFC"
ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
STEP_TRIALS = tuple((step, bfc) for step in STEPS for bfc in ("true", "false"))
DEFAULT_STEP = ("fused", "true")
"""Step and allocator that the study runs with."""
FORWARD_SETTINGS: tuple[dict[str, str], ...] = (
    {}, {ONEDNN: "0"}, {BFC: "false"},
)  # fmt: skip
"""Environments of the forward trials; in the study's own, the first, everything is tried."""


@dataclass(frozen=True)
class Job:
    """One measurement in a process of its own."""

    name: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """Name of its record."""
        return f"{self.name.replace(':', '-').replace('=', '-')}.json"


def plan_jobs(settings: BenchSettings) -> list[Job]:
    """List what is measured, in order: those that profit from each other's files are neighbours."""
    jobs = [Job("ours_cold")]
    jobs += [Job(f"ours_warm:{seed}") for seed in settings.seeds]
    jobs += [Job(name) for name in ("precision", "tf_data_loop", "reference_loop")]
    jobs += [Job(name) for name in ("bottleneck_once", "extraction", "backbones")]
    for number in range(1, settings.rounds + 1):
        for step, bfc in step_trials(settings):
            jobs.append(Job(f"step:{step}:{bfc}:{number}", {BFC: bfc}))
    for number in range(1, settings.rounds + 1):
        for position, environment in enumerate(forward_settings(settings)):
            jobs.append(Job(f"forward:{position}:{number}", environment))
    return jobs + [Job(f"size:{size}") for size in settings.sizes]


def step_trials(settings: BenchSettings) -> tuple[tuple[str, str], ...]:
    """Return the ways to run a training step that are tried, each with its allocator."""
    return STEP_TRIALS if settings.all_trials else (DEFAULT_STEP,)


def forward_settings(settings: BenchSettings) -> tuple[dict[str, str], ...]:
    """Return the environments in which the forward pass is tried."""
    return FORWARD_SETTINGS if settings.all_trials else FORWARD_SETTINGS[:1]


def run_worker(name: str, bench: Bench) -> Any:
    """Run one measurement in this process and return its record."""
    kind, *details = name.split(":")
    seed = bench.settings.seeds[0]
    if kind == "step":
        return limits.measure_step(bench, details[0])
    if kind == "forward":
        return limits.try_forwards(
            bench, all_variants=details[0] == "0" and bench.settings.all_trials
        )
    if kind == "size":
        return run_size(bench, int(details[0]))
    if kind == "ours_warm":
        return run_ours(bench, int(details[0]), warm=True)
    if kind == "ours_cold":
        return run_ours(bench, seed, warm=False)
    return {
        "fill": fill_ours,
        "reference_loop": run_reference_loop,
        "tf_data_loop": run_tf_data_loop,
        "bottleneck_once": run_bottleneck_once,
        "precision": limits.measure_precision,
        "extraction": limits.measure_extraction,
        "backbones": limits.measure_backbones,
    }[kind](bench)


# ---- running


def run_jobs(
    jobs: Sequence[Job], settings: BenchSettings, scratch: Path, partial: Path
) -> dict[str, Any]:
    """Run the jobs that have no record yet, each in its own process, and return all records.

    Args:
        jobs: What to measure.
        settings: A record of other settings is measured again.
        scratch: What `prepare` made.
        partial: Folder in which each record is kept as soon as it is there.

    Raises:
        BenchError: if a process fails.
    """
    records, fresh_cache = {}, False
    for number, job in enumerate(jobs, 1):
        kept = read_partial(partial / job.file_name, settings)
        if kept is not None:
            logger.info("[%d/%d] %s: measured before", number, len(jobs), job.name)
            records[job.name] = kept
            continue
        if job.name.startswith(("ours_warm", "precision")) and not fresh_cache:
            start_worker(Job("fill"), scratch)
            fresh_cache = True
        start = time.perf_counter()
        logger.info("[%d/%d] %s ...", number, len(jobs), job.name)
        records[job.name] = start_worker(job, scratch)
        fresh_cache = fresh_cache or job.name == "ours_cold"
        content = {"settings": settings.describe(), "record": records[job.name]}
        write_json(partial / job.file_name, content)
        seconds = time.perf_counter() - start
        logger.info("[%d/%d] %s took %.0f s", number, len(jobs), job.name, seconds)
    return records


def read_partial(file: Path, settings: BenchSettings) -> Any:
    """Return the record kept in a file, or None where there is none of these settings."""
    try:
        content = read_json(file)
    except (OSError, ValueError):
        return None
    return content["record"] if content.get("settings") == settings.describe() else None


def start_worker(job: Job, scratch: Path) -> Any:
    """Run one job in a process of its own and return its record."""
    output = scratch / job.file_name
    output.unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "utils.benchmark.run",
        "--worker", job.name, "--scratch", str(scratch), "--output", str(output),
    ]  # fmt: skip
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2"} | os.environ | job.environment
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    if done.returncode or not output.is_file():
        raise BenchError(
            f"{job.name} ended with status {done.returncode}; its message is above, and the same "
            "command goes on from here"
        )
    return read_json(output)


# ---- the record


def describe_machine() -> dict[str, Any]:
    """Describe processor and memory, without the machine's name."""
    try:
        facts = CPU_FACTS.read_text(encoding="utf-8").splitlines()
    except OSError:
        facts = []
    models = [line.split(":", 1)[1].strip() for line in facts if line.startswith("model name")]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "processors": limits.count_threads(),
        "memory_gb": round(pages / 1e9, 1),
        "instructions": {flag: flag in cpu_flags() for flag in REPORTED_FLAGS},
    }


def describe_versions() -> dict[str, str | None]:
    """Return the versions that the timings depend on."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in (*PACKAGES, "openvino"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def assemble(bench: Bench, records: dict[str, Any]) -> dict[str, Any]:
    """Make the benchmark's record from those of its jobs."""
    settings, study = bench.settings, bench.study
    train, validation = bench.choose()
    first = settings.seeds[0]
    warm = {seed: records[f"ours_warm:{seed}"] for seed in settings.seeds}
    contenders = {name: records[name] for name in OTHERS}
    contenders |= {"ours_cold": records["ours_cold"], "ours_warm": warm[first]}
    trials = merge_steps(records, settings)
    step = trials[DEFAULT_STEP]
    step["bounds"] = step_bounds(
        step["parameters"], step["batch_size"], step["bandwidth"]["best"],
        step["matmul_flops"]["best"],
    )  # fmt: skip
    extraction = records["extraction"]
    ceiling = ceiling_seconds(
        len(train), len(validation), settings.views, settings.epochs, study.batch_size,
        extraction["bare"]["median"], step["bounds"]["bandwidth"],
    )  # fmt: skip
    sizes = [records[f"size:{size}"] for size in settings.sizes]
    record: dict[str, Any] = {
        "study": settings.study,
        "phantom": study.dataset_name == "phantoms",
        "images": {"train": len(train), "validation": len(validation)},
        "settings": settings.describe(),
        "recipe": bench.recipe(first).describe(),
        "weights": bench.weights.provenance(),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "steps": settings.epochs * count_steps(len(train), study.batch_size),
        "contenders": {
            name: _without_probabilities(contenders[name], settings.epochs) for name in CONTENDERS
        },
        "ours_seeds": {
            key: _summarise_seeds([warm[seed][key] for seed in settings.seeds])
            for key in ("validation_auc", "seconds")
        } | {"seeds": list(settings.seeds)},
        "quality": compare_quality(contenders, validation, study),
        "backbones": {
            name: rates for name, rates in records["backbones"].items() if name != "batch_size"
        },
        "extraction": extraction,
        "step": step,
        "ceiling": ceiling,
        "forward_trials": merge_forwards(records, settings),
        "step_trials": [
            {"step": name, "allocator_bfc": bfc, "seconds": trial["seconds"]["median"]}
            for (name, bfc), trial in trials.items()
        ],
        "precision": records["precision"],
    }  # fmt: skip
    record["cost_per_image"] = summarise_sizes(sizes, cost_model(record), settings.size_epochs)
    record["ratios"] = compute_ratios(
        contenders, ceiling, extraction, step["seconds"]["median"], step["bounds"]["bandwidth"],
        sizes,
    )  # fmt: skip
    record["goals"] = judge_goals(record)
    return record


def _without_probabilities(contender: dict[str, Any], epochs: int) -> dict[str, Any]:
    kept = {key: value for key, value in contender.items() if key != "probabilities"}
    training = contender["seconds"] - contender.get("fill_seconds", 0.0)
    # What is paid once is no part of an epoch.
    return kept | {"seconds_per_epoch": training / epochs}


def _summarise_seeds(values: list[float]) -> dict[str, Any]:
    return {
        "mean": float(np.mean(values)), "min": min(values), "max": max(values), "values": values,
    }  # fmt: skip


def compare_quality(
    contenders: dict[str, dict[str, Any]], validation: pd.DataFrame, study: Study
) -> dict[str, Any]:
    """Return the validation AUC of each contender less `tf_data_loop`'s, with its interval.

    Too few patients have no interval; `differences` is empty then, and `reason` says so.
    """
    level = "patient" if (validation.patient_id != "").all() else "image"

    def predictions(name: str) -> pd.DataFrame:
        columns = validation[["image_id", "patient_id", "split"]]
        probability = contenders[name]["probabilities"]
        return columns.assign(y_true=validation.label, probability=probability)

    other = predictions("tf_data_loop")
    differences, reason = {}, None
    try:
        for name in CONTENDERS:
            if name != "tf_data_loop":
                differences[name] = paired_difference(
                    predictions(name), other, study.resamples, study.seed, level=level
                )
    except PredictionsError as error:
        differences, reason = {}, str(error)
    return {
        "metric": "validation AUC less tf_data_loop's",
        "resampled": f"{level}s",
        "differences": differences,
        "reason": reason,
    }


def merge_steps(
    records: dict[str, Any], settings: BenchSettings
) -> dict[tuple[str, str], dict[str, Any]]:
    """Merge the rounds of each step trial: medians of medians, the best bandwidth of all."""
    trials = {
        (step, bfc): [
            records[f"step:{step}:{bfc}:{number}"] for number in range(1, settings.rounds + 1)
        ]
        for step, bfc in step_trials(settings)
    }
    everything = [record for rounds in trials.values() for record in rounds]
    limits = {
        limit: everything[0][limit]
        | {
            "best": max(record[limit]["best"] for record in everything),
            "median": float(np.median([record[limit]["median"] for record in everything])),
            "repetitions": [
                value for record in everything for value in record[limit]["repetitions"]
            ],
        }
        for limit in ("bandwidth", "matmul_flops")
    }
    return {
        trial: rounds[0]
        | limits
        | {
            "seconds": {
                "median": float(np.median([record["seconds"]["median"] for record in rounds])),
                "best": min(record["seconds"]["best"] for record in rounds),
                "count": sum(record["seconds"]["count"] for record in rounds),
            }
        }
        for trial, rounds in trials.items()
    }


def merge_forwards(records: dict[str, Any], settings: BenchSettings) -> list[dict[str, Any]]:
    """Merge the rounds of the forward trials, the environment named in the variant."""
    merged: dict[tuple[str, int], list[float]] = {}
    for position, environment in enumerate(forward_settings(settings)):
        for number in range(1, settings.rounds + 1):
            for trial in records[f"forward:{position}:{number}"]:
                names = [trial["variant"], *(f"{key}={of}" for key, of in environment.items())]
                key = (", ".join(names), trial["batch_size"])
                merged.setdefault(key, []).extend(trial["repetitions"])
    return [
        {"variant": variant, "batch_size": size} | limits.summarise(values)
        for (variant, size), values in merged.items()
    ]


def describe(record: dict[str, Any]) -> str:
    """Return the record's tables as aligned text."""
    images, machine, step = record["images"], record["machine"], record["step"]
    data = "phantoms" if record["phantom"] else "radiographs"
    parts = [
        f"{images['train']:,} training and {images['validation']:,} validation {data}, "
        f"{machine['processor']}, {machine['processors']} processors",
        align(*contender_rows(record)),
        align(*goal_rows(record)),
        "\n".join(limit_sentences(record)) or "every goal is met",
        f"ceiling of a cache of {record['settings']['views']} views: "
        f"{record['ceiling']['cold']:.0f} s cold, {record['ceiling']['warm']:.0f} s warm",
        align(*backbone_rows(record)),
        f"memory bandwidth {step['bandwidth']['best'] / 1e9:.1f} GB/s, matrix product "
        f"{step['matmul_flops']['best'] / 1e9:.0f} GFLOP/s",
        align(*trial_rows(record["forward_trials"])),
        align(*step_rows(record["step_trials"])),
        align(*precision_rows(record)),
        align(*size_rows(record)),
    ]
    return "\n\n".join(parts)


# ---- the command


def run_benchmark(settings: BenchSettings, scratch: Path, fresh: bool = False) -> dict[str, Any]:
    """Measure everything, write record and figures, and return the record.

    Args:
        settings: What to measure.
        scratch: Folder for phantoms and caches; it is removed at the end.
        fresh: Whether to discard what an interrupted benchmark measured.
    """
    partial = results_dir(BENCH) / f".partial-{settings.study}-{settings.images}"
    if fresh:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(scratch, ignore_errors=True)
    bench = prepare(settings, scratch)
    records = run_jobs(plan_jobs(bench.settings), bench.settings, scratch, partial)
    record = assemble(bench, records)
    write_json(results_dir(BENCH) / f"{settings.study}.json", record)
    save_bench_figure(plot_contenders(record), f"{settings.study}_contenders", record["phantom"])
    save_bench_figure(plot_scaling(record), f"{settings.study}_scaling", record["phantom"])
    shutil.rmtree(scratch)
    shutil.rmtree(partial)
    return record


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m utils.benchmark.run", description=__doc__)
    parser.add_argument("--study", default="sample", help="sample (phantoms) or full")
    parser.add_argument("--images", type=int, default=500, help="train and validation together")
    parser.add_argument("--fresh", action="store_true", help="discard an interrupted benchmark")
    parser.add_argument("--scratch", type=Path, help="folder for phantoms and caches")
    parser.add_argument("--quick", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    _log_to_terminal()
    try:
        if arguments.worker:
            bench = Bench.open(arguments.scratch)
            write_json(arguments.output, run_worker(arguments.worker, bench))
            return 0
        settings = BenchSettings(
            arguments.study, arguments.images, sizes=choose_sizes(arguments.images)
        )
        if arguments.quick:
            settings = BenchSettings(
                arguments.study, arguments.images, epochs=1, views=2, seeds=(42,),
                sizes=(arguments.images,), size_epochs=1, repetitions=1, rounds=1,
                steps=2, extracted_images=4, all_trials=False,
                weights="random",
            )  # fmt: skip
        name = f"pneumonia-bench-{settings.study}-{settings.images}"
        scratch = arguments.scratch or Path(tempfile.gettempdir()) / name
        tables.info("%s", describe(run_benchmark(settings, scratch, arguments.fresh)))
    except (BenchError, DatasetError, StudyError, WeightsError) as error:
        logger.error("%s", error)
        return 1
    except KeyboardInterrupt:
        logger.error("interrupted; what was measured is kept, the same command goes on from there")
        return 130
    return 0


def _log_to_terminal() -> None:
    """Send progress to stderr and tables to stdout."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    printed = logging.StreamHandler(sys.stdout)
    printed.setFormatter(logging.Formatter("%(message)s"))
    tables.addHandler(printed)
    tables.propagate = False


if __name__ == "__main__":
    sys.exit(main())
