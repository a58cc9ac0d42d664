"""The network whose heat maps are tested, and others to compare it with.

A method is tested by what its maps show of networks that differ: of one that was trained on
phantoms, of one whose weights are random from the output down, of one that memorized shuffled
labels. `utils.explanation.sanity_checks` compares their maps.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

from utils.common.files import file_sha256, is_made_from, write_json
from utils.common.paths import dataset_dir, final_name, model_file, models_dir, predictions_file
from utils.common.study import Study
from utils.data.images import load_images
from utils.data.index import build_index, open_study_index
from utils.data.splits import development_index, load_development_images
from utils.evaluation.thresholds import is_positive
from utils.models.export import export_full_size, without_ten_crops
from utils.models.prediction import predict_pixels
from utils.models.recipe import Candidate
from utils.models.registry import RELEASED_MODEL, SHIPPED_MODEL, open_shipped_model
from utils.phantoms.sets import write_phantom_dataset
from utils.selection.candidates import find_candidate
from utils.selection.choices import read_choices
from utils.selection.round_two import PHANTOM_EPOCHS, SIZES
from utils.training.fine_tuning import describe_training, train_candidate

TRAINING_SHARE = 2
"""Phantoms that a network is trained on, for each known one."""
LEVELS = 5
"""Steps of the cascade: the layers with weights in so many groups, from output to input."""
RANDOM_LABEL_IMAGES, RANDOM_LABEL_EPOCHS = 500, 60
"""Few images and many epochs, so that the network can memorize shuffled labels."""


@dataclass(frozen=True)
class Explained:
    """A network that is explained."""

    name: str
    file: Path

    @property
    def title(self) -> str:
        """What it is called in tables."""
        return self.name.removeprefix("final/")

    def load(self) -> keras.Model:
        """Return the network, from (n, 224, 224, 3) RGB in [0, 255] to probabilities.

        It answers by the whole image, the only view of the released network whose maps are drawn.
        """
        network = keras.models.load_model(self.file, compile=False, safe_mode=True)
        return without_ten_crops(network) if self.name == RELEASED_MODEL else network

    def describe(self) -> dict[str, str]:
        """Return what a table that is made from the network depends on."""
        return {"network": self.name, "sha256": file_sha256(self.file)}


def find_explained(study: Study) -> Explained:
    """Return the released network, or the single model of a study without a second round.

    Raises:
        ModelError: if the released file is not the recorded one.
    """
    if _has_released(study):
        return Explained(RELEASED_MODEL, open_shipped_model(RELEASED_MODEL).file)
    single = read_choices(study.study)["single"]
    name = final_name(single, study.final_seeds[0])
    return Explained(name, model_file(study.study, name))


def find_compared(study: Study) -> list[Explained]:
    """Return other networks whose maps are compared with those of the explained one, if any.

    Raises:
        ModelError: if a released file is not the recorded one.
    """
    if not _has_released(study):
        return []
    return [Explained(SHIPPED_MODEL, open_shipped_model(SHIPPED_MODEL).file)]


def _has_released(study: Study) -> bool:
    return predictions_file(study.study, RELEASED_MODEL).is_file()


def _explained_recipe(study: Study) -> Candidate:
    return SIZES[0] if _has_released(study) else find_candidate(read_choices(study.study)["single"])


# --- A network that was trained on phantoms --------------------------------------------------


def phantom_recipe(study: Study) -> Candidate:
    """Return the explained network's recipe, under a name of its own, with epochs for phantoms."""
    recipe, epochs = _explained_recipe(study), PHANTOM_EPOCHS
    if not _has_released(study):
        epochs = study.candidate_epochs or recipe.epochs
    return replace(recipe, name=f"{recipe.name}_phantoms", epochs=epochs)


def train_on_phantoms(study: Study, recipe: Candidate) -> keras.Model:
    """Return a full-size network that was trained on other phantoms than the known ones."""
    count = TRAINING_SHARE * study.known_phantoms
    root = write_phantom_dataset(dataset_dir(f"taught_phantoms_{count}"), count, seed=8)
    index = development_index(build_index(root, seed=0, validation_fraction=0.5))
    images = load_development_images(root, index, recipe.image_size)
    return _train_full_size(study, recipe, images, index.label.to_numpy())


def _train_full_size(
    study: Study, recipe: Candidate, images: np.ndarray, labels: np.ndarray
) -> keras.Model:
    """Train a recipe and return its network at full size; one that is there is not trained again.

    What a network was trained with lies beside it and is written last.
    """
    folder = models_dir(study.study) / "explanation"
    network = Explained(recipe.name, folder / f"{recipe.name}.keras")
    record = network.file.with_suffix(".json")
    trained_with = describe_training(recipe, images, labels, study.seed)
    if is_made_from(record, trained_with | {"candidate": recipe}, network.file):
        return network.load()
    record.unlink(missing_ok=True)
    trained, _ = train_candidate(
        recipe, images, labels, study.seed, folder / f"{recipe.name}.h5", recipe.name
    )
    export_full_size(trained, network.file)
    write_json(record, trained_with)
    return network.load()


# --- A network with random weights -----------------------------------------------------------


def randomize_in_steps(network: keras.Model, seed: int) -> Iterator[tuple[str, keras.Model]]:
    """Yield copies of a network whose weights are random from the output down to some layer.

    Cascading randomization of Adebayo et al. 2018. Kernels are drawn again with the standard
    deviation that they have, so that activations keep their size; other weights are shuffled.

    Args:
        network: Stays as it is.
        seed: Of the draws.

    Yields:
        The first layer that is random, and the network; the same copy each time, changed further.
    """
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    random = np.random.default_rng(seed)
    weighted = [layer for layer in copy.layers if layer.weights][::-1]
    # The output layer alone is the first step; the others share the rest alike.
    groups = [[0], *np.array_split(np.arange(1, len(weighted)), LEVELS - 1)]
    for positions in groups:
        for position in positions:
            layer = weighted[position]
            layer.set_weights([_randomize(value, random) for value in layer.get_weights()])
        yield layer.name, copy


def _randomize(value: np.ndarray, random: np.random.Generator) -> np.ndarray:
    if value.ndim > 1:
        return random.normal(0, value.std(), value.shape).astype(value.dtype)
    return random.permutation(value)


# --- A network that memorized shuffled labels ------------------------------------------------


def random_label_recipe(study: Study) -> Candidate:
    """Return the explained network's recipe without what keeps it from memorizing labels."""
    recipe = _explained_recipe(study)
    epochs = RANDOM_LABEL_EPOCHS if study.candidate_epochs is None else study.candidate_epochs
    return replace(
        recipe, name=f"{recipe.name}_random_labels", transforms=(), epochs=epochs,
        smallest_crop=0.0, label_smoothing=0.0, dropout=0.0, class_weights=False,
    )  # fmt: skip


def train_on_random_labels(study: Study, recipe: Candidate) -> tuple[keras.Model, float]:
    """Return a full-size network that was trained on shuffled labels, and its accuracy on them."""
    root, index = open_study_index(study)
    train = index[index.split == "train"]
    train = train.sample(min(RANDOM_LABEL_IMAGES, len(train)), random_state=study.seed)
    labels = np.random.default_rng(study.seed).permutation(train.label.to_numpy())
    images = load_development_images(root, train, recipe.image_size)
    network = _train_full_size(study, recipe, images, labels)
    predicted = is_positive(predict_pixels(network, load_images(root, train.image_id)), 0.5)
    return network, float((predicted == labels).mean())
