"""Pick an interrupted training up where it was, to the bit."""

import json
import math
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from utils.common.files import write_atomically

_COUNTERS = ("wait", "best", "best_epoch", "stopped_epoch", "cooldown_counter")
"""What `EarlyStopping`, `ReduceLROnPlateau` and `ModelCheckpoint` remember between epochs."""
_BYTES_PER_SECOND = 1e9
"""What writing is taken to cost before it has been measured."""


class TrainingState(keras.callbacks.Callback):
    """Keep the state of a training after an epoch, and restore it at the start of the next try.

    The state is everything that the next epoch depends on: weights, optimizer, dropout's seeds,
    the counters of the other callbacks and the history so far. Pass it to `fit` as the last
    callback, so that it reads and sets what the others remember.

    Writing costs time, 0.6 GB for the head of our ResNet50. It is spread: a state is written where
    `share` of the time since the last one pays for it, after every epoch of the real study and
    after some of a small one, where little is lost.
    """

    def __init__(
        self,
        file: Path,
        identity: str,
        others: Sequence[keras.callbacks.Callback],
        share: float = 0.05,
    ) -> None:
        """Look for a saved state of the same training; any other is ignored.

        Args:
            file: File of the state: a description and the arrays, one after the other, as
                `numpy.save` writes them; an archive would compute a checksum of every byte.
            identity: Hash of all that makes the training what it is.
            others: Callbacks whose counters belong to the state.
            share: Largest share of the time that may go into writing states: 1 writes always,
                0 never.
        """
        super().__init__()
        self._file, self._identity, self._others, self._share = file, identity, others, share
        self.history: list[dict[str, float]] = []
        self.stopped = False
        self._kept = self._read()

    @property
    def initial_epoch(self) -> int:
        """Number of epochs that need not be run again."""
        return len(self.history)

    def _read(self) -> list[np.ndarray] | None:
        """Read the kept state, if it is whole and belongs to this training."""
        if not self._file.is_file():
            return None
        try:
            with open(self._file, "rb") as stream:
                about = json.loads(str(np.load(stream)))
                if about["identity"] != self._identity:
                    return None
                arrays = [np.load(stream) for _ in range(about["variables"])]
        except (ValueError, EOFError, KeyError, TypeError) as error:
            warnings.warn(
                f"the training state {self._file} is damaged ({error}); the training starts again",
                stacklevel=3,
            )
            return None
        self.history, self.stopped = about["history"], about["stopped"]
        self._counters = about["counters"]
        return arrays

    def _variables(self) -> list[keras.Variable]:
        """List the variables that the next epoch starts from; metrics start again anyway."""
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        metrics = {id(variable) for variable in self.model.metrics_variables}
        # The layers' own include the seeds of dropout, which `model.weights` leaves out.
        own = [variable for variable in self.model.variables if id(variable) not in metrics]
        return [*own, *optimizer.variables]

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Restore the kept state; the other callbacks have reset theirs by now."""
        variables = self._variables()
        size = sum(np.dtype(variable.dtype).itemsize * math.prod(variable.shape)
                   for variable in variables)  # fmt: skip
        self._written, self._cost = time.perf_counter(), size / _BYTES_PER_SECOND
        if self._kept is None:
            return
        for variable, value in zip(variables, self._kept, strict=True):
            variable.assign(value)
        for callback, counters in zip(self._others, self._counters, strict=True):
            for name, value in counters.items():
                setattr(callback, name, value)
        self._kept = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note the epoch, and write the state where it is time."""
        self.history.append({name: float(value) for name, value in (logs or {}).items()})
        now = time.perf_counter()
        if self._share and self._share * (now - self._written) >= self._cost * (1 - self._share):
            self._write()
            self._written = time.perf_counter()
            self._cost = self._written - now

    def _write(self) -> None:
        variables = self._variables()
        about = {
            "identity": self._identity,
            "history": self.history,
            "stopped": bool(self.model.stop_training),
            "counters": [
                {name: _plain(getattr(callback, name)) for name in _COUNTERS
                 if hasattr(callback, name)}
                for callback in self._others
            ],
            "variables": len(variables),
        }  # fmt: skip
        with write_atomically(self._file) as temporary, open(temporary, "wb") as stream:
            np.save(stream, json.dumps(about))
            for variable in variables:
                np.save(stream, keras.ops.convert_to_numpy(variable))

    def forget(self) -> None:
        """Remove the state of a training that has ended."""
        self._file.unlink(missing_ok=True)


def _plain(value: Any) -> float | int | None:
    """Turn what a counter holds into what JSON can hold."""
    return value if value is None or isinstance(value, int) else float(value)
