"""The steps of a training, shown on the terminal."""

import keras

from utils.common.progress import progress_bar


class TrainingProgress(keras.callbacks.Callback):
    """Show the steps of a training; Keras' own bar would end up in the saved notebook.

    The bar is drawn where `progress.progress_bar` finds a terminal, and shows the validation loss
    where there is one.
    """

    def __init__(self, title: str) -> None:
        """Take the title of the bar."""
        super().__init__()
        self._title = title

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Open the bar."""
        self._bar = progress_bar(self._title, self.params["epochs"] * self.params["steps"])

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Go to where the epoch begins; a training that is resumed begins with a later one."""
        self._bar.update(epoch * self.params["steps"] - self._bar.n)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Count a step."""
        self._bar.update()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Show the validation loss."""
        if logs and "val_loss" in logs:
            self._bar.set_postfix(val_loss=f"{logs['val_loss']:.3f}")

    def on_train_end(self, logs: dict | None = None) -> None:
        """Close the bar."""
        self._bar.close()
