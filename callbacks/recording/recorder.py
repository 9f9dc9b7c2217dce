"""Observer that records the statistics of every train step in ring buffers, in the graph."""

import weakref
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from gradkeeper.callbacks.instrument.layer_outputs import LayerOutput
from gradkeeper.callbacks.instrument.losses import with_values
from gradkeeper.callbacks.instrument.observer import ReusableObserver
from gradkeeper.callbacks.instrument.optimizers import clip_limit_of, moments_of
from gradkeeper.callbacks.instrument.step_context import (
    GradAndVar,
    Gradients,
    OptimizerCall,
    StepContext,
    Variables,
    pair_with_variables,
    sum_over_replicas,
)
from gradkeeper.callbacks.instrument.variable_names import layer_paths, names_in_call
from gradkeeper.callbacks.measurements.registry import Event, MeasurementContext
from gradkeeper.callbacks.recording.activation_log import ActivationLog
from gradkeeper.callbacks.recording.facts import facts_of
from gradkeeper.callbacks.recording.reader import Records, collect
from gradkeeper.callbacks.recording.replica_log import OptimizerLog, ReplicaLog, row_of
from gradkeeper.callbacks.recording.rows import Options
from gradkeeper.callbacks.recording.step_counter import StepCounter
from gradkeeper.callbacks.recording.step_log import RowReader
from gradkeeper.callbacks.run_facts import RunFacts
from gradkeeper.callbacks.statistics.gradients import (
    histograms,
    l2_norms,
    measurable,
    statistics,
    sums_of_squares,
)
from gradkeeper.callbacks.window import BINS


class Recorder(ReusableObserver):
    """Observer that records gradient statistics in ring buffers, in the graph.

    The host must read the ring buffers at least every `options.capacity` rows. With several
    replicas, each replica records the norms of its gradients before they are summed. The first
    replica of this process also records the statistics of the sum over replicas, which is the
    gradient of the global batch.

    Args:
        options: the recording options.
        model: the model, which names the variables; None if there is no model.
        variables: the variables to record, in this order, if there is no model; None for all.
        optimizers: the optimizers whose calls are recorded; None for all.
        compiled: whether XLA compiles the whole train step.

    Attributes:
        hidden_layers: paths of the layers whose outputs the graph of the step cannot read.
    """

    reads_loss = True

    def __init__(
        self,
        options: Options,
        model: keras.Model | None = None,
        *,
        variables: list[Any] | None = None,
        optimizers: tuple[keras.optimizers.Optimizer, ...] | None = None,
        compiled: bool = False,
    ) -> None:
        super().__init__(optimizers)
        self.options = options
        self._model = (lambda: None) if model is None else weakref.ref(model)
        self._variables = variables
        self._compiled = compiled
        self._logs: dict[int, ReplicaLog] = {}
        self._reader = RowReader()
        self._order: tuple[str, ...] = ()
        self._replicas = 1
        self._facts: tuple[tuple[Any, ...], RunFacts] | None = None
        self._masks_lost: dict[str, str] = {}
        self._output_layers: dict[str, None] = {}
        self.hidden_layers: dict[str, None] = {}
        self.reads_outputs = any(each.event == "outputs" for each in options.measurements)
        self._activations: dict[int, ActivationLog] = {}
        self._every = options.every
        self._counter = StepCounter(self._logs, optimizers)
        # The number of train steps after the calls made so far; None until it is read.
        self._steps: int | None = None

    def reset(self) -> None:
        """Discard the records, and restore the sampling that `options` specifies."""
        self.drain()
        self.measure_every(self.options.every)
        self.measure_twice(False)
        for log in self._logs.values():
            log.forget_previous()
        for activations in self._activations.values():
            activations.reset()

    def measure_every(self, period: int) -> None:
        """Measure one of every `period` train steps."""
        self._every = period
        for log in self._logs.values():
            log.measure_every(period)

    def measure_twice(self, twice: bool) -> None:
        """Set whether steps are measured a second time, to determine the cost of measuring."""
        for log in self._logs.values():
            log.measure_twice(twice)

    def wait(self, result: object = None) -> int:
        """Wait for running train steps, and return the total number of steps."""
        return max((log.wait() for log in self._logs.values()), default=0)

    @property
    def steps_per_call(self) -> int:
        """Return the number of train steps in a call of the train function."""
        return getattr(self._model(), "steps_per_execution", 1)

    def for_next_call(self) -> ReusableObserver:
        # Several workers must run the same graph, but the budget of each has its own interval.
        if not self.options.switchable or self._replicas > len(self._logs):
            return self
        if self._steps is None:
            self._steps = self.wait()
        begin, self._steps = self._steps, self._steps + self.steps_per_call
        return self if any(map(self._records, range(begin, self._steps))) else self._counter

    def _records(self, step: int) -> bool:
        """Return True if something is stored in the train step with this number."""
        histograms = self.options.histograms
        return (
            step % self._every == 0
            or (self._reads("previous_gradients") and (step + 1) % self._every == 0)
            or (histograms > 0 and step % histograms == 0)
        )

    def drain(self) -> Records | None:
        """Read and clear the rows written since the last call; return None if there are none."""
        self._steps = None  # a call may have raised before the end of its steps
        if not self.has_seen_gradients:
            return None
        rows = self._reader.read([self._logs[replica] for replica in sorted(self._logs)])
        if not len(rows.steps):
            return None
        records = collect(
            self._logs,
            rows,
            order=self._order,
            measurements=self.options.measurements,
            replicas_in_sync=self._replicas,
            facts=self._known_facts(),
            activations=ActivationLog.read(list(self._activations.values()), rows.indices),
        )
        for log in self._logs.values():
            log.clear()
        return records

    def _known_facts(self) -> RunFacts:
        """Return the facts about the run; collect them again if a part of them changes."""
        optimizer_logs = self._logs[min(self._logs)].optimizer_logs
        has_loss = all(log.has_loss for log in self._logs.values())
        masks_lost = dict(self._masks_lost)
        outputs = tuple(self._output_layers)
        key = len(optimizer_logs), has_loss, masks_lost, outputs
        if self._facts is None or self._facts[0] != key:
            facts = facts_of(
                self._model(),
                optimizer_logs,
                has_loss=has_loss,
                masks_lost=masks_lost,
                output_layers=outputs,
            )
            self._facts = key, facts
        return self._facts[1]

    def on_step_begin(self, context: StepContext, data: Any) -> None:
        replica = context.replica
        self._replicas = replica.count
        if replica.index not in self._logs:
            log = self._logs[replica.index] = ReplicaLog(self.options, context)
            if self.reads_outputs:
                self._activations[replica.index] = ActivationLog(log)
        self._logs[replica.index].begin_step()
        self._masks_lost.clear()  # of an earlier trace
        if self.reads_outputs:
            self._activations[replica.index].begin_step()

    def on_output(self, context: StepContext, output: LayerOutput) -> None:
        if self.reads_outputs and self.options.selects(output.path):
            self._activations[context.replica.index].add(output)

    def on_predictions(self, context: StepContext, predictions: Sequence[tf.Tensor]) -> None:
        if self.reads_outputs:
            layers = self._activations[context.replica.index].layers_of(predictions)
            self._output_layers.update(dict.fromkeys(layers))

    def on_hidden_outputs(self, path: str) -> None:
        if self.reads_outputs and self.options.selects(path):
            self.hidden_layers[path] = None

    def on_mask_lost(
        self, layers: Sequence[keras.layers.Layer], user: keras.layers.Layer | None
    ) -> None:
        model = self._model()
        paths = {} if model is None else {id(each): path for path, each in layer_paths(model)}
        by = "the loss" if user is None else f"{paths.get(id(user))} ({type(user).__name__})"
        for each in layers:
            if id(each) in paths:
                self._masks_lost.setdefault(paths[id(each)], by)

    def on_gradients(self, call: OptimizerCall, gradients: Gradients) -> None:
        if not self._is_about(call):
            return
        log, part = self._place(call)
        grads_and_vars = pair_with_variables(gradients, call.variables)
        if call.replica.is_first:
            self._read_state(call)
        if call.replica.count == 1:
            self._write_before(call, grads_and_vars)
            return
        norms = log.when_measuring(
            lambda: self._write_norms(part, log, "replica_norm", grads_and_vars, call.scale)
        )
        call.measured += [] if norms is None else [norms]
        if not call.is_plain:
            whole = _summed(grads_and_vars)
            call.measured += [gradient for gradient, _ in whole if tf.is_tensor(gradient)]
            self._write_before(call, whole)

    def on_clip(
        self, call: OptimizerCall, entered: Gradients, left: Gradients, variables: Variables
    ) -> None:
        if call.is_plain or call.replica.count > 1 or not self._is_about(call):
            return
        log, part = self._place(call)
        number = call.clippings

        def write() -> None:
            applied = pair_with_variables(left, variables)
            self._write_norms(part, log, f"applied_norm {number}", applied)
            if call.accumulates:
                before = part.recorded(pair_with_variables(entered, variables))
                norm = tf.norm(l2_norms(before, part.dtype))
                part.per_step(f"unclipped_norm {number}").write(log.row_index, norm)

        log.when_measuring(write)

    def on_reduce(self, call: OptimizerCall, gradients: Gradients, variables: Variables) -> None:
        if call.replica.count == 1 or not self._is_about(call):
            return
        grads_and_vars = pair_with_variables(gradients, variables)
        if call.is_plain:
            self._write_before(call, grads_and_vars)
        elif call.replica.is_first:
            log, part = self._place(call)
            name = f"applied_norm {call.clippings}"
            log.when_measuring(lambda: self._write_norms(part, log, name, grads_and_vars))

    def on_skip(self, call: OptimizerCall, gradients: Gradients) -> None:
        if call.is_plain and self._is_about(call):
            grads_and_vars = pair_with_variables(gradients, call.variables)
            self._write_before(call, _summed(grads_and_vars))

    def on_update(self, call: OptimizerCall) -> None:
        if not self._is_about(call):
            return
        log, part = self._place(call)
        # If an optimizer bypasses Keras's clipping, only the gradients before the call can be read.
        if call.is_plain or call.clippings or not call.is_left_out:
            part.applies_all = call.is_plain or not call.clippings
        if call.allowed is not None:
            allowed = tf.cast(call.allowed, tf.float64)
            ring = part.per_step("allowed")
            log.when_measuring(lambda: ring.write(log.row_index, allowed))
        if not self._measures("update") or not call.replica.is_first:
            return

        def write() -> None:
            after = [tf.convert_to_tensor(variable) for variable in part.variables]
            before = [tf.convert_to_tensor(each) for each in call.weights]
            updates = [tf.subtract(a, b) for a, b in zip(after, before, strict=True)]
            pairs = list(zip(updates, part.variables, strict=True))
            self._measure("update", call, pairs, weights=before)

        log.when_measuring(write)

    def on_step_end(self, context: StepContext, done: Sequence[tf.Tensor]) -> None:
        if self.reads_outputs:
            self._activations[context.replica.index].end_step(done)
        with tf.control_dependencies(done):
            self._logs[context.replica.index].end_step(context.loss)

    def _write_before(self, call: OptimizerCall, grads_and_vars: list[GradAndVar]) -> None:
        """Record the statistics before clipping. Of several replicas, only the first records."""
        if not call.replica.is_first:
            return
        log, part = self._place(call)
        gradients, shared = part.recorded(grads_and_vars), None
        if call.clipping in ("clipnorm", "global_clipnorm"):
            # Outside the branch, so that TensorFlow merges these sums with those of the clipping.
            shared = sums_of_squares(gradients, part.dtype, call.clipping)
        loss = log.loss_for_row(call.context.loss, part.dtype)
        previous = self._previous(call, grads_and_vars)

        def write() -> None:
            sums = shared  # if None, `statistics` computes them
            if shared is None and self._compiled:
                sums = sums_of_squares(gradients, part.dtype)
            measured = statistics(gradients, part.dtype, sums=sums, review=log.review)
            if call.scale is not None:
                scale = tf.cast(tf.convert_to_tensor(call.scale), part.dtype)
                measured = tf.stack([measured[0] / scale, measured[1] / scale, measured[2]])
                part.per_step("loss_scale").write(log.row_index, scale)
            # An optimizer that contains several others has no learning rate.
            rate = getattr(call.optimizer, "learning_rate", None)
            rate = None if rate is None else tf.convert_to_tensor(rate)
            row = row_of(part.scatter_to_columns(measured, grads_and_vars), loss, rate)
            part.measured.write(log.row_index, row)
            if self._measures("gradients"):
                recorded = [(g, v) for g, v in grads_and_vars if id(v) in part.columns]
                self._measure(
                    "gradients",
                    call,
                    [(_true_gradient(g, call.scale), v) for g, v in recorded],
                    norms=measured[0],
                    previous_gradients=_tensors(previous),
                    momenta=_tensors([call.momenta.get(id(v)) for _, v in recorded]),
                )

        def store() -> None:
            for variable, gradient in zip(previous, gradients, strict=True):
                if variable is not None:
                    variable.assign(_true_gradient(gradient, call.scale))

        log.when_measuring(write)
        if previous:
            log.before_measuring(store)
        if self.options.histograms:
            log.when_histograms(lambda step: self._write_histograms(call, grads_and_vars, step))

    def _read_state(self, call: OptimizerCall) -> None:
        """Read what the update will change: weights and first moments, as far as requested."""
        log, part = self._place(call)
        if self._measures("update"):
            call.weights = log.values_of("weight", part, part.variables)
        if self._reads("momenta"):
            moments = moments_of(call.optimizer, part.variables)
            first = {id(v): m.first for v, m in zip(part.variables, moments, strict=True)}
            known = {key: each for key, each in first.items() if each is not None}
            values = log.values_of("momentum", part, list(known.values()))
            call.momenta = dict(zip(known, values, strict=True))

    def _previous(
        self, call: OptimizerCall, grads_and_vars: list[GradAndVar]
    ) -> list[tf.Variable | None]:
        """Return the variables for the previous gradients; empty if no measurement reads them."""
        if not self._reads("previous_gradients"):
            return []
        _, part = self._place(call)
        # The true gradients are used for their shapes only; TensorFlow does not compute them.
        return [
            part.previous_gradient(_true_gradient(gradient, call.scale), variable)
            for gradient, variable in grads_and_vars
            if id(variable) in part.columns
        ]

    def _measure(
        self, event: Event, call: OptimizerCall, pairs: list[GradAndVar], **known: Any
    ) -> None:
        """Record the measurements of an event.

        Args:
            event: the event.
            call: the optimizer call.
            pairs: true gradients or updates, with their recorded variables.
            **known: values for the context of the measurements.
        """
        log, part = self._place(call)
        context = MeasurementContext(call, part.dtype, **known)
        for each in self.options.measurements:
            if each.event != event:
                continue
            values = tf.cast(each.compute(pairs, context), part.dtype)
            values = tf.reshape(values, [1, len(pairs)])
            row = part.scatter_to_columns(values, pairs)
            part.per_variable(each.name).write(log.row_index, row)

    def _write_histograms(
        self, call: OptimizerCall, grads_and_vars: list[GradAndVar], step: tf.Tensor
    ) -> None:
        _, part = self._place(call)
        gradients = part.recorded(grads_and_vars)
        if call.scale is not None:
            scale = tf.cast(tf.convert_to_tensor(call.scale), tf.float32)
            gradients = [
                with_values(gradient, lambda values: tf.cast(values, tf.float32) / scale)
                for gradient in gradients
            ]
        counts = tf.transpose(histograms(gradients, tf.float64))
        counts = part.scatter_to_columns(counts, grads_and_vars)
        row = tf.concat([tf.cast(tf.reshape(step, [1]), tf.float64), tf.reshape(counts, [-1])], 0)
        part.histograms(BINS).write(tf.constant([0]), row)

    def _write_norms(
        self,
        part: OptimizerLog,
        log: ReplicaLog,
        name: str,
        grads_and_vars: list[GradAndVar],
        scale: Any = None,
    ) -> tf.Tensor:
        norms = _unscaled(l2_norms(part.recorded(grads_and_vars), part.dtype), scale)
        row = part.scatter_to_columns(norms[tf.newaxis], grads_and_vars)[0]
        part.per_variable(name).write(log.row_index, row)
        return row

    def _reads(self, name: str) -> bool:
        return any(name in each.reads for each in self.options.measurements)

    def _measures(self, event: Event) -> bool:
        return any(each.event == event for each in self.options.measurements)

    def _is_about(self, call: OptimizerCall) -> bool:
        if not self.observes(call.optimizer):
            return False
        self._logs[call.replica.index].enter_scope()
        return len(self._place(call)[1].names) > 0

    def _place(self, call: OptimizerCall) -> tuple[ReplicaLog, OptimizerLog]:
        """Return the log of the replica and its part for the call, which the first call creates.

        Before the first call, the model may not be built.
        """
        log = self._logs[call.replica.index]
        part = log.optimizer_log(call.optimizer, call.round, call.variables)
        if part is None:
            model = self._model()
            trained = self._variables or [] if model is None else model.trainable_variables
            names, self._order = names_in_call(model, trained, call.variables, self.options.layers)
            chosen = [
                i
                for i, name in enumerate(names)
                if self.options.selects(name) and (self._variables is None or name in self._order)
            ]
            part = OptimizerLog(
                log,
                call.optimizer,
                call.round,
                tuple(names[i] for i in chosen),
                tuple(call.variables[i] for i in chosen),
                tuple(map(id, call.variables)),
                clip_limit_of(call.optimizer),
            )
            log.optimizer_logs.append(part)
            self.has_seen_gradients = True
        part.lacks_loss_scaling = call.lacks_loss_scaling
        return log, part


def _true_gradient(gradient: Any, scale: Any) -> tf.Tensor:
    """Return a dense, real gradient without loss scale, read without an effect on training."""
    tensor, factor = measurable(gradient)
    if factor is not None:
        tensor = tensor * tf.cast(factor, tensor.dtype)
    return _unscaled(tensor, scale)


def _tensors(values: Sequence[Any]) -> list[tf.Tensor | None]:
    return [None if each is None else tf.convert_to_tensor(each) for each in values]


def _unscaled(values: tf.Tensor, scale: Any) -> tf.Tensor:
    return values if scale is None else values / tf.cast(tf.convert_to_tensor(scale), values.dtype)


def _summed(grads_and_vars: list[GradAndVar]) -> list[GradAndVar]:
    """Return the sum over replicas of each gradient, with its variable."""
    sums = sum_over_replicas([gradient for gradient, _ in grads_and_vars])
    return [(total, variable) for total, (_, variable) in zip(sums, grads_and_vars, strict=True)]
