"""The observed train function of JAX."""

from collections.abc import Callable
from typing import Any

import jax
import keras

from gradkeeper.callbacks.instrument.array_recorder import Row
from gradkeeper.callbacks.instrument.array_step import (
    ArrayObserver,
    ArrayTrainFunction,
    Clipper,
    ObservedStep,
)
from gradkeeper.callbacks.instrument.jax.step_trace import JaxStepTrace

jax.tree_util.register_dataclass(Row, data_fields=["values"], meta_fields=["layout"])


class JaxTrainFunction(ArrayTrainFunction):
    """Observed train function of JAX: its compiled step also returns what the observers record.

    The host keeps the returned arrays and does not wait for them.
    """

    def __init__(self, model: keras.Model, plain: Callable) -> None:
        super().__init__(model, plain)
        self._steps: dict[tuple[ArrayObserver, ...], Callable] = {}

    @property
    def _is_compiled(self) -> bool:
        return bool(self._model.jit_compile) and not self._model.run_eagerly

    def _run(self, arguments: tuple[Any, ...], observers: tuple[ArrayObserver, ...]) -> Any:
        state, iterator = arguments
        data = next(iterator)  # without a batch, StopIteration ends the epoch
        logs, state = self._step(state, data, observers)
        for _ in range(self._model.steps_per_execution - 1):
            try:
                data = next(iterator)
            except StopIteration:
                break
            logs, state = self._step(state, data, observers)
        return logs, state

    def _step(self, state: Any, data: Any, observers: tuple[ArrayObserver, ...]) -> tuple[Any, Any]:
        observing = tuple(each for each in observers if each.measures_next)
        if observing not in self._steps:
            self._steps[observing] = self._make_step(observing, state)
        carries = [each.carry for each in observing]
        logs, after, carries, outputs = self._steps[observing](state, data, carries)
        for observer, carry in zip(observing, carries, strict=True):
            observer.carry = carry
        found = dict(zip(observing, outputs, strict=True))
        for observer in observers:
            observer.end_step(found.get(observer), data, after if self._is_compiled else state)
        return logs, after

    def _make_step(self, observers: tuple[ArrayObserver, ...], state: Any) -> Callable:
        model = self._model

        def observed_step(state: Any, data: Any, carries: list[Any]) -> tuple[Any, ...]:
            if not observers:
                return *model.train_step(state, data), [], []
            clippers = [each for each in observers if isinstance(each, Clipper)]
            trace = JaxStepTrace(model, self._optimizers(observers), clippers)
            for each, carry in zip(observers, carries, strict=True):
                each.begin_step(carry)
            with trace.recording():
                logs, after = model.train_step(state, data)
            step = ObservedStep(trace, state, after, logs, self._is_compiled)
            found = [each.on_step(step, c) for each, c in zip(observers, carries, strict=True)]
            return step.logs, step.after, [c for c, _ in found], [out for _, out in found]

        # Arrays that are not yet on the devices of the state would compile the step twice.
        place = jax.tree.leaves(state[2] or state)[0].sharding
        for each in observers:
            each.carry = jax.device_put(each.carry, place)
        if not self._is_compiled:
            return observed_step
        shardings = None
        if keras.distribution.distribution() is not None:
            of_state = jax.tree.map(lambda array: array.sharding, state)
            shardings = (
                None,
                of_state,
                [jax.tree.map(lambda _: place, each.carry) for each in observers],
                None,
            )
        return jax.jit(observed_step, donate_argnums=0, out_shardings=shardings)
