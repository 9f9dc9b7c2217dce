"""What is kept of a bad step: its batch, and the state of the model before it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.capsule.form import Form, UnknownFormError, put_together, taken_apart
from gradkeeper.callbacks.capsule.state import State, named_state
from gradkeeper.callbacks.tap.branch import when
from gradkeeper.callbacks.tap.gating import local_part
from gradkeeper.callbacks.tap.replica import Replica
from gradkeeper.callbacks.tap.ring import make_variable

NOT_WISHED = "training data is not to be written (capsule_data=False)"
NOT_SEEN = "the train function took the batch where it cannot be seen"

_HOST = "CPU:0"
_NONE = -1


@dataclass(frozen=True)
class Kept:
    """What is left of a bad step.

    Attributes:
        step: the train step, counted from the first.
        batches: the batch of each replica; a text instead that says why there is none.
        state: the model before the step; None where it is still so.
    """

    step: int
    batches: list[Any] | str
    state: State | None


class GraphKeeper:
    """Copies batch and state into host memory, in the step that is bad and in no other.

    Used while the step is traced. The variables have no fixed shape, and are empty until then.

    Args:
        keeps_batch: whether the batch is kept.
        keeps_state: whether the state is, which the step itself or a later one will change
            before the host can look.
    """

    def __init__(self, *, keeps_batch: bool, keeps_state: bool) -> None:
        self._keeps_batch, self._keeps_state = keeps_batch, keeps_state
        self._slots: dict[tuple[int, str], _Slot] = {}
        self._now: dict[int, tuple[_Slot, list[tf.Tensor]]] = {}

    def step_begin(self, replica: Replica, data: Any, model: keras.Model | None) -> None:
        """Called in the graph before the step changes anything."""
        form: Form = {"value": None}
        tensors: list[tf.Tensor] = []
        why_not = None if self._keeps_batch else NOT_WISHED
        if self._keeps_batch:
            try:
                form, tensors = taken_apart(data)
            except UnknownFormError as error:
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
        """Keeps this step, if the host has taken what was kept before; in the graph."""
        slot, tensors = self._now[replica.index]
        when(tf.equal(slot.step, _NONE), lambda: slot.fill(tensors, step))

    def take(self) -> Kept | None:
        """What was kept since the last call; of several steps, the first."""
        steps = {key: int(slot.step.numpy()) for key, slot in self._slots.items()}
        filled = [step for step in steps.values() if step != _NONE]
        if not filled:
            return None
        first = min(filled)
        sides = [self._slots[key] for key in sorted(steps) if steps[key] == first]
        why_not = next((side.why_not for side in sides if side.why_not), None)
        batches = why_not or [side.batch() for side in sides]
        kept = Kept(first, batches, sides[0].state())
        for slot in self._slots.values():
            slot.clear()
        return kept


class _Slot:
    """Room for what is kept of a step on one replica."""

    def __init__(
        self, form: Form, names: list[str], why_not: str | None, dtypes: list[tf.DType]
    ) -> None:
        self.why_not = why_not
        self.step = make_variable(np.array(_NONE), _HOST)
        self._form, self._names = form, names
        anything = tf.TensorShape(None)
        self._held = [make_variable(_nothing(dtype), _HOST, anything) for dtype in dtypes]

    def fill(self, tensors: list[tf.Tensor], step: tf.Tensor) -> None:
        """Keeps the values of the tensors; in the graph."""
        for variable, tensor in zip(self._held, tensors, strict=True):
            variable.assign(tensor)
        self.step.assign(tf.cast(step, self.step.dtype))

    def batch(self) -> Any:
        """The batch that is held."""
        return put_together(self._form, [each.read_value() for each in self._held])

    def state(self) -> State | None:
        """The state that is held; None if none is kept."""
        values = self._held[len(self._held) - len(self._names) :]
        return {n: v.numpy() for n, v in zip(self._names, values, strict=True)} or None

    def clear(self) -> None:
        """Has room for another step."""
        for variable in self._held:
            variable.assign(_nothing(variable.dtype)())
        self.step.assign(_NONE)


class HostKeeper:
    """Holds the batches of an execution by reference: XLA cannot keep one of any shape.

    Args:
        keeps_batch: whether the batch is kept.

    Attributes:
        state: the model before a bad step, where it has been asked for in time.
    """

    def __init__(self, *, keeps_batch: bool) -> None:
        self._keeps_batch = keeps_batch
        self._first = 0
        self._batches: list[Any] = []
        self.state: State | None = None

    @property
    def holds_any(self) -> bool:
        """Whether a step has begun since the host's last look."""
        return bool(self._batches)

    def hold(self, batch: Any) -> None:
        """Called with the batch of each step before the step begins."""
        self._batches.append(batch if self._keeps_batch else None)

    def let_go(self, steps: int) -> None:
        """Drops what is held; `steps` have been taken so far."""
        self._first, self.state = steps, None
        self._batches.clear()

    def take(self, step: int) -> Kept:
        """What is left of this step."""
        place = step - self._first
        if not self._keeps_batch:
            return Kept(step, NOT_WISHED, self.state)
        if not 0 <= place < len(self._batches):
            return Kept(step, NOT_SEEN, self.state)
        return Kept(step, _by_replica(self._batches[place]), self.state)


def _by_replica(batch: Any) -> list[Any]:
    """A batch of a distributed dataset as the batches of its replicas; any other as one."""
    leaves = tf.nest.flatten(batch)
    parts = [x.values if _is_distributed(x) else (x,) for x in leaves]
    count = max((len(part) for part in parts), default=1)
    return [
        tf.nest.pack_sequence_as(batch, [part[replica % len(part)] for part in parts])
        for replica in range(count)
    ]


def _is_distributed(value: Any) -> bool:
    return isinstance(value, tf.distribute.DistributedValues)


def _nothing(dtype: tf.DType) -> Callable[[], tf.Tensor]:
    return lambda: tf.zeros([0], dtype)
