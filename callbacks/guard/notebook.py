"""What is noted of bad steps in the graph, until the host reads it."""

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

# The square of a larger gradient overflows in float32.
_LARGEST_SQUARED = 1.8e19


class Facts(NamedTuple):
    """Numbers of a bad step; scalar tensors in the graph.

    Attributes:
        step: the step, counted from the gate's first.
        cause: the place of the cause in `CAUSES`.
        loss: the replica's loss; NaN if it is not known.
        norm: the global gradient norm; NaN if it is not known.
        learning_rate: the learning rate; NaN if it is not known.
    """

    step: tf.Tensor
    cause: tf.Tensor
    loss: tf.Tensor
    norm: tf.Tensor
    learning_rate: tf.Tensor


# `id` of each variable of a call.
_Call: TypeAlias = tuple[int, ...]


class Notebook:
    """Facts and gradient statistics of bad steps, a page for each replica.

    Args:
        model: gives the variables their names.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = weakref.ref(model)
        self._pages: dict[int, _Page] = {}
        self._names: dict[_Call, tuple[str, ...]] = {}
        self._read = 0

    def open(self, replica: Replica, device: str | None) -> None:
        """Makes the replica's page; not in the graph.

        Args:
            replica: the replica.
            device: where it lies; None for TensorFlow's choice.
        """
        self._pages[replica.index] = _Page(device)

    def write(
        self, replica: Replica, variables: list[Any], measured: tf.Tensor | None, facts: Facts
    ) -> None:
        """Note a step, in the graph.

        Args:
            replica: the replica.
            variables: the variables of the optimizer's call, or those that are not finite.
            measured: `statistics` of their gradients, or of their values, [3, variables]; None
                without variables.
            facts: numbers of the step.
        """
        call = tuple(map(id, variables))
        if call not in self._names:
            self._names[call] = variable_names(self._model(), variables)
        self._pages[replica.index].write(call, measured, facts)

    @property
    def count(self) -> int:
        """Steps noted by every replica so far; waits for those under way."""
        return min((int(page.count.numpy()) for page in self._pages.values()), default=0)

    @property
    def has_unread(self) -> bool:
        """Whether a step was noted since the last `drain`; waits for those under way."""
        return self.count > self._read

    def drain(self) -> tuple[list[GuardEvent], int]:
        """What was noted since the last call, steps counted from the first.

        Returns:
            The events that are known in full, and how many there were in all.
        """
        end = self.count
        count, self._read, begin = end - self._read, end, self._read
        kept = np.arange(max(begin, end - _CAPACITY), end)
        if not len(kept):
            return [], count
        pages = [self._pages[index] for index in sorted(self._pages)]
        slots = kept % _CAPACITY
        facts = np.stack([page.facts.read(slots) for page in pages], axis=1)
        # Of a call's gradients, [pages][events, 3, variables].
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
            facts: the facts of each page, [pages, facts].
            rows: of each call, the statistics of each page, [3, variables].
        """
        first = Facts(*facts[0])
        # Of several calls in a step, the first one that was bad has written its row.
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
        """Leave out the optimizer's variables if one of the model's is not finite.

        Args:
            variables: names of the variables.
            call: `id` of each variable.
            pages: statistics, [pages, 3, variables].
        """
        model = self._model()
        own = {id(each) for each in model.variables} if model is not None else set()
        kept = [column for column, number in enumerate(call) if number in own]
        if not pages[:, 2, kept].any():
            return variables, pages
        return tuple(variables[column] for column in kept), pages[:, :, kept]


class _Page:
    """One replica's notes. Each sees the same flags, so that all note the same steps."""

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
