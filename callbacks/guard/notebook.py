"""Log of bad steps, written in the graph and read by the host."""

import weakref
from typing import Any, NamedTuple, TypeAlias, get_args

import keras
import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.guard.event import Cause, GuardEvent
from gradkeeper.callbacks.tap.names import variable_names
from gradkeeper.callbacks.tap.replica import Replica
from gradkeeper.callbacks.tap.ring import MISSING, Ring, make_variable

CAUSES: tuple[Cause, ...] = get_args(Cause)
_CAPACITY = 64

# float32 overflows when a larger gradient is squared.
_LARGEST_SQUARED = 1.8e19


class Facts(NamedTuple):
    """Scalars of a bad step: tensors in the graph, numbers on the host.

    Attributes:
        step: the step, counted from the gate's first.
        cause: the index of the cause in `CAUSES`.
        loss: the replica's loss; NaN if unknown.
        norm: the global gradient norm; NaN if unknown.
        learning_rate: the learning rate; NaN if unknown.
    """

    step: tf.Tensor
    cause: tf.Tensor
    loss: tf.Tensor
    norm: tf.Tensor
    learning_rate: tf.Tensor


# The `id` of each variable of an optimizer call.
_Call: TypeAlias = tuple[int, ...]


class Notebook:
    """Log of bad steps with their gradient statistics, in ring buffers for each replica.

    Args:
        model: the model, from which the names of the variables are taken.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = weakref.ref(model)
        self._pages: dict[int, _Page] = {}
        self._names: dict[_Call, tuple[str, ...]] = {}
        self._read = 0

    def open(self, replica: Replica, device: str | None) -> None:
        """Create the replica's ring buffers. Call it outside of the graph.

        Args:
            replica: the replica.
            device: device of the ring buffers; None for TensorFlow's choice.
        """
        self._pages[replica.index] = _Page(device)

    def write(
        self, replica: Replica, variables: list[Any], measured: tf.Tensor | None, facts: Facts
    ) -> None:
        """Record a step, in the graph.

        Args:
            replica: the replica.
            variables: the variables of the optimizer call, or for the causes "state" and
                "update" the checked variables.
            measured: `statistics` of their gradients or values, [3, variables]; None without
                variables.
            facts: scalars of the step.
        """
        call = tuple(map(id, variables))
        if call not in self._names:
            self._names[call] = variable_names(self._model(), variables)
        self._pages[replica.index].write(call, measured, facts)

    @property
    def count(self) -> int:
        """Return the number of steps recorded so far. Blocks until running steps have finished."""
        return min((int(page.count.numpy()) for page in self._pages.values()), default=0)

    @property
    def has_unread(self) -> bool:
        """Return True if `drain` has bad steps to return. Blocks until running steps have finished."""
        return self.count > self._read

    def drain(self) -> tuple[list[GuardEvent], int]:
        """Return the steps recorded since the last call, and clear the log.

        Returns:
            The events that the ring buffers still hold (steps counted from the gate's first
            step), and the number of all recorded steps.
        """
        end = self.count
        count, self._read, begin = end - self._read, end, self._read
        kept = np.arange(max(begin, end - _CAPACITY), end)
        if not len(kept):
            return [], count
        pages = [self._pages[index] for index in sorted(self._pages)]
        slots = kept % _CAPACITY
        facts = np.stack([page.facts.read(slots) for page in pages], axis=1)
        # For each optimizer call: [pages][events, 3, variables].
        rows = {
            call: [page.gradients[call].read(slots).reshape(len(slots), 3, -1) for page in pages]
            for call in pages[0].gradients
        }
        events = [
            self._event(fact, {call: [page[i] for page in each] for call, each in rows.items()})
            for i, fact in enumerate(facts)
        ]
        for page in pages:
            for ring in page.gradients.values():
                ring.clear()
        return events, count

    def _event(self, facts: np.ndarray, rows: dict[_Call, list[np.ndarray]]) -> GuardEvent:
        """Return the event of a step.

        Args:
            facts: the scalars of each replica, [replicas, scalars].
            rows: for each optimizer call, the statistics of each replica, [3, variables].
        """
        first = Facts(*facts[0])
        # Only the first bad optimizer call of a step has written its row.
        known = (call for call, pages in rows.items() if not (pages[0] == MISSING).any())
        call = next(known, ())
        pages = np.stack(rows[call]) if call else np.zeros((len(facts), 3, 0))
        variables, cause = self._names.get(call, ()), CAUSES[int(first.cause)]
        if cause == "update":
            variables, pages = self._of_model(variables, call, pages)
        norms, largest, nonfinite = pages[:, 0], pages[:, 1], pages[:, 2].astype(np.int64)
        if cause == "gradient" and not nonfinite.any() and (largest > _LARGEST_SQUARED).any():
            cause = "norm"
        norm = np.linalg.norm(norms.astype(np.float64)) if np.isnan(first.norm) else first.norm
        return GuardEvent(
            step=int(first.step),
            cause=cause,
            loss=float(first.loss),
            norm=float(norm),
            variables=variables,
            norms=norms,
            nonfinite=nonfinite,
            rows=tuple(sorted(self._pages)),
            losses=tuple(facts[:, Facts._fields.index("loss")].tolist()),
            learning_rate=float(first.learning_rate),
        )

    def _of_model(
        self, variables: tuple[str, ...], call: _Call, pages: np.ndarray
    ) -> tuple[tuple[str, ...], np.ndarray]:
        """Drop the optimizer's variables if a variable of the model is non-finite.

        Args:
            variables: names of the variables.
            call: `id` of each variable.
            pages: statistics, [replicas, 3, variables].
        """
        model = self._model()
        own = {id(each) for each in model.variables} if model is not None else set()
        kept = [column for column, number in enumerate(call) if number in own]
        if not pages[:, 2, kept].any():
            return variables, pages
        return tuple(variables[column] for column in kept), pages[:, :, kept]


class _Page:
    """Log of one replica. All replicas see the same flags and record the same steps."""

    def __init__(self, device: str | None) -> None:
        self._device = device
        self.count = make_variable(np.array(0), device)
        self.facts = Ring(_CAPACITY, len(Facts._fields), tf.float64, empty=np.nan, device=device)
        self.gradients: dict[_Call, Ring] = {}

    def write(self, call: _Call, measured: tf.Tensor | None, facts: Facts) -> None:
        if call and call not in self.gradients:
            width = 3 * len(call)
            ring = Ring(_CAPACITY, width, tf.float32, empty=MISSING, device=self._device)
            self.gradients[call] = ring
        slot = tf.reshape(self.count % _CAPACITY, [1])
        if measured is not None:
            self.gradients[call].write(slot, measured)
        self.facts.write(slot, tf.stack([tf.cast(fact, tf.float64) for fact in facts]))
        self.count.assign_add(1)
