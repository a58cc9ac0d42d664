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
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import version
from multiprocessing import get_context
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
    Table,
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
    summarise_sizes,
)
from utils.common.files import read_json, write_json
from utils.common.paths import results_dir
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


def plan_jobs(settings: BenchSettings) -> list[str]:
    """Name what is measured, in order: those that profit from each other's files are neighbours."""
    return [
        "ours_cold",
        *(f"ours_warm:{seed}" for seed in settings.seeds),
        "precision",
        "tf_data_loop",
        "reference_loop",
        "bottleneck_once",
        "extraction",
        *(f"step:{number}" for number in range(1, settings.rounds + 1)),
        *(f"size:{size}" for size in settings.sizes),
    ]


def run_job(job: str, bench: Bench) -> Any:
    """Run one job in this process and return its record."""
    kind, _, detail = job.partition(":")
    run: Callable[[Bench], Any] = {
        "ours_cold": lambda bench: run_ours(bench, bench.settings.seeds[0], warm=False),
        "ours_warm": lambda bench: run_ours(bench, int(detail), warm=True),
        "fill": fill_ours,
        "precision": limits.measure_precision,
        "tf_data_loop": run_tf_data_loop,
        "reference_loop": run_reference_loop,
        "bottleneck_once": run_bottleneck_once,
        "extraction": limits.measure_extraction,
        "step": limits.measure_step,
        "size": lambda bench: run_size(bench, int(detail)),
    }[kind]
    return run(bench)


def run_jobs(jobs: Sequence[str], bench: Bench, partial: Path) -> dict[str, Any]:
    """Run the jobs that have no record yet, each in its own process, and return all records.

    Args:
        jobs: What to measure.
        bench: What the processes are given; a record of other settings is measured again.
        partial: Folder in which each record is kept as soon as it is there.

    Raises:
        BenchError: if a process dies.
    """
    records, cache_is_full = {}, False
    for number, job in enumerate(jobs, 1):
        file, begun = partial / f"{job.replace(':', '-')}.json", f"[{number}/{len(jobs)}] {job}"
        kept = read_partial(file, bench.settings)
        if kept is not None:
            logger.info("%s: measured before", begun)
            records[job] = kept
            continue
        if job.startswith(("ours_warm", "precision")) and not cache_is_full:
            run_apart("fill", bench)
            cache_is_full = True
        logger.info("%s ...", begun)
        start = time.perf_counter()
        records[job] = run_apart(job, bench)
        logger.info("%s took %.0f s", begun, time.perf_counter() - start)
        write_json(file, {"settings": bench.settings.describe(), "record": records[job]})
        cache_is_full = cache_is_full or job == "ours_cold"
    return records


def read_partial(file: Path, settings: BenchSettings) -> Any:
    """Return the record kept in a file, or None where there is none of these settings."""
    try:
        content = read_json(file)
    except (OSError, ValueError):
        return None
    return content["record"] if content.get("settings") == settings.describe() else None


def run_apart(job: str, bench: Bench) -> Any:
    """Run one job in a new process, which shares nothing with this one, and return its record."""
    new = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=new, initializer=_log_to_terminal) as process:
        try:
            return process.submit(run_job, job, bench).result()
        except BrokenProcessPool as error:
            raise BenchError(
                f"the process of {job} died, perhaps for want of memory; the same command goes on "
                "from here, a smaller N= needs less"
            ) from error


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


def assemble(bench: Bench, records: dict[str, Any]) -> dict[str, Any]:
    """Make the benchmark's record from those of its jobs."""
    settings, study = bench.settings, bench.study
    train, validation = bench.choose()
    contenders = {name: records[name] for name in (*OTHERS, "ours_cold")}
    seeds = [records[f"ours_warm:{seed}"] for seed in settings.seeds]
    contenders["ours_warm"] = seeds[0]
    step = merge_steps([records[f"step:{number}"] for number in range(1, settings.rounds + 1)])
    step["bounds"] = step_bounds(
        step["parameters"], step["batch_size"], step["bandwidth"]["best"],
        step["matmul_flops"]["best"],
    )  # fmt: skip
    record: dict[str, Any] = {
        "study": settings.study,
        "phantom": study.dataset_name == "phantoms",
        "images": {"train": len(train), "validation": len(validation)},
        "settings": settings.describe(),
        "recipe": bench.recipe(settings.seeds[0]).describe(),
        "weights": bench.weights.provenance(),
        "machine": describe_machine(),
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in PACKAGES},
        "steps": settings.epochs * count_steps(len(train), study.batch_size),
        "contenders": {
            name: _without_probabilities(contender, settings.epochs)
            for name, contender in contenders.items()
        },
        "ours_seeds": {
            key: _summarise_seeds([record[key] for record in seeds])
            for key in ("validation_auc", "seconds")
        } | {"seeds": list(settings.seeds)},
        "quality": compare_quality(contenders, validation, study),
        "extraction": records["extraction"],
        "step": step,
        "precision": records["precision"],
    }  # fmt: skip
    record["ceiling"] = ceiling_seconds(record)
    sizes = [records[f"size:{size}"] for size in settings.sizes]
    record["cost_per_image"] = summarise_sizes(sizes, cost_model(record), settings.size_epochs)
    record["ratios"] = compute_ratios(record)
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


def merge_steps(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Merge the rounds of the training step: medians of medians, the best bandwidth of all."""
    seconds = [record["seconds"] for record in rounds]
    merged: dict[str, Any] = {
        "seconds": {
            "median": float(np.median([part["median"] for part in seconds])),
            "best": min(part["best"] for part in seconds),
            "count": sum(part["count"] for part in seconds),
        }
    }
    for limit in ("bandwidth", "matmul_flops"):
        values = [value for record in rounds for value in record[limit]["repetitions"]]
        merged[limit] = rounds[0][limit] | limits.summarise(values)
    return rounds[0] | merged


def describe(record: dict[str, Any]) -> str:
    """Return the record's tables as aligned text."""
    images, machine, step = record["images"], record["machine"], record["step"]
    data = "phantoms" if record["phantom"] else "radiographs"
    return "\n\n".join(
        [
            f"{images['train']:,} training and {images['validation']:,} validation {data}, "
            f"{machine['processor']}, {machine['processors']} processors",
            _align(contender_rows(record)),
            _align(goal_rows(record)),
            "\n".join(limit_sentences(record)) or "every goal is met",
            f"ceiling of a cache of {record['settings']['views']} views: "
            f"{record['ceiling']['cold']:.0f} s cold, {record['ceiling']['warm']:.0f} s warm",
            f"memory bandwidth {step['bandwidth']['best'] / 1e9:.1f} GB/s, matrix product "
            f"{step['matmul_flops']['best'] / 1e9:.0f} GFLOP/s",
            _align(precision_rows(record)),
            _align(size_rows(record)),
        ]
    )


def _align(table: Table) -> str:
    header, rows = table
    return pd.DataFrame(rows, columns=header).to_string(index=False)


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
    records = run_jobs(plan_jobs(bench.settings), bench, partial)
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
    arguments = parser.parse_args(argv)
    _log_to_terminal()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # of the processes
    try:
        settings = BenchSettings(
            arguments.study, arguments.images, sizes=choose_sizes(arguments.images)
        )
        if arguments.quick:
            settings = BenchSettings(
                arguments.study, arguments.images, epochs=1, views=2, seeds=(42,),
                sizes=(arguments.images,), size_epochs=1, repetitions=1, rounds=1,
                steps=2, extracted_images=4, weights="random",
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
