"""Candidates: one recipe each for a network and its training, and the training itself.

A candidate is trained for a fixed number of epochs on the images of a fold, or on the study's
training split for the final models. Nothing in here looks at held-out images: which candidate is
taken is decided in `utils.selection.rule`, by `docs/selection_rule.md`.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
from skimage.exposure import equalize_adapthist

from utils.data.acquisition import build_augmentation
from utils.data.augmentation import crop_images
from utils.models.architectures import build_network, load_pretrained
from utils.models.pretrained import describe_graph
from utils.models.recipe import Candidate
from utils.training.optimizers import LayerwiseAdam
from utils.training.progress import TrainingProgress
from utils.training.resumption import TrainingState

WARM_UP = 0.1
"""Share of the steps in which the learning rate rises."""
STATE_SHARE = 0.05
"""Largest share of the time that may go into keeping the state of a training."""


class _Batches(keras.utils.PyDataset):
    """Shuffled batches of gray images and one-hot labels.

    All that is drawn depends on the seed, the epoch and the batch.
    """

    def __init__(
        self, candidate: Candidate, images: np.ndarray, labels: np.ndarray, seed: int,
        epochs_done: int,
    ) -> None:  # fmt: skip
        super().__init__(workers=1, use_multiprocessing=False)
        self._candidate, self._images, self._seed = candidate, images, seed
        self._labels = np.eye(2, dtype=np.float32)[labels]
        self._equalized = equalize_images(images) if candidate.equalized else None
        self._start_epoch(epochs_done)

    def _start_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self._order = np.random.default_rng([self._seed, epoch]).permutation(len(self._images))

    def __len__(self) -> int:
        return len(self._images) // self._candidate.batch_size

    def __getitem__(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        size = self._candidate.batch_size
        rows = self._order[batch * size : (batch + 1) * size]
        images, labels = self._images[rows].astype(np.float32), self._labels[rows]
        random = np.random.default_rng([self._seed, self._epoch, batch])
        if self._candidate.smallest_crop:
            side, smallest = self._candidate.size, self._candidate.smallest_crop
            images = crop_images(self._images[rows], side, smallest, random)
        if self._equalized is not None:
            chosen = random.random(size) < self._candidate.equalized
            images[chosen] = self._equalized[rows[chosen]]
        if self._candidate.mixup:
            return mix_images(images, labels, self._candidate.mixup, random)
        return images, labels

    def on_epoch_end(self) -> None:
        self._start_epoch(self._epoch + 1)


def equalize_images(images: np.ndarray) -> np.ndarray:
    """Return (n, size, size, 1) uint8 images after CLAHE (Zuiderveld 1994), by scikit-image."""
    equalized = [equalize_adapthist(image[..., 0]) for image in images]
    return (np.stack(equalized)[..., None] * 255).round().astype(np.uint8)


def mix_images(
    images: np.ndarray, labels: np.ndarray, alpha: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mix every image and its label with another of the batch (mixup, Zhang et al. 2018).

    Args:
        images: (n, size, size, 1) float32.
        labels: (n, 2) float32.
        alpha: Of the Beta distribution from which each share is drawn, above 0.
        random: Source of shares and partners.
    """
    share = random.beta(alpha, alpha, len(images)).astype(np.float32)
    partner = random.permutation(len(images))
    of_image, of_label = share[:, None, None, None], share[:, None]
    return (
        of_image * images + (1 - of_image) * images[partner],
        of_label * labels + (1 - of_label) * labels[partner],
    )


class _LayerRates(keras.callbacks.Callback):
    """Set every layer's share of the learning rate at the start of each epoch."""

    def __init__(self, candidate: Candidate, network: keras.Model) -> None:
        super().__init__()
        self._candidate = candidate
        last = len(network.layers) - 1
        self._depths = [
            1 - number / last
            for number, layer in enumerate(network.layers)
            for _ in layer.trainable_variables
        ]

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        variables = self.model.trainable_variables
        rates = [layer_rate(self._candidate, depth, epoch) for depth in self._depths]
        self.model.optimizer.set_rates(variables, rates)


def layer_rate(candidate: Candidate, depth: float, epoch: int) -> float:
    """Return a layer's share of the learning rate.

    Args:
        candidate: Whose `bottom_rate` and `gradual` say how it falls with depth.
        depth: Of the layer, from 0 for the last to 1 for the first.
        epoch: From 0.
    """
    frozen = candidate.gradual and epoch < depth * candidate.epochs / 2
    return 0.0 if frozen else candidate.bottom_rate**depth


def build_candidate(candidate: Candidate, seed: int) -> tuple[keras.Model, str]:
    """Build a candidate's network with its initial weights; return it and their provenance."""
    network = build_network(candidate.architecture, candidate.size, seed, dropout=candidate.dropout)
    provenance = load_pretrained(network, candidate.architecture)
    _freeze(network, candidate, pretrained=provenance != "random")
    return network, provenance


def _freeze(network: keras.Model, candidate: Candidate, pretrained: bool) -> None:
    """Freeze what comes before the first trained layer, and ImageNet's batch statistics."""
    names = [layer.name for layer in network.layers]
    starts = {name: number for number, name in enumerate(names)}
    starts |= {"all": 0, "head": names.index("mean_over_places")}
    if candidate.first_trained not in starts:
        raise ValueError(
            f"{candidate.name}: {candidate.architecture} has no layer "
            f"{candidate.first_trained!r} to train from; name one of its layers, 'all' or 'head'"
        )
    for layer in network.layers[: starts[candidate.first_trained]]:
        layer.trainable = False
    if pretrained and not candidate.trained_statistics:
        for layer in network.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False


def train_candidate(
    candidate: Candidate,
    images: np.ndarray,
    labels: np.ndarray,
    seed: int,
    checkpoint: Path,
    title: str | None = None,
) -> tuple[keras.Model, str]:
    """Train a candidate for its number of epochs.

    A training that was interrupted goes on from its kept state, `<checkpoint>.state`.

    Args:
        candidate: What to train.
        images: (n, size, size, 1) uint8 gray in [0, 255]; (n, 224, 224, 1) for one that crops.
        labels: (n,) 0 or 1.
        seed: Of initial weights, order, dropout and augmentation.
        checkpoint: File beside which the state is kept.
        title: Of the progress bar.

    Returns:
        The trained network, from gray pixels to probabilities, and its weights' provenance.
    """
    network, provenance = build_candidate(candidate, seed)
    augmentation = build_augmentation(candidate.transforms, candidate.size, seed)
    gray = keras.Input((candidate.size, candidate.size, 1), name="training_images")
    model = keras.Model(gray, network(augmentation(gray)), name=candidate.architecture)
    steps = candidate.epochs * (len(images) // candidate.batch_size)
    model.compile(
        optimizer=LayerwiseAdam(
            keras.optimizers.schedules.CosineDecay(
                0.0, steps - round(WARM_UP * steps), warmup_target=candidate.learning_rate,
                warmup_steps=round(WARM_UP * steps),
            ),
            weight_decay=candidate.weight_decay or None,
            use_ema=candidate.averaging > 0,
            ema_momentum=candidate.averaging or 0.99,
        ),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=candidate.label_smoothing),
        jit_compile=False,
    )  # fmt: skip
    rates = _LayerRates(candidate, network)
    keras.utils.set_random_seed(seed)
    state = TrainingState(
        checkpoint.with_suffix(".state"), _identify(candidate, network, images, labels, seed), [],
        STATE_SHARE,
    )  # fmt: skip
    weight = len(labels) / (2 * np.bincount(labels, minlength=2))
    model.fit(
        _Batches(candidate, images, labels, seed, state.initial_epoch),
        epochs=candidate.epochs,
        initial_epoch=state.initial_epoch,
        class_weight=dict(enumerate(weight)) if candidate.class_weights else None,
        shuffle=False,
        verbose=0,
        callbacks=[TrainingProgress(title or candidate.name), rates, state],
    )
    state.forget()
    return network, provenance


def describe_training(
    candidate: Candidate, images: np.ndarray, labels: np.ndarray, seed: int
) -> dict[str, Any]:
    """Return what a training is given, as JSON can hold it; see `train_candidate`."""
    return {
        "candidate": candidate.describe(),
        "images": hashlib.sha256(images.tobytes()).hexdigest(),
        "labels": labels.tolist(),
        "seed": seed,
    }


def _identify(
    candidate: Candidate, network: keras.Model, images: np.ndarray, labels: np.ndarray, seed: int
) -> str:
    """Return a hash of all that a training depends on but the initial weights' values."""
    content = describe_training(candidate, images, labels, seed) | {
        "network": describe_graph(network)
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
