"""Guard of the train steps on JAX and torch."""

import weakref
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from gradkeeper.callbacks.capsule.model import named_state
from gradkeeper.callbacks.guard.event import CAUSES, GuardEvent
from gradkeeper.callbacks.guard.options import (
    NOT_REQUESTED,
    FailureCapture,
    SkipOptions,
    SkipStatus,
)
from gradkeeper.callbacks.instrument.array_step import (
    ArrayObserver,
    Call,
    ObservedStep,
    state_variables,
)
from gradkeeper.callbacks.instrument.optimizers import (
    LARGEST_RATE,
    squares_gradients,
    update_may_not_be_finite,
)
from gradkeeper.callbacks.instrument.variable_names import variable_names
from gradkeeper.callbacks.statistics.array_finite import (
    all_finite,
    every,
    is_inexact,
    remain_finite,
)
from gradkeeper.callbacks.statistics.array_gradients import l2_norms, statistics

_UNKNOWN = np.float32(np.nan)


class _Group(NamedTuple):
    """Values that are checked together: the gradients of a call, layer states, or variables.

    Attributes:
        number: index of the names of the variables.
        values: the values.
        scale: the factor of the values; None for 1.
    """

    number: int
    values: list[Any]
    scale: Any = None


class _Check(NamedTuple):
    """Result of the checks of one optimizer call, or of the update.

    Attributes:
        is_bad: whether the step is bad.
        cause: index of the cause in `CAUSES`.
        group: index of the names of the variables to report.
        norm: the global norm; NaN if unknown.
        rate: the learning rate; NaN if unknown.
    """

    is_bad: Any
    cause: Any
    group: Any
    norm: Any = _UNKNOWN
    rate: Any = _UNKNOWN


@dataclass
class _Held:
    """Outputs of a step that the host has not read.

    Attributes:
        step: the step, counted from the first.
        flags: whether the step was recorded as bad, and whether every later step is skipped.
        report: scalars and statistics of a bad step; see `ArraySkipTransform.on_step`.
        batch: the batch; None if it is not captured.
        state: the state before the step; None if the step has overwritten it.
    """

    step: int
    flags: Any
    report: dict[str, Any]
    batch: Any
    state: Any


class ArraySkipTransform(ArrayObserver):
    """Observer that skips a train step with a non-finite value; see `SkipTransform`.

    The compiled step selects each array of its state: the new one, or after a bad step the old
    one. Steps after a halt are skipped until `resume`, so that the host need not wait for a step.
    With `options.outruns_host`, the host waits for every step, because the state before a bad step
    exists only until the next one.

    Args:
        options: the conditions under which a step is skipped.
        model: the model.
        optimizers: the optimizers whose calls are checked; None for all.
        compiled: whether the step is compiled.
    """

    needs_state = True

    def __init__(
        self,
        options: SkipOptions,
        model: keras.Model,
        *,
        optimizers: tuple[keras.optimizers.Optimizer, ...] | None = None,
        compiled: bool = False,
    ) -> None:
        super().__init__(optimizers)
        self.options, self.changes_step = options, options.refuses
        self._keeps = options.can_keep(compiled)
        self._compiled = compiled
        self._model = weakref.ref(model)
        self._names: list[tuple[str, ...]] = []
        self._keys: list[tuple[int, ...]] = []
        self._held: deque[_Held] = deque()
        self._events: list[GuardEvent] = []
        self._kept: FailureCapture | None = None
        self._steps = 0
        self._has_halted = False
        trigger = {} if options.trigger is None else options.trigger.first_state()
        self.carry = {
            "in_a_row": ops.zeros((), "int32"),
            "halted": ops.zeros((), "bool"),
            "trigger": keras.tree.map_structure(ops.convert_to_tensor, trigger),
        }

    @property
    def may_have_skips(self) -> bool:
        """Return True if a finished step was recorded as bad. Does not wait for running steps."""
        self._read(waits=False)
        return bool(self._events) or self._has_halted

    @property
    def has_unread_skips(self) -> bool:
        """Return the same, without reading the steps: Keras calls a progress bar in a thread."""
        held = [each.flags for each in tuple(self._held) if _is_ready(each.flags)]
        return bool(self._events) or any(bool(ops.convert_to_numpy(each)[0]) for each in held)

    def status(self) -> SkipStatus:
        """Return the status. Blocks until the running steps have finished."""
        self._read()
        return SkipStatus(self._steps, bool(self._events), self._has_halted)

    def reset(self) -> None:
        """Discard the recorded steps, and stop skipping every step."""
        self.drain()
        self.resume()

    def resume(self) -> None:
        """Stop skipping every step."""
        self._has_halted = False
        counters = {n: ops.zeros_like(self.carry[n]) for n in ("in_a_row", "halted")}
        self.carry = {**self.carry, **counters}

    def discard(self, status: SkipStatus) -> None:
        """Do nothing: the batch of a good step is released when its flags are read."""

    def drain(self) -> tuple[list[GuardEvent], int, FailureCapture | None]:
        """Return the bad steps since the last call, their number, and the data of the first one."""
        self._read()
        events, kept = self._events, self._kept
        self._events, self._kept = [], None
        return events, len(events), kept

    def end_step(self, outputs: Any, data: Any, state: Any) -> None:
        flags, report = outputs
        keeps_state = self._keeps and (self.options.outruns_host or not self._compiled)
        batch = data if self._keeps and self.options.keeps_batch else None
        held = _Held(self._steps, flags, report, batch, state if keeps_state else None)
        self._steps += 1
        self._held.append(held)
        if self._keeps and self.options.outruns_host:
            self._read()

    def on_step(self, step: ObservedStep, carry: Any) -> tuple[Any, Any]:
        """Check the step, traced, and restore its state if it is bad.

        Returns:
            The carry; and the flags [2] with the report of a bad step: "scalars" [5] (index of the
            names, index of the cause, loss, norm, learning rate) and, by index of the names,
            statistics [3, variables].
        """
        options, halted = self.options, carry["halted"]
        loss, loss_is_ok = _loss_of(step)
        checks, groups, trigger = self._check_calls(step, loss_is_ok, carry)
        update = self._check_update(step, groups)
        checks += [] if update is None else [update]
        bad = _any(each.is_bad for each in checks)
        in_a_row = ops.where(bad, carry["in_a_row"] + 1, 0)
        new_halt = halted
        if options.refuses and options.halts_after:
            new_halt = halted | (in_a_row >= options.halts_after)
        if options.refuses:
            _refuse(step, bad | halted)
        is_logged = bad & ~halted

        def report() -> dict[str, Any]:
            first = checks[-1]
            for each in reversed(checks[:-1]):
                first = _Check(*map(partial(ops.where, each.is_bad), each, first))
            scalars = [first.group, first.cause, loss, first.norm, first.rate]
            found = {"scalars": ops.stack([ops.cast(each, "float32") for each in scalars])}
            for group in groups:
                measured = statistics(group.values, "float32")
                if group.scale is not None:
                    scale = ops.cast(group.scale, "float32")
                    measured = measured / ops.stack([scale, scale, ops.ones_like(scale)])[:, None]
                found[str(group.number)] = measured
            return found

        def nothing() -> dict[str, Any]:
            widths = {str(group.number): len(group.values) for group in groups}
            return {"scalars": ops.zeros(5), **{n: ops.zeros((3, w)) for n, w in widths.items()}}

        found = ops.cond(is_logged, report if checks else nothing, nothing)
        carry = {"in_a_row": in_a_row, "halted": new_halt, "trigger": trigger}
        return carry, (ops.stack([is_logged, new_halt]), found)

    def _check_calls(
        self, step: ObservedStep, loss_is_ok: Any, carry: Any
    ) -> tuple[list[_Check], list[_Group], dict[str, Any]]:
        """Check what each optimizer call receives.

        Returns:
            The checks, the values that they may report, and the state of the trigger.
        """
        checks: list[_Check] = []
        groups: list[_Group] = []
        trigger, halted = carry["trigger"], carry["halted"]
        states, state_is_finite = self._states(step)
        for call in step.trace.calls:
            pairs = [
                (g, v) for g, v in zip(call.gradients, call.variables, strict=True) if g is not None
            ]
            if not pairs or not self.observes(call.optimizer):
                continue
            self.has_seen_gradients = True
            gradients = [gradient for gradient, _ in pairs]
            group = _Group(self._number_of([v for _, v in pairs]), gradients, call.scale)
            groups.append(group)
            rates = list(call.rates)
            flags = {
                "gradient": all_finite(gradients, squares=squares_gradients(call.optimizer)),
                "loss": loss_is_ok,
                "learning_rate": every(map(_is_usable, rates)),
                "state": state_is_finite,
            }
            cause: Any = CAUSES.index("norm")
            for name in reversed(flags):
                cause = ops.where(flags[name], cause, CAUSES.index(name))
            bad = ~every(self._refusing(call, flags))
            norm: Any = _UNKNOWN
            if self.options.trigger is not None:
                norm = ops.norm(l2_norms(gradients, "float32"))
                norm = norm if call.scale is None else norm / call.scale
                too_large = flags["gradient"] & self.options.trigger.refuses(norm, trigger)
                bad |= too_large
                learned = self.options.trigger.learn(norm, trigger)
                takes = flags["gradient"] & ~bad & ~halted
                trigger = {n: ops.where(takes, learned[n], old) for n, old in trigger.items()}
            number: Any = group.number
            if states is not None:
                number = ops.where(cause == CAUSES.index("state"), states.number, number)
            checks.append(_Check(bad, cause, number, norm, _reported(rates)))
        return checks, groups + ([] if states is None else [states]), trigger

    def _refusing(self, call: Call, flags: dict[str, Any]) -> list[Any]:
        """Return the flags that make a step bad if they are False."""
        chosen = {n: f for n, f in flags.items() if n != "loss" or self.options.checks_loss}
        if isinstance(call.optimizer, keras.optimizers.LossScaleOptimizer):
            # The optimizer skips a step that overflows, and lowers the scale.
            chosen["gradient"] = flags["gradient"] | (flags["loss"] & (call.scale >= 1.0))
        return list(chosen.values())

    def _states(self, step: ObservedStep) -> tuple[_Group | None, Any]:
        """Return the layer states, and whether those that were finite still are."""
        model = self._model()
        assert model is not None
        variables = model.non_trainable_variables
        states = zip(variables, step.after[1], step.before[1], strict=True)
        found = [each for each in states if is_inexact(each[1])]
        if not found:
            return None, ops.convert_to_tensor(True)
        variables, after, before = map(list, zip(*found, strict=True))
        return _Group(self._number_of(variables), after), remain_finite(after, before)

    def _check_update(self, step: ObservedStep, groups: list[_Group]) -> _Check | None:
        """Check the variables after the update where finite gradients may make them non-finite."""
        model = self._model()
        calls = [each for each in step.trace.calls if self.observes(each.optimizer)]
        checks = self.options.checks_updates
        if model is None or not calls or checks is False:
            return None
        if checks is None and not any(
            update_may_not_be_finite(each.optimizer, each.variables) for each in calls
        ):
            return None
        optimizer = [] if model.optimizer is None else model.optimizer.variables
        # The variables of the model first: they are reported if one of them is non-finite.
        bad: Any = ops.convert_to_tensor(False)
        number: Any = 0
        for variables, place in ((optimizer, 2), (model.trainable_variables, 0)):
            values = zip(variables, step.after[place], step.before[place], strict=True)
            found = [each for each in values if is_inexact(each[1])]
            if not found:
                continue
            held, after, before = map(list, zip(*found, strict=True))
            group = _Group(self._number_of(held), after)
            groups.append(group)
            is_bad = ~remain_finite(after, before)
            number = ops.where(is_bad, group.number, number)
            bad |= is_bad
        return _Check(bad, CAUSES.index("update"), number)

    def _number_of(self, variables: list[Any]) -> int:
        """Return the index of the names of these variables."""
        key = tuple(map(id, variables))
        if key not in self._keys:
            self._keys.append(key)
            self._names.append(variable_names(self._model(), variables))
        return self._keys.index(key)

    def _read(self, *, waits: bool = True) -> None:
        """Read the flags of the steps, and release their batches.

        Args:
            waits: whether to block until the running steps have finished.
        """
        while self._held and (waits or _is_ready(self._held[0].flags)):
            each = self._held.popleft()
            is_logged, has_halted = ops.convert_to_numpy(each.flags)
            self._has_halted = bool(has_halted)
            if is_logged:
                self._events.append(self._event(each))
                if self._keeps and self._kept is None:
                    self._kept = self._captured(each)

    def _event(self, held: _Held) -> GuardEvent:
        report = {n: ops.convert_to_numpy(each) for n, each in held.report.items()}
        group, cause, loss, norm, rate = report["scalars"].tolist()
        return GuardEvent.of(
            CAUSES[int(cause)],
            norm,
            report[str(int(group))][None],
            step=held.step,
            loss=loss,
            variables=self._names[int(group)],
            losses=(loss,),
            learning_rate=rate,
        )

    def _captured(self, held: _Held) -> FailureCapture:
        batches = [held.batch] if self.options.keeps_batch else NOT_REQUESTED
        state, model = None, self._model()
        if held.state is not None and model is not None:
            values = {
                id(variable): value
                for variables, part in zip(state_variables(model), held.state, strict=False)
                for variable, value in zip(variables, part, strict=False)
            }
            names, variables = named_state(model)
            state = {
                name: ops.convert_to_numpy(values.get(id(v), v))
                for name, v in zip(names, variables, strict=True)
            }
        return FailureCapture(held.step, batches, state)


def _loss_of(step: ObservedStep) -> tuple[Any, Any]:
    """Return the loss of the step and whether it is finite; NaN and True if it is unknown.

    The loss is that of the trace, or else the values "loss" and "*_loss" of the logs.
    """
    values = [] if step.trace.loss is None else [step.trace.loss]
    if not values and isinstance(step.logs, Mapping):
        values = [v for name, v in step.logs.items() if name == "loss" or name.endswith("_loss")]
    values = [ops.cast(each, "float32") for each in values]
    return (values or [_UNKNOWN])[0], all_finite(values)


def _refuse(step: ObservedStep, refused: Any) -> None:
    """Restore the state before the step if it is refused."""
    others = step.trace.is_refused
    step.trace.is_refused = refused if others is None else refused | others
    if not step.is_compiled:
        if not bool(refused):
            return
        step.after = step.before
    else:
        step.after = keras.tree.map_structure(
            lambda new, old: ops.where(refused, old, new), step.after, step.before
        )
    for call in step.trace.calls:
        if step.is_compiled:
            pairs = zip(call.before, call.after, strict=True)
            call.after = [ops.where(refused, old, new) for old, new in pairs]
        else:
            call.after = call.before
        for clip in call.clips:
            clip.is_update = ~refused if clip.is_update is None else clip.is_update & ~refused
    step.logs = _logs_of(step)


def _logs_of(step: ObservedStep) -> Any:
    """Return the logs of the step with the metrics of the restored state.

    A custom train step need not update the metrics of the model: its logs are not changed.
    """
    model = step.trace.model
    if not isinstance(step.logs, Mapping) or type(model).train_step is not keras.Model.train_step:
        return step.logs
    mapping = list(zip(model.metrics_variables, step.after[3], strict=True))
    with keras.StatelessScope(state_mapping=mapping):
        metrics = model.get_metrics_result()
    return {name: metrics.get(name, value) for name, value in step.logs.items()}


def _is_usable(rate: Any) -> Any:
    return ops.abs(rate) <= LARGEST_RATE


def _reported(rates: list[Any]) -> Any:
    """Return the first non-finite or too large learning rate, or else the last one."""
    found = rates[-1] if rates else _UNKNOWN
    for rate in reversed(rates):
        found = ops.where(_is_usable(rate), found, rate)
    return found


def _any(flags: Iterable[Any]) -> Any:
    return ops.any(ops.stack([ops.convert_to_tensor(False), *flags]))


def _is_ready(array: Any) -> bool:
    """Return True if reading the array does not wait for the device; on torch always."""
    is_ready = getattr(array, "is_ready", None)
    return is_ready is None or is_ready()
