"""The probe that writes one row of gradient norms per train step into a ring buffer."""

import weakref
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.tap.hooks import Gradients, Probe, Variables
from gradkeeper.callbacks.tap.norms import l2_norms
from gradkeeper.callbacks.window import Window

_STATISTICS = ("norm", "applied")
# Norms are never negative: a row or column that nothing was written to stays recognisable.
_MISSING = -1.0


class Owner(Protocol):
    """Who reads a recorder's rows."""

    def flush(self) -> None:
        """Reads the rows that are there."""


class Recorder(Probe):
    """Writes norms into a variable of shape [capacity, statistics, variables], in the graph.

    The host must read every `capacity` steps at the latest; what was read is cleared.
    """

    def __init__(self, model: keras.Model, capacity: int) -> None:
        self._model = weakref.ref(model)
        self.capacity = capacity
        self._owner: weakref.ref[Owner] | None = None
        self._variables: tuple[str, ...] = ()
        self._rows: tf.Variable | None = None
        self._count: tf.Variable | None = None
        self._read = 0

    @property
    def has_seen_gradients(self) -> bool:
        """Whether an optimizer was called in a train step that was traced or run."""
        return self._rows is not None

    def claim(self, owner: Owner) -> None:
        """Makes `owner` the reader of the rows to come; a former one gets its rows first."""
        before = self._owner() if self._owner else None
        if before is owner:
            return
        if before is not None:
            before.flush()
        self.drain()
        self._owner = weakref.ref(owner)

    def drain(self) -> Window | None:
        """Reads and clears the rows written since the last call; None if there are none.

        Steps are counted from the recorder's first.
        """
        if self._rows is None or self._count is None:
            return None
        end = int(self._count.numpy())
        steps = np.arange(max(self._read, end - self.capacity), end)
        self._read = end
        if not len(steps):
            return None
        rows = self._rows.numpy()[steps % self.capacity]
        self._rows.assign(tf.fill(self._rows.shape, tf.cast(_MISSING, self._rows.dtype)))
        norms, applied = rows[:, 0], rows[:, 1]
        present, updated = norms != _MISSING, applied != _MISSING
        return Window(
            steps,
            self._variables,
            np.where(present, norms, np.nan),
            present,
            np.where(updated, applied, np.nan),
            updated,
        )

    def before_clipping(self, gradients: Gradients, variables: Variables) -> None:
        self._allocate()
        self._write("norm", gradients, variables)

    def applied(self, gradients: Gradients, variables: Variables) -> None:
        self._write("applied", gradients, variables)

    def step_end(self) -> None:
        if self._count is not None:
            self._count.assign_add(1)

    def _allocate(self) -> None:
        # At the first apply and not before: a model may be built by its first train step.
        if self._rows is not None:
            return
        variables = self._trainable_variables()
        self._variables = self._names(variables)
        wide = any(variable.dtype == "float64" for variable in variables)
        shape = [self.capacity, len(_STATISTICS), len(variables)]
        with tf.init_scope():
            fill = tf.fill(shape, tf.cast(_MISSING, tf.float64 if wide else tf.float32))
            self._rows = tf.Variable(fill, trainable=False, name="gradkeeper_rows")
            self._count = tf.Variable(0, dtype=tf.int64, trainable=False, name="gradkeeper_count")

    def _write(self, statistic: str, gradients: Gradients, variables: Variables) -> None:
        columns = {id(each): i for i, each in enumerate(self._trainable_variables())}
        known = [
            (columns[id(variable)], gradient)
            for gradient, variable in zip(gradients, variables, strict=False)
            if gradient is not None and id(variable) in columns
        ]
        if not known or self._rows is None or self._count is None:
            return
        norms = l2_norms([gradient for _, gradient in known], self._rows.dtype)
        slot = tf.fill([len(known)], self._count % self.capacity)
        row = tf.fill([len(known)], tf.constant(_STATISTICS.index(statistic), tf.int64))
        column = tf.constant([column for column, _ in known], tf.int64)
        self._rows.scatter_nd_update(tf.stack([slot, row, column], axis=1), norms)

    def _names(self, variables: list[Any]) -> tuple[str, ...]:
        """The variables' paths, without the model's own name where all begin with it."""
        model = self._model()
        prefix = f"{model.name}/" if model is not None else ""
        paths = [variable.path for variable in variables]
        shared = all(path.startswith(prefix) for path in paths)
        return unique_names([path.removeprefix(prefix) for path in paths] if shared else paths)

    def _trainable_variables(self) -> list[Any]:
        model = self._model()
        return [] if model is None else model.trainable_variables


def unique_names(names: list[str]) -> tuple[str, ...]:
    """The names, with `_1`, `_2`, ... behind those that occurred before."""
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        count = seen[name] = seen.get(name, -1) + 1
        unique.append(f"{name}_{count}" if count else name)
    return tuple(unique)
