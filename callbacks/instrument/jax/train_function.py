"""The observed train function of JAX."""

from collections.abc import Callable
from typing import Any

import jax
import keras

from gradkeeper.callbacks.instrument.jax.recorder import JaxRecorder
from gradkeeper.callbacks.instrument.jax.step_trace import StepTrace
from gradkeeper.callbacks.instrument.optimizers import optimizers_of
from gradkeeper.callbacks.instrument.patch import is_made_by_keras
from gradkeeper.callbacks.instrument.train_calls import ObservedTrainFunction


class JaxTrainFunction(ObservedTrainFunction):
    """Observed train function of JAX: its compiled step also returns what the observers record.

    The host keeps the returned arrays and does not wait for them.
    """

    def __init__(self, model: keras.Model, plain: Callable) -> None:
        super().__init__(model, plain)
        self._is_of_keras = is_made_by_keras(plain)
        self._steps: dict[tuple[JaxRecorder, ...], Callable] = {}

    def run_observed(self, arguments: tuple[Any, ...], observers: tuple[JaxRecorder, ...]) -> Any:
        if not self._is_of_keras:  # a user's train function runs unchanged
            return self._plain(*arguments)
        for observer in observers:
            if observer.timer is not None:
                observer.timer.call_begins(observer)
        state, iterator = arguments
        data = next(iterator)  # without a batch, StopIteration ends the epoch
        logs, state = self._step(state, data, observers)
        for _ in range(self._model.steps_per_execution - 1):
            try:
                data = next(iterator)
            except StopIteration:
                break
            logs, state = self._step(state, data, observers)
        for observer in observers:
            if observer.timer is not None:
                observer.timer.call_ends(observer)
        return logs, state

    def _step(self, state: Any, data: Any, observers: tuple[JaxRecorder, ...]) -> tuple[Any, Any]:
        measuring = tuple(each for each in observers if each.measures_next)
        if measuring not in self._steps:
            self._steps[measuring] = self._make_step(measuring, state)
        logs, state, rows = self._steps[measuring](state, data)
        found = dict(zip(measuring, rows, strict=True))
        for observer in observers:
            observer.end_step(found.get(observer))
        return logs, state

    def _make_step(self, observers: tuple[JaxRecorder, ...], state: Any) -> Callable:
        model = self._model

        def observed_step(state: Any, data: Any) -> tuple[Any, Any, list[Any]]:
            if not observers:
                return *model.train_step(state, data), []
            named = [each for observer in observers for each in observer.optimizers or ()]
            every = {id(each): each for each in [*optimizers_of(model), *named]}
            trace = StepTrace(model, list(every.values()))
            with trace.recording():
                logs, state = model.train_step(state, data)
            return logs, state, [observer.row_of(trace) for observer in observers]

        if model.run_eagerly or not model.jit_compile:
            return observed_step
        shardings = None
        if keras.distribution.distribution() is not None:
            shardings = None, jax.tree.map(lambda array: array.sharding, state), None
        return jax.jit(observed_step, donate_argnums=0, out_shardings=shardings)
