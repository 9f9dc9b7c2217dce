"""Capture of the batch and the model state of a bad step."""

import json
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.capsule.capsule import (
    State,
    Structure,
    UnknownStructureError,
    flatten,
    pack,
)
from gradkeeper.callbacks.capsule.model import named_state
from gradkeeper.callbacks.guard.options import NOT_REQUESTED, FailureCapture
from gradkeeper.callbacks.instrument.graph import Replica, make_variable, when
from gradkeeper.callbacks.instrument.rollback import local_part

NOT_SEEN = "the train function read the batch where the guard cannot capture it"

_HOST = "CPU:0"
_NONE = -1


class GraphCapture:
    """Capture of a bad step in the graph, which copies batch and state to host memory.

    The copies are variables without a fixed shape. They are empty until a bad step fills them.

    Args:
        keeps_batch: whether to capture the batch.
        keeps_state: whether to capture the state. Needed where the step or a later one changes
            the state before the host reads it.
    """

    def __init__(self, *, keeps_batch: bool, keeps_state: bool) -> None:
        self._keeps_batch, self._keeps_state = keeps_batch, keeps_state
        self._slots: dict[tuple[int, str], _Slot] = {}
        self._now: dict[int, tuple[_Slot, list[tf.Tensor]]] = {}

    def on_step_begin(self, replica: Replica, data: Any, model: keras.Model | None) -> None:
        """Read the batch and the state, in the graph, before the step changes a variable."""
        form: Structure = {"value": None}
        tensors: list[tf.Tensor] = []
        why_not = None if self._keeps_batch else NOT_REQUESTED
        if self._keeps_batch:
            try:
                form, tensors = flatten(data)
            except UnknownStructureError as error:
                why_not = str(error)
        names: list[str] = []
        before: list[tf.Tensor] = []
        if self._keeps_state and model is not None and replica.local == 0:
            names, variables = named_state(model)
            before = [local_part(each, replica).read_value() for each in variables]
        every = [*tensors, *before]
        key = replica.index, json.dumps([form, names, [each.dtype.name for each in every]])
        if key not in self._slots:
            self._slots[key] = _Slot(form, names, why_not, [each.dtype for each in every])
        self._now[replica.index] = self._slots[key], every

    def keep(self, replica: Replica, step: tf.Tensor) -> None:
        """Capture this step, in the graph, unless an earlier capture is still unread."""
        slot, tensors = self._now[replica.index]
        when(tf.equal(slot.step, _NONE), lambda: slot.fill(tensors, step))

    def take(self) -> FailureCapture | None:
        """Return the first step captured since the last call, and clear the captures."""
        steps = {key: int(slot.step.numpy()) for key, slot in self._slots.items()}
        filled = [step for step in steps.values() if step != _NONE]
        if not filled:
            return None
        first = min(filled)
        sides = [self._slots[key] for key in sorted(steps) if steps[key] == first]
        why_not = next((side.why_not for side in sides if side.why_not), None)
        batches = why_not or [side.batch() for side in sides]
        kept = FailureCapture(first, batches, sides[0].state())
        for slot in self._slots.values():
            slot.clear()
        return kept


class _Slot:
    """Variables that hold the captured step of one replica."""

    def __init__(
        self, form: Structure, names: list[str], why_not: str | None, dtypes: list[tf.DType]
    ) -> None:
        self.why_not = why_not
        self.step = make_variable(np.array(_NONE), _HOST)
        self._form, self._names = form, names
        anything = tf.TensorShape(None)
        self._held = [make_variable(_nothing(dtype), _HOST, anything) for dtype in dtypes]

    def fill(self, tensors: list[tf.Tensor], step: tf.Tensor) -> None:
        """Store the values of the tensors, in the graph."""
        for variable, tensor in zip(self._held, tensors, strict=True):
            variable.assign(tensor)
        self.step.assign(tf.cast(step, self.step.dtype))

    def batch(self) -> Any:
        """Return the captured batch."""
        return pack(self._form, [each.read_value() for each in self._held])

    def state(self) -> State | None:
        """Return the captured state; None if the state is not captured."""
        values = self._held[len(self._held) - len(self._names) :]
        return {n: v.numpy() for n, v in zip(self._names, values, strict=True)} or None

    def clear(self) -> None:
        """Clear the capture."""
        for variable in self._held:
            variable.assign(_nothing(variable.dtype)())
        self.step.assign(_NONE)


class HostCapture:
    """Capture of a bad step on the host, which holds references to the batches.

    Used under XLA, which has no variables without a fixed shape.

    Args:
        keeps_batch: whether to capture the batch.

    Attributes:
        state: the model's state before a bad step; None if it was not read in time.
    """

    def __init__(self, *, keeps_batch: bool) -> None:
        self._keeps_batch = keeps_batch
        self._first = 0
        self._batches: list[Any] = []
        self.state: State | None = None

    @property
    def holds_any(self) -> bool:
        """Return True if a step has begun since the last `discard`."""
        return bool(self._batches)

    def on_batch(self, batch: Any) -> None:
        """Hold the batch of a step that is about to begin."""
        self._batches.append(batch if self._keeps_batch else None)

    def discard(self, steps: int) -> None:
        """Release all batches. The next one belongs to step number `steps`."""
        self._first, self.state = steps, None
        self._batches.clear()

    def take(self, step: int) -> FailureCapture:
        """Return the captured data of a step."""
        place = step - self._first
        if not self._keeps_batch:
            return FailureCapture(step, NOT_REQUESTED, self.state)
        if not 0 <= place < len(self._batches):
            return FailureCapture(step, NOT_SEEN, self.state)
        return FailureCapture(step, _by_replica(self._batches[place]), self.state)


def _by_replica(batch: Any) -> list[Any]:
    """Split a batch of a distributed dataset by replica; return any other batch in a list."""
    leaves = tf.nest.flatten(batch)
    distributed = tf.distribute.DistributedValues
    parts = [each.values if isinstance(each, distributed) else (each,) for each in leaves]
    count = max((len(part) for part in parts), default=1)
    return [
        tf.nest.pack_sequence_as(batch, [part[replica % len(part)] for part in parts])
        for replica in range(count)
    ]


def _nothing(dtype: tf.DType) -> Callable[[], tf.Tensor]:
    return lambda: tf.zeros([0], dtype)
