"""Train a classification head on cached activations, and score it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score

from utils.common.constants import NORMAL, PNEUMONIA
from utils.common.files import write_csv
from utils.common.paths import activation_cache_dir, history_file
from utils.common.study import Study
from utils.evaluation.thresholds import is_positive
from utils.models.backbones import build_backbone
from utils.models.export import without_optimizer
from utils.models.pretrained import IMAGENET, RANDOM, Weights, describe_graph, values_sha256
from utils.training.activations import ActivationStore, ActivationTable, AugmentedCopy
from utils.training.optimizers import FusedAdam
from utils.training.progress import TrainingProgress
from utils.training.resumption import TrainingState

LEARNED_AUC = 0.7
"""On its own training images a head that learned anything is above, one that did not near 0.5."""
HISTORY_COLUMNS = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")


class TrainingError(RuntimeError):
    """A training whose outcome shows that something is broken."""


@dataclass(frozen=True)
class Recipe:
    """How a head is trained; the defaults are the recipe of the published baseline."""

    epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 1e-4
    stopping_patience: int = 5
    """Epochs without a lower validation loss after which training ends."""
    plateau_patience: int = 2
    """Epochs without a lower validation loss after which the learning rate is reduced."""
    plateau_factor: float = 0.2
    seed: int = 42

    @classmethod
    def of_study(cls, study: Study, **changes: Any) -> "Recipe":
        """Return the recipe of a study, with values in place of its own."""
        own = {field.name: getattr(study, field.name) for field in fields(cls)
               if hasattr(study, field.name)}  # fmt: skip
        return cls(**(own | changes))

    def describe(self) -> dict[str, Any]:
        """Return the recipe as a record for the provenance."""
        return {"optimizer": "Adam", "loss": "sparse_categorical_crossentropy"} | asdict(self)


class CopyBatches(keras.utils.PyDataset):
    """Shuffled batches of cached activations; epoch e, counted from 1, has copy e mod copies.

    It stands before the first epoch when it is made: Keras' `fit` calls `on_epoch_end` once
    before it begins, and after every epoch.
    """

    def __init__(
        self,
        copies: Sequence[ActivationTable],
        labels: np.ndarray,
        batch_size: int,
        seed: int,
        epochs_done: int = 0,
    ) -> None:
        """Take what the batches are made of.

        Args:
            copies: One table per copy, all of the same images in the same order.
            labels: (n,) 0 or 1.
            batch_size: Images per batch; the last one may be smaller.
            seed: Of the order of the images, which is new in every epoch.
            epochs_done: Epochs that an earlier try has trained.
        """
        super().__init__(workers=1, use_multiprocessing=False)
        if any(len(copy) != len(labels) for copy in copies):
            raise ValueError(f"{[len(copy) for copy in copies]} activations, {len(labels)} labels")
        self._copies, self._labels = copies, np.asarray(labels)
        self._batch_size, self._seed = batch_size, seed
        self._start_epoch(epochs_done)

    def _start_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self._order = np.random.default_rng([self._seed, epoch]).permutation(len(self._labels))

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        return -(-len(self._labels) // self._batch_size)

    def __getitem__(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return one batch: (n, height, width, channels) as kept, and (n,) int labels.

        Half precision is converted in the compiled step: half the bytes to copy on the way.
        """
        rows = self._order[batch * self._batch_size : (batch + 1) * self._batch_size]
        copy = self._copies[self._epoch % len(self._copies)]
        return copy[rows], self._labels[rows]

    def on_epoch_end(self) -> None:
        """Go on to the next copy, in a new order."""
        self._start_epoch(self._epoch + 1)


class PlainBatches(keras.utils.PyDataset):
    """Batches of cached activations in their own order, with labels where there are any."""

    def __init__(
        self, table: ActivationTable, labels: np.ndarray | None = None, batch_size: int = 32
    ) -> None:
        """Take a table and, for evaluation, its labels."""
        super().__init__(workers=1, use_multiprocessing=False)
        self._table, self._labels, self._batch_size = table, labels, batch_size

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self._table) // self._batch_size)

    def __getitem__(self, batch: int) -> tuple[np.ndarray, ...]:
        """Return one batch as a tuple of activations and, where known, labels."""
        rows = np.arange(batch * self._batch_size, (batch + 1) * self._batch_size)
        rows = rows[rows < len(self._table)]
        activations = self._table[rows].astype(np.float32)
        return (activations,) if self._labels is None else (activations, self._labels[rows])


class WeightsCheckpoint(keras.callbacks.ModelCheckpoint):
    """Keep the weights of the best epoch alone; Adam's state would triple the file."""

    def set_model(self, model: keras.Model) -> None:
        """Take the model that is saved: the same layers, without an optimizer."""
        super().set_model(without_optimizer(model))


@dataclass(frozen=True)
class HeadData:
    """What a head is trained and judged on: activations of a frozen backbone."""

    backbone: keras.Model
    """From pixels to activations, in float32."""
    copies: list[ActivationTable]
    """Of the training images, a table for each augmented copy."""
    held_out: dict[str, ActivationTable]
    """Of plain images, by the name of their split."""


def prepare_head_data(
    root: Path,
    weights: Weights,
    training: pd.DataFrame,
    held_out: Mapping[str, pd.DataFrame],
    copies: Sequence[AugmentedCopy],
    precision: str = "float32",
) -> HeadData:
    """Pass images through a frozen backbone, or take their activations from the cache.

    Augmented copies are kept in half precision; what is judged is computed and kept in single.

    Args:
        root: Root of the data set.
        weights: Of the backbone, which they name.
        training: Rows of the image index.
        held_out: Rows of the image index, by the name of their split.
        copies: Augmented copies of each training image.
        precision: In which the copies are computed; see `precision.choose_precision`.

    Raises:
        CacheSpaceError: if the disk cannot hold the activations.
    """
    backbone, cache = build_backbone(weights), activation_cache_dir()
    fast = backbone if precision == "float32" else build_backbone(weights, precision=precision)
    half = ActivationStore(cache, fast, "float16")
    single = ActivationStore(cache, backbone, "float32")
    return HeadData(
        backbone,
        half.load_copies(root, training, copies),
        {split: single.load(root, images) for split, images in held_out.items()},
    )


def train_head(
    head: keras.Model,
    copies: Sequence[ActivationTable],
    labels: np.ndarray,
    validation: ActivationTable,
    validation_labels: np.ndarray,
    recipe: Recipe,
    checkpoint: Path,
    *,
    state_share: float = 0.05,
) -> pd.DataFrame:
    """Train a head with Adam, early stopping, checkpoint and learning rate reduction.

    A training that was interrupted goes on from its kept state, `<checkpoint>.state`, when
    it is called again with the same arguments.

    Args:
        head: From activations to (n, 2) probabilities: a head, or the part of a network after
            `backbones.split_model`. It holds the best epoch's weights afterwards.
        copies: One table of training activations for each augmented copy.
        labels: (n,) 0 or 1.
        validation: Activations of the plain validation images.
        validation_labels: (m,) 0 or 1.
        recipe: Epochs, learning rate, patience, seed.
        checkpoint: `.weights.h5` file of the best epoch.
        state_share: Largest share of the time that may go into keeping the state.

    Returns:
        One row per epoch: epoch (from 1), loss, accuracy, val_loss, val_accuracy, learning_rate.
    """
    head.compile(
        # 51 million parameters: the step is bound by how often they pass through memory.
        optimizer=FusedAdam(recipe.learning_rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,  # slower here: docs/scaling.md, "What was tried once"
    )
    keras.utils.set_random_seed(recipe.seed)
    watching = [
        WeightsCheckpoint(
            checkpoint, monitor="val_loss", save_best_only=True, save_weights_only=True
        ),
        keras.callbacks.ReduceLROnPlateau(
            monitor="val_loss", factor=recipe.plateau_factor, patience=recipe.plateau_patience
        ),
        keras.callbacks.EarlyStopping(monitor="val_loss", patience=recipe.stopping_patience),
    ]
    state = resume_training(
        head, copies, labels, validation, recipe, watching, checkpoint, state_share
    )
    if not state.stopped:
        head.fit(
            CopyBatches(copies, labels, recipe.batch_size, recipe.seed, state.initial_epoch),
            validation_data=PlainBatches(validation, validation_labels),
            epochs=recipe.epochs,
            initial_epoch=state.initial_epoch,
            shuffle=False,
            verbose=0,
            callbacks=[*watching, TrainingProgress(f"training {head.name}"), state],
        )
    return finish_training(head, state, checkpoint)


def resume_training(
    head: keras.Model,
    copies: Sequence[ActivationTable],
    labels: np.ndarray,
    validation: ActivationTable,
    recipe: Recipe,
    callbacks: Sequence[keras.callbacks.Callback],
    checkpoint: Path,
    state_share: float = 0.05,
) -> TrainingState:
    """Return the last callback of a training, which keeps its state and goes on from a kept one.

    Args:
        head: Before its training, compiled or not.
        copies: One table of training activations for each augmented copy.
        labels: (n,) 0 or 1.
        validation: Activations of the plain validation images.
        recipe: Epochs, learning rate, patience, seed.
        callbacks: Those whose counters belong to the state.
        checkpoint: `.weights.h5` file of the best epoch; the state is kept beside it.
        state_share: Largest share of the time that may go into keeping the state.
    """
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    return TrainingState(
        checkpoint.with_name(checkpoint.name.removesuffix(".weights.h5") + ".state"),
        _identify_training(head, copies, labels, validation, recipe),
        callbacks,
        state_share,
    )


def finish_training(head: keras.Model, state: TrainingState, checkpoint: Path) -> pd.DataFrame:
    """Give a head the best epoch's weights, forget the state and return the history.

    Args:
        head: After its training.
        state: From `resume_training`.
        checkpoint: `.weights.h5` file of the best epoch.

    Returns:
        One row per epoch: epoch (from 1), loss, accuracy, val_loss, val_accuracy, learning_rate.
    """
    without_optimizer(head).load_weights(checkpoint)
    state.forget()
    table = pd.DataFrame(state.history).assign(epoch=np.arange(1, len(state.history) + 1))
    return table[list(HISTORY_COLUMNS)]


def train_plainly(
    head: keras.Model,
    copies: Sequence[ActivationTable],
    labels: np.ndarray,
    recipe: Recipe,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Train a head for all epochs of a recipe, without looking at any held-out image.

    For comparisons in which nothing may stop early or be chosen; `train_head` is the study's way.

    Args:
        head: From activations to probabilities; it holds the last epoch's weights afterwards.
        copies: One table of training activations for each augmented copy.
        labels: (n,) 0 or 1.
        recipe: Epochs, learning rate, seed.
        callbacks: Called by Keras' `fit`.
    """
    head.compile(
        optimizer=FusedAdam(recipe.learning_rate),
        loss="sparse_categorical_crossentropy",
        jit_compile=False,
    )
    keras.utils.set_random_seed(recipe.seed)
    batches = CopyBatches(copies, labels, recipe.batch_size, recipe.seed)
    head.fit(batches, epochs=recipe.epochs, shuffle=False, verbose=0, callbacks=list(callbacks))


def _identify_training(
    head: keras.Model,
    copies: Sequence[ActivationTable],
    labels: np.ndarray,
    validation: ActivationTable,
    recipe: Recipe,
) -> str:
    """Return a hash of all that a training depends on."""
    content = {
        "tail": describe_graph(head),
        "weights": values_sha256(head),
        "trainable": [list(variable.shape) for variable in head.trainable_variables],
        "views": [copy.fingerprint for copy in copies],
        "labels": np.asarray(labels).tolist(),
        "validation": validation.fingerprint,
        "recipe": recipe.describe(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def predict_pneumonia(head: keras.Model, table: ActivationTable) -> np.ndarray:
    """Return the probability of PNEUMONIA, (n,) float64 in [0, 1], from cached activations."""
    probabilities = head.predict(PlainBatches(table), verbose=0)
    return probabilities[:, PNEUMONIA].astype(np.float64)


def score_head(head: keras.Model, table: ActivationTable, labels: np.ndarray) -> dict[str, float]:
    """Score a head on validation images: mean cross-entropy, accuracy at 0.5 and ROC-AUC."""
    probability = predict_pneumonia(head, table)
    return {
        "loss": float(log_loss(labels, probability, labels=[NORMAL, PNEUMONIA])),
        "accuracy": float(np.mean(is_positive(probability, 0.5) == labels)),
        "auc": float(roc_auc_score(labels, probability)),
    }


def check_learned(
    on_training: dict[str, float],
    on_validation: dict[str, float],
    weights: Weights,
    minimum_auc: float,
) -> None:
    """Refuse a model whose scores show that something is broken.

    Random weights promise nothing, not even that the training images can be told apart: their
    banner says so, and only the numbers are checked.

    Args:
        on_training: From `score_head`, of a copy that the head was trained on.
        on_validation: The same of the validation images.
        weights: Weights of the backbone. Only plain ImageNet weights promise a validation AUC.
        minimum_auc: What a model on ImageNet weights must reach on validation.

    Raises:
        TrainingError: if a score is not finite, nothing was learned, or the AUC is too low.
    """
    if not all(np.isfinite(value) for value in (*on_training.values(), *on_validation.values())):
        raise TrainingError(
            f"{weights.backbone}: scores are not finite: {on_training} on training images, "
            f"{on_validation} on validation"
        )
    if weights.source == RANDOM:
        return
    if on_training["auc"] < LEARNED_AUC:
        raise TrainingError(
            f"{weights.backbone}: on the images that it was trained on the AUC is "
            f"{on_training['auc']:.3f}, less than {LEARNED_AUC}, so nothing was learned: check the "
            "scale of the activations, the labels and the learning rate"
        )
    if weights.description == IMAGENET and on_validation["auc"] < minimum_auc:
        raise TrainingError(
            f"{weights.backbone} reaches a validation AUC of {on_validation['auc']:.3f}, less than "
            f"{minimum_auc}: check its preprocessing, weights ({weights.description}) and labels"
        )


def write_history(study_name: str, model: str, history: pd.DataFrame) -> None:
    """Write the history of a training to `results/<study>/histories/<model>.csv`."""
    write_csv(history_file(study_name, model), history)


def read_history(results: Path, model: str) -> pd.DataFrame:
    """Read the history of a training from a study's results, one row per epoch."""
    return pd.read_csv(results / "histories" / f"{model}.csv")
