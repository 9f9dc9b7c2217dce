"""The folder that holds all of one failing train step."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gradkeeper.callbacks.capsule.arrays import read_arrays
from gradkeeper.callbacks.capsule.form import Form
from gradkeeper.callbacks.capsule.state import State

FACTS, STATE, BATCH = "capsule.json", "state.npz", "batch.npz"
FORMAT = 1


class CapsuleError(ValueError):
    """A capsule is damaged, or not one at all."""


@dataclass(frozen=True)
class Capsule:
    """A train step that a guard found bad, as it lies on disk.

    Attributes:
        path: its folder.
        facts: what is known of the step: `step`, `cause`, `loss`, `norm`, `policy`, `compiled`,
            `gradients` (norm and non-finite count by replica and variable), `versions`, `model`, `left_out`.
        state: the model before the step, by name.
        forms: the form of each replica's batch.
        arrays: what the batches consist of, by replica.
    """

    path: Path
    facts: dict[str, Any]
    state: State
    forms: list[Form]
    arrays: list[list[np.ndarray]]

    @property
    def step(self) -> int:
        """The train step, counted from the run's first."""
        return int(self.facts["step"])

    @property
    def replicas(self) -> list[int]:
        """The replicas with a gradient that is not finite."""
        bad = np.asarray(self.facts["gradients"]["nonfinite"]).sum(axis=1)
        return np.flatnonzero(bad).tolist()

    @property
    def is_compiled(self) -> bool:
        """Whether XLA compiled the step."""
        return bool(self.facts.get("compiled"))

    @property
    def left_out(self) -> list[str]:
        """What could not be written, and why."""
        return list(self.facts["left_out"])

    @classmethod
    def read(cls, path: str | Path) -> "Capsule":
        """Reads a capsule; runs no code that lies in it.

        Raises:
            CapsuleError: if the folder is no capsule, or one that is damaged.
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
            # Asked for here, so that what is missing is told here.
            capsule = cls(path, facts, state, forms, arrays)
            for each in (capsule.step, capsule.replicas, capsule.left_out, facts["model"]):
                del each
        except (KeyError, TypeError, ValueError) as error:
            raise CapsuleError(f"The capsule is damaged: {error}. Received: {path}") from error
        return capsule


def digest(path: Path) -> str:
    """By which a file is known to be as it was written."""
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
        raise CapsuleError(f"This is no capsule: {FACTS} is missing. Received: {path}") from None
    except (OSError, ValueError) as error:
        raise CapsuleError(f"The capsule is damaged: {error}. Received: {path}") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        found = facts.get("format") if isinstance(facts, dict) else None
        raise CapsuleError(
            f"The capsule must be of format {FORMAT}. Received: {path} with format {found}"
        )
    return facts


def _arrays(path: Path, name: str, facts: dict[str, Any]) -> dict[str, np.ndarray]:
    if name not in facts["files"]:
        return {}
    file = path / name
    if not file.is_file() or digest(file) != facts["files"][name]:
        raise ValueError(f"{name} is missing or is not what was written")
    return read_arrays(file)
