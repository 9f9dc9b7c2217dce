"""Checks of a guard on one replica, in the graph of the train step."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.guard.event import CAUSES
from gradkeeper.callbacks.guard.options import SkipOptions
from gradkeeper.callbacks.guard.skip_log import Counters, Counts, Facts
from gradkeeper.callbacks.guard.trigger import Trigger
from gradkeeper.callbacks.instrument.graph import Replica, all_replicas, make_variable, when
from gradkeeper.callbacks.instrument.optimizers import (
    LARGEST_RATE,
    learning_rates_of,
    squares_gradients,
    update_may_not_be_finite,
)
from gradkeeper.callbacks.instrument.rollback import SavedValue
from gradkeeper.callbacks.instrument.step_context import (
    GradAndVar,
    Gradients,
    OptimizerCall,
    StepContext,
    sum_over_replicas,
)
from gradkeeper.callbacks.statistics.finite import all_finite, remain_finite, statistics_if
from gradkeeper.callbacks.statistics.gradients import careful_statistics, l2_norms

# Records the variables, their statistics [3, variables] and the scalars of a bad step.
WriteSkip = Callable[[list[Any], tf.Tensor | None, Facts], None]


class ReplicaChecks:
    """Checks of the train steps of one replica. All replicas see the same flags and agree.

    Args:
        options: the options.
        device: device of the variables; None for TensorFlow's choice.
        has_functions: whether the train step is custom and may call `tf.function`s.

    Attributes:
        counters: the counters.
        gradients_are_finite: True if the gradients of the last optimizer call are finite on
            every replica.
        bad_before: the number of bad optimizer calls when the step began.
    """

    def __init__(self, options: SkipOptions, device: str | None, *, has_functions: bool) -> None:
        self._options, self._has_functions = options, has_functions
        self.counters = Counters(device)
        first = {} if options.trigger is None else options.trigger.first_state()
        self._trigger_state = {name: make_variable(each, device) for name, each in first.items()}
        self._checks_updates = False
        self.gradients_are_finite: tf.Tensor | None = None
        self.bad_before: tf.Tensor | None = None

    def begin_step(self) -> None:
        """Read the counters, before the step changes a variable."""
        self.bad_before = self.counters.in_graph().bad

    def saves_weights(self, call: OptimizerCall) -> bool:
        """Return True if the values from before this update are needed at the end of the step."""
        checks = self._options.checks_updates
        if checks is None:
            checks = update_may_not_be_finite(call.optimizer, call.variables)
        # Never reset: a function that the step calls is traced once, and runs in later steps.
        self._checks_updates |= checks
        loss_comes_late = self._has_functions and self._options.checks_loss
        return checks or (
            self._options.refuses and loss_comes_late and not call.context.loss.is_known
        )

    def should_apply(
        self, call: OptimizerCall, grads_and_vars: list[GradAndVar], write_skip: WriteSkip
    ) -> tf.Tensor | None:
        """Return True if the gradients may be applied; None if no step is skipped."""
        gradients = [gradient for gradient, _ in grads_and_vars]
        variables = [variable for _, variable in grads_and_vars]
        # The moving averages and layer states to check before the update.
        rollback = call.context.rollback
        states = rollback.floating("state") if rollback and rollback.is_in_step_scope else []
        flags = self._flags(call, gradients, states)
        self.gradients_are_finite = flags["gradient"]
        bad = ~tf.reduce_all(tf.stack(self._refusing(call, flags)))
        norm, too_large = tf.constant(np.nan), tf.constant(False)
        trigger = self._options.trigger
        state = {name: each.read_value() for name, each in self._trigger_state.items()}
        if trigger is not None:
            norm = _global_norm(call, gradients)
            too_large = flags["gradient"] & ~bad & trigger.refuses(norm, state)
        refused = bad | too_large
        measured = statistics_if(refused, gradients, call.scale)
        counts = self.counters.in_graph()

        def write() -> None:
            cause = _first_cause(flags, otherwise="norm")
            facts = Facts(
                counts.steps, cause, call.context.loss.value, norm, reported_rate(_rates(call))
            )
            if states:
                state_is_cause = tf.equal(cause, CAUSES.index("state"))
                when(state_is_cause, lambda: _write_values(write_skip, states, facts))
                when(~state_is_cause, lambda: write_skip(variables, measured, facts))
            else:
                write_skip(variables, measured, facts)

        is_checked_again = self._has_functions or self._checks_updates
        self._count(refused, counts, write, counts.in_a_row if is_checked_again else 0)
        is_taken = ~refused & ~(counts.halted > 0)

        def learn(trigger: Trigger) -> None:
            for name, value in trigger.learn(norm, state).items():
                self._trigger_state[name].assign(value)

        if trigger is not None:
            when(flags["gradient"] & is_taken, lambda: learn(trigger))
        return is_taken if self._options.refuses else None

    def should_keep(self, context: StepContext, write_skip: WriteSkip) -> tf.Tensor | None:
        """Return True if the results of the step may stay; None if nothing can be undone."""
        rollback, loss = context.rollback, context.loss
        assert rollback is not None
        held = rollback.floating("state") if self._has_functions else []
        held += rollback.floating("weight") if self._checks_updates else []
        flags: dict[str, tf.Tensor] = {}
        if held:
            flags["update"] = _remain_finite(held)
        if self._has_functions and self._options.checks_loss:
            flags["loss"] = loss.is_ok
        if not flags:
            return None
        flags = _agreed(flags, context.replica)
        counts = self.counters.in_graph()
        is_refused = (counts.bad > self.bad_before) | (counts.halted > 0)
        bad = ~tf.reduce_all(tf.stack(list(flags.values()))) & ~is_refused

        def write() -> None:
            unknown = tf.constant(np.nan)
            if not held:
                cause = tf.constant(CAUSES.index("loss"))
                write_skip([], None, Facts(counts.steps, cause, loss.value, unknown, unknown))
                return
            states = [each for each in held if each.role == "state"]
            after = {"loss": flags.get("loss", tf.constant(True))}
            if states:
                after["state"] = _remain_finite(states)
            cause = _first_cause(after, otherwise="update")
            facts = Facts(counts.steps, cause, loss.value, unknown, unknown)
            _write_values(write_skip, held, facts)

        self._count(bad, counts, write, tf.where(is_refused, counts.in_a_row, 0))
        return ~bad if self._options.refuses else None

    def _flags(
        self, call: OptimizerCall, gradients: Gradients, states: list[SavedValue]
    ) -> dict[str, tf.Tensor]:
        """Return the condition that each cause sets for the update, combined over replicas."""
        flags = {"gradient": all_finite(gradients, squares=squares_gradients(call.optimizer))}
        flags["loss"] = call.context.loss.is_ok
        rates = _rates(call)
        if rates:
            flags["learning_rate"] = functools.reduce(tf.logical_and, map(_is_usable, rates))
        if states:
            flags["state"] = _remain_finite(states)
        return _agreed(flags, call.replica)

    def _refusing(self, call: OptimizerCall, flags: dict[str, tf.Tensor]) -> list[tf.Tensor]:
        """Return the flags that make a step bad if they are False."""
        chosen = {n: f for n, f in flags.items() if n != "loss" or self._options.checks_loss}
        if isinstance(call.optimizer, keras.optimizers.LossScaleOptimizer):
            # The optimizer skips a step that overflows, and lowers the scale.
            scale = tf.cast(tf.convert_to_tensor(call.scale), tf.float32)
            chosen["gradient"] = flags["gradient"] | (flags["loss"] & (scale >= 1.0))
        return list(chosen.values())

    def _count(
        self, bad: tf.Tensor, counts: Counts, write: Callable[[], None], otherwise: Any
    ) -> None:
        """Record a bad optimizer call, and count it.

        Args:
            bad: whether the call is bad.
            counts: the counters before the call.
            write: function that records the call; not run while every step is skipped.
            otherwise: the number of consecutive bad calls to store if the call is good.
        """
        halted = counts.halted > 0

        def count() -> None:
            is_logged = bad & ~halted
            when(is_logged, write)
            in_a_row = tf.where(bad, counts.in_a_row + 1, otherwise)
            halts = halted
            if self._options.refuses and self._options.halts_after:
                halts |= in_a_row >= self._options.halts_after
            bad_calls = counts.bad + tf.cast(is_logged, tf.int64)
            self.counters.write(Counts(counts.steps, bad_calls, in_a_row, halts))

        with tf.control_dependencies([halted]):
            # A run without bad steps has no counters to change.
            when(bad | (counts.in_a_row > 0), count)


def _agreed(flags: dict[str, tf.Tensor], replica: Replica) -> dict[str, tf.Tensor]:
    """Combine each flag over the replicas: True only if it is True on every replica."""
    if replica.count == 1:
        return flags
    together = all_replicas(tf.stack(list(flags.values())), replica)
    return dict(zip(flags, tf.unstack(together), strict=True))


def _first_cause(flags: dict[str, tf.Tensor], otherwise: str) -> tf.Tensor:
    """Return the index in `CAUSES` of the first flag that is False."""
    cause = tf.constant(CAUSES.index(otherwise))
    for name in reversed(flags):
        cause = tf.where(flags[name], cause, CAUSES.index(name))
    return cause


def _rates(call: OptimizerCall) -> list[tf.Tensor]:
    return [tf.convert_to_tensor(rate) for rate in learning_rates_of(call.optimizer)]


def reported_rate(rates: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return the first non-finite or too large learning rate, or else the last one, float64.

    Args:
        rates: the learning rates of an optimizer call, scalars. NaN is returned if there are none.
    """
    found = tf.cast(rates[-1] if rates else np.nan, tf.float64)
    for rate in reversed(rates):
        found = tf.where(_is_usable(rate), found, tf.cast(rate, tf.float64))
    return found


def _is_usable(rate: tf.Tensor) -> tf.Tensor:
    return tf.abs(rate) <= tf.cast(LARGEST_RATE, rate.dtype)


def _values(held: Sequence[SavedValue]) -> list[tf.Tensor]:
    return [each.part.read_value() for each in held]


def _remain_finite(held: Sequence[SavedValue]) -> tf.Tensor:
    return remain_finite(_values(held), [each.before for each in held])


def _write_values(write_skip: WriteSkip, held: Sequence[SavedValue], facts: Facts) -> None:
    """Record the statistics of values in place of gradients."""
    measured = careful_statistics(_values(held), tf.float32)
    write_skip([each.variable for each in held], measured, facts)


def _global_norm(call: OptimizerCall, gradients: Gradients) -> tf.Tensor:
    """Return the gradient norm of the global batch, before clipping."""
    if call.replica.count > 1:
        gradients = sum_over_replicas(gradients)
    norm = tf.norm(l2_norms(gradients, tf.float32))
    if call.scale is None:
        return norm
    return norm / tf.cast(tf.convert_to_tensor(call.scale), norm.dtype)
