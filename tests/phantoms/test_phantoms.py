"""Phantoms are the same everywhere, honest about their opacity, and of the right difficulty."""

import itertools
import multiprocessing
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from utils.common.constants import ETIOLOGIES, IMAGE_SIZE
from utils.common.files import read_json
from utils.data.index import build_index, count_crossings, parse_name
from utils.phantoms import sets
from utils.phantoms.rendering import render_phantom
from utils.phantoms.sets import (
    CHILDREN_PER_SEED,
    CLASS_SHARES,
    DEFAULT_IMAGES,
    SMALLEST_DATASET,
    PhantomError,
    load_opacity_mask,
    plan_phantom_dataset,
    write_phantom_dataset,
)
from utils.phantoms.sites import SITE_OF_CLASS

MEAN_INTENSITY_BAND = (0.25, 0.75)
RESNET_BAND = (0.82, 0.98)
CALIBRATION_SEEDS = (1,)
CALIBRATION_IMAGES = 400


def draw_patients(seed, count):
    """Draw fresh patients, one image each, in the class shares of the sample."""
    random = np.random.default_rng([seed, 99])
    etiologies = random.choice(list(CLASS_SHARES), count, p=list(CLASS_SHARES.values()))
    return random.integers(2**31, size=count), etiologies


def render_patients(seed, count, size=IMAGE_SIZE):
    """Render fresh patients; return (n, size, size) uint8 and labels 0 or 1."""
    patients, etiologies = draw_patients(seed, count)
    images = [
        render_phantom(int(patient), etiology, size=size).image
        for patient, etiology in zip(patients, etiologies, strict=True)
    ]
    return np.stack(images), (etiologies != "normal").astype(int)


def head_auc(features, labels):
    """Train a linear head on one half of the patients; return its ROC-AUC on the other."""
    half = len(labels) // 2
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    head.fit(features[:half], labels[:half])
    return roc_auc_score(labels[half:], head.decision_function(features[half:]))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_phantom_dataset(tmp_path_factory.mktemp("data") / "phantoms", SMALLEST_DATASET)


@pytest.fixture(scope="module")
def site_dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sites") / "phantoms"
    return write_phantom_dataset(folder, SMALLEST_DATASET, sites=True)


# One phantom


@pytest.mark.parametrize("etiology", ETIOLOGIES)
def test_a_phantom_is_a_pure_function_of_its_arguments(etiology):
    first, again = (render_phantom(5, etiology, view=1) for _ in range(2))
    assert first.image.shape == first.opacity_mask.shape == (IMAGE_SIZE, IMAGE_SIZE)
    assert first.image.dtype == np.uint8
    assert first.opacity_mask.dtype == first.lung_mask.dtype == bool
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.opacity_mask, again.opacity_mask)
    for other in (render_phantom(6, etiology, 1), render_phantom(5, etiology, 2)):
        assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("patient", range(6))
def test_opacities_lie_in_the_lungs_and_only_where_there_is_a_disease(patient):
    healthy, bacterial, viral = (render_phantom(patient, name) for name in ETIOLOGIES)
    lungs = healthy.lung_mask
    assert 0.12 < lungs.mean() < 0.5
    assert not healthy.opacity_mask.any()
    for sick in (bacterial, viral):
        assert np.array_equal(sick.lung_mask, lungs)
        assert not (sick.opacity_mask & ~lungs).any()
    # Focal is less than diffuse, and viral disease is in both lungs.
    assert 0.01 < bacterial.opacity_mask.sum() / lungs.sum() < 0.7
    assert 0.2 < viral.opacity_mask.sum() / lungs.sum()
    for half in (np.s_[:, :112], np.s_[:, 112:]):
        assert viral.opacity_mask[half].sum() > 0.1 * lungs[half].sum()


@pytest.mark.parametrize("patient", range(6))
@pytest.mark.parametrize("etiology", ["bacteria", "virus"])
def test_disease_alone_tells_a_sick_phantom_from_the_same_child_in_health(patient, etiology):
    healthy, sick = render_phantom(patient, "normal"), render_phantom(patient, etiology)
    difference = sick.image.astype(int) - healthy.image
    # The film is the same but for the disease and what scatter spreads of it.
    outside = ~binary_dilation(healthy.lung_mask, iterations=8)
    assert np.abs(difference[outside]).mean() < 3
    inside = difference[sick.opacity_mask]
    assert inside.mean() > np.abs(difference[outside]).mean() + 2
    assert np.abs(inside).mean() > 6


def test_bacterial_opacity_is_whiter_and_more_focal_than_viral():
    patients = range(10)
    whiter, wider = 0, 0
    for patient in patients:
        healthy, bacterial, viral = (render_phantom(patient, name, size=96) for name in ETIOLOGIES)
        added = [
            (sick.image.astype(int) - healthy.image)[sick.opacity_mask].mean()
            for sick in (bacterial, viral)
        ]
        whiter += added[0] > added[1]
        wider += viral.opacity_mask.sum() > bacterial.opacity_mask.sum()
    assert whiter >= 8
    assert wider >= 8


def test_views_of_a_patient_show_the_same_disease():
    def share(patient, view):
        phantom = render_phantom(patient, "bacteria", view, size=64)
        return phantom.opacity_mask.sum() / phantom.lung_mask.sum()

    shares = [[share(patient, view) for view in range(3)] for patient in range(12)]
    between, within = np.var(np.mean(shares, axis=1)), np.mean(np.var(shares, axis=1))
    assert between > 10 * within


def test_size_changes_the_grid_and_not_the_scene():
    small, large = render_phantom(3, "bacteria"), render_phantom(3, "bacteria", size=448)
    halved = large.image.reshape(224, 2, 224, 2).mean((1, 3))
    assert large.image.shape == (448, 448)
    assert np.corrcoef(small.image.ravel(), halved.ravel())[0, 1] > 0.99
    assert abs(small.image.mean() - halved.mean()) < 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, "fungus"), "fungus.*normal, bacteria, virus"),
        ((-1, "normal"), "-1"),
        ((1, "normal", -2), "-2"),
        ((1, "normal", 0, 8), "8 pixels"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        render_phantom(*arguments)


# The data set


def test_the_plan_has_the_promised_classes_patients_and_oddities():
    plan = plan_phantom_dataset()
    assert plan == plan_phantom_dataset()
    assert plan != plan_phantom_dataset(seed=1)
    assert len(plan) == len({image.stem for image in plan}) == DEFAULT_IMAGES
    for split, count in (("train", 180), ("test", 60)):
        etiologies = Counter(image.etiology for image in plan if image.split == split)
        assert etiologies.total() == count
        assert 0.6 <= 1 - etiologies["normal"] / count <= 0.65
        assert 1.1 < etiologies["bacteria"] / etiologies["virus"] < 1.4

    numbers = {split: set() for split in ("train", "test")}
    per_patient = Counter()
    for image in plan:
        name = parse_name(f"{image.stem}.jpeg")
        assert name.etiology == image.etiology
        numbers[image.split].add(name.number)
        per_patient[name.patient_id] += 1
    assert max(numbers["test"]) < min(numbers["train"])
    assert set(per_patient.values()) == {1, 2, 3, 4}
    seeds = {split: {i.patient_seed for i in plan if i.split == split} for split in numbers}
    assert seeds["train"].isdisjoint(seeds["test"])

    twins = Counter(image.film for image in plan)
    twice = [key for key, count in twins.items() if count > 1]
    assert sorted(key[1] == "normal" for key in twice) == [False, True]
    assert all(image.split == "train" for image in plan if image.film in twice)
    both = [
        seed
        for seed in seeds["train"]
        if {i.etiology for i in plan if i.patient_seed == seed} == {"bacteria", "virus"}
    ]
    assert len(both) == 1
    views = [(i.view, i.etiology) for i in plan if i.patient_seed == both[0]]
    assert {v for v, name in views if name == "virus"}.isdisjoint(
        {v for v, name in views if name == "bacteria"}
    )


def test_sites_are_planned_in_their_shares_and_change_nothing_else():
    plan = plan_phantom_dataset(sites=True)
    assert [replace(image, site=None) for image in plan] == plan_phantom_dataset()
    site_of = {}
    for image in plan:
        assert site_of.setdefault(image.film, image.site) == image.site, "one film, two sites"
    for split, share in sets.SITE_SHARES.items():
        for etiology in ETIOLOGIES:
            films = {image.film for image in plan
                     if (image.split, image.etiology) == (split, etiology)}  # fmt: skip
            own = SITE_OF_CLASS[int(etiology != "normal")]
            assert sum(site_of[film] == own for film in films) == round(share * len(films))
    # The two films of one child need not be of one site, and no film is a registered one's.
    assert len({(image.patient_seed, image.site) for image in plan}) > 150
    reserved = range(2101 * CHILDREN_PER_SEED, 2304 * CHILDREN_PER_SEED)
    assert not any(image.patient_seed in reserved for image in plan)


@pytest.mark.slow
@pytest.mark.parametrize("sites", [False, True])
def test_the_data_set_on_disk_is_what_the_loader_reads(sites, dataset, site_dataset):
    dataset = site_dataset if sites else dataset
    plan = plan_phantom_dataset(SMALLEST_DATASET, sites=sites)
    files = {path.relative_to(dataset).as_posix() for path in dataset.rglob("*.jpeg")}
    assert files == {image.image_id for image in plan}
    assert read_json(dataset / "source.json") == {
        "source": "phantoms",
        "seed": sets.DEFAULT_SEED,
        "n_images": SMALLEST_DATASET,
        "version": sets.PHANTOM_VERSION,
        **({"site_shares": {"train": 0.85, "test": 0.5}} if sites else {}),
    }
    assert {path.name for path in dataset.iterdir()} == {"train", "test", "masks", "source.json"}
    for image in plan:
        phantom = render_phantom(*image.film, site=image.site)
        with Image.open(dataset / image.image_id) as stored:
            assert (stored.mode, stored.size) == ("L", (IMAGE_SIZE, IMAGE_SIZE))
            error = np.asarray(stored).astype(int) - phantom.image
        assert np.abs(error).mean() < 3
        mask = load_opacity_mask(dataset, image.image_id)
        assert mask.dtype == bool
        assert np.array_equal(mask, phantom.opacity_mask)


def test_patients_never_cross_the_splits(tmp_path):
    # Only names matter here; one gray pixel stands for every image.
    for image in plan_phantom_dataset():
        file = tmp_path / image.image_id
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (1, 1)).save(file)
    index = build_index(tmp_path, seed=42, validation_fraction=0.25)
    crossings = count_crossings(index)
    assert crossings["patients by number and etiology"] == 0
    assert crossings["patients by number alone"] == 0
    for first, second in itertools.combinations(("train", "validation", "test"), 2):
        patients = [set(index.patient_id[index.split == split]) for split in (first, second)]
        assert patients[0].isdisjoint(patients[1])
    counts = index.groupby(["split", "etiology"]).size()
    assert (counts >= 10).all(), counts


def test_duplicates_are_byte_identical(tmp_path):
    plan = plan_phantom_dataset(sites=True)
    twins = Counter(image.film for image in plan)
    repeated = [image for image in plan if twins[image.film] > 1]
    for image in repeated:
        sets._write_image(tmp_path, image)
    contents = Counter((tmp_path / image.image_id).read_bytes() for image in repeated)
    assert sorted(contents.values()) == [2, 2]


def test_a_data_set_that_is_there_is_left_alone(dataset, monkeypatch):
    def refuse(*arguments, **site):
        raise AssertionError("rendered although all was there")

    monkeypatch.setattr(sets, "render_phantom", refuse)
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*.*")}
    assert write_phantom_dataset(dataset, SMALLEST_DATASET) == dataset
    assert before == {path: path.stat().st_mtime_ns for path in dataset.rglob("*.*")}


def test_another_data_set_is_refused_and_stays(dataset, tmp_path):
    with pytest.raises(PhantomError, match="'seed': 1.*delete the folder"):
        write_phantom_dataset(dataset, SMALLEST_DATASET, seed=1)
    with pytest.raises(PhantomError, match="delete the folder"):
        write_phantom_dataset(dataset, SMALLEST_DATASET + 1)
    with pytest.raises(PhantomError, match="site_shares.*delete the folder"):
        write_phantom_dataset(dataset, SMALLEST_DATASET, sites=True)
    foreign = tmp_path / "phantoms"
    (foreign / "train").mkdir(parents=True)
    with pytest.raises(PhantomError, match="no source.json"):
        write_phantom_dataset(foreign, SMALLEST_DATASET)
    assert (foreign / "train").is_dir()


def test_a_lost_image_or_mask_is_noticed(dataset, tmp_path):
    copy = shutil.copytree(dataset, tmp_path / "phantoms")
    (image, *_) = plan_phantom_dataset(SMALLEST_DATASET)
    (copy / "masks" / f"{image.stem}.png").unlink()
    with pytest.raises(PhantomError, match=f"{image.stem}.*only phantoms"):
        load_opacity_mask(copy, image.image_id)
    (copy / image.image_id).unlink()
    with pytest.raises(PhantomError, match="lacks 2 files.*delete the folder"):
        write_phantom_dataset(copy, SMALLEST_DATASET)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_an_interrupted_rendering_leaves_nothing(tmp_path, monkeypatch, stop):
    rendered = itertools.count()
    render = render_phantom

    def render_some(*arguments, **site):
        if next(rendered) == 5:
            raise stop
        return render(*arguments, **site)

    monkeypatch.setattr(sets, "render_phantom", render_some)
    root = tmp_path / "phantoms"
    with pytest.raises(stop):
        write_phantom_dataset(root, SMALLEST_DATASET)
    assert list(tmp_path.iterdir()) == []


def test_too_few_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 24, not 5"):
        write_phantom_dataset(tmp_path / "phantoms", n_images=5)
    assert list(tmp_path.iterdir()) == []


def _write_when_all_are_ready(root, barrier):
    barrier.wait()
    write_phantom_dataset(Path(root), SMALLEST_DATASET)


@pytest.mark.slow
def test_processes_that_render_at_once_agree(dataset, tmp_path):
    root = tmp_path / "phantoms"
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(2)
    workers = [
        spawn.Process(target=_write_when_all_are_ready, args=(root, barrier)) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["phantoms"]
    for file in dataset.rglob("*.jpeg"):
        assert (root / file.relative_to(dataset)).read_bytes() == file.read_bytes()


@pytest.mark.slow
def test_a_killed_rendering_is_not_taken_for_a_data_set(tmp_path):
    root = tmp_path / "phantoms"
    spawn = multiprocessing.get_context("spawn")
    worker = spawn.Process(target=write_phantom_dataset, args=(root, DEFAULT_IMAGES))
    worker.start()
    while not list(tmp_path.rglob("*.jpeg")):
        assert worker.is_alive()
        worker.join(0.05)
    worker.kill()
    worker.join()
    assert not root.exists()
    write_phantom_dataset(root, SMALLEST_DATASET)
    assert (root / "source.json").is_file()


# Difficulty


def test_nothing_but_the_disease_depends_on_the_etiology():
    # Were pose, exposure or noise drawn after the disease, these would differ.
    for patient in range(4):
        # Beyond the reach of scatter from the lungs, to the last digit.
        healthy, bacterial, viral = (
            render_phantom(patient, name, view=3).image[:20, :20] for name in ETIOLOGIES
        )
        assert np.array_equal(healthy, bacterial)
        assert np.array_equal(healthy, viral)


def test_mean_intensity_tells_little():
    images, labels = render_patients(seed=1, count=100, size=56)
    low, high = MEAN_INTENSITY_BAND
    assert low < roc_auc_score(labels, images.mean((1, 2))) < high


@pytest.fixture(scope="module")
def pooled_resnet50():
    keras = pytest.importorskip("keras")
    from utils.models.backbones import build_backbone
    from utils.models.pretrained import WeightsError
    from utils.models.weights import resolve_weights

    try:
        weights = resolve_weights("resnet50")
    except WeightsError as error:
        pytest.skip(f"the difficulty of phantoms is measured with ImageNet weights only: {error}")
    trunk = build_backbone(weights)
    pooled = keras.layers.GlobalAveragePooling2D()(trunk.output)
    return keras.Model(trunk.input, pooled)


@pytest.mark.slow
@pytest.mark.parametrize("seed", CALIBRATION_SEEDS)
def test_difficulty_of_fresh_phantoms(seed, pooled_resnet50):
    images, labels = render_patients(seed, CALIBRATION_IMAGES)
    mean_intensity = roc_auc_score(labels, images.mean((1, 2)))
    rgb = np.repeat(images[..., None], 3, axis=-1).astype(np.float32)
    resnet = head_auc(pooled_resnet50.predict(rgb, batch_size=8, verbose=0), labels)
    print(f"seed {seed}: AUC of mean intensity {mean_intensity:.3f}, of ResNet50 {resnet:.3f}")
    assert MEAN_INTENSITY_BAND[0] < mean_intensity < MEAN_INTENSITY_BAND[1]
    assert RESNET_BAND[0] < resnet < RESNET_BAND[1]
