"""Gradient transform that skips bad train steps and records their statistics."""

import weakref
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from gradkeeper.callbacks.capsule.model import state_of
from gradkeeper.callbacks.guard.capture import GraphCapture, HostCapture
from gradkeeper.callbacks.guard.checks import ReplicaChecks, WriteSkip
from gradkeeper.callbacks.guard.event import GuardEvent
from gradkeeper.callbacks.guard.options import FailureCapture, SkipOptions, SkipStatus
from gradkeeper.callbacks.guard.skip_log import Facts, HostSignal, SkipLog
from gradkeeper.callbacks.instrument.graph import Replica, may_have_functions, when
from gradkeeper.callbacks.instrument.losses import with_values
from gradkeeper.callbacks.instrument.observer import GradientTransform
from gradkeeper.callbacks.instrument.step_context import (
    Gradients,
    OptimizerCall,
    StepContext,
    pair_with_variables,
)


class SkipTransform(GradientTransform):
    """Gradient transform that skips a train step with a non-finite value on any replica.

    Gradients, loss, learning rate, moving averages and layer states are checked before the
    update. Variables and optimizer are checked after an update that may be non-finite.

    With a `LossScaleOptimizer`, gradients overflow occasionally, and the optimizer skips these
    steps. The guard checks them only if the loss is non-finite as well or the scale is below 1.

    Args:
        options: the conditions under which a step is skipped.
        model: the model.
        optimizers: the optimizers whose calls are checked; None for all.
        compiled: whether XLA compiles the whole train step.
    """

    reads_loss = True

    def __init__(
        self,
        options: SkipOptions,
        model: keras.Model,
        *,
        optimizers: tuple[keras.optimizers.Optimizer, ...] | None = None,
        compiled: bool = False,
    ) -> None:
        super().__init__(optimizers)
        self._compiled = compiled
        self.options = options
        keeps = options.can_keep(compiled)
        self.needs_batches = keeps and compiled and (options.keeps_batch or options.outruns_host)
        self._model = weakref.ref(model)
        self._has_functions = may_have_functions(model.train_step)
        self._checks: dict[int, ReplicaChecks] = {}
        self._skip_log = SkipLog(model)
        self._signal = HostSignal()
        self._drained = 0
        self._in_graph: GraphCapture | None = None
        self._on_host: HostCapture | None = None
        if keeps and compiled:
            self._on_host = HostCapture(keeps_batch=options.keeps_batch)
        elif keeps:
            is_lost = not options.refuses or options.outruns_host
            self._in_graph = GraphCapture(keeps_batch=options.keeps_batch, keeps_state=is_lost)

    @property
    def may_have_skips(self) -> bool:
        """Return True if a skipped step may be pending."""
        return self._signal.is_set or not self._signal.is_supported

    @property
    def has_unread_skips(self) -> bool:
        """Return the same."""
        return self.may_have_skips

    def status(self) -> SkipStatus:
        """Return the status. Blocks until the running steps have finished."""
        self._signal.is_set = False
        counts = [checks.counters.on_host() for checks in self._checks.values()]
        return SkipStatus(
            steps=max((each.steps for each in counts), default=0),
            has_skips=min((each.bad for each in counts), default=0) > self._drained,
            has_halted=any(each.halted for each in counts),
        )

    def reset(self) -> None:
        """Discard the recorded steps, and stop skipping every step."""
        self.drain()
        self.resume()

    def resume(self) -> None:
        """Stop skipping every step."""
        for checks in self._checks.values():
            checks.counters.resume()

    def discard(self, status: SkipStatus) -> None:
        """Release the batches of good steps."""
        if self._on_host is not None:
            self._on_host.discard(status.steps)

    def drain(self) -> tuple[list[GuardEvent], int, FailureCapture | None]:
        """Return the steps recorded since the last call, and clear the log.

        Returns:
            The events that the log still holds (steps counted from the first step), the
            number of all recorded steps, and the captured data of one of them.
        """
        events, count = self._skip_log.drain()
        self._drained += count
        kept = None
        if self._in_graph is not None:
            kept = self._in_graph.take()
        elif self._on_host is not None:
            kept = self._on_host.take(events[0].step) if events else None
            self.discard(self.status())
        return events, count, kept

    def on_batch(self, batch: Any) -> None:
        capture, model = self._on_host, self._model()
        assert capture is not None
        assert model is not None
        if self.options.outruns_host and capture.holds_any and capture.state is None:
            # A skipped step changes no variable, so this is the state from before the step.
            capture.state = state_of(model) if self._skip_log.has_unread else None
        capture.on_batch(batch)

    def on_step_begin(self, context: StepContext, data: Any) -> None:
        replica = context.replica
        if replica.index not in self._checks:
            self._checks[replica.index] = ReplicaChecks(
                self.options, context.device, has_functions=self._has_functions
            )
            self._skip_log.open(context)
        self._checks[replica.index].begin_step()
        # Python or TensorFlow's executor runs the whole step of a plain call, without XLA.
        is_plain = self.is_called_by_keras and not self._compiled and not self._has_functions
        if not is_plain or tf.distribute.has_strategy():
            self._signal.is_supported = False
        if self._in_graph is not None:
            self._in_graph.on_step_begin(replica, data, self._model())

    def may_undo_update(self, call: OptimizerCall) -> bool:
        if not self.observes(call.optimizer):
            return False
        return self._checks[call.replica.index].saves_weights(call)

    def should_apply(self, call: OptimizerCall, gradients: Gradients) -> tf.Tensor | None:
        grads_and_vars = pair_with_variables(gradients, call.variables)
        if not grads_and_vars or not self.observes(call.optimizer):
            return None
        self.has_seen_gradients = True
        checks, write_skip = self._checks[call.replica.index], self._skip_writer(call.replica)
        return checks.should_apply(call, grads_and_vars, write_skip)

    def should_keep(self, context: StepContext) -> tf.Tensor | None:
        write_skip = self._skip_writer(context.replica)
        return self._checks[context.replica.index].should_keep(context, write_skip)

    def transform(self, call: OptimizerCall, gradients: Gradients) -> Gradients:
        finite = self._checks[call.replica.index].gradients_are_finite
        is_scaled = isinstance(call.optimizer, keras.optimizers.LossScaleOptimizer)
        if not is_scaled or call.replica.count == 1 or finite is None:
            return gradients

        # Keras checks only the first replica's gradients.
        def or_nan(values: tf.Tensor) -> tf.Tensor:
            nan = values.dtype.as_numpy_dtype("nan")
            return values * tf.where(finite, tf.ones([], values.dtype), nan)

        return [with_values(gradient, or_nan) for gradient in gradients]

    def on_step_end(self, context: StepContext, done: Sequence[tf.Tensor]) -> None:
        replica, capture = context.replica, self._in_graph
        checks = self._checks[replica.index]
        with tf.control_dependencies(done):
            if capture is not None and self._has_functions:
                counts = checks.counters.in_graph()
                is_bad = counts.bad > checks.bad_before
                when(is_bad, lambda: capture.keep(replica, counts.steps))
            checks.counters.count_step()

    def _skip_writer(self, replica: Replica) -> WriteSkip:
        """Return a function that records a bad step of the replica, in the graph."""

        def write(variables: list[Any], measured: tf.Tensor | None, facts: Facts) -> None:
            self._skip_log.write(replica, variables, measured, facts)
            # A function that the step calls cannot read the step's batch: see `on_step_end`.
            if self._in_graph is not None and not self._has_functions:
                self._in_graph.keep(replica, facts.step)
            self._signal.set()

        return write
