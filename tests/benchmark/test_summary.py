"""What follows from the bench's measurements is computed right and said with its number."""

import pytest

from utils.benchmark.summary import (
    CONTENDERS,
    GOALS,
    cache_gigabytes,
    ceiling_seconds,
    compute_ratios,
    contender_rows,
    count_steps,
    fill_seconds,
    goal_rows,
    judge_goals,
    limit_sentences,
    scoring_rows,
    step_bounds,
    summarize_sizes,
    train_seconds,
)


def make_sizes() -> list[dict]:
    """Return records of two sizes: 2 s whatever the size, and 50 ms an image."""
    return [
        {
            "images": images, "train_images": images - 100, "validation_images": 100,
            "fill_seconds": 1 + 0.03 * images, "train_seconds": 1 + 0.02 * images,
            "seconds": 2 + 0.05 * images, "peak_mb": 2000 + images / 10,
            "memory_measure": "RssAnon",
        }
        for images in (500, 1000)
    ]  # fmt: skip


def make_record(cold: float = 200.0, warm: float = 60.0) -> dict:
    """Return a benchmark's record as `utils.benchmark.run.assemble` makes it, without its goals."""
    contenders = {
        name: {
            "seconds": seconds, "seconds_per_epoch": seconds / 20,
            "peak_mb": 2500.0, "validation_auc": 0.99, "fill_seconds": 110.0,
            "train_seconds": warm, "jit_compile": False,
        }
        for name, seconds in {
            "reference_loop": 1200.0, "tf_data_loop": 800.0, "bottleneck_once": 90.0,
            "ours_cold": cold, "ours_warm": warm,
        }.items()
    }  # fmt: skip
    bounds = step_bounds(50_000_000, 32, 20e9, 100e9)
    record = {
        "phantom": False,
        "images": {"train": 425, "validation": 75},
        "settings": {"epochs": 20, "views": 4, "size_epochs": 3, "seeds": [42, 43]},
        "machine": {
            "processors": 2, "processor": "a processor", "memory_gb": 16.0,
            "instructions": {"avx2": True, "avx512f": False},
        },
        "versions": {"tensorflow": "2.21.0"},
        "steps": 280,
        "contenders": contenders,
        "ours_seeds": {
            "validation_auc": {"mean": 0.99, "min": 0.985, "max": 0.995, "values": [0.985, 0.995]},
        },
        "quality": {
            "resampled": "patients", "reason": None,
            "differences": {"ours_warm": {"value": 0.001, "low": -0.01, "high": 0.012}},
        },
        "extraction": {"ours": {"median": 16.0}, "bare": {"median": 20.0}},
        "step": {
            "seconds": {"median": 0.2}, "bounds": bounds, "bandwidth": {"best": 20e9},
            "matmul_flops": {"best": 100e9}, "batch_size": 32,
        },
        "precision": {
            "precision": "bfloat16",
            "probability_difference": {"max": 0.02, "mean": 0.004},
            "images_per_second": {"float32": {"median": 20.0}, "bfloat16": {"median": 30.0}},
            "validation_auc": {"float32": 0.99, "bfloat16": None},
        },
        "workers": [
            {"workers": workers, "passes": 100, "images_per_second": rate}
            for workers, rate in ((0, 16.0), (1, 15.5), (4, 17.0))
        ],
        "scoring": {
            "images": 300,
            "onnx": {"first_seconds": 1.0, "seconds": 4.0, "peak_mb": 200.0},
            "keras": {"first_seconds": 6.0, "seconds": 10.0, "peak_mb": 1000.0},
        },
    }  # fmt: skip
    record["ceiling"] = ceiling_seconds(record)
    record["cost_per_image"] = summarize_sizes(record, make_sizes())
    record["ratios"] = compute_ratios(record)
    return record


def test_a_step_is_bound_by_nine_passes_and_two_products():
    bounds = step_bounds(50_000_000, 32, 18e9, 64e9)
    assert bounds["bandwidth"] == pytest.approx(0.1)
    assert bounds["compute"] == pytest.approx(0.1)


@pytest.mark.parametrize(("images", "steps"), [(32, 1), (33, 2), (425, 14)])
def test_the_last_batch_of_an_epoch_counts(images, steps):
    assert count_steps(images, 32) == steps


def test_ceiling_pays_each_view_once_and_validation_once():
    ceiling = ceiling_seconds(
        {
            "images": {"train": 64, "validation": 10}, "settings": {"views": 4},
            "extraction": {"bare": {"median": 2.0}}, "steps": 20 * count_steps(64, 32),
            "step": {"bounds": {"bandwidth": 0.5}},
        }
    )  # fmt: skip
    assert ceiling == {"forward": 133.0, "steps": 20.0, "cold": 153.0, "warm": 20.0}


def test_ratios_have_the_names_of_the_goals():
    ratios = make_record()["ratios"]
    assert ratios.keys() == GOALS.keys()
    assert ratios["cold"] == 4 and ratios["warm"] == pytest.approx(800 / 60)
    assert ratios["extraction"] == 0.8
    assert ratios["flatten_step"] == pytest.approx(0.09 / 0.2)
    assert ratios["cost_per_image"] == pytest.approx(27 / 500 / (52 / 1000))
    ceiling = (4 * 425 + 75) / 20 + 280 * 0.09
    assert ratios["cold_of_ceiling"] == pytest.approx(ceiling / 200)


def test_a_missed_goal_names_its_limit_and_a_met_one_none():
    record = make_record(cold=150.0, warm=50.0)
    goals = judge_goals(record)
    assert [name for name, goal in goals.items() if not goal["met"]] == [
        "cold_of_ceiling", "warm_of_ceiling", "extraction", "flatten_step",
    ]  # fmt: skip
    assert all((goal["limit"] is None) == goal["met"] for goal in goals.values())
    assert "at 20.0 images/s" in goals["extraction"]["limit"]
    assert "90 ms (20.0 GB/s)" in goals["flatten_step"]["limit"]
    assert (
        "64 ms" in goals["flatten_step"]["limit"]
        and "100 GFLOP/s" in (goals["flatten_step"]["limit"])
    )


def test_a_ratio_out_of_reach_of_any_cache_says_so():
    record = make_record()
    record["contenders"]["tf_data_loop"]["seconds"] = 300.0
    record["ratios"]["cold"] = 1.5
    limit = judge_goals(record)["cold"]["limit"]
    assert limit.startswith("no cache of 4 copies can reach 5 here")
    assert f"{300 / record['ceiling']['cold']:.1f}" in limit


def test_cost_per_image_is_better_where_it_is_smaller():
    record = make_record()
    record["ratios"]["cost_per_image"] = 1.2
    goal = judge_goals(record)["cost_per_image"]
    assert not goal["met"] and "of a run 2.0 s" in goal["limit"]
    assert goal["limit"].startswith("an image costs 54 ms at 500")


def test_predict_is_held_against_keras_start_included():
    record = make_record()
    assert record["ratios"]["scoring_first"] == 1 and record["ratios"]["scoring_many"] == 0.4
    assert record["ratios"]["scoring_memory"] == 0.2
    _, rows = scoring_rows(record)
    assert rows == [["ONNX Runtime", "1.00", "4.0", "200"], ["Keras", "6.00", "10.0", "1,000"]]
    record["scoring"]["keras"]["seconds"] = 7.0
    record["ratios"] = compute_ratios(record)
    goal = judge_goals(record)["scoring_many"]
    assert not goal["met"] and "each of 300 images takes 10 ms more, and 3 ms" in goal["limit"]


def test_memory_that_cannot_be_measured_is_not_judged():
    record = make_record()
    for way in ("onnx", "keras"):
        record["scoring"][way]["peak_mb"] = None
    record["ratios"] = compute_ratios(record)
    assert judge_goals(record).keys() == GOALS.keys() - {"scoring_memory"}
    assert [row[-1] for row in scoring_rows(record)[1]] == ["–", "–"]


def make_constants():
    """Return the constants of the cost model: 20 images/s on two processors, 0.1 s a step."""
    return {
        "machine": {"processors": 2}, "extraction": {"ours": {"median": 20.0}},
        "step": {"seconds": {"median": 0.1}, "batch_size": 32}, "settings": {"size_epochs": 3},
    }  # fmt: skip


def test_cost_model_is_images_times_views_plus_epochs_times_steps():
    record = make_constants()
    assert fill_seconds(record, 100, 50, 4) == 22.5
    assert fill_seconds(record, 100, 50, 4, processors=10) == 4.5
    assert train_seconds(record, 64, 20) == pytest.approx(4.0)
    row = 7 * 7 * 2048
    assert cache_gigabytes(100, 50, 4) == pytest.approx(row * (400 * 2 + 50 * 4) / 1e9)


def test_sizes_are_set_against_their_prediction():
    summary = summarize_sizes(make_constants(), make_sizes())
    assert summary["fit"]["fixed_seconds"] == pytest.approx(2.0)
    assert summary["fit"]["seconds_per_image"] == pytest.approx(0.05)
    assert summary["sizes"][0]["predicted_fill_seconds"] == 25.0
    assert summary["sizes"][0]["predicted_train_seconds"] == pytest.approx(3 * 13 * 0.1)
    alone = summarize_sizes(make_constants(), make_sizes()[:1])
    assert alone["fit"] == {"fixed_seconds": 0.0, "seconds_per_image": 27 / 500}


def test_tables_name_every_loop_and_nothing_twice():
    record = make_record()
    record["goals"] = judge_goals(record)
    header, rows = contender_rows(record)
    assert [row[0] for row in rows] == list(CONTENDERS)
    assert {len(row) for row in rows} == {len(header)}
    assert rows[-1][-1] == "0.9900 (0.9850 to 0.9950)"
    assert [row[0] for row in goal_rows(record)[1]] == list(GOALS)
    sentences = limit_sentences(record)
    missed = [goal["limit"] for goal in record["goals"].values() if not goal["met"]]
    assert all(sum(limit in sentence for sentence in sentences) >= 1 for limit in missed)
    assert len(sentences) == len(set(sentences)) < len(missed), "nothing is said twice"
