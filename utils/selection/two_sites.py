"""Phantoms from two sites: the experiment that `docs/phantoms.md` registered, run once.

`python -m utils.selection.two_sites` (`make two-sites`) renders the films, trains the models that
have not predicted yet, lets every model predict once after all are trained, and scores them. It
goes on where it was interrupted, and where all predictions are there it only scores them.

- `data/two_sites`: the films;
- `results/full/two_sites/predictions/<model>.csv`: films and pairs of validation and test;
- `results/full/two_sites/measures.csv`, `flips.csv` and `questions.csv`: see
  `evaluation.two_sites`.

Round two's networks are measured where they are, by ten crops, which are part of them.

The sample study measures flips of its own: `predict_sample_pairs`, then `summarize_flips` and
`count_flips` of `evaluation.two_sites`.
"""

import argparse
import functools
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pandas as pd
from PIL import Image

from utils.common.constants import CLASS_NAMES, IMAGE_SIZE, NORMAL, PNEUMONIA, PREDICTION_COLUMNS
from utils.common.files import cached_table, is_made_from, write_atomically, write_csv, write_json
from utils.common.paths import ROOT, dataset_dir, model_file, provenance_file, table_file
from utils.common.progress import track
from utils.common.provenance import Stopwatch, describe_run
from utils.common.study import load_study
from utils.data.images import pixel_sha256, read_image
from utils.data.index import dataset_fingerprint
from utils.data.splits import load_development_images
from utils.evaluation.predictions import load_predictions
from utils.evaluation.two_sites import (
    FILM_SPLITS,
    PAIR,
    count_flips,
    judge_questions,
    list_measures,
    measure_models,
)
from utils.models.prediction import predict_files
from utils.models.pretrained import WeightsError
from utils.models.registry import Network
from utils.models.weights import resolve_weights
from utils.phantoms.rendering import render_phantom
from utils.phantoms.sets import PlannedFilm, other_site, plan_phantom_dataset, plan_site_films
from utils.selection.choices import SelectionError, round_two_networks
from utils.selection.final_models import train_and_export_head
from utils.selection.round_two import (
    ABLATION,
    PHANTOM_EPOCHS,
    SEEDS,
    describe_registration,
    predict_missing,
    require_committed,
    train_and_export,
)
from utils.shortcuts.pixel_baselines import BASELINES, load_pixel_features, predict_pixel_baseline
from utils.training.activations import training_copies
from utils.training.head import Recipe

logger = logging.getLogger(__name__)

REGISTERED = ROOT / "docs" / "phantoms.md"
STUDY, HEAD_STUDY = "full", "sample"
"""The study that the results belong to, and that whose recipe the head has."""
SETS = {"train": (2301, 400, 0.85), "validation": (2302, 200, 0.85), "test": (2303, 400, 0.5)}
"""Rendering seed, films, and the share at the class's own site; see `plan_site_films`."""
HEAD, BACKBONE = "recipe", "resnet50"
SETTINGS = {
    name: replace(recipe, name=name, epochs=PHANTOM_EPOCHS)
    for name in ("no_crop", "robust", "crop_08")
    for recipe in ABLATION
    if recipe.name == f"ablation_{name}"
}
QUESTIONS = (
    ("gap", HEAD, None, "at least 0.05"),
    *(("test_auc", HEAD, kind, "interval above 0") for kind in BASELINES),
    *(
        (measure, name, "no_crop", "interval below 0")
        for measure in ("gap", "flips")
        for name in ("robust", "crop_08")
    ),
)
"""Measure, model, the one that is subtracted, and goal."""
Films = Callable[[], tuple[Path, pd.DataFrame]]


def render_films() -> tuple[Path, pd.DataFrame]:
    """Render the films that are not there, and return their folder and index.

    Returns:
        `data/two_sites`, and a row per film: image_id, patient_id, split, label, pixel_sha256.
        Pairs of validation and test are of the splits `validation_pair` and `test_pair`.
    """
    planned = ((split, film) for split, given in SETS.items() for film in plan_site_films(*given))
    return _render_with_pairs(dataset_dir("two_sites"), planned)


def predict_sample_pairs(network: Network) -> pd.DataFrame:
    """Let a network predict each test child of the sample, and the same child at the other site.

    Of each child the first film is taken, rendered again without the loss of a JPEG. Films are kept
    in `data/sample_pairs`.

    Args:
        network: From (n, 224, 224, 3) RGB in [0, 255] to (n, 2) probabilities.

    Returns:
        Rows as of a prediction file, of the splits `test` and `test_pair`.
    """
    first: dict[int, PlannedFilm] = {}
    for image in plan_phantom_dataset(sites=True):
        if image.split == "test":
            film = PlannedFilm(image.patient_seed, image.etiology, image.site)
            first.setdefault(image.patient_seed, film)
    planned = (("test", film) for film in first.values())
    root, films = _render_with_pairs(dataset_dir("sample_pairs"), planned)
    films = films.rename(columns={"label": "y_true"})
    films["probability"] = predict_files(network, root, films.image_id, "films of two sites")
    return films[list(PREDICTION_COLUMNS)]


def _render_with_pairs(
    root: Path, planned: Iterable[tuple[str, PlannedFilm]]
) -> tuple[Path, pd.DataFrame]:
    """Render films, each with its split, and the pairs of those outside training; see above."""
    films = []
    for split, film in planned:
        films.append((split, film))
        if split != "train":
            films.append((split + PAIR, replace(film, site=other_site(film.site))))
    with ThreadPoolExecutor() as pool:
        rows = pool.map(lambda film: _render_film(root, *film), films)
        index = pd.DataFrame(track(rows, "films of two sites", len(films)))
    return root, index


def _render_film(root: Path, split: str, film: PlannedFilm) -> dict[str, object]:
    label = NORMAL if film.etiology == "normal" else PNEUMONIA
    image_id = f"{split}/{film.site}/{CLASS_NAMES[label]}-{film.patient_seed}.png"
    if not (root / image_id).is_file():
        pixels = render_phantom(film.patient_seed, film.etiology, site=film.site).image
        with write_atomically(root / image_id) as temporary:
            Image.fromarray(pixels).save(temporary)
    return {
        "image_id": image_id, "patient_id": f"phantom-{film.patient_seed}-{film.etiology}",
        "split": split, "label": label, "pixel_sha256": pixel_sha256(read_image(root / image_id)),
    }  # fmt: skip


def result_file(study_name: str, name: str) -> Path:
    """Return where a table of the experiment is kept, or `predictions/<model>`."""
    return table_file(study_name, f"two_sites/{name}")


def _predictions(study_name: str, model: str) -> Path:
    return result_file(study_name, f"predictions/{model}")


def _has_predicted(model: str) -> bool:
    return _predictions(STUDY, model).is_file()


def list_round_two() -> dict[str, str]:
    """Return round two's networks that are there or have predicted, and announce the others.

    Returns:
        For each its name in this experiment, and that in all folders of results.
    """
    names = {name.removeprefix("final/"): name for name in round_two_networks()}
    there = {
        model: name for model, name in names.items()
        if model_file(STUDY, name).is_file() or _has_predicted(model)
    }  # fmt: skip
    if missing := sorted(names.keys() - there.keys()):
        logger.warning(
            "round two's %s are not measured, because they are not on this machine; train them "
            "with make chosen, then give this command again", ", ".join(missing),
        )  # fmt: skip
    return there


def train_network(name: str, seed: int, root: Path, films: pd.DataFrame) -> None:
    """Train a network of the experiment on the training films and export it, unless it is there.

    Args:
        name: `HEAD`, or a key of `SETTINGS`.
        seed: Of the network.
        root: Folder of the films.
        films: From `render_films`.

    Raises:
        WeightsError: if ImageNet's weights cannot be had.
    """
    model = f"two_sites/{name}_seed{seed}"
    dataset = {
        "source": "phantoms of two sites",
        "images": {split: int(count) for split, count in films.split.value_counts().items()},
        "fingerprint": dataset_fingerprint(films),
    }
    study = load_study(HEAD_STUDY)
    head = Recipe.of_study(study, seed=seed)
    recipe = head.describe() | {"views": study.views} if name == HEAD else SETTINGS[name]
    inputs = {"recipe": recipe, "seed": seed, "dataset": dataset}
    if is_made_from(provenance_file(STUDY, model), inputs, model_file(STUDY, model)):
        return
    if name != HEAD:
        train = films[films.split == "train"]
        pixels = load_development_images(root, train, IMAGE_SIZE)
        labels = train.label.to_numpy()
        train_and_export(STUDY, model, recipe, seed, pixels, labels, dataset, REGISTERED)
        return
    registered, stopwatch = describe_registration(REGISTERED), Stopwatch()
    weights, copies = resolve_weights(BACKBONE), training_copies(study.views, study.seed)
    train_and_export_head(STUDY, model, root, films, weights, head, copies, ("validation",))
    write_json(
        provenance_file(STUDY, model),
        {
            "study": STUDY,
            "model": model,
            **inputs,
            "registered": registered,
            "weights": weights.provenance(),
            "run": describe_run(stopwatch.minutes),
        },
    )


def predict_baselines(open_films: Films) -> None:
    """Fit the pixel baselines to the training films and keep what they say of the others."""
    if all(map(_has_predicted, BASELINES)):
        return
    root, films = open_films()
    features = load_pixel_features(root, films)
    made_from = {"dataset": dataset_fingerprint(films)}
    for kind in BASELINES:
        scored = predict_pixel_baseline(features[kind], films, FILM_SPLITS)
        table = scored[list(PREDICTION_COLUMNS)]
        cached_table(_predictions(STUDY, kind), made_from, lambda table=table: table)


def read_tables(round_two: Sequence[str]) -> dict[str, list[pd.DataFrame]]:
    """Read the predictions of all models, one table for each seed, or one where there is none.

    Args:
        round_two: Names of round two's networks that have predicted.
    """

    def read(*models: str) -> list[pd.DataFrame]:
        return [load_predictions(_predictions(STUDY, model), FILM_SPLITS) for model in models]

    return {name: read(*(f"{name}_seed{seed}" for seed in SEEDS)) for name in (HEAD, *SETTINGS)} | {
        name: read(name) for name in (*BASELINES, *round_two)
    }


def score_models(round_two: Sequence[str]) -> None:
    """Write the three tables of the experiment from prediction files alone; see `read_tables`."""
    tables, study = read_tables(round_two), load_study(STUDY)
    measured = measure_models(tables, SEEDS, study.resamples, study.seed)
    write_csv(result_file(STUDY, "measures"), list_measures(measured))
    write_csv(result_file(STUDY, "flips"), count_flips(tables, SEEDS))
    write_csv(result_file(STUDY, "questions"), judge_questions(measured, QUESTIONS))


def run_experiment() -> None:
    """Render, train and predict what is missing, then score.

    Raises:
        SelectionError: if something has to be made by code that is not committed, or a network is
            not the one that has predicted.
        WeightsError: if ImageNet's weights cannot be had.
    """
    open_films = functools.cache(render_films)
    own = {f"{name}_seed{seed}": (name, seed) for seed in SEEDS for name in (HEAD, *SETTINGS)}
    round_two = list_round_two()
    missing = [model for model in own if not _has_predicted(model)]
    if not all(map(_has_predicted, (*own, *BASELINES, *round_two))):
        require_committed(REGISTERED)  # before a film is rendered
    for model in missing:
        train_network(*own[model], *open_films())

    def open_scored() -> tuple[Path, pd.DataFrame]:
        root, films = open_films()
        return root, films[films.split.isin(FILM_SPLITS)]

    networks = {model: (model_file(STUDY, f"two_sites/{model}"), False) for model in own}
    networks |= {model: (model_file(STUDY, name), True) for model, name in round_two.items()}
    predict_missing(STUDY, networks, _predictions, open_scored, REGISTERED)
    predict_baselines(open_films)
    score_models([*round_two])


def main() -> None:
    """Run the experiment from the command line."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        run_experiment()
    except (SelectionError, WeightsError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
