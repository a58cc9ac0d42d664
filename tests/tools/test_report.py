"""The README's numbers are those of the committed results."""

import json

import pytest

from tests.benchmark.test_summary import make_record
from tests.builders import make_study
from tests.test_notebooks import NAMES
from utils.benchmark.summary import judge_goals
from utils.common.files import read_json, write_csv, write_json
from utils.evaluation.study_metrics import evaluate_study
from utils.evaluation.tables import NOT_REPORTED, format_interval
from utils.tools import report
from utils.tools.model_card import CARD_BLOCKS
from utils.tools.report import (
    MODEL_CARD,
    NOT_MEASURED,
    README,
    RESULTS,
    SCALING,
    SEED_42,
    SHIPPED_README,
    ReportError,
    find_drift,
    main,
    notebooks_table,
    render_card,
    render_readme,
    render_scaling,
    render_shipped,
    replace_block,
)

TEMPLATE = """# A study

<!-- results:begin -->
<!-- results:end -->

<!-- final:begin -->
<!-- final:end -->

<!-- round-two:begin -->
<!-- round-two:end -->

In between.

<!-- minutes:begin -->
old numbers
<!-- minutes:end -->
The end.
"""

SCALING_TEMPLATE = """<!-- speed:begin -->
<!-- speed:end -->
<!-- constants:begin -->
<!-- constants:end -->
<!-- measured:begin -->
<!-- measured:end -->
<!-- predictions:begin -->
<!-- predictions:end -->
<!-- precision:begin -->
<!-- precision:end -->
<!-- workers:begin -->
<!-- workers:end -->
"""


@pytest.fixture(scope="module")
def models():
    return {"vgg19": make_study(quality=0.8), "resnet50": make_study(quality=2.0)}


@pytest.fixture(scope="module")
def metrics(models):
    return evaluate_study(models, resamples=20, seed=42)


@pytest.fixture
def results(tmp_path, metrics, models):
    """Write results of a tiny study and return their folder."""
    folder = tmp_path / "results" / "full"
    for name, predictions in models.items():
        write_csv(folder / "predictions" / f"{name}.csv", predictions)
    again = make_study(quality=1.5)
    write_csv(folder / "predictions" / "final" / "resnet50_seed43.csv", again)
    write_json(folder / "metrics.json", metrics)
    weights = {
        "vgg19": ("ImageNet blocks 1-3, random blocks 4-5", "!!! not plain ImageNet !!!"),
        "resnet50": ("ImageNet", ""),
    }
    for model, (description, banner) in weights.items():
        record = {
            "weights": {"description": description, "banner": banner},
            "recipe": {"views": 4},
        }
        write_json(folder / "provenance" / f"{model}.json", record)
    write_json(
        folder / "provenance" / "minutes.json",
        {"02_augmentation": 0.25, "01_data_exploration": 1.0},
    )
    return folder


@pytest.fixture
def readme(tmp_path, results):
    """Write a README that agrees with the results and return its path."""
    file = tmp_path / "README.md"
    file.write_text(render_readme(TEMPLATE, results))
    return file


@pytest.mark.skipif(
    not (RESULTS / "metrics.json").is_file(),
    reason="results/full/metrics.json is not there: the full study has not run yet",
)
def test_the_documents_of_this_repository_agree_with_its_results():
    documents = {
        README: render_readme, SCALING: render_scaling, MODEL_CARD: render_card,
        SHIPPED_README: render_shipped,
    }  # fmt: skip
    drift = []
    for file, render in documents.items():
        drift += find_drift(file.read_text(encoding="utf-8"), RESULTS, render, file.name)
    assert not drift, "run `make readme`:\n" + "".join(drift)


def test_the_table_holds_the_numbers_with_their_provenance(results, metrics):
    text = render_readme(TEMPLATE, results)
    rows: dict[str, list[str]] = {}
    for line in text.splitlines():
        if "|" in line:
            rows.setdefault(line.split(" | ")[0], line.split(" | "))
    assert rows["| VGG19"][1] == "1" and "(" not in rows["| VGG19"][2]
    assert rows["| ResNet50"][1] == "2" and "(" in rows["| ResNet50"][5]
    text = text.split(SEED_42)[1]
    rows = {line.split(" | ")[0]: line.split(" | ") for line in text.splitlines() if "|" in line}
    test = metrics["models"]["resnet50"]["test"]
    assert rows["| ResNet50"][1] == format_interval(test["accuracy_at_0.5"])
    assert rows["| ResNet50"][4] == format_interval(test["roc_auc"])
    validation = metrics["models"]["resnet50"]["validation"]["roc_auc"]
    assert rows["| ResNet50"][7:] == [format_interval(validation), "ImageNet", "4 |"]
    assert rows["| VGG19"][8] == "**ImageNet blocks 1-3, random blocks 4-5**"
    assert rows["| published baseline, as reported"][4] == "0.97"
    names = ("| on test", "| VGG19", "| ResNet50", "| published baseline, as reported")
    assert [len(rows[name]) for name in names] == [10] * 4
    assert "90 images of 45 patients" in text
    assert "95% intervals from 20 bootstrap resamples of patients, seed 42" in text
    assert f"{metrics['thresholds']['vgg19']:.3f} for VGG19" in text


def test_finished_models_are_listed_once_they_are_scored(results):
    assert report.NOT_FINISHED in render_readme(TEMPLATE, results)
    interval = {"value": 0.98, "low": 0.97, "high": 0.99}
    test = dict.fromkeys(report.FINAL_COLUMNS, interval)
    difference = {"roc_auc": {"value": 0.02, "low": 0.01, "high": 0.03}}
    write_json(
        results / "final_metrics.json",
        {
            "resnet50": {"seeds": [{}, {}], "test": test},
            "ensemble": {"seeds": [{}], "test": test, "difference": difference},
        },
    )
    text = render_readme(TEMPLATE, results)
    assert "| resnet50 | 2 | 0.980 [0.970, 0.990] |" in text
    assert "| +0.020 [+0.010, +0.030] |" in text


def test_every_notebook_is_listed_with_its_question_and_minutes(results):
    text = render_readme(TEMPLATE, results)
    rows = [line for line in text.splitlines() if line.startswith("| [")]
    assert [row[3:].split("]")[0] for row in rows] == list(NAMES)
    assert rows[0] == (
        "| [01_data_exploration](notebooks/01_data_exploration.ipynb) "
        "| What is in the data, and how well can a model score without using the lungs? | 1.0 |"
    )
    assert rows[1].endswith("? | 0.2 |")
    assert all(row.endswith(f"? | {NOT_REPORTED} |") for row in rows[2:])
    assert "old numbers" not in text
    assert "? | less than 0.1 |" in notebooks_table({"02_augmentation": 0.04})
    with pytest.raises(ReportError, match="names no notebook"):
        notebooks_table({})


def test_prose_around_the_tables_stays(results):
    text = render_readme(TEMPLATE, results)
    assert text.startswith("# A study\n\n<!-- results:begin -->\n|")
    assert "\nIn between.\n" in text
    assert text.endswith("<!-- minutes:end -->\nThe end.\n")
    assert render_readme(text, results) == text


def write_speed(results):
    """Write a benchmark beside the results, and return it."""
    record = make_record()
    record["goals"] = judge_goals(record)
    write_json(results.parent / "bench" / "full.json", record)
    return record


def test_without_a_benchmark_the_speed_section_says_how_to_make_one(results):
    text = render_scaling(SCALING_TEMPLATE, results)
    assert text.count(NOT_MEASURED) == 6 and "make bench" in NOT_MEASURED


def test_speed_section_holds_loops_goals_and_limits(results):
    record = write_speed(results)
    text = render_scaling(SCALING_TEMPLATE, results)
    assert NOT_MEASURED not in text
    for part in ("| tf_data_loop | 40.0 | 800 |", "4.0 times as fast", "13.3 times"):
        assert part in text
    assert "| bfloat16 | 30.0 | – | 0.0040 | 0.0200 |" in text
    assert "| one process, all cores | 1 worker | 4 workers |" in text
    assert "| ResNet50's features | 16.0 | 15.5 | 17.0 |" in text
    assert "+0.0010 [-0.0100, +0.0120], resampling patients: no difference is seen" in text
    for goal in record["goals"].values():
        assert goal["met"] or goal["limit"] in text


def test_a_benchmark_from_before_workers_leaves_their_row_out(results):
    record = write_speed(results)
    del record["workers"]
    write_json(results.parent / "bench" / "full.json", record)
    assert render_scaling(SCALING_TEMPLATE, results).count(NOT_MEASURED) == 1


def test_another_measurement_is_drift(results):
    record = write_speed(results)
    text = render_scaling(SCALING_TEMPLATE, results)
    assert not find_drift(text, results, render_scaling, "scaling.md")
    for change in ("ratios", "warm"), ("step", "batch_size"):
        changed = json.loads(json.dumps(record))
        changed[change[0]][change[1]] *= 2
        write_json(results.parent / "bench" / "full.json", changed)
        assert find_drift(text, results, render_scaling, "scaling.md")


def test_predictions_shrink_with_cores_and_name_their_units(results):
    write_speed(results)
    text = render_scaling(SCALING_TEMPLATE, results)
    (row,) = [line for line in text.splitlines() if line.startswith("| 1,000,000 |")]
    # 4 copies of 850,000 images and one of 150,000, at 16 images per second on two cores.
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:5] == ["2.6 days", "7.7 hours", "1.9 hours", "14.4 minutes"]
    assert cells[6] == "743 GB"


def test_results_without_patients_say_so(results):
    nameless = evaluate_study(
        {model: make_study().assign(patient_id="") for model in ("vgg19", "resnet50")}, 20, 0
    )
    write_json(results / "metrics.json", nameless)
    text = render_readme(TEMPLATE, results)
    assert "image-level split" in text
    assert "resamples of images" in text
    assert "patients" not in text.split("<!-- minutes:begin -->")[0]


# ---- the command


def run(readme, results, *flags):
    scaling = readme.with_name("scaling.md")
    if not scaling.is_file():
        scaling.write_text(render_scaling(SCALING_TEMPLATE, results))
    card, shipped = readme.with_name("card.md"), readme.with_name("shipped.md")
    if not card.is_file():
        markers = [f"<!-- {name}:begin -->\n<!-- {name}:end -->\n" for name in CARD_BLOCKS]
        card.write_text(render_card("".join(markers), results))
        empty = "<!-- shipped:begin -->\n<!-- shipped:end -->\n"
        shipped.write_text(render_shipped(empty, results))
    files = {
        "--readme": readme, "--scaling": scaling, "--card": card, "--shipped": shipped,
        "--results": results,
    }  # fmt: skip
    return main([*(text for pair in files.items() for text in map(str, pair)), *flags])


def test_the_model_card_is_guarded_too(readme, results, monkeypatch):
    assert run(readme, results, "--check") == 0
    card = readme.with_name("card.md")
    assert card.read_text().count("Not measured yet") == len(CARD_BLOCKS)
    interval = {"value": 0.98, "low": 0.97, "high": 0.99}
    finished = {"seeds": [], "test": dict.fromkeys(report.FINAL_COLUMNS, interval)}
    write_json(results / "final_metrics.json", {"small": finished})
    monkeypatch.setattr(report, "card_blocks", lambda *folders: dict.fromkeys(CARD_BLOCKS, "new"))
    monkeypatch.setattr(report, "shipped_block", lambda *folders: "new as well")
    assert run(readme, results, "--check") == 1
    assert run(readme, results) == 0
    assert "| shipped | 0 | 0.980" in readme.read_text()
    assert card.read_text().count("new") == len(CARD_BLOCKS)
    assert "new as well" in readme.with_name("shipped.md").read_text()


def test_the_scaling_document_is_guarded_too(readme, results):
    assert run(readme, results, "--check") == 0
    write_speed(results)
    assert run(readme, results, "--check") == 1
    assert run(readme, results) == 0
    assert "743 GB" in readme.with_name("scaling.md").read_text()
    assert run(readme, results, "--check") == 0


def test_a_readme_that_agrees_passes_and_is_left_alone(readme, results):
    before = readme.stat().st_mtime_ns
    assert run(readme, results, "--check") == 0
    assert run(readme, results) == 0
    assert readme.stat().st_mtime_ns == before


def test_a_number_changed_by_hand_is_drift(readme, results, caplog):
    good = readme.read_text()
    value = format_interval(
        read_json(results / "metrics.json")["models"]["resnet50"]["test"]["roc_auc"]
    )
    readme.write_text(good.replace(value, "0.999 [0.998, 1.000]", 1))
    assert run(readme, results, "--check") == 1
    assert "make readme" in caplog.text
    assert any(line.startswith("-| ") for line in caplog.text.splitlines())
    assert "0.999 [0.998, 1.000]" in readme.read_text()
    assert run(readme, results) == 0
    assert readme.read_text() == good


def test_new_results_are_drift(readme, results):
    metrics = read_json(results / "metrics.json")
    metrics["models"]["vgg19"]["test"]["roc_auc"]["low"] -= 0.01
    write_json(results / "metrics.json", metrics)
    assert find_drift(readme.read_text(), results, render_readme, "README.md")
    assert run(readme, results, "--check") == 1


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("metrics.json", "no metrics.json"),
        ("provenance/vgg19.json", "no vgg19.json"),
        ("provenance/minutes.json", "no minutes.json"),
    ],
)
def test_missing_results_are_named(readme, results, caplog, file, named):
    (results / file).unlink()
    assert run(readme, results, "--check") == 1
    assert named in caplog.text
    assert "make all STUDY=full" in caplog.text


def test_incomplete_results_are_named(results):
    metrics = read_json(results / "metrics.json")
    del metrics["models"]["vgg19"]["test"]["roc_auc"]
    write_json(results / "metrics.json", metrics)
    with pytest.raises(ReportError, match="lack 'roc_auc'"):
        render_readme(TEMPLATE, results)


@pytest.mark.parametrize(
    "text",
    [
        "no markers",
        "<!-- results:begin -->",
        "<!-- results:end --><!-- results:begin -->",
        "<!-- results:begin --><!-- results:begin --><!-- results:end -->",
    ],
)
def test_lost_markers_are_named(text):
    with pytest.raises(ReportError, match="results:begin"):
        replace_block(text, "results", "table")


def test_a_readme_that_is_not_there_is_named(tmp_path, results, caplog):
    assert run(tmp_path / "none.md", results) == 1
    assert "none.md" in caplog.text
