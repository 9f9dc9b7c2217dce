"""Gradients through time of a run, as files: one for each record."""

import io
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from gradkeeper.callbacks.flow import GradientFlow, StateFlow, TemporalGradientFlow

_PATTERN = "flow-*.npz"


class FlowFiles(keras.callbacks.Callback):
    """Writes what a `TemporalGradientFlow` records, each record once, whole or not at all.

    A resumed training keeps the records up to the epoch that it starts with.

    Args:
        folder: where the files lie.
        flow: the callback whose records they are, attached before this one.
        first_epoch: the epoch at which this training starts.
    """

    def __init__(self, folder: Path, flow: TemporalGradientFlow, *, first_epoch: int = 0) -> None:
        super().__init__()
        self._folder, self._flow = folder, flow
        for epochs, path in _files(folder).items():
            if epochs > first_epoch:
                path.unlink()
        flow.flows.update(read_flows(folder))
        self._written = set(flow.flows)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._write()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._write()

    def _write(self) -> None:
        for epochs in self._flow.flows.keys() - self._written:
            write_flow(self._folder, epochs, self._flow.flows[epochs])
            self._written.add(epochs)


def write_flow(folder: Path, epochs: int, flow: GradientFlow) -> None:
    """Writes a record to `flow-<epochs>.npz` in the folder.

    Arrays: `loss`; `layers` and `states`, the names of each state; `norms_0`, `norms_1` ... the
    L2 norms of the gradients with respect to them, [time, batch], NaN where masked.
    """
    folder.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {f"norms_{number}": each.norms for number, each in enumerate(flow)}
    arrays["layers"], arrays["states"] = (
        [each.layer for each in flow],
        [each.state for each in flow],
    )
    np.savez_compressed(buffer, loss=flow.loss, **arrays)
    path = folder / f"flow-{epochs:05}.npz"
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(buffer.getvalue())
    os.replace(temporary, path)


def read_flows(folder: Path) -> dict[int, GradientFlow]:
    """The records in a folder, by the number of epochs trained before each; none without it."""
    return {epochs: _read(path) for epochs, path in _files(folder).items()}


def _files(folder: Path) -> dict[int, Path]:
    return {int(path.stem.partition("-")[2]): path for path in sorted(folder.glob(_PATTERN))}


def _read(path: Path) -> GradientFlow:
    with np.load(path) as arrays:
        names = zip(arrays["layers"].tolist(), arrays["states"].tolist(), strict=True)
        states = [
            StateFlow(layer, state, arrays[f"norms_{number}"])
            for number, (layer, state) in enumerate(names)
        ]
        return GradientFlow(tuple(states), float(arrays["loss"]))
