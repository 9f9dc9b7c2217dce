"""The state from which a killed training goes on."""

import os
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.capsule.state import restore, state_of
from gradkeeper.training.distribution import wait_for_all

_EPOCH, _STATE = "gradkeeper_epoch", "gradkeeper_state"


class EpochBackup(keras.callbacks.BackupAndRestore):
    """Keeps weights, optimizer, random state and epoch in one file, whole or not at all.

    Keras's own callback writes weights and epoch one after the other, and over those from
    before: killed in between, a training goes on with the weights of one epoch and the number
    of another, or not at all; and it keeps no seeds, so that dropout repeats itself. Here all
    are in one file, `latest.weights.h5`, which is renamed when it is complete, and whose weights
    `model.load_weights` can load.

    Args:
        backup_dir: the folder.
        writes: whether this process writes; all read.
        strategy: whose workers are waited for at the end of each epoch, so that what the others
            have recorded of it is never behind the backup; None where there is one process.
    """

    def __init__(
        self,
        backup_dir: str | Path,
        *,
        writes: bool = True,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        super().__init__(str(backup_dir), delete_checkpoint=False)
        self._path = Path(backup_dir) / "latest.weights.h5"
        self._writes, self._strategy = writes, strategy

    @property
    def epoch(self) -> int:
        """Epochs trained before the backup; 0 if there is none.

        Raises:
            OSError: if it cannot be read.
            ValueError: if the weights are not of this callback.
        """
        if not self._path.exists():
            return 0
        with h5py.File(self._path) as file:
            if _EPOCH not in file.attrs:
                raise ValueError(
                    "These weights do not say after which epoch they were kept: another callback "
                    f"wrote them. Remove them, or name another folder. Received: {self._path}"
                )
            return int(file.attrs[_EPOCH])

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not self._path.exists():
            return
        optimizer = self.model.optimizer
        if optimizer is not None and not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        self.model.load_weights(self._path)
        with h5py.File(self._path) as file:
            restore(self.model, {place: np.array(kept) for place, kept in file[_STATE].items()})

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Nothing: an epoch is the least that is kept."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._strategy is not None:
            wait_for_all(self._strategy)
        if not self._writes:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_name("unfinished.weights.h5")
        self.model.save_weights(unfinished, overwrite=True)
        with h5py.File(unfinished, "a") as file:
            file.attrs[_EPOCH] = epoch + 1
            beside = file.create_group(_STATE)
            for name, values in state_of(self.model).items():
                place = name.partition(":")[0]
                if place.startswith("other"):  # what Keras does not save: random seeds
                    beside[place] = values
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, self._path)
