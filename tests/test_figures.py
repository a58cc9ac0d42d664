from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from utils.common import figures
from utils.data.plots import (
    plot_class_balance,
    plot_combined_views,
    plot_crops,
    plot_example_grid,
    plot_images_per_patient,
    plot_intensity_distributions,
    plot_pixel_ranges,
    plot_split,
    plot_transform_rows,
)
from utils.evaluation.curves import decision_curve, precision_band, roc_band
from utils.evaluation.metrics import METRICS
from utils.evaluation.plots import (
    plot_confusion_matrix,
    plot_decision_curve,
    plot_metric_intervals,
    plot_operating_point,
    plot_precision_recall,
    plot_probability_histogram,
    plot_reliability,
    plot_roc,
)
from utils.evaluation.study_metrics import evaluate_study
from utils.evaluation.tables import REPORTED
from utils.explanation.plots import plot_cam_grid
from utils.phantoms.plots import plot_one_child, plot_site_sheet
from utils.selection.plots import plot_operations, plot_two_sites
from utils.shortcuts.pixel_baselines import BASELINES
from utils.shortcuts.plots import plot_baseline_scores
from utils.training.plots import plot_copies_cost, plot_history

MODELS = ("resnet50", "vgg19")
THRESHOLDS = {"resnet50": 0.5, "vgg19": 0.25}


@cache
def make_index() -> pd.DataFrame:
    rows = []
    for number in range(60):
        split = ("train", "train", "validation", "test")[number % 4]
        kind = ("normal", "bacteria", "virus")[number % 3]
        rows += [(split, kind, f"person-{number}-{kind}")] * (1 + number % 5)
    index = pd.DataFrame(rows, columns=["split", "etiology", "patient_id"])
    index["label"] = (index.etiology != "normal").astype(int)
    sizes = np.random.default_rng(0).integers(400, 2000, (len(index), 2))
    return index.assign(
        image_id=[f"{n}.jpeg" for n in range(len(index))], width=sizes[:, 0], height=sizes[:, 1]
    )


@cache
def make_predictions(model: str = "resnet50") -> pd.DataFrame:
    random = np.random.default_rng(MODELS.index(model))
    index = make_index().query("split != 'train'")
    probability = np.clip(random.normal(0.3 + 0.4 * index.label, 0.25), 0, 1)
    predictions = index.rename(columns={"label": "y_true"}).assign(probability=probability)
    return predictions[["image_id", "patient_id", "split", "y_true", "probability"]]


def rows_of_test() -> dict[str, pd.DataFrame]:
    return {model: make_predictions(model).query("split == 'test'") for model in MODELS}


def make_bands(band: Callable[..., pd.DataFrame]) -> dict[str, pd.DataFrame]:
    return {model: band(rows, 20, 0) for model, rows in rows_of_test().items()}


@cache
def make_metrics() -> dict:
    return evaluate_study({model: make_predictions(model) for model in MODELS}, 20, 0)


def make_history() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "epoch": [1, 2, 3, 4, 5],
            "loss": [0.6, 0.4, 0.3, 0.25, 0.2],
            "accuracy": [0.7, 0.8, 0.85, 0.9, 0.92],
            "val_loss": [0.5, 0.4, 0.3, 0.35, 0.4],
            "val_accuracy": [0.75, 0.8, 0.9, 0.88, 0.87],
            "learning_rate": [1e-4, 1e-4, 1e-4, 1e-4, 2e-5],
        }
    )


def make_costs() -> pd.DataFrame:
    costs = pd.DataFrame({"views": [1, 4, 20], "images": 320, "epochs": 20})
    for metric, values in {"loss": [0.2, 0.15, 0.14], "auc": [0.97, 0.98, 0.985]}.items():
        for end, distance in {"mean": 0, "min": -0.01, "max": 0.01}.items():
            costs[f"{metric}_{end}"] = np.array(values) + distance
    return costs


def make_scores() -> pd.DataFrame:
    scores = pd.DataFrame(index=pd.Index(BASELINES, name="baseline"))
    for split in ("validation", "test"):
        for end, distance in {"": 0, "_low": -0.05, "_high": 0.05}.items():
            scores[f"{split}_roc_auc{end}"] = np.array([0.5, 0.6, 0.8, 0.9]) + distance
    return scores


def make_two_sites() -> pd.DataFrame:
    rows = [
        {"model": model, "measure": measure, "value": value, "low": value - 0.04,
         "high": value + 0.05, "seed_43": value - 0.02, "seed_44": value + 0.01, "seed_45": value}
        for value, model in zip((0.12, 0.2, 0.15, 0.02), ("recipe", "no_crop", "robust", "crop_08"),
                                strict=True)
        for measure in ("gap", "flips", "change")
    ]  # fmt: skip
    return pd.DataFrame([*rows, {"model": "thumbnail", "measure": "gap", "value": 0.3}])


def make_images(count: int, size: int = 16) -> np.ndarray:
    gray = np.random.default_rng(0).integers(0, 256, (count, size, size, 1), np.uint8)
    return np.repeat(gray, 3, axis=-1)


def make_maps(count: int, size: int = 16) -> np.ndarray:
    maps = np.random.default_rng(1).uniform(0, 1, (count, size, size)).astype(np.float32)
    maps[0] *= 5 / maps[0].max()
    maps[-1] = 0
    return maps


def make_mask(count: int, size: int = 16) -> np.ndarray:
    masks = np.zeros((count, size, size), bool)
    masks[1:, 4:9, 4:12] = True
    return masks


def captions(count: int) -> list[str]:
    return [f"false negative (PNEUMONIA)\np = 0.{number}" for number in range(count)]


DRAWINGS: dict[str, Callable[[], Figure]] = {
    "class_balance": lambda: plot_class_balance(make_index()),
    "images_per_patient": lambda: plot_images_per_patient(make_index()),
    "intensity": lambda: plot_intensity_distributions(
        np.linspace(50, 200, len(make_index())), make_index().label
    ),
    "split": lambda: plot_split(make_index()),
    "baselines": lambda: plot_baseline_scores(make_scores()),
    "two_sites": lambda: plot_two_sites(make_two_sites()),
    "pixel_ranges": lambda: plot_pixel_ranges(
        make_images(2), make_images(2) - np.array([103.939, 116.779, 123.68])
    ),
    "history": lambda: plot_history(make_history()),
    "views_cost": lambda: plot_copies_cost(make_costs()),
    "roc": lambda: plot_roc(rows_of_test(), THRESHOLDS, make_bands(roc_band)),
    "roc_alone": lambda: plot_roc(rows_of_test()),
    "precision_recall": lambda: plot_precision_recall(
        rows_of_test(), THRESHOLDS, make_bands(precision_band)
    ),
    "confusion": lambda: plot_confusion_matrix(rows_of_test(), THRESHOLDS),
    "confusion_of_four": lambda: plot_confusion_matrix(
        {name: rows_of_test()["vgg19"] for name in "abcd"}, dict.fromkeys("abcd", 0.5)
    ),
    "probabilities": lambda: plot_probability_histogram(rows_of_test(), THRESHOLDS),
    "intervals": lambda: plot_metric_intervals(make_metrics(), "test", with_reported=True),
    "operating_point": lambda: plot_operating_point(rows_of_test()["vgg19"], 0.25, 0.05),
    "nothing_predicted": lambda: plot_operating_point(rows_of_test()["vgg19"], 1.0, 0.05),
    "decision_curve": lambda: plot_decision_curve(
        decision_curve(rows_of_test(), np.linspace(0.05, 0.95, 19)), "test"
    ),
    "reliability": lambda: plot_reliability(
        {"validation": [(0.1, 0.0, 40), (0.5, 0.6, 5)], "test": [(0.2, 0.3, 9), (0.9, 1.0, 30)]}
    ),
}
"""Figures that show numbers."""

PICTURES: dict[str, Callable[[], Figure]] = {
    "examples": lambda: plot_example_grid(make_images(6), ["normal"] * 6),
    "transforms": lambda: plot_transform_rows(
        make_images(1)[0], {"rotation": make_images(5), "horizontal_flip": make_images(5) / 2}
    ),
    "views": lambda: plot_combined_views(
        make_images(6), [make_images(6), make_images(6) * 0.5], ["virus"] * 6
    ),
    "crops": lambda: plot_crops(
        make_images(1)[0], np.array([[0, 0, 8, 12], [2, 3, 16, 16]]), make_images(2, 8)
    ),
    "operations": lambda: plot_operations(
        {name: {"before": make_maps(2)[0], "after": make_maps(2)[0] - 1} for name in ("a", "b")}
    ),
    "cams": lambda: plot_cam_grid(make_images(7), make_maps(7), captions(7), make_mask(7)),
    "sites": lambda: plot_site_sheet(range(12)),
    "one_child": lambda: plot_one_child(3, "bacteria"),
    "cams_all_zero": lambda: plot_cam_grid(make_images(2), np.zeros((2, 16, 16)), captions(2)),
}
"""Figures that show images."""

FIGURES = DRAWINGS | PICTURES


def texts_of(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


# --- Every figure ----------------------------------------------------------------------------


def draw(figure: Figure) -> np.ndarray:
    """Draw a figure as (height, width, 3) in [0, 255]."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(float)


def find_collisions(figure: Figure) -> list[str]:
    """List what is cut off in a drawn figure, and what its title, legend and mark lie on."""
    renderer = figure.canvas.get_renderer()
    page = Bbox.from_bounds(0, 0, *figure.canvas.get_width_height()).padded(2)
    boxes = {f"axes {n}": ax.get_tightbbox(renderer) for n, ax in enumerate(figure.axes)}
    boxes = {name: box for name, box in boxes.items() if box is not None}
    outer = {f"legend {n}": part for n, part in enumerate(figure.legends)}
    outer |= {text.get_text(): text for text in figure.texts if text is not figure._suptitle}
    outer = {name: part.get_window_extent(renderer) for name, part in outer.items()}
    title = figure._suptitle.get_window_extent(renderer)
    # Blank lines below the title are room for the legend.
    height = title.height / (figure.get_suptitle().count("\n") + 1)
    outer["title"] = Bbox([[title.x0, title.y1 - height], [title.x1, title.y1]])
    boxes |= outer
    found = [
        f"{name} is cut off"
        for name, box in boxes.items()
        if not (page.containsx(box.x0) and page.containsx(box.x1))
        or not (page.containsy(box.y0) and page.containsy(box.y1))
    ]
    for name in outer:
        for other, box in boxes.items():
            common = Bbox.intersection(boxes[name], box)
            if other != name and common is not None and min(common.width, common.height) > 1:
                found.append(f"{name} lies on {other}")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_as_it_is_and_as_it_is_saved(name, tmp_path, monkeypatch):
    monkeypatch.setenv("FIGURES_DIR", str(tmp_path))
    monkeypatch.setattr(figures, "FILE_DPI", 50)
    settings, random = dict(matplotlib.rcParams), np.random.get_state()[1].copy()
    yellow = np.array([0xF0, 0xE4, 0x42])

    figure = FIGURES[name]()
    figure.set_dpi(50)
    pixels = draw(figure)
    assert isinstance(figure, Figure)
    assert figure.get_suptitle().strip()
    assert pixels.std() > 5 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20, "blank"
    assert find_collisions(figure) == []
    assert "PHANTOM" not in texts_of(figure) + repr(figure)
    assert not (np.abs(pixels - yellow).max(axis=-1) < 3).any()

    height = figure.get_figheight()
    assert figures.save_figure(figure, "sample", "01_a_figure", phantom=True) is figure
    with Image.open(tmp_path / "sample" / "01_a_figure.png") as saved:
        pixels = np.asarray(saved.convert("RGB"), float)
    assert (np.abs(pixels - yellow).max(axis=-1) < 3).sum() > 500, "the mark is not seen"
    assert texts_of(figure).count(figures.PHANTOM_MARK) == 1
    assert find_collisions(figure) == []
    figures.mark_phantom(figure)
    assert texts_of(figure).count(figures.PHANTOM_MARK) == 1
    assert figure.get_figheight() == pytest.approx(height + figures.MARK_INCHES)
    assert "PHANTOM" in repr(figure)

    assert pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == settings
    np.testing.assert_array_equal(np.random.get_state()[1], random)


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_of_a_phantom_is_marked(name):
    figure = PICTURES[name]()
    pictures = [ax for ax in figure.axes if ax.images]
    figures.mark_phantom(figure)
    for ax in pictures:
        assert [text.get_text() for text in ax.texts] == ["phantom"]


def test_a_crop_has_the_color_and_the_share_of_its_box():
    figure = PICTURES["crops"]()
    whole, *crops = figure.axes
    assert [ax.get_title() for ax in crops] == ["38% of the area", "71% of the area"]
    for box, ax in zip(whole.patches, crops, strict=True):
        assert to_hex(box.get_edgecolor()) == to_hex(ax.spines["left"].get_edgecolor())
    assert whole.patches[1].get_bbox().bounds == (1.5, 2.5, 14, 13)
    with pytest.raises(ValueError, match="2 images but 1 boxes"):
        plot_crops(make_images(1)[0], np.array([[0, 0, 8, 8]]), make_images(2, 8))


def test_operations_need_rows_of_one_length():
    with pytest.raises(ValueError, match=r"one number of pictures, not \[\]"):
        plot_operations({})
    with pytest.raises(ValueError, match=r"not \[0, 1\]"):
        plot_operations({"a": {"before": make_maps(2)[0]}, "b": {}})


def test_an_operating_point_says_its_values():
    rows = pd.DataFrame(
        {"split": "test", "y_true": [1, 1, 0, 0], "probability": [0.9, 0.4, 0.6, 0]}
    )
    text = texts_of(plot_operating_point(rows, 0.5, 0.2))
    for said in ("threshold 0.500", "sensitivity: 0.500", "PPV at a prevalence of 0.2: 0.200"):
        assert said in text
    assert "PPV at a prevalence of 0.2: undefined" in texts_of(plot_operating_point(rows, 1, 0.2))


# --- A slider --------------------------------------------------------------------------------


def draw_at(value: float) -> Figure:
    return plot_operating_point(rows_of_test()["vgg19"], value, 0.2)


def test_without_jupyterlab_there_is_a_figure_and_no_slider(monkeypatch):
    monkeypatch.delenv(figures.JUPYTER_SESSION, raising=False)
    figure = figures.show_with_slider(draw_at, 0.3, "threshold", phantom=True)
    assert isinstance(figure, Figure) and "threshold 0.300" in texts_of(figure)
    assert "PHANTOM" in repr(figure)
    assert "PHANTOM" not in repr(figures.show_with_slider(draw_at, 0.3, "threshold", phantom=False))


def test_in_jupyterlab_a_slider_draws_again(monkeypatch):
    monkeypatch.setenv(figures.JUPYTER_SESSION, "10_operating_point.ipynb")
    box = figures.show_with_slider(draw_at, 0.3, "threshold", phantom=True)
    (slider, _) = box.children
    assert (slider.description, slider.min, slider.max, slider.value) == ("threshold", 0, 1, 0.3)
    slider.value = 0.6
    box.update()
    assert "threshold 0.600" in texts_of(box.result) and "PHANTOM" in repr(box.result)


# --- Saving ----------------------------------------------------------------------------------


def test_a_figure_is_saved_where_it_belongs(tmp_path, monkeypatch):
    monkeypatch.setenv("FIGURES_DIR", str(tmp_path))
    figures.save_figure(DRAWINGS["roc"](), "full", "05_roc", phantom=False)
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*.*")] == [
        Path("full/05_roc.png")
    ]
    with Image.open(tmp_path / "full" / "05_roc.png") as picture:
        assert min(picture.size) > 500
        assert set(picture.info) <= {"dpi"}, "no date, no program"


def test_equal_figures_are_equal_files(tmp_path, monkeypatch):
    monkeypatch.setenv("FIGURES_DIR", str(tmp_path))
    monkeypatch.setattr(figures, "FILE_DPI", 50)
    for study in ("first", "second"):
        figures.save_figure(DRAWINGS["history"](), study, "04_history", phantom=True)
    first, second = (tmp_path / study / "04_history.png" for study in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
def test_pictures_of_patients_are_not_saved(name, tmp_path, monkeypatch):
    monkeypatch.setenv("FIGURES_DIR", str(tmp_path))
    figure = PICTURES[name]()
    with pytest.raises(ValueError, match="01_pictures shows pictures.*save_example_figure"):
        figures.save_figure(figure, "full", "01_pictures", phantom=False)
    assert figures.save_example_figure(figure, "full", "01_pictures", phantom=False) is figure
    assert list(tmp_path.rglob("*")) == []
    assert "PHANTOM" not in texts_of(figure)


@pytest.mark.parametrize("name", ["roc", "5_roc", "05_ROC", "../05_roc", "05_roc.png", ""])
def test_a_figure_needs_a_usable_name(name):
    with pytest.raises(ValueError, match="name a figure like"):
        figures.save_figure(DRAWINGS["roc"](), "full", name, phantom=False)


def test_pictures_of_phantoms_are_saved(tmp_path, monkeypatch):
    monkeypatch.setenv("FIGURES_DIR", str(tmp_path))
    figure = PICTURES["examples"]()
    assert figures.save_example_figure(figure, "sample", "01_examples", phantom=True) is figure
    assert (tmp_path / "sample" / "01_examples.png").is_file()
    assert "PHANTOM" in repr(figure)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    monkeypatch.setenv("FIGURES_DIR", str(tmp_path))
    file = tmp_path / "full" / "05_roc.png"
    figures.save_figure(DRAWINGS["roc"](), "full", "05_roc", phantom=False)
    before = file.read_bytes()
    figure = DRAWINGS["history"]()

    def fill_the_disk(path: Path, **_) -> None:
        Path(path).write_bytes(b"half a fig")
        raise OSError("no space left on device")

    monkeypatch.setattr(figure, "savefig", fill_the_disk)
    with pytest.raises(OSError, match="no space"):
        figures.save_figure(figure, "full", "05_roc", phantom=False)
    assert file.read_bytes() == before and len(list(file.parent.iterdir())) == 1


@pytest.mark.slow
def test_a_notebook_shows_drawings_as_png_and_pictures_as_jpeg():
    drawing, pictures = DRAWINGS["roc"](), PICTURES["cams"]()
    assert drawing._repr_png_().startswith(b"\x89PNG") and drawing._repr_jpeg_() is None
    assert pictures._repr_jpeg_().startswith(b"\xff\xd8") and pictures._repr_png_() is None
    assert repr(drawing) == "Figure: ROC, test"


# --- What the figures say --------------------------------------------------------------------


def test_bars_are_counts():
    index = make_index()
    for figure, table in (
        (plot_class_balance(index), index),
        (plot_split(index), index),
    ):
        ax = figure.axes[0]
        heights = [[bar.get_height() for bar in bars] for bars in ax.containers]
        for label in (0, 1):
            for split, height in zip(("train", "validation", "test"), heights[label], strict=True):
                assert height == ((table.split == split) & (table.label == label)).sum()
    patients = plot_split(index).axes[1]
    assert sum(bar.get_height() for bars in patients.containers for bar in bars) == 60
    assert "60 patients" in texts_of(plot_split(index))


def test_an_image_level_split_shows_no_patients():
    figure = plot_split(make_index().assign(patient_id=""))
    assert len(figure.axes) == 1 and "patients are unknown" in figure.get_suptitle()


def test_the_roc_legend_tells_the_auc():
    rows = pd.DataFrame(
        {"split": "test", "y_true": [0, 0, 1, 1], "probability": [0.1, 0.6, 0.4, 0.9]}
    )
    figure = plot_roc({"small": rows}, {"small": 0.4})
    assert "small: AUC 0.750" in texts_of(figure)
    (point,) = [line for line in figure.axes[0].lines if "threshold" in line.get_label()]
    # At the threshold itself PNEUMONIA is predicted: two true positives, one false positive of two.
    assert (point.get_xdata()[0], point.get_ydata()[0]) == (0.5, 1.0)


@pytest.mark.parametrize("name", ["roc", "precision_recall"])
def test_curves_show_their_bands_the_number_of_images_and_an_enlarged_corner(name):
    figure = DRAWINGS[name]()
    (ax,) = figure.axes
    (corner,) = ax.child_axes
    rows = rows_of_test()["vgg19"]
    for label, kind in enumerate(("NORMAL", "PNEUMONIA")):
        count = f"{(rows.y_true == label).sum()} {kind}"
        assert count in ax.get_xlabel() + ax.get_ylabel()
    (left, right), (low, high) = corner.get_xlim(), corner.get_ylim()
    assert right - left < 1 and high - low < 1
    for part in (ax, corner):
        points = [line for line in part.lines if "at threshold" in line.get_label()]
        drawn = [path for band in part.collections for path in band.get_paths()]
        bands = [path for path in drawn if len(path.vertices) > 100]
        assert len(points) == len(bands) == len(MODELS)
    for point in points:
        assert left < point.get_xdata()[0] < right and low < point.get_ydata()[0] < high
    assert "95% interval, pointwise" in texts_of(figure)


def test_precision_recall_shows_prevalence():
    rows = pd.DataFrame(
        {"split": "test", "y_true": [0, 1, 1, 1], "probability": [0.1, 0.6, 0.4, 0.9]}
    )
    figure = plot_precision_recall({"small": rows}, {"small": 0.95})
    assert "small: average precision 1.000" in texts_of(figure)
    assert "all predicted positive: 0.750" in texts_of(figure)
    assert "at threshold" not in texts_of(figure)  # nobody is called: there is no precision


def test_the_confusion_matrix_counts_rows():
    rows = pd.DataFrame(
        {"split": "test", "y_true": [0, 0, 0, 1], "probability": [0.1, 0.2, 0.5, 0.5]}
    )
    figure = plot_confusion_matrix({"small": rows}, {"small": 0.5})
    cells = [text.get_text() for text in figure.axes[0].texts]
    assert cells == ["2\n66.7%", "1\n33.3%", "0\n0.0%", "1\n100.0%"]
    assert "small, threshold 0.500" in texts_of(figure)


def test_the_probability_histogram_shows_every_image():
    rows = rows_of_test()["resnet50"].assign(probability=1.0)
    figure = plot_probability_histogram({"sure": rows}, {"sure": 0.5})
    ax = figure.axes[0]
    assert ax.get_ylim()[1] > rows.y_true.value_counts().max()
    assert ax.get_yscale() == "log" and 0 < ax.get_ylim()[0] < 1  # one image is seen
    assert "threshold 0.500" in texts_of(figure)


def test_gap_and_flips_of_two_sites_are_drawn_by_setting():
    table = make_two_sites()
    figure = plot_two_sites(table)
    assert len(figure.axes) == 2 and "thumbnail" not in texts_of(figure)
    for ax in figure.axes:
        lines = {line.get_label(): line for line in ax.lines}
        # The first model is on top; each seed stands in its row.
        seeds = lines["one seed"].get_xydata()
        assert len(seeds) == 12
        np.testing.assert_allclose(seeds[:3], [[0.1, 2.78], [0.13, 2.78], [0.12, 2.78]])
        (bars,) = ax.containers
        np.testing.assert_allclose(bars[0].get_xdata(), [0.12, 0.2, 0.15, 0.02])
        np.testing.assert_allclose(bars[2][0].get_segments()[0], [[0.08, 3], [0.17, 3]])
    with pytest.raises(ValueError, match="table of models with seeds"):
        plot_two_sites(table[table.model == "thumbnail"])
    with pytest.raises(ValueError, match="table of two sites lacks the column low"):
        plot_two_sites(table.drop(columns="low"))


def test_the_history_marks_the_kept_epoch_and_reduced_rates():
    loss, accuracy = plot_history(make_history(), "ResNet50").axes
    for ax, value in ((loss, 0.3), (accuracy, 0.9)):
        lines = {line.get_label(): line for line in ax.lines}
        kept = lines["kept epoch: lowest validation loss"]
        assert (kept.get_xdata()[0], kept.get_ydata()[0]) == (3, value)
        assert lines["learning rate reduced"].get_xdata()[0] == 4.5
    assert loss.figure.get_suptitle().strip() == "ResNet50"


def test_a_history_of_one_epoch_is_plotted():
    figure = plot_history(make_history().head(1))
    assert "learning rate" not in texts_of(figure)


def test_thresholds_may_be_left_out():
    for plot in (
        plot_roc,
        plot_precision_recall,
        plot_probability_histogram,
    ):
        assert "threshold" not in texts_of(plot(rows_of_test()))


def test_intervals_stand_where_they_belong():
    metrics = make_metrics()
    figure = plot_metric_intervals(
        metrics, "test", metrics=["roc_auc", "accuracy_at_0.5", "specificity"], with_reported=True
    )
    ax = figure.axes[0]
    assert ax.get_xlabel() == "score, with 95% interval"
    for bars, model in zip(ax.containers, MODELS, strict=True):
        assert bars.get_label() == model
        scores = metrics["models"][model]["test"]
        line, _, (lengths,) = bars
        assert line.get_xdata()[0] == scores["roc_auc"]["value"]
        low, high = lengths.get_segments()[0][:, 0]
        assert (low, high) == pytest.approx((scores["roc_auc"]["low"], scores["roc_auc"]["high"]))
    (stars,) = [line for line in ax.lines if "reported" in str(line.get_label())]
    assert stars.get_xdata().tolist() == [REPORTED["roc_auc"], REPORTED["accuracy_at_0.5"]]
    # In the rows of ROC-AUC and accuracy, below both models.
    assert np.round(stars.get_ydata()).tolist() == [0, 1]
    assert (stars.get_ydata() > ax.containers[-1][0].get_ydata()[:2]).all()
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        METRICS[metric] for metric in ("roc_auc", "accuracy_at_0.5", "specificity")
    ]


def test_baselines_are_read_from_the_table():
    ax = plot_baseline_scores(make_scores()).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(BASELINES.values())


def test_maps_share_one_scale_and_tell_their_maximum():
    figure = PICTURES["cams"]()
    heats = [ax.images[1] for ax in figure.axes if len(ax.images) == 2]
    assert len(heats) == 7
    assert {heat.get_clim() for heat in heats} == {(0, 5)}
    text = texts_of(figure)
    assert "maximum 5" in text and text.count("zero everywhere") == 1
    assert "one scale for all" in text and "known opacity" in text
    assert "known opacity" not in texts_of(plot_cam_grid(make_images(2), make_maps(2), captions(2)))


def test_every_color_of_a_map_is_in_its_scale():
    """Over black, over white and over each gray between them."""
    figure = PICTURES["cams"]()
    (bar,) = [ax for ax in figure.axes if ax.get_ylabel().startswith("Grad-CAM")]
    background, heat = sorted(bar.findobj(QuadMesh), key=lambda mesh: mesh.get_zorder())
    shades = background.get_array()
    assert shades.shape[0] == 1 and 0 < shades.min() < 0.02 and 0.98 < shades.max() < 1
    assert background.get_clim() == (0, 1) and bar.get_ylim() == heat.get_clim() == (0, 5)
    assert figure.get_suptitle().strip() == "Grad-CAM for PNEUMONIA"
    other = plot_cam_grid(make_images(2), make_maps(2), captions(2), class_name="NORMAL")
    assert other.get_suptitle() == "Grad-CAM for NORMAL"


def test_a_zero_map_is_shown_without_division():
    with np.errstate(all="raise"):
        figure = PICTURES["cams_all_zero"]()
        draw(figure)
    assert texts_of(figure).count("zero everywhere") == 2


def test_pixels_of_a_picture_are_shown_as_they_are():
    images = make_images(2) * 0.5
    figure = plot_example_grid(images, ["a", "b"])
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), np.round(images[0]))


# --- Wrong input -----------------------------------------------------------------------------

TEST = rows_of_test()
WRONG = {
    "index without split": (
        lambda: plot_class_balance(make_index().drop(columns="split")),
        "lacks the column split",
    ),
    "empty index": (lambda: plot_class_balance(make_index().head(0)), "no rows"),
    "label 2": (lambda: plot_split(make_index().assign(label=2)), "0 or 1, not"),
    "patients unknown": (
        lambda: plot_images_per_patient(make_index().assign(patient_id="")),
        "patient_id is empty",
    ),
    "intensity of other images": (
        lambda: plot_intensity_distributions(np.zeros(3), np.zeros(4, int)),
        r"\(3,\) and labels \(4,\)",
    ),
    "too few titles": (
        lambda: plot_example_grid(make_images(2), ["a"]),
        "2 images but 1",
    ),
    "no images": (lambda: plot_example_grid(make_images(0), []), r"n of 1 or more"),
    "gray images": (
        lambda: plot_example_grid(np.zeros((2, 8, 8)), "ab"),
        r"\(n, h, w, 3\)",
    ),
    "preprocessed images": (
        lambda: plot_example_grid(make_images(2) - 120.0, "ab"),
        "before preprocessing",
    ),
    "NaN": (
        lambda: plot_example_grid(np.full((1, 8, 8, 3), np.nan), "a"),
        r"\[0, 255\], not nan",
    ),
    "no transforms": (
        lambda: plot_transform_rows(make_images(1)[0], {}),
        "no transforms",
    ),
    "uneven transforms": (
        lambda: plot_transform_rows(
            make_images(1)[0], {"shear": make_images(2), "zoom": make_images(3)}
        ),
        r"one number of images, not \[2, 3\]",
    ),
    "uneven views": (
        lambda: plot_combined_views(make_images(2), [make_images(3)], "ab"),
        "2 images but 3",
    ),
    "other images after preprocessing": (
        lambda: plot_pixel_ranges(make_images(2), make_images(3)),
        "must be alike",
    ),
    "history without validation": (
        lambda: plot_history(make_history().drop(columns="val_loss")),
        "lacks the column val_loss",
    ),
    "costs without range": (
        lambda: plot_copies_cost(make_costs().drop(columns="auc_min")),
        "auc_min",
    ),
    "baselines without test": (
        lambda: plot_baseline_scores(make_scores().filter(like="validation")),
        "test_roc_auc",
    ),
    "no predictions": (partial(plot_roc, {}), "no predictions"),
    "two splits": (
        lambda: plot_roc({"a": make_predictions()}),
        r"2 splits \(test, validation\)",
    ),
    "one class": (
        lambda: plot_roc({"a": TEST["vgg19"].query("y_true == 1")}),
        "one class",
    ),
    "models of different splits": (
        lambda: plot_precision_recall(
            {"a": TEST["vgg19"], "b": make_predictions().query("split == 'validation'")}
        ),
        "2 splits",
    ),
    "no threshold": (
        lambda: plot_confusion_matrix(TEST, {"vgg19": 0.5}),
        "no threshold for resnet50",
    ),
    "no threshold for the histogram": (
        lambda: plot_probability_histogram(TEST, {"vgg19": 0.5}),
        "no threshold for resnet50",
    ),
    "train metrics": (
        lambda: plot_metric_intervals(make_metrics(), "train"),
        "'train'",
    ),
    "unknown metric": (
        lambda: plot_metric_intervals(make_metrics(), "test", metrics=["kappa"]),
        "unknown metric .*kappa.*choose from",
    ),
    "reported on validation": (
        lambda: plot_metric_intervals(make_metrics(), "validation", with_reported=True),
        "per image on test only",
    ),
    "maps of other images": (
        lambda: plot_cam_grid(make_images(2), make_maps(3), "ab"),
        "do not fit images",
    ),
    "negative maps": (
        lambda: plot_cam_grid(make_images(2), make_maps(2) - 1, "ab"),
        "finite and not negative",
    ),
    "maps with NaN": (
        lambda: plot_cam_grid(make_images(2), make_maps(2) * np.nan, "ab"),
        "finite and not negative",
    ),
    "masks of other images": (
        lambda: plot_cam_grid(make_images(2), make_maps(2), "ab", make_mask(3)),
        "masks .* do not fit",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_refused(name):
    plot, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        plot()


def test_the_classes_can_be_told_apart_without_color_vision():
    # Brightness alone, as in a gray copy, differs between the classes.
    def brightness(color: str) -> float:
        return float(np.dot(matplotlib.colors.to_rgb(color), (0.299, 0.587, 0.114)))

    normal, pneumonia = map(brightness, figures.CLASS_COLORS)
    assert abs(normal - pneumonia) > 0.1
    assert len({line for _, line, _ in figures.SERIES}) == len(figures.SERIES)
    assert len({marker for *_, marker in figures.SERIES}) == len(figures.SERIES)
