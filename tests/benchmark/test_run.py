"""The bench measures each thing once, in its own process, on the right images."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tests.benchmark.test_summary import make_record
from utils.benchmark import run as bench
from utils.benchmark.limits import merge_steps
from utils.benchmark.loops import read_anonymous_mb, watch_memory
from utils.benchmark.plots import plot_contenders, plot_scaling, save_bench_figure
from utils.benchmark.preparation import (
    Bench,
    BenchError,
    BenchSettings,
    choose_images,
    choose_sizes,
)
from utils.benchmark.run import compare_quality, describe, plan_jobs, run_jobs
from utils.benchmark.summary import CONTENDERS, GOALS, judge_goals
from utils.common.files import read_json
from utils.common.paths import ROOT
from utils.common.study import load_study


def make_index(count: int = 400) -> pd.DataFrame:
    """Return an index in which 3 of 4 images show pneumonia and each tenth has a duplicate."""
    random = np.random.default_rng(0)
    numbers = np.arange(count)
    hashes = [random.bytes(32).hex() for _ in numbers]
    hashes = [hashes[number - 1] if number % 10 == 1 else hashes[number] for number in numbers]
    return pd.DataFrame(
        {
            "image_id": [f"{number:04}.jpeg" for number in numbers],
            "split": random.choice(["train", "validation", "test"], count, p=[0.6, 0.2, 0.2]),
            "label": (numbers % 4 > 0).astype(int),
            "pixel_sha256": hashes,
        }
    )


# ---- images


def test_images_are_chosen_in_proportion_and_never_from_test():
    index = make_index()
    chosen = choose_images(index, 100, 0.15)
    assert len(chosen) == 100
    assert chosen.split.value_counts().to_dict() == {"train": 85, "validation": 15}
    assert chosen.pixel_sha256.is_unique
    for split, rows in chosen.groupby("split"):
        share = index[index.split == split].drop_duplicates("pixel_sha256").label.mean()
        assert rows.label.mean() == pytest.approx(share, abs=1 / len(rows))


def test_the_choice_depends_on_pixels_alone_and_grows():
    index = make_index()
    small, large = (set(choose_images(index, count, 0.15).image_id) for count in (40, 80))
    assert len(small - large) <= 1, "a larger size holds the smaller one, up to rounding"
    shuffled = index.sample(frac=1, random_state=1)
    assert set(choose_images(shuffled, 40, 0.15).image_id) == small


def test_too_many_images_are_refused():
    with pytest.raises(BenchError, match="N="):
        choose_images(make_index(), 390, 0.15)


# ---- memory


@pytest.mark.slow
@pytest.mark.skipif(read_anonymous_mb() is None, reason="RssAnon is Linux'")
def test_peak_memory_sees_what_is_freed_again():
    before = read_anonymous_mb()
    with watch_memory(interval=0.001) as memory:
        array = np.ones(25_000_000)
        for _ in range(50):
            array += 1
        del array
    assert memory["memory_measure"] == "RssAnon"
    assert memory["peak_mb"] > before + 150


# ---- jobs


def test_every_job_is_planned_once():
    jobs = plan_jobs(BenchSettings("sample", 500))
    assert len(set(jobs)) == len(jobs)
    names = {job.split(":")[0] for job in jobs}
    assert {*CONTENDERS, "precision", "extraction", "scoring", "step", "size", "workers"} == names


@pytest.mark.parametrize(("images", "sizes"), [(500, (500, 1000, 2000, 5000)), (24, (24, 48))])
def test_small_trials_have_small_sizes(images, sizes):
    assert choose_sizes(images) == sizes


@pytest.fixture
def started(monkeypatch):
    """Replace the processes: note their names, fail where told."""
    names = []

    def start(job, prepared):
        names.append(job)
        if job == "bad":
            raise BenchError("the process of bad died")
        return {"name": job}

    monkeypatch.setattr(bench, "run_apart", start)
    return names


def make_bench(tmp_path, **settings):
    return Bench(BenchSettings("sample", 24, **settings), tmp_path, tmp_path, make_index(), None)


def test_finished_jobs_are_kept_and_not_run_again(tmp_path, started):
    prepared = make_bench(tmp_path)
    with pytest.raises(BenchError):
        run_jobs(["tf_data_loop", "bad"], prepared, tmp_path / "partial")
    records = run_jobs(["tf_data_loop", "step:1", "step:2"], prepared, tmp_path / "partial")
    assert started == ["tf_data_loop", "bad", "step:1", "step:2"]
    assert records == {name: {"name": name} for name in ("tf_data_loop", "step:1", "step:2")}


def test_records_of_other_settings_or_damaged_ones_are_measured_again(tmp_path, started):
    jobs = ["tf_data_loop"]
    run_jobs(jobs, make_bench(tmp_path), tmp_path)
    run_jobs(jobs, make_bench(tmp_path, epochs=3), tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text('{"settings": ')
    run_jobs(jobs, make_bench(tmp_path, epochs=3), tmp_path)
    assert len(started) == 3


def test_a_warm_run_finds_a_full_cache_after_an_interruption(tmp_path, started):
    cold, warm = "ours_cold", "ours_warm:42"
    run_jobs([cold], make_bench(tmp_path), tmp_path)
    run_jobs([cold, warm], make_bench(tmp_path), tmp_path)
    assert started == ["ours_cold", "fill", "ours_warm:42"]


def test_settings_survive_json():
    described = BenchSettings("full", 500, sizes=(500, 1000)).describe()
    assert json.loads(json.dumps(described)) == described
    assert described["sizes"] == [500, 1000]


def die(job, prepared):
    os._exit(1)


@pytest.mark.slow
def test_a_process_that_dies_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "run_job", die)
    with pytest.raises(BenchError, match="ours_cold died"):
        bench.run_apart("ours_cold", make_bench(tmp_path))


# ---- record and figures


def test_rounds_of_the_step_are_taken_together():
    first, second = (
        {"batch_size": 32, "seconds": of, "bandwidth": of, "matmul_flops": of}
        for of in ([2.0, 3.0], [1.0, 4.0, 5.0])
    )
    merged = merge_steps([first, second])
    assert merged["batch_size"] == 32
    assert merged["seconds"]["median"] == merged["bandwidth"]["median"] == 3
    assert merged["seconds"]["best"] == 1 and merged["bandwidth"]["best"] == 5


def test_quality_is_compared_on_the_same_patients():
    random = np.random.default_rng(0)
    labels = np.tile([0, 1], 40)
    validation = pd.DataFrame(
        {
            "image_id": [f"{number}.jpeg" for number in range(80)],
            "patient_id": [f"p-{number}-x" for number in range(80)],
            "split": "validation",
            "label": labels,
        }
    )
    good = (labels * 0.5 + random.uniform(0, 0.6, 80)).tolist()
    contenders = {name: {"probabilities": good} for name in CONTENDERS}
    contenders["bottleneck_once"] = {"probabilities": random.uniform(0, 1, 80).tolist()}
    study = load_study("sample")
    quality = compare_quality(contenders, validation, study)
    assert quality["differences"]["ours_warm"]["value"] == 0
    assert quality["differences"]["bottleneck_once"]["high"] < 0
    few = compare_quality(
        {name: {"probabilities": good[:2]} for name in CONTENDERS}, validation.head(2), study
    )
    assert few["differences"] == {} and "two patients" in few["reason"]


@pytest.mark.parametrize("phantom", [True, False])
def test_figures_show_every_loop_and_are_marked(tmp_path, monkeypatch, phantom):
    monkeypatch.setenv("FIGURES_DIR", str(tmp_path))
    record = make_record() | {"phantom": phantom}
    figure = plot_contenders(record)
    assert len(figure.axes[0].patches) == len(CONTENDERS)
    assert ("phantoms" in figure.get_suptitle()) == phantom
    file = save_bench_figure(figure, "some_contenders", phantom)
    assert file == tmp_path / "bench" / "some_contenders.png" and file.is_file()
    assert any("PHANTOM" in text.get_text() for text in figure.texts) == phantom
    left, _ = plot_scaling(record).axes
    assert len(left.lines) == 4


# ---- the command


def test_the_printed_tables_are_aligned_and_complete():
    record = make_record()
    record["goals"] = judge_goals(record)
    text = describe(record)
    for name in (*CONTENDERS, *GOALS):
        assert name in text
    lines = text.splitlines()
    first = next(number for number, line in enumerate(lines) if "seconds per epoch" in line)
    table = lines[first : first + 1 + len(CONTENDERS)]
    assert len({len(line) for line in table}) == 1
    assert "ms per image" in text and "bfloat16" in text
    assert "4 workers" in text and "ONNX Runtime" in text


@pytest.mark.slow
def test_one_command_measures_everything(tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setenv("FIGURES_DIR", str(tmp_path / "figures"))
    command = [
        sys.executable, "-m", "utils.benchmark.run",
        "--study", "sample", "--images", "16", "--quick",
        "--scratch", str(tmp_path / "scratch"),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    record = read_json(tmp_path / "results" / "bench" / "sample.json")
    assert record["ratios"].keys() == record["goals"].keys() == GOALS.keys()
    assert record["images"] == {"train": 10, "validation": 6}
    for name in CONTENDERS:
        contender = record["contenders"][name]
        assert contender["epochs_run"] == 1 and contender["peak_mb"] > 100
        assert 0 <= contender["validation_auc"] <= 1
        assert name in done.stdout
    assert record["extraction"]["passes"] == 8
    assert [each["workers"] for each in record["workers"]] == [0, 1]
    assert all(each["images_per_second"] > 0 for each in record["workers"])
    assert "one process, all cores" in done.stdout
    assert len(record["step"]["seconds"]["repetitions"]) == 4
    assert record["step"]["bounds"]["bandwidth"] > 0
    assert record["scoring"]["images"] == 4
    for way in ("onnx", "keras"):
        assert 0 < record["scoring"][way]["first_seconds"] and record["scoring"][way]["peak_mb"]
    text = json.dumps(record)
    assert str(tmp_path) not in text and str(ROOT) not in text
    left = {path.name for path in (tmp_path / "results" / "bench").iterdir()}
    assert left == {"sample.json"}, "what an interruption would need is removed"
    assert not (tmp_path / "scratch").exists()
    figures = {path.name for path in (tmp_path / "figures" / "bench").iterdir()}
    assert figures == {"sample_contenders.png", "sample_scaling.png"}
