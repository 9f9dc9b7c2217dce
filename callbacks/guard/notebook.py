"""What is noted of bad steps in the graph, until the host reads it."""

import weakref
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.guard.event import Cause, GuardEvent
from gradkeeper.callbacks.tap.names import variable_names
from gradkeeper.callbacks.tap.replica import Replica
from gradkeeper.callbacks.tap.ring import MISSING, Ring, make_variable

CAUSES: tuple[Cause, ...] = ("gradient", "loss", "norm")
_FACTS = 4  # step, cause, loss, norm
_CAPACITY = 64

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
        self, replica: Replica, variables: list[Any], measured: tf.Tensor, facts: list[Any]
    ) -> None:
        """Notes a step, in the graph.

        Args:
            replica: the replica.
            variables: what its optimizer was called for.
            measured: `statistics` of their gradients, [3, variables].
            facts: step, number of the cause in `CAUSES`, loss and norm.
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
        facts = pages[0].facts.read(slots)
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

    def _event(self, fact: np.ndarray, rows: dict[_Call, list[np.ndarray]]) -> GuardEvent:
        step, cause, loss, norm = fact
        # Of several calls in a step, the first one that was bad has written its row.
        call = next(call for call, pages in rows.items() if not (pages[0] == MISSING).any())
        pages = np.stack(rows[call])
        return GuardEvent(
            step=int(step),
            cause=CAUSES[int(cause)],
            loss=float(loss),
            norm=float(np.linalg.norm(pages[:, 0].astype(np.float64)) if np.isnan(norm) else norm),
            variables=self._names[call],
            norms=pages[:, 0],
            nonfinite=pages[:, 2].astype(np.int64),
            rows=tuple(sorted(self._pages)),
        )


class _Page:
    """One replica's notes. Each sees the same flags, so that all note the same steps."""

    def __init__(self, device: str | None) -> None:
        self._device = device
        self.count = make_variable(np.array(0), device)
        self.facts = Ring(_CAPACITY, _FACTS, tf.float64, empty=np.nan, device=device)
        self.gradients: dict[_Call, Ring] = {}

    def write(self, call: _Call, measured: tf.Tensor, facts: list[Any]) -> None:
        if call not in self.gradients:
            width = 3 * len(call)
            ring = Ring(_CAPACITY, width, tf.float32, empty=MISSING, device=self._device)
            self.gradients[call] = ring
        slot = tf.reshape(self.count % _CAPACITY, [1])
        self.gradients[call].write(slot, measured)
        self.facts.write(slot, tf.stack([tf.cast(fact, tf.float64) for fact in facts]))
        self.count.assign_add(1)
