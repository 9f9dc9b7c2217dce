"""Writing of capsules, and the directory that holds them."""

import json
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any

import keras
import numpy as np

import gradkeeper
from gradkeeper._arguments import integer
from gradkeeper.callbacks._workers import Worker
from gradkeeper.callbacks.capsule.capsule import (
    BATCH,
    FACTS,
    FORMAT,
    STATE,
    Arrays,
    State,
    Structure,
    UnknownStructureError,
    digest,
    flatten,
    write_arrays,
)


@dataclass(frozen=True)
class Contents:
    """Contents of a capsule.

    Attributes:
        facts: the JSON record of the step.
        model: the model.
        state: the model's state before the step.
        batches: the batch of each replica, or the reason why there is none.
    """

    facts: Mapping[str, Any]
    model: keras.Model
    state: State
    batches: Sequence[Any] | str


def write_capsule(folder: Path, contents: Contents, *, max_bytes: int) -> Path:
    """Write a capsule to a new subdirectory and return its path.

    The files are written to a temporary directory, which is renamed once they are complete on
    disk. A directory with a capsule's name is therefore always complete.

    Args:
        folder: directory of the capsules. It is created if missing.
        contents: the contents.
        max_bytes: the largest size of the arrays, in bytes. Arrays that do not fit are omitted
            and listed in the capsule: first the optimizer state, then the batch, then the
            weights.

    Raises:
        OSError: if the capsule cannot be written. The temporary directory is then removed.
    """
    left_out: list[str] = []
    flat = _flattened(contents.batches, left_out)
    arrays_of_batch = {
        f"{replica}/{number}": np.asarray(tensor)
        for replica, (_, tensors) in enumerate(flat)
        for number, tensor in enumerate(tensors)
    }
    state, batch = _fitting(contents.state, arrays_of_batch, max_bytes, left_out)
    if len(batch) < len(arrays_of_batch):
        flat = []
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{os.getpid()}-{os.urandom(4).hex()}.partial"
    temporary.mkdir()
    try:
        for name, arrays in ((STATE, state), (BATCH, batch)):
            if arrays:
                write_arrays(temporary / name, arrays)
        backend = import_module(keras.backend.backend())
        facts = {
            "format": FORMAT,
            **contents.facts,
            "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "versions": {
                "python": platform.python_version(),
                **{each.__name__: each.__version__ for each in (gradkeeper, keras, np)},
                backend.__name__: backend.__version__,
                "platform": platform.platform(),
            },
            "model": _described(contents.model, left_out),
            "batches": [structure for structure, _ in flat],
            "tensors": [len(tensors) for _, tensors in flat],
            "files": {each.name: digest(each) for each in sorted(temporary.iterdir())},
            "left_out": left_out,
        }
        text = json.dumps(facts, indent=1, allow_nan=True)
        (temporary / FACTS).write_text(text, encoding="utf-8")
        for each in (*temporary.iterdir(), temporary):
            _sync(each)
        return _named(temporary, folder, f"step-{int(facts['step']):08d}")
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _flattened(
    batches: Sequence[Any] | str, left_out: list[str]
) -> list[tuple[Structure, list[Any]]]:
    """Return the structure and the tensors of each batch; an empty list without batches."""
    if isinstance(batches, str):
        reason = batches
    else:
        try:
            return [flatten(batch) for batch in batches]
        except UnknownStructureError as error:
            reason = str(error)
    left_out.append(f"batch: {reason}")
    return []


def _fitting(
    state: State, batch: Arrays, max_bytes: int, left_out: list[str]
) -> tuple[State, Arrays]:
    """Return the parts of state and batch that fit in `max_bytes`."""
    # In the order in which they are omitted.
    parts: dict[str, Arrays] = {"optimizer": {}, "batch": batch, "weights": {}}
    for name, value in state.items():
        parts["optimizer" if name.startswith("optimizer ") else "weights"][name] = value
    for part, arrays in parts.items():
        if sum(each.nbytes for kept in parts.values() for each in kept.values()) <= max_bytes:
            break
        parts[part] = {}
        if arrays or part != "batch":
            left_out.append(f"{part}: does not fit in max_bytes={max_bytes:,}")
    return parts["weights"] | parts["optimizer"], parts["batch"]


def _described(model: keras.Model, left_out: list[str]) -> dict[str, Any]:
    """Return the model's name, class and configuration (None if it cannot be serialized)."""
    described: dict[str, Any] = {
        "name": model.name,
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "config": None,
    }
    try:
        config = keras.saving.serialize_keras_object(model)
        json.dumps(config)
        described["config"] = config
    except Exception as error:  # noqa: BLE001 (a user's get_config may raise any exception)
        reason = f"{type(error).__name__}: {error}".splitlines()[0].removesuffix(": ")
        if isinstance(error, NotImplementedError):
            reason = f"{type(model).__name__} has no get_config()"
        left_out.append(f"model configuration: {reason}")
    return described


def _named(temporary: Path, folder: Path, name: str) -> Path:
    """Rename the directory. If the name exists, append a number."""
    number = 0
    while True:
        number += 1
        path = folder / (name if number == 1 else f"{name}-{number}")
        if path.exists():
            continue
        try:
            temporary.rename(path)
        except OSError:
            if path.exists():  # another process was faster
                continue
            raise
        _sync(folder)
        return path


def _sync(path: Path) -> None:
    """Flush a file or directory to disk. On Windows, do nothing."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class CapsuleDirectory:
    """Directory for the capsules of a training run, with limits on number and size.

    A capsule that cannot be written gives a warning and does not end the training.

    Args:
        folder: the directory. It may contain capsules of other runs.
        max_capsules: the largest number of capsules of this run.
        max_bytes: the largest size of each capsule's arrays, in bytes.

    Attributes:
        warnings: queued warnings. Each message is queued only once.

    Raises:
        ValueError: if a limit is below 1.
    """

    def __init__(self, folder: str | Path, *, max_capsules: int, max_bytes: int) -> None:
        integer("max_capsules", max_capsules)
        integer("max_bytes", max_bytes)
        self._of_chief = self._folder = Path(folder)
        self._max_capsules, self._max_bytes = max_capsules, max_bytes
        self._written = 0
        self._told: set[str] = set()
        self.warnings: list[str] = []

    def set_worker(self, worker: Worker) -> None:
        """Use the directory of this worker."""
        self._folder = worker.folder_in(self._of_chief)

    def write(self, contents: Contents) -> Path | None:
        """Write a capsule and return its path; None at the limit or if writing fails."""
        if self._written >= self._max_capsules:
            self.warn(
                f"No more capsules are written: max_capsules={self._max_capsules} is reached."
            )
            return None
        try:
            path = write_capsule(self._folder, contents, max_bytes=self._max_bytes)
        except OSError as error:
            self.warn(f"A capsule could not be written to {self._folder}: {error}")
            return None
        self._written += 1
        return path

    def warn(self, text: str) -> None:
        """Queue a warning, once per message."""
        if text not in self._told:
            self._told.add(text)
            self.warnings.append(text)
