"""Log of the layer outputs of the measured train steps of one replica."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.activations import DEAD_AFTER, STATISTICS, Activations
from gradkeeper.callbacks.instrument.graph import GraphFunction, make_variable
from gradkeeper.callbacks.instrument.layer_outputs import LayerOutput
from gradkeeper.callbacks.measurements.activations import COLUMNS, activations, units_of
from gradkeeper.callbacks.recording.replica_log import ReplicaLog
from gradkeeper.callbacks.recording.step_log import Ring


@dataclass
class _Calls:
    """Ring buffers for the layer calls of one trace of the train step.

    Attributes:
        names: the name of each call.
        units: the number of units of each call.
        ring: the `COLUMNS` of all calls, one row per measured step.
        zero_steps: the number of latest measured steps in which each unit was zero, [units].
    """

    names: tuple[str, ...]
    units: tuple[int, ...]
    ring: Ring
    zero_steps: tf.Variable


class ActivationLog:
    """Log of the layer outputs of one replica, in the rows of its `ReplicaLog`.

    Args:
        log: the log of the replica.
    """

    def __init__(self, log: ReplicaLog) -> None:
        self._log = log
        self._outputs: list[LayerOutput] = []
        self._calls: list[_Calls] = []

    def begin_step(self) -> None:
        """Begin a train step."""
        self._outputs = []

    def add(self, output: LayerOutput) -> None:
        """Add an output of this step, unless an inner layer has returned the same tensor."""
        if all(output.tensor is not each.tensor for each in self._outputs):
            self._outputs.append(output)

    def layers_of(self, tensors: Sequence[tf.Tensor]) -> list[str]:
        """Return the paths of the layers that have returned these tensors in this step."""
        returned = set(map(id, tensors))
        return [each.path for each in self._outputs if id(each.tensor) in returned]

    def end_step(self, done: Sequence[tf.Tensor]) -> None:
        """Record the outputs of the step, in the graph. Call this before `ReplicaLog.end_step`.

        The outputs are measured as soon as they are known, and recorded after the step.

        Args:
            done: tensors that are known at the end of the step.
        """
        outputs, self._outputs = self._outputs, []
        if not outputs:
            return
        wide = any(each.tensor.dtype == tf.float64 for each in outputs)
        dtype = tf.float64 if wide else tf.float32
        log, calls = self._log, self._calls_of(outputs, dtype)
        log.enter_scope()

        def measure() -> tf.Tensor:
            measured = activations(outputs, dtype)
            return tf.concat([measured, tf.ones([1], dtype)], axis=0)

        size = len(outputs) * len(COLUMNS)
        values = log.measured(GraphFunction(measure, size + sum(calls.units) + 1, dtype))
        active, is_measured = values[size:-1] > 0, values[-1]
        with tf.control_dependencies(done):
            # A row of a step that is not measured is overwritten by the next step.
            calls.ring.write(log.row_index, values[:size])
            more = calls.zero_steps + is_measured
            calls.zero_steps.assign(tf.where(active, tf.zeros_like(more), more))

    def _calls_of(self, outputs: Sequence[LayerOutput], dtype: tf.DType) -> _Calls:
        names, units = tuple(_names(outputs)), tuple(map(units_of, outputs))
        found = (each for each in self._calls if (each.names, each.units) == (names, units))
        calls = next(found, None)
        if calls is None:
            ring = self._log.add_ring(len(names) * len(COLUMNS), dtype, empty=np.nan)
            zero_steps = np.full(sum(units), DEAD_AFTER, dtype.as_numpy_dtype)
            variable = make_variable(zero_steps, self._log.device)
            calls = _Calls(names, units, ring, variable)
            self._calls.append(calls)
        return calls

    def reset(self) -> None:
        """Forget in which steps the units were zero."""
        for calls in self._calls:
            calls.zero_steps.assign(tf.fill(calls.zero_steps.shape, float(DEAD_AFTER)))

    @staticmethod
    def read(logs: Sequence["ActivationLog"], row_indices: np.ndarray) -> Activations:
        """Return the statistics of the global batch in these rows, from the logs of all replicas.

        With several workers, the outputs of other workers are unknown and do not count.
        """
        parts = []
        for group in zip(*(log._calls for log in logs), strict=False):
            # [replicas, steps, calls, columns]
            rows = np.stack([calls.ring.read(row_indices) for calls in group])
            rows = rows.reshape(*rows.shape[:2], len(group[0].names), len(COLUMNS))
            values = _combined(rows)
            is_written = ~np.isnan(rows[0, :, 0, 0])
            if len(is_written) and is_written[-1]:
                zero_steps = np.min([calls.zero_steps.numpy() for calls in group], axis=0)
                is_dead = np.split(zero_steps >= DEAD_AFTER, np.cumsum(group[0].units)[:-1])
                values["dead_units"][-1] = [each.mean() for each in is_dead]
            parts.append((is_written, Activations(group[0].names, values)))
        return _merged(parts)


def _names(outputs: Sequence[LayerOutput]) -> list[str]:
    names: list[str] = []
    calls: dict[str, int] = {}
    for output in outputs:
        path, position = output.path, output.position
        if position == 0:
            calls[path] = calls.get(path, 0) + 1
        call = calls.get(path, 1)
        name = path if call == 1 else f"{path}, call {call}"
        names.append(name if position == 0 else f"{name}, output {position + 1}")
    return names


def _combined(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return the statistics over all replicas, [steps, calls], of rows of `COLUMNS`."""
    column = dict(zip(COLUMNS, np.moveaxis(rows, -1, 0), strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = column["count"] / column["count"].sum(axis=0)
        weight = column["queries"] / column["queries"].sum(axis=0)

        def mean_of(values: np.ndarray, share: np.ndarray) -> np.ndarray:
            return np.sum(np.where(share == 0, 0, values * share), axis=0)

        mean = mean_of(column["mean"], share)
        variance = mean_of(column["variance"] + np.square(column["mean"] - mean), share)
        values = {
            "mean": mean,
            "std": np.sqrt(variance),
            "max_abs": column["max_abs"].max(axis=0),
            "zeros": mean_of(column["zeros"], share),
            "saturated": mean_of(column["saturated"], share),
            "dead_units": np.full_like(mean, np.nan),
            "max_logit": np.where(np.isnan(weight), np.nan, column["max_logit"]).max(axis=0),
            "entropy": mean_of(column["entropy"], weight),
            "max_entropy": mean_of(column["max_entropy"], weight),
        }
    return {name: values[name] for name in STATISTICS}


def _merged(parts: Sequence[tuple[np.ndarray, Activations]]) -> Activations:
    """Merge statistics of the same steps, each with the steps that have a row."""
    names = tuple(dict.fromkeys(name for _, part in parts for name in part.names))
    if not names:
        return Activations()
    values = {}
    for statistic in STATISTICS:
        dtype = np.result_type(*(part.value(statistic) for _, part in parts))
        values[statistic] = np.full((len(parts[0][0]), len(names)), np.nan, dtype)
        for is_written, part in parts:
            columns = np.array([names.index(name) for name in part.names])
            values[statistic][np.ix_(is_written, columns)] = part.value(statistic)[is_written]
    return Activations(names, values)
