"""Files of a run's gradients through time, one per record."""

import io
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from gradkeeper.callbacks.flow import GradientFlow, StateFlow
from gradkeeper.callbacks.temporal_gradient_flow import TemporalGradientFlow

_PATTERN = "flow-*.npz"


class FlowFiles(keras.callbacks.Callback):
    """Write each record of a `TemporalGradientFlow` to a file, atomically.

    A resumed training keeps the records up to the epoch at which it starts.

    Args:
        folder: folder of the files.
        flow: the callback that records, attached before this one.
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
    """Write a record to `flow-<epochs>.npz` in the folder.

    Arrays: `loss`; `layers` and `states`, the names of each state; `norms_0`, `norms_1`, ..., the
    L2 norms of the gradients with respect to the states, [time, batch], NaN where masked.
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
    """Return the records of a folder by the number of epochs trained; empty without the folder."""
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
