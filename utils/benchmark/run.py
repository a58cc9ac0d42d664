"""Measure this repository's training against the loops that others would write.

`python -m utils.benchmark.run --study full --images 500` trains five contenders on the same images,
each in a process of its own, measures the machine's limits next to them, and writes
`results/bench/<study>.json` and two figures. An interrupted benchmark is taken up where it was by
the same command; `--fresh` starts over. What makes the comparison fair is written down in
`utils.benchmark.loops`; what follows from the numbers is computed in `utils.benchmark.summary`.
"""

import argparse
import logging
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.benchmark import limits, loops, scoring, summary
from utils.benchmark.plots import plot_contenders, plot_scaling, save_bench_figure
from utils.benchmark.preparation import Bench, BenchError, BenchSettings, choose_sizes, prepare
from utils.common.files import read_json, write_json
from utils.common.paths import results_dir
from utils.common.provenance import PACKAGES, count_threads
from utils.common.study import Study, StudyError
from utils.data.images import DatasetError
from utils.evaluation.metrics import paired_difference
from utils.evaluation.predictions import PredictionsError
from utils.models.pretrained import WeightsError
from utils.training.precision import CPU_FACTS, RECORDED_FLAGS, cpu_flags

logger = logging.getLogger(__name__)

BENCH = "bench"
"""Name of the folder of results and of figures."""
QUICK = {
    "epochs": 1, "views": 2, "seeds": (42,), "size_epochs": 1, "repetitions": 1, "rounds": 1,
    "steps": 2, "extracted_images": 4, "scored_images": 4, "workers": (0, 1), "weights": "random",
}  # fmt: skip
"""Settings of the test that the command works."""
REPORTED_FLAGS = ("avx2", *RECORDED_FLAGS)


def plan_jobs(settings: BenchSettings) -> list[str]:
    """Name what is measured, in order: those that profit from each other's files are neighbors."""
    return [
        "ours_cold", *(f"ours_warm:{seed}" for seed in settings.seeds), "precision",
        "tf_data_loop", "reference_loop", "bottleneck_once", "extraction", "scoring",
        *(f"step:{number}" for number in range(1, settings.rounds + 1)),
        *(f"size:{size}" for size in settings.sizes),
        *(f"workers:{number}" for number in settings.workers),
    ]  # fmt: skip


def run_job(job: str, bench: Bench) -> Any:
    """Run one job in this process and return its record."""
    kind, _, detail = job.partition(":")
    run: Callable[[Bench], Any] = {
        "ours_cold": lambda bench: loops.run_ours(bench, bench.settings.seeds[0], warm=False),
        "ours_warm": lambda bench: loops.run_ours(bench, int(detail), warm=True),
        "fill": loops.fill_ours,
        "precision": limits.measure_precision,
        "tf_data_loop": loops.run_tf_data_loop,
        "reference_loop": loops.run_published_loop,
        "bottleneck_once": loops.run_bottleneck_once,
        "extraction": limits.measure_extraction,
        "scoring": scoring.measure_scoring,
        "step": limits.measure_step,
        "size": lambda bench: loops.run_size(bench, int(detail)),
        "workers": lambda bench: limits.measure_workers(bench, int(detail)),
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
        logger.info("[%d/%d] %s ...", number, len(jobs), job)
        file = partial / f"{job.replace(':', '-')}.json"
        records[job] = read_partial(file, bench.settings)
        if records[job] is None:
            on_cache = job.startswith(("ours", "precision"))
            if on_cache and not cache_is_full and job != "ours_cold":
                run_apart("fill", bench)
            cache_is_full = cache_is_full or on_cache
            records[job] = run_apart(job, bench)
            write_json(file, {"settings": bench.settings.describe(), "record": records[job]})
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
    facts = CPU_FACTS.read_text(encoding="utf-8") if CPU_FACTS.is_file() else ""
    model = re.search(r"^model name\s*: *(.+)$", facts, re.MULTILINE)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": model[1].strip() if model else platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "processors": count_threads(),
        "memory_gb": round(pages / 1e9, 1),
        "instructions": {flag: flag in cpu_flags() for flag in REPORTED_FLAGS},
    }


def assemble(bench: Bench, records: dict[str, Any]) -> dict[str, Any]:
    """Make the benchmark's record from those of its jobs."""
    settings, study = bench.settings, bench.study
    train, validation = bench.choose()
    contenders = {name: records[name] for name in (*summary.OTHERS, "ours_cold")}
    seeds = [records[f"ours_warm:{seed}"] for seed in settings.seeds]
    contenders["ours_warm"] = seeds[0]
    aucs = [record["validation_auc"] for record in seeds]
    step = limits.merge_steps([records[job] for job in records if job.startswith("step")])
    step["bounds"] = summary.step_bounds(
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
        "steps": settings.epochs * summary.count_steps(len(train), study.batch_size),
        "contenders": {
            name: {key: value for key, value in contender.items() if key != "probabilities"}
            # What is paid once is no part of an epoch.
            | {"seconds_per_epoch": contender["train_seconds"] / settings.epochs}
            for name, contender in contenders.items()
        },
        "ours_seeds": {
            "seeds": list(settings.seeds),
            "validation_auc": {
                "mean": float(np.mean(aucs)), "min": min(aucs), "max": max(aucs), "values": aucs,
            },
        },
        "quality": compare_quality(contenders, validation, study),
        "extraction": records["extraction"],
        "step": step,
        "precision": records["precision"],
        "workers": [records[f"workers:{number}"] for number in settings.workers],
        "scoring": records["scoring"],
    }  # fmt: skip
    record["ceiling"] = summary.ceiling_seconds(record)
    sizes = [records[f"size:{size}"] for size in settings.sizes]
    record["cost_per_image"] = summary.summarize_sizes(record, sizes)
    record["ratios"] = summary.compute_ratios(record)
    record["goals"] = summary.judge_goals(record)
    return record


def compare_quality(
    contenders: dict[str, dict[str, Any]], validation: pd.DataFrame, study: Study
) -> dict[str, Any]:
    """Return the validation AUC of each contender less `tf_data_loop`'s, with its interval.

    Too few patients have no interval; `differences` is empty then, and `reason` says so.
    """
    level = "patient" if (validation.patient_id != "").all() else "image"
    truth = validation[["image_id", "patient_id", "split"]].assign(y_true=validation.label)
    frames = {
        name: truth.assign(probability=contender["probabilities"])
        for name, contender in contenders.items()
    }
    other = frames.pop("tf_data_loop")
    compared: dict[str, Any] = {"differences": {}, "reason": None}
    try:
        compared["differences"] = {
            name: paired_difference(frame, other, study.resamples, study.seed, level=level)
            for name, frame in frames.items()
        }
    except PredictionsError as error:
        compared["reason"] = str(error)
    return {"metric": "validation AUC less tf_data_loop's", "resampled": f"{level}s"} | compared


def describe(record: dict[str, Any]) -> str:
    """Return the record's tables as aligned text."""
    images, machine, step = record["images"], record["machine"], record["step"]
    data = "phantoms" if record["phantom"] else "radiographs"
    return "\n\n".join(
        [
            f"{images['train']:,} training and {images['validation']:,} validation {data}, "
            f"{machine['processor']}, {machine['processors']} processors",
            _align(summary.contender_rows(record)),
            _align(summary.goal_rows(record)),
            "\n".join(summary.limit_sentences(record)) or "every goal is met",
            f"ceiling of a cache of {record['settings']['views']} views: "
            f"{record['ceiling']['cold']:.0f} s cold, {record['ceiling']['warm']:.0f} s warm",
            f"memory bandwidth {step['bandwidth']['best'] / 1e9:.1f} GB/s, matrix product "
            f"{step['matmul_flops']['best'] / 1e9:.0f} GFLOP/s",
            _align(summary.precision_rows(record)),
            _align(summary.size_rows(record)),
            _align(summary.worker_rows(record)),
            _align(summary.scoring_rows(record)),
        ]
    )


def _align(table: summary.Table) -> str:
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
    for name in ("WORKERS", "SCHEDULER"):  # every process works alone, unless it measures workers
        os.environ.pop(name, None)
    try:
        images = arguments.images
        settings = BenchSettings(arguments.study, images, sizes=choose_sizes(images))
        if arguments.quick:
            settings = replace(settings, sizes=(images,), **QUICK)
        name = f"pneumonia-bench-{settings.study}-{settings.images}"
        scratch = arguments.scratch or Path(tempfile.gettempdir()) / name
        print(describe(run_benchmark(settings, scratch, arguments.fresh)))
    except (BenchError, DatasetError, StudyError, WeightsError) as error:
        logger.error("%s", error)
        return 1
    except KeyboardInterrupt:
        logger.error("interrupted; what was measured is kept, the same command goes on from there")
        return 130
    return 0


def _log_to_terminal() -> None:
    logging.basicConfig(format="%(message)s", level=logging.INFO)


if __name__ == "__main__":
    sys.exit(main())
