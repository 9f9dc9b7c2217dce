"""What adaptive clipping has learnt, beside the weights that BackupAndRestore keeps."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_NAME = "adaptive_clipping.npz"

State = Mapping[str, np.ndarray]


class StateBackup:
    """The last two states in a backup's folder, by the optimizer's count of steps.

    Two, since weights and state are written one after the other: after a kill between them,
    that of the weights which are there is there as well.

    Args:
        folder: the `backup_dir`.
    """

    def __init__(self, folder: str | Path) -> None:
        self._path = Path(folder) / _NAME
        self._weights = Path(folder) / "latest.weights.h5"
        self._states = self._read()
        self._seen = self._written_at()

    def at(self, step: int) -> State | None:
        """The state after so many steps; None if there is none."""
        return self._states.get(step)

    @property
    def has_new_weights(self) -> bool:
        """Whether the backup's weights have been written since the last state was."""
        return self._written_at() != self._seen

    def write(self, step: int, state: State) -> None:
        """Adds a state, whole or not at all; the one before the last is dropped."""
        self._seen = self._written_at()
        kept = sorted(self._states.items())[-1:]
        self._states = {**dict(kept), step: state}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {
            f"{at}:{k}": v for at, each in self._states.items() for k, v in each.items()
        }
        temporary = self._path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)

    def _read(self) -> dict[int, State]:
        states: dict[int, dict[str, np.ndarray]] = {}
        try:
            with np.load(self._path, allow_pickle=False) as arrays:
                for key in arrays.files:
                    step, name = key.split(":", 1)
                    states.setdefault(int(step), {})[name] = arrays[key]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"What AdaptiveClipping has learnt cannot be read: delete the file, and it "
                f"begins anew. Received: {self._path}"
            ) from error
        return dict(states)

    def _written_at(self) -> int:
        try:
            return self._weights.stat().st_mtime_ns
        except FileNotFoundError:
            return 0
