"""Capsule of a bad train step, and the functions that read it."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gradkeeper.callbacks.capsule.state import State
from gradkeeper.callbacks.capsule.structure import Structure, read_arrays

FACTS, STATE, BATCH = "capsule.json", "state.npz", "batch.npz"
FORMAT = 1


class CapsuleError(ValueError):
    """Raised if a capsule cannot be used, for example because it is damaged."""


@dataclass(frozen=True)
class Capsule:
    """Bad train step that a guard has written to disk.

    Attributes:
        path: the capsule directory.
        facts: the JSON record of the step: `step`, `cause`, `loss`, `norm`, `policy`, `compiled`,
            `gradients` (norm and non-finite count by replica and variable), `versions`, `model`,
            `left_out`.
        state: the model's state before the step, by name.
        forms: the structure of each replica's batch.
        arrays: the arrays of each replica's batch.
    """

    path: Path
    facts: dict[str, Any]
    state: State
    forms: list[Structure]
    arrays: list[list[np.ndarray]]

    @property
    def step(self) -> int:
        """Return the train step, counted from the run's first."""
        return int(self.facts["step"])

    @property
    def replicas(self) -> list[int]:
        """Return the replicas with a non-finite gradient."""
        bad = np.asarray(self.facts["gradients"]["nonfinite"]).sum(axis=1)
        return np.flatnonzero(bad).tolist()

    @property
    def is_compiled(self) -> bool:
        """Return True if XLA compiled the step."""
        return bool(self.facts.get("compiled"))

    @property
    def left_out(self) -> list[str]:
        """Return the omitted parts, each with the reason."""
        return list(self.facts["left_out"])

    @classmethod
    def read(cls, path: str | Path) -> "Capsule":
        """Read a capsule without running any code from it.

        Raises:
            CapsuleError: if the directory is not a capsule, or the capsule is damaged.
        """
        path = Path(path)
        facts = _facts(path)
        try:
            state = _arrays(path, STATE, facts)
            batch = _arrays(path, BATCH, facts)
            forms = list(facts["batches"])
            arrays = [
                [batch[f"{replica}/{number}"] for number in range(count)]
                for replica, count in enumerate(facts["tensors"])
            ]
            # Read here so that a missing entry raises CapsuleError.
            capsule = cls(path, facts, state, forms, arrays)
            for each in (capsule.step, capsule.replicas, capsule.left_out, facts["model"]):
                del each
        except (KeyError, TypeError, ValueError) as error:
            raise CapsuleError(f"The capsule is damaged: {error}. Received: {path}") from error
        return capsule


def digest(path: Path) -> str:
    """Return the SHA-256 digest of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def _facts(path: Path) -> dict[str, Any]:
    file = path / FACTS if path.is_dir() else path
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CapsuleError(f"This is not a capsule: {FACTS} is missing. Received: {path}") from None
    except (OSError, ValueError) as error:
        raise CapsuleError(f"The capsule is damaged: {error}. Received: {path}") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        found = facts.get("format") if isinstance(facts, dict) else None
        raise CapsuleError(
            f"The capsule must have format {FORMAT}. Received: {path} with format {found}"
        )
    return facts


def _arrays(path: Path, name: str, facts: dict[str, Any]) -> dict[str, np.ndarray]:
    if name not in facts["files"]:
        return {}
    file = path / name
    if not file.is_file() or digest(file) != facts["files"][name]:
        raise ValueError(f"{name} is missing or was changed")
    return read_arrays(file)
