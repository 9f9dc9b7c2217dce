"""Backup of the state of `AdaptiveClipping` in the directory of the weights."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from gradkeeper.callbacks.clipping.methods import Arrays


class StateBackup:
    """File in a backup directory with the last two `states` by the optimizer's step count.

    Weights and state are written one after the other. If the process is killed in between, the
    older of the two states matches the weights.

    Args:
        folder: the `backup_dir` of BackupAndRestore.
    """

    def __init__(self, folder: str | Path) -> None:
        self._path = Path(folder) / "adaptive_clipping.npz"
        self._weights = Path(folder) / "latest.weights.h5"
        self.states = self._read()
        self._seen = self._written_at()

    @property
    def has_new_weights(self) -> bool:
        """Return True if the weights of the backup are newer than the last state."""
        return self._written_at() != self._seen

    def write(self, step: int, state: Arrays) -> None:
        """Add a state in an atomic write, and keep only the previous one."""
        self._seen = self._written_at()
        self.states = dict([*sorted(self.states.items())[-1:], (step, state)])
        self._path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {
            f"{at}:{k}": v for at, each in self.states.items() for k, v in each.items()
        }
        temporary = self._path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)

    def _read(self) -> dict[int, Arrays]:
        states: dict[int, Arrays] = {}
        try:
            with np.load(self._path, allow_pickle=False) as arrays:
                for key in arrays.files:
                    step, name = key.split(":", 1)
                    states.setdefault(int(step), {})[name] = arrays[key]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(
                "The saved state of AdaptiveClipping cannot be read. Delete the file to start "
                f"without a saved state. Received: {self._path}"
            ) from error
        return states

    def _written_at(self) -> int:
        try:
            return self._weights.stat().st_mtime_ns
        except FileNotFoundError:
            return 0
