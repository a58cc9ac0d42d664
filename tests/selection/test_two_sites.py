"""The experiment of two sites is the registered one; no film of its seeds is rendered here."""

import re
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.builders import build_small_backbone
from utils.common.constants import CLASS_NAMES, PREDICTION_COLUMNS
from utils.common.files import file_sha256, read_json
from utils.common.paths import ROOT, dataset_dir, model_file, provenance_file
from utils.common.study import load_study
from utils.evaluation.predictions import etiology_of, load_predictions
from utils.evaluation.two_sites import FILM_SPLITS, MEASURES, summarize_flips
from utils.models.architectures import build_network
from utils.models.export import export_model
from utils.models.pretrained import Weights
from utils.phantoms.rendering import render_phantom
from utils.phantoms.sets import SMALLEST_DATASET, plan_phantom_dataset, write_phantom_dataset
from utils.phantoms.sites import SITES
from utils.selection import round_two, two_sites
from utils.selection.choices import SelectionError, round_two_networks
from utils.selection.round_two import ABLATION
from utils.selection.two_sites import (
    HEAD,
    QUESTIONS,
    REGISTERED,
    SEEDS,
    SETS,
    SETTINGS,
    list_round_two,
    predict_sample_pairs,
    render_films,
    result_file,
    run_experiment,
)
from utils.shortcuts.pixel_baselines import BASELINES
from utils.training.head import Recipe

DOCUMENT = " ".join(REGISTERED.read_text(encoding="utf-8").split())
SMALL_SETS = {"train": (9301, 24, 0.85), "validation": (9302, 16, 0.85), "test": (9303, 40, 0.5)}


def test_the_experiment_is_the_registered_one():
    for split, (seed, films, share) in SETS.items():
        name = "training" if split == "train" else split
        assert f"| {name} | {seed} | {films} | {share} |" in DOCUMENT
    assert SEEDS == (43, 44, 45) and "each with the seeds 43, 44 and 45" in DOCUMENT
    assert "for 96 epochs of 12 steps" in DOCUMENT
    known = {recipe.name: recipe for recipe in ABLATION}
    for name, recipe in SETTINGS.items():
        assert recipe == replace(known[f"ablation_{name}"], name=name, epochs=96)
        assert SETS["train"][1] // recipe.batch_size == 12
    names = re.findall(r"`(\w+)`", DOCUMENT.split("| name | what |")[1].split("| pixel")[0])
    assert names[:1] + names[1:4] == [HEAD, *SETTINGS]
    sample = load_study("sample")
    assert "three augmented copies, at most 40 epochs" in DOCUMENT
    assert (sample.views, Recipe.of_study(sample).epochs) == (3, 40)
    assert two_sites.HEAD_STUDY == "sample" and load_study(two_sites.STUDY).resamples == 2000


def test_the_questions_are_the_registered_ones():
    rows = DOCUMENT.split("| question | goal | |---|---| ")[1].split(" Intervals are")[0]
    expected = {("gap", HEAD, None): "at least 0.05"}
    assert "| gap of `recipe` | at least 0.05 |" in rows
    for kind in BASELINES:
        expected["test_auc", HEAD, kind] = "interval above 0"
    assert "minus that of each pixel baseline | the interval lies above 0 |" in rows
    for measure in ("gap", "flips"):
        for name in ("robust", "crop_08"):
            expected[measure, name, "no_crop"] = "interval below 0"
            assert f"{measure} of `{name}` minus {measure} of `no_crop`" in rows
    assert rows.count("the interval lies below 0") == 2
    assert {question[:3]: question[3] for question in QUESTIONS} == expected


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Keep films and results below a folder, and render other children than the registered."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setenv("ACTIVATION_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(two_sites, "SETS", SMALL_SETS)
    monkeypatch.setattr(round_two, "find_uncommitted", lambda *files: [])
    return tmp_path


@pytest.mark.slow
def test_films_and_their_pairs_are_rendered_once(folders, monkeypatch):
    few = {"train": (9301, 6, 0.85), "validation": (9302, 4, 0.85), "test": (9303, 6, 0.5)}
    monkeypatch.setattr(two_sites, "SETS", few)
    root, films = render_films()
    assert root == dataset_dir("two_sites")
    counts = films.split.value_counts().to_dict()
    assert counts == {"train": 6, "validation": 4, "validation_pair": 4, "test": 6, "test_pair": 6}
    assert set(films.split) == {"train", *FILM_SPLITS} and films.image_id.is_unique
    assert ((etiology_of(films.patient_id) != "normal") == films.label.astype(bool)).all()
    site = films.image_id.str.split("/").str[1]
    for split in ("validation", "test"):
        own = films[films.split == split].assign(site=site)
        pair = films[films.split == f"{split}_pair"].assign(site=site)
        assert own.patient_id.tolist() == pair.patient_id.tolist()
        assert (own.site.to_numpy() != pair.site.to_numpy()).all()
    film = films[(films.split == "test_pair") & (films.label == 1)].iloc[0]
    child, etiology = film.patient_id.split("-")[1:]
    assert child.startswith("9303")
    drawn = render_phantom(int(child), etiology, site=film.image_id.split("/")[1]).image
    with Image.open(root / film.image_id) as kept:
        np.testing.assert_array_equal(np.asarray(kept), drawn)

    rendered = []
    monkeypatch.setattr(
        two_sites, "render_phantom",
        lambda *given, **site: rendered.append(given) or render_phantom(*given, **site),
    )  # fmt: skip
    (root / film.image_id).unlink()
    pd.testing.assert_frame_equal(render_films()[1], films)
    assert rendered == [(int(child), etiology)]


@pytest.mark.slow
def test_children_of_the_sample_are_predicted_at_both_sites(folders, monkeypatch):
    plan = partial(plan_phantom_dataset, SMALLEST_DATASET)
    monkeypatch.setattr(two_sites, "plan_phantom_dataset", plan)
    network = SimpleNamespace(
        input_shape=(None, 224, 224, 3),
        predict_on_batch=lambda images: np.tile(images.mean((1, 2, 3))[:, None] / 255, 2),
    )
    table = predict_sample_pairs(network)
    assert tuple(table.columns) == PREDICTION_COLUMNS
    test = [image for image in plan(sites=True) if image.split == "test"]
    seeds = {image.patient_seed for image in test}
    assert len(seeds) < len(test), "there is a child with two films, of which one is taken"
    assert (summarize_flips(table, 20, 3).children == len(seeds)).all()
    sample = write_phantom_dataset(folders / "phantoms", SMALLEST_DATASET, sites=True)
    for image in [image for image in test if image.view == 0]:
        name = f"{CLASS_NAMES[int(image.etiology != 'normal')]}-{image.patient_seed}.png"
        at = {site: f"test{'' if site == image.site else '_pair'}/{site}/{name}" for site in SITES}
        for site, image_id in at.items():
            drawn = render_phantom(*image.film, site=site).image
            with Image.open(dataset_dir("sample_pairs") / image_id) as kept:
                np.testing.assert_array_equal(np.asarray(kept), drawn)
            row = table[table.image_id == image_id].iloc[0]
            assert row.probability == pytest.approx(drawn.mean() / 255, abs=1e-5)
        with Image.open(sample / image.image_id) as film:
            shown = np.asarray(film, float)
        here = render_phantom(*image.film, site=image.site).image
        assert np.abs(shown - here).mean() < 3, "the film is not the one of the sample"


def test_no_film_is_rendered_by_code_that_is_not_committed(folders, monkeypatch):
    asked = []
    monkeypatch.setattr(
        round_two, "find_uncommitted", lambda *files: asked.extend(files) or ["utils/a.py"]
    )
    with pytest.raises(SelectionError, match="utils/a.py must be committed before"):
        run_experiment()
    assert asked == [ROOT / "utils", REGISTERED]
    assert not dataset_dir("two_sites").exists()


def test_networks_of_round_two_that_are_missing_are_announced(folders, caplog):
    assert list_round_two() == {}
    assert "lite0_96_crops_seed45 are not measured" in caplog.text
    name = round_two_networks()[0]
    model_file("full", name).parent.mkdir(parents=True)
    model_file("full", name).touch()
    assert list_round_two() == {"lite0_128_crops_seed43": name}


@pytest.fixture
def tiny(folders, monkeypatch):
    """Replace all networks by tiny ones, of which one of round two's is there."""
    weights = Weights("resnet50", "random", "random", "0" * 64, None, seed=1)
    monkeypatch.setattr(two_sites, "resolve_weights", lambda name: weights)
    monkeypatch.setattr("utils.training.head.build_backbone", lambda given: build_small_backbone())
    sample = load_study("sample").model_copy(update={"epochs": 2, "views": 1, "batch_size": 8})
    full = load_study("full").model_copy(update={"resamples": 20})
    monkeypatch.setattr(two_sites, "load_study", {"sample": sample, "full": full}.get)
    small = {
        name: replace(recipe, architecture="small_cnn", size=32, epochs=1, batch_size=8)
        for name, recipe in SETTINGS.items()
    }
    monkeypatch.setattr(two_sites, "SETTINGS", small)
    monkeypatch.setattr(two_sites, "SEEDS", (43, 44))
    name = round_two_networks()[0]
    export_model(build_network("small_cnn", 32, 0, full_size=True), model_file("full", name))


@pytest.mark.slow
def test_the_experiment_goes_on_and_ends_with_its_tables(tiny, monkeypatch):
    own = [f"{name}_seed{seed}" for seed in (43, 44) for name in (HEAD, *SETTINGS)]
    kept = two_sites.predict_missing
    monkeypatch.setattr(two_sites, "predict_missing", None)
    with pytest.raises(TypeError):
        run_experiment()
    assert not result_file("full", "predictions").parent.is_dir(), "none before all are trained"
    trained = {name: model_file("full", f"two_sites/{name}") for name in own}
    times = {name: file.stat().st_mtime_ns for name, file in trained.items()}
    record = read_json(provenance_file("full", "two_sites/recipe_seed44"))
    assert record["recipe"]["seed"] == 44 and record["recipe"]["views"] == 1
    other = read_json(provenance_file("full", "two_sites/crop_08_seed43"))
    assert other["recipe"]["smallest_crop"] == 0.08 and other["seed"] == 43
    for each in (record, other):
        assert each["registered"]["sha256"] == file_sha256(REGISTERED)
        assert each["registered"]["document"] == "docs/phantoms.md"
        assert each["dataset"]["images"]["test_pair"] == 40

    monkeypatch.setattr(two_sites, "predict_missing", kept)
    run_experiment()
    assert {name: file.stat().st_mtime_ns for name, file in trained.items()} == times
    networks = [*own, "lite0_128_crops_seed43"]
    for name in (*networks, *BASELINES):
        table = load_predictions(result_file("full", f"predictions/{name}"), FILM_SPLITS)
        assert table.split.value_counts().to_dict() == {
            "validation": 16, "validation_pair": 16, "test": 40, "test_pair": 40
        }  # fmt: skip
        assert name == "majority_class" or table.probability.nunique() > 10
    about = read_json(result_file("full", "predictions/crop_08_seed43").with_suffix(".json"))
    assert about["test_time"] == "whole image"
    assert about["registered"]["document"] == "docs/phantoms.md"
    about = read_json(result_file("full", f"predictions/{networks[-1]}").with_suffix(".json"))
    assert about["test_time"] == "ten crops"

    measures = pd.read_csv(result_file("full", "measures"))
    models = [HEAD, *SETTINGS, *BASELINES, networks[-1]]
    assert measures.model.unique().tolist() == models
    assert len(measures) == len(models) * len(MEASURES)
    assert measures.seed_44.notna().sum() == 4 * len(MEASURES)
    thumbnail = measures[measures.model == "thumbnail"].set_index("measure").value
    assert thumbnail["test_auc"] > 0.5
    questions = pd.read_csv(result_file("full", "questions"))
    assert len(questions) == len(QUESTIONS) and questions.low.notna().all()
    flips = pd.read_csv(result_file("full", "flips"))
    assert len(flips) == 2 * (len(networks) + len(BASELINES))

    # Where all predictions are there, nothing but the tables is made, on any machine.
    before = {name: result_file("full", name).read_bytes()
              for name in ("measures", "questions", "flips")}  # fmt: skip
    for name in before:
        result_file("full", name).unlink()
    for name in networks[:-1]:
        trained[name].unlink()
    for name in ("render_films", "train_network", "load_pixel_features"):
        monkeypatch.setattr(two_sites, name, lambda *given: pytest.fail("made again"))
    monkeypatch.setattr(round_two, "find_uncommitted", lambda *files: ["utils/a.py"])
    run_experiment()
    assert {name: result_file("full", name).read_bytes() for name in before} == before
