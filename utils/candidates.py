"""Candidates: one recipe each for a network and its training, and the training itself.

A candidate is trained for a fixed number of epochs on the images of a fold, or on the study's
training split for the final models. Nothing in here looks at held-out images: which candidate is
taken is decided in `utils.selection`, by `docs/selection_rule.md`.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from utils.activations import describe_graph
from utils.facts import PNEUMONIA
from utils.fused_adam import FusedAdam
from utils.networks import build_network, load_pretrained
from utils.progress import progress_bar
from utils.resumption import TrainingState
from utils.shortcut_augmentation import build_augmentation

WARM_UP = 0.1
"""Share of the steps in which the learning rate rises."""
STATE_SHARE = 0.05
"""Largest share of the time that may go into keeping the state of a training."""


@dataclass(frozen=True)
class Candidate:
    """A network and how it is trained."""

    name: str
    architecture: str
    size: int
    """Side of the gray image that the network sees, in pixels."""
    transforms: tuple[str, ...] = ()
    """Of `shortcut_augmentation.TRANSFORMS`."""
    first_trained: str = "all"
    """First layer that is trained, `all`, or `head`; everything before it is frozen."""
    epochs: int = 6
    learning_rate: float = 1e-4
    batch_size: int = 32
    weight_decay: float = 1e-4
    label_smoothing: float = 0.05
    class_weights: bool = True
    """Whether both classes weigh the same in the loss."""
    averaging: float = 0.0
    """Momentum of the exponential moving average of the weights; 0 keeps the last ones."""
    trained_statistics: bool = False
    """Whether batch normalization that starts from ImageNet learns new statistics."""
    dropout: float = 0.3

    def describe(self) -> dict[str, Any]:
        """Return the candidate as a record, as JSON gives it back."""
        return asdict(self) | {"transforms": list(self.transforms)}


class _Batches(keras.utils.PyDataset):
    """Shuffled batches of gray images and one-hot labels; the order depends on seed and epoch."""

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, batch_size: int, seed: int, epochs_done: int
    ) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        self._images, self._batch_size, self._seed = images, batch_size, seed
        self._labels = np.eye(2, dtype=np.float32)[labels]
        self._start_epoch(epochs_done)

    def _start_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self._order = np.random.default_rng([self._seed, epoch]).permutation(len(self._images))

    def __len__(self) -> int:
        return len(self._images) // self._batch_size

    def __getitem__(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self._order[batch * self._batch_size : (batch + 1) * self._batch_size]
        return self._images[rows].astype(np.float32), self._labels[rows]

    def on_epoch_end(self) -> None:
        self._start_epoch(self._epoch + 1)


class _StepBar(keras.callbacks.Callback):
    """Show the steps of a training on the terminal."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title

    def on_train_begin(self, logs: dict | None = None) -> None:
        total = self.params["epochs"] * self.params["steps"]
        self._bar = progress_bar(self._title, total)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._bar.update(epoch * self.params["steps"] - self._bar.n)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._bar.update()

    def on_train_end(self, logs: dict | None = None) -> None:
        self._bar.close()


def build_candidate(candidate: Candidate, seed: int) -> tuple[keras.Model, str]:
    """Build a candidate's network with its initial weights; return it and their provenance."""
    network = build_network(candidate.architecture, candidate.size, seed, dropout=candidate.dropout)
    provenance = load_pretrained(network, candidate.architecture)
    _freeze(network, candidate, pretrained=provenance != "random")
    return network, provenance


def _freeze(network: keras.Model, candidate: Candidate, pretrained: bool) -> None:
    """Freeze what comes before the first trained layer, and ImageNet's batch statistics."""
    names = [layer.name for layer in network.layers]
    starts = {"all": 0, "head": names.index("mean_over_places")}
    if candidate.first_trained not in names and candidate.first_trained not in starts:
        raise ValueError(
            f"{candidate.name}: {candidate.architecture} has no layer "
            f"{candidate.first_trained!r} to train from; name one of its layers, 'all' or 'head'"
        )
    first = starts.get(candidate.first_trained)
    first = names.index(candidate.first_trained) if first is None else first
    for layer in network.layers[:first]:
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
        images: (n, size, size, 1) uint8 gray in [0, 255].
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
        optimizer=FusedAdam(
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
    keras.utils.set_random_seed(seed)
    state = TrainingState(
        checkpoint.with_suffix(".state"), _identify(candidate, network, images, labels, seed), [],
        STATE_SHARE,
    )  # fmt: skip
    weight = len(labels) / (2 * np.bincount(labels, minlength=2))
    model.fit(
        _Batches(images, labels, candidate.batch_size, seed, state.initial_epoch),
        epochs=candidate.epochs,
        initial_epoch=state.initial_epoch,
        class_weight=dict(enumerate(weight)) if candidate.class_weights else None,
        shuffle=False,
        verbose=0,
        callbacks=[_StepBar(title or candidate.name), state],
    )
    state.forget()
    return network, provenance


def _identify(
    candidate: Candidate, network: keras.Model, images: np.ndarray, labels: np.ndarray, seed: int
) -> str:
    """Return a hash of all that a training depends on but the initial weights' values."""
    content = {
        "candidate": candidate.describe(),
        "network": describe_graph(network),
        "images": hashlib.sha256(images.tobytes()).hexdigest(),
        "labels": labels.tolist(),
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def predict_images(network: keras.Model, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
    """Return the probability of PNEUMONIA, (n,) float64, of (n, size, size, 1) gray images."""
    probabilities = network.predict(
        images.astype(np.float32), batch_size=batch_size, verbose=0
    )  # fmt: skip
    return probabilities[:, PNEUMONIA].astype(np.float64)
