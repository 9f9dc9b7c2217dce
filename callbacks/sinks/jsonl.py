"""Sink that writes JSON Lines."""

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from gradkeeper.callbacks.finding import Finding
from gradkeeper.callbacks.sinks._scalars import finite_json, scalars_by_step
from gradkeeper.callbacks.sinks.sink import Sink
from gradkeeper.callbacks.window import Window


class JsonlSink(Sink):
    """Sink that writes one JSON object per line to a file.

    A train step is a line such as `{"step": 7, "global_norm": 0.5, "loss": 0.1, "layers/out": 0.5}`
    with the names of `TensorBoardSink`, without `gradients/` and `train/`. A finding is a line
    `{"step": 7, "finding": {...}}` with the attributes of `Finding`. Numbers that JSON does not
    have are the strings "NaN", "Infinity" and "-Infinity".

    A resumed run removes the lines from its first step on. With several workers, the chief writes.

    Args:
        path: the file; its directory is created if it does not exist.
    """

    chief_only = True

    def __init__(self, path: str | Path = "gradients.jsonl") -> None:
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, window: Window) -> None:
        """Write the window; its lines are in the file on return."""
        self._append([{"step": step, **scalars} for step, scalars in scalars_by_step(window)])

    def write_finding(self, finding: Finding) -> None:
        self._append([{"step": finding.step, "finding": finding.to_dict()}])

    def truncate_from(self, step: int) -> Iterable[Window]:
        """Remove the lines from `step` on, and a line that a killed process left incomplete."""
        if self._path.exists():
            lines = self._path.read_text("utf-8").splitlines(keepends=True)
            kept = [line for line in lines if _step_of(line) < step]
            temporary = self._path.with_name(f".{self._path.name}.tmp")
            temporary.write_text("".join(kept), "utf-8")
            os.replace(temporary, self._path)
        return []

    def _append(self, lines: Iterable[dict[str, Any]]) -> None:
        text = "".join(json.dumps(finite_json(line), allow_nan=False) + "\n" for line in lines)
        before = self._path.stat().st_size if self._path.exists() else 0
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError:
            with suppress(OSError):
                os.truncate(self._path, before)  # all lines are written again
            raise


def _step_of(line: str) -> float:
    with suppress(ValueError):
        return json.loads(line)["step"]
    return float("inf")
