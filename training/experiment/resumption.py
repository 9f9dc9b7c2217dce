"""Backup from which an interrupted training resumes, and checks before it does."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import keras
import numpy as np

from gradkeeper.callbacks.capsule.model import restore, state_of
from gradkeeper.training.distribution.strategies import wait_for_all
from gradkeeper.training.experiment.config import ExperimentConfig
from gradkeeper.training.experiment.run_directory import FINISHED, RunDirectory, read_json

if TYPE_CHECKING:
    import tensorflow as tf

_EPOCH, _STATE = "gradkeeper_epoch", "gradkeeper_state"
_GENERATOR = "generator"  # begins the name of a torch random generator in `state_of`
_FREE_ON_RESUME = {"epochs", "data_dir", "flow", "strategy"}
_ORIGIN = {"recipe", "sources"}  # where settings come from; the settings themselves are compared
_BYTES_AT_ONCE = 1 << 20


class EpochBackup(keras.callbacks.BackupAndRestore):
    """Save weights, optimizer, random state and epoch atomically in one file after each epoch.

    `keras.callbacks.BackupAndRestore` overwrites the weights and the epoch one after the other: a
    process that is killed between the two writes resumes with the weights of one epoch and the
    number of another, or cannot resume. It does not save random seeds, so dropout masks repeat.
    This callback writes everything to a temporary file and renames it to `latest.weights.h5`.
    `model.load_weights` can load the weights in that file.

    Args:
        backup_dir: the folder.
        writes: True if this process writes the backup; every process reads it.
        strategy: the strategy whose workers are synchronized at the end of each epoch, so that
            the other workers' records are never older than the backup; None for one process.
    """

    def __init__(
        self,
        backup_dir: str | Path,
        *,
        writes: bool = True,
        strategy: "tf.distribute.Strategy | None" = None,
    ) -> None:
        super().__init__(str(backup_dir), delete_checkpoint=False)
        self._path = Path(backup_dir) / "latest.weights.h5"
        self._generators: dict[str, np.ndarray] = {}
        self._writes, self._strategy = writes, strategy

    @property
    def epoch(self) -> int:
        """Number of epochs trained before the backup; 0 without a backup.

        Raises:
            OSError: if the file cannot be read.
            ValueError: if another callback wrote the file.
        """
        if not self._path.exists():
            return 0
        with h5py.File(self._path) as file:
            if _EPOCH not in file.attrs:
                raise ValueError(
                    "The weights file does not record its epoch, so another callback wrote it. "
                    f"Remove the file, or choose another folder. Received: {self._path}"
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
            state = {place: np.array(kept) for place, kept in file[_STATE].items()}
        restore(self.model, state)
        self._generators = {n: kept for n, kept in state.items() if n.startswith(_GENERATOR)}

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # On torch, the data loader has drawn a number since `on_train_begin`.
        if self._generators:
            restore(self.model, self._generators)
            self._generators = {}

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Do nothing: backups are written at the end of an epoch only."""

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
                # Random seeds and the random generators of torch, which Keras does not save.
                if place.startswith(("other", _GENERATOR)):
                    beside[place] = values
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, self._path)


def is_done(directory: RunDirectory, epochs: int) -> bool:
    """Return True if the run is finished and has at least `epochs` epochs."""
    is_finished = status_of(directory) == FINISHED
    return is_finished and EpochBackup(directory.backup).epoch >= epochs


def status_of(directory: RunDirectory) -> str | None:
    """Return the status that `status.json` records; None without the file."""
    return read_json(directory.status)["status"] if directory.status.exists() else None


def require_same_config(before: ExperimentConfig, now: ExperimentConfig) -> None:
    """Check that a run is resumed with its own configuration.

    Raises:
        ValueError: if a setting differs that must stay the same.
    """
    former = before.to_dict()
    changed = [
        f"{name}={value!r} (was {former[name]!r})"
        for name, value in now.to_dict().items()
        if name not in _FREE_ON_RESUME | _ORIGIN and value != former[name]
    ]
    if changed:
        raise ValueError(
            "A run must be resumed with its own configuration; only "
            f"{', '.join(sorted(_FREE_ON_RESUME))} may change. Received: {', '.join(changed)}"
        )


def digest_of(files: Iterable[Path]) -> str | None:
    """Return the SHA-256 of the content of all files, in order; None without files."""
    found, digest = list(files), hashlib.sha256()
    for path in found:
        with path.open("rb") as file:
            while block := file.read(_BYTES_AT_ONCE):
                digest.update(block)
    return digest.hexdigest() if found else None


def require_same_data(before: str | None, now: str | None, files: Iterable[Path]) -> None:
    """Raise an error if the data have changed since the run began; `before=None` skips the check.

    Raises:
        ValueError: if the digests differ.
    """
    if before is not None and before != now:
        raise ValueError(
            "The data have changed since the run began. Restore the file, start another run, or "
            "resume on the changed data with `allow_changed_data` (--allow-changed-data). "
            f"Received: {', '.join(map(str, files))} with SHA-256 {now} (was {before})"
        )
