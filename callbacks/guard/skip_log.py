"""Counters and log of skipped steps, and the signal that the host reads."""

import weakref
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.guard.event import CAUSES, GuardEvent
from gradkeeper.callbacks.instrument.graph import Replica, make_variable
from gradkeeper.callbacks.instrument.step_context import StepContext
from gradkeeper.callbacks.instrument.variable_names import variable_names
from gradkeeper.callbacks.recording.rows import MISSING
from gradkeeper.callbacks.recording.step_log import Ring, RowReader, StepLog


class HostSignal:
    """Signal that a train step sends to the host when it records a bad step.

    Without the signal, the host reads a small variable after every step, which takes about 50 to
    100 microseconds.

    Attributes:
        is_set: whether a step has signalled; set this to False to wait for the next signal.
        is_supported: False if some step cannot signal: XLA compiles it, or another process runs it.
    """

    def __init__(self) -> None:
        self.is_set = self.is_supported = True

    def set(self) -> None:
        """Send the signal when the graph runs this operation."""
        if self.is_supported:
            with tf.device("CPU:0"):
                tf.numpy_function(self._set, [], [])

    def _set(self) -> None:
        self.is_set = True


class Counts(NamedTuple):
    """Counters of one replica: tensors in the graph, numbers on the host.

    Attributes:
        steps: number of finished steps.
        bad: number of optimizer calls logged as bad.
        in_a_row: number of consecutive bad optimizer calls up to the last one.
        halted: 1 while every step is skipped, 0 otherwise.
    """

    steps: Any
    bad: Any
    in_a_row: Any
    halted: Any


_STEP = np.array([1, 0, 0, 0])
_KEPT_AFTER_A_HALT = np.array([1, 1, 0, 0])


class Counters:
    """Counters in a single variable, because the host reads one variable faster than four.

    Args:
        device: device of the variable; None for TensorFlow's choice.
    """

    def __init__(self, device: str | None) -> None:
        self._counts = make_variable(np.zeros(4, np.int64), device)

    def in_graph(self) -> Counts:
        """Read the counters at this point of the step, in the graph."""
        return Counts(*tf.unstack(self._counts.read_value()))

    def write(self, counts: Counts) -> None:
        """Set all counters, in the graph."""
        self._counts.assign(tf.stack([tf.cast(each, tf.int64) for each in counts]))

    def count_step(self) -> None:
        """Count a finished step, in the graph."""
        self._counts.assign_add(_STEP)

    def on_host(self) -> Counts:
        """Return the counters. Blocks until the running steps have finished."""
        # The raw operation is several times faster than `Variable.read_value`.
        read = tf.raw_ops.ReadVariableOp(resource=self._counts.handle, dtype=tf.int64)
        return Counts(*read.numpy().tolist())

    def resume(self) -> None:
        """Reset the consecutive bad calls and the halt."""
        self._counts.assign(self._counts * _KEPT_AFTER_A_HALT)


_CAPACITY = 64


class Facts(NamedTuple):
    """Scalars of a bad step: tensors in the graph, numbers on the host.

    Attributes:
        step: the step, counted from the first.
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


class SkipLog:
    """Log of bad steps with their gradient statistics, in ring buffers for each replica.

    Args:
        model: the model, from which the names of the variables are taken.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = weakref.ref(model)
        self._logs: dict[int, _ReplicaSkipLog] = {}
        self._names: dict[_Call, tuple[str, ...]] = {}
        self._reader = RowReader()

    def open(self, context: StepContext) -> None:
        """Create the log of a replica; not in the graph."""
        self._logs[context.replica.index] = _ReplicaSkipLog(context.device)

    def write(
        self, replica: Replica, variables: list[Any], measured: tf.Tensor | None, facts: Facts
    ) -> None:
        """Log a bad step, in the graph.

        Args:
            replica: the replica.
            variables: the variables of the optimizer call, or the non-finite variables.
            measured: `statistics` of their gradients or values, [3, variables]; None if
                `variables` is empty.
            facts: the scalars of the step.
        """
        call = tuple(map(id, variables))
        if call not in self._names:
            self._names[call] = variable_names(self._model(), variables)
        self._logs[replica.index].write(call, measured, facts)

    @property
    def has_unread(self) -> bool:
        """Return True if a step was logged since the last `drain`.

        Blocks until the running steps have finished.
        """
        return self._reader.unread(self._sorted_logs) > 0

    def drain(self) -> tuple[list[GuardEvent], int]:
        """Return the steps logged since the last call, counted from the first step of the log.

        Returns:
            The events that the log still holds, and the number of all logged steps.
        """
        logs = self._sorted_logs
        rows = self._reader.read(logs)
        if not len(rows.steps):
            return [], rows.lost
        facts = np.stack([log.facts.read(rows.indices) for log in logs], axis=1)
        # The gradients of a call, [events, replicas, 3 * variables].
        gradients = {
            call: np.stack([log.gradients[call].read(rows.indices) for log in logs], axis=1)
            for call in logs[0].gradients
        }
        events = [
            self._event(step, facts[i], {call: each[i] for call, each in gradients.items()})
            for i, step in enumerate(rows.steps)
        ]
        for log in logs:
            log.clear()
        return events, len(events) + rows.lost

    @property
    def _sorted_logs(self) -> "list[_ReplicaSkipLog]":
        return [self._logs[index] for index in sorted(self._logs)]

    def _event(self, step: int, facts: np.ndarray, rows: dict[_Call, np.ndarray]) -> GuardEvent:
        """Return the event of a step.

        Args:
            facts: the scalars of each replica, [replicas, scalars].
            rows: for each optimizer call, the statistics, [replicas, 3 * variables].
        """
        first = Facts(step, *facts[0])
        # Only the first bad optimizer call of a step has written its row.
        known = (call for call, logs in rows.items() if not (logs[0] == MISSING).any())
        call = next(known, ())
        logs = rows[call].reshape(len(facts), 3, -1) if call else np.zeros((len(facts), 3, 0))
        variables, cause = self._names.get(call, ()), CAUSES[int(first.cause)]
        if cause == "update":
            variables, logs = self._of_model(variables, call, logs)
        return GuardEvent.of(
            cause,
            float(first.norm),
            logs,
            step=int(step),
            loss=float(first.loss),
            variables=variables,
            rows=tuple(sorted(self._logs)),
            losses=tuple(facts[:, Facts._fields.index("loss") - 1].tolist()),
            learning_rate=float(first.learning_rate),
        )

    def _of_model(
        self, variables: tuple[str, ...], call: _Call, logs: np.ndarray
    ) -> tuple[tuple[str, ...], np.ndarray]:
        """Drop the optimizer's variables if a variable of the model is non-finite.

        Args:
            variables: names of the variables.
            call: `id` of each variable.
            logs: statistics, [replicas, 3, variables].
        """
        model = self._model()
        own = {id(each) for each in model.variables} if model is not None else set()
        kept = [column for column, number in enumerate(call) if number in own]
        if not logs[:, 2, kept].any():
            return variables, logs
        return tuple(variables[column] for column in kept), logs[:, :, kept]


class _ReplicaSkipLog(StepLog):
    """Log of one replica. All replicas see the same flags and log the same steps."""

    def __init__(self, device: str | None) -> None:
        super().__init__(_CAPACITY, device, counters=device, every_step=False)
        self.facts = self.add_ring(len(Facts._fields) - 1, tf.float64, empty=np.nan)
        self.gradients: dict[_Call, Ring] = {}

    def write(self, call: _Call, measured: tf.Tensor | None, facts: Facts) -> None:
        if call and call not in self.gradients:
            self.gradients[call] = self.add_ring(3 * len(call), tf.float32, empty=MISSING)
        row_index = self.next_row()
        if measured is not None:
            self.gradients[call].write(row_index, measured)
        self.facts.write(row_index, tf.stack([tf.cast(fact, tf.float64) for fact in facts[1:]]))
        self.commit(row_index, facts.step)
