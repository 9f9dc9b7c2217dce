"""Recording of the gates that cells compute in unrolled loops."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import keras
import numpy as np
from keras import ops

from gradkeeper.callbacks.flow.unrolled import Calls, Layers, Steps

# The gates of Keras's cells in the order in which `call` applies `recurrent_activation`, and the
# weight of a state's old value: (gates, state, gate).
_KERAS_CELLS = {
    keras.layers.LSTMCell.call: (("i", "f", "o"), "c", "f"),
    keras.layers.GRUCell.call: (("z", "r"), "h", "z"),
}


@dataclass
class GateRecorder:
    """Gates of a cell, by call of its layer and by time step.

    Attributes:
        path: path of the layer, or of the cell in `StackedRNNCells`.
        cell: the cell.
        calls: the calls of the layer.
        gates: the gates by name, for each call and time index of the input.
    """

    path: str
    cell: Any
    calls: list[Steps]
    gates: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)

    def record_gate(self, name: str, value: Any) -> Any:
        """Record a gate of the current time step, [batch, units], and return it."""
        self._current()[name] = value
        return value

    def read(self, call: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return the gates, and the weights of the states' old values, of a call by name.

        Each array is float64 [time, batch, units], with NaN at masked steps.

        Raises:
            ValueError: if a gate is not finite, or if all steps are masked.
        """
        steps = self.calls[call]
        times = [self.gates.get((call, time), {}) for time in sorted(steps.given)]
        gates = {name: ops.stack([_widen(each[name]) for each in times]) for name in times[0]}
        carry = {name: ops.convert_to_tensor(each) for name, each in self._carry(gates).items()}
        first = steps.states[0][0]
        shape = (len(times), first.shape[0])
        there = np.ones(shape, bool) if steps.mask is None else ops.convert_to_numpy(steps.mask).T
        if not there.any():
            raise ValueError(
                f"All time steps are masked. Pass other inputs. Received: {self.path} with "
                f"{shape[1]} masked sequences of {shape[0]} steps"
            )
        return self._arrays(gates, there), self._arrays(carry, there)

    def _arrays(self, tensors: dict[str, Any], there: np.ndarray) -> dict[str, np.ndarray]:
        found = {}
        for name, tensor in tensors.items():
            values = np.asarray(tensor, np.float64)
            values = np.broadcast_to(values, (*there.shape, values.shape[-1]))
            if not np.isfinite(values[there]).all():
                raise ValueError(
                    "The gates are not finite. Restore finite weights and pass finite inputs. "
                    f"Received: NaN or infinity in {self.path} {name}"
                )
            found[name] = np.where(there[..., None], values, np.nan)
        return found

    def _carry(self, gates: dict[str, Any]) -> dict[str, Any]:
        known = _KERAS_CELLS.get(type(self.cell).call)
        if known is not None:
            _, state, gate = known
            return {state: gates[gate]}
        return self.cell.carry(gates) if hasattr(self.cell, "carry") else {}

    def _current(self) -> dict[str, Any]:
        """Return the gates recorded in the current time step.

        Before the loop, Keras runs the cells of `StackedRNNCells` once for their dropout masks.
        """
        steps = self.calls[-1] if self.calls else Steps()
        if len(steps.given) == len(steps.states):
            return {}
        time = next(reversed(steps.given))
        return self.gates.setdefault((len(self.calls) - 1, time), {})

    def patch(self) -> Any:
        """Return a context manager in which the cell's gates are recorded."""
        known = _KERAS_CELLS.get(type(self.cell).call)
        if known is None:
            # A cell without this method does not call it.
            return mock.patch.dict(vars(self.cell), record_gate=self.record_gate)
        activation = self.cell.recurrent_activation

        def recorded(sums: Any) -> Any:
            return self.record_gate(known[0][len(self._current())], activation(sums))

        # Assignment through `vars` bypasses Keras's attribute tracking.
        return mock.patch.dict(vars(self.cell), recurrent_activation=recorded)


@contextmanager
def gates_recorded(layers: Layers, seen: Calls) -> Iterator[list[GateRecorder]]:
    """Record the gates of the layers' cells inside the block.

    Args:
        layers: the recurrent layers by path, whose loops are `unrolled`.
        seen: the result of `unrolled`.

    Yields:
        A recorder for each cell, filled while the layers run.
    """
    recorders = []
    for path, layer in layers.items():
        inner = getattr(layer.cell, "cells", None)
        cells = (
            [(path, layer.cell)]
            if inner is None
            else [(f"{path}/{each.name}", each) for each in inner]
        )
        recorders += [GateRecorder(name, cell, seen[path]) for name, cell in cells]
    with ExitStack() as stack:
        for each in recorders:
            stack.enter_context(each.patch())
        yield recorders


def _widen(value: Any) -> Any:
    """Cast a half-precision tensor to float32."""
    is_half = keras.backend.standardize_dtype(value.dtype) in ("float16", "bfloat16")
    return ops.cast(value, "float32") if is_half else value
