"""The observed train function of torch."""

from collections.abc import Callable
from typing import Any

import keras
import torch

from gradkeeper.callbacks.instrument.array_step import (
    ArrayObserver,
    ArrayTrainFunction,
    Clipper,
    ObservedStep,
    state_variables,
)
from gradkeeper.callbacks.instrument.torch.step_trace import TorchStepTrace, copy_of


class TorchTrainFunction(ArrayTrainFunction):
    """Observed train function of torch.

    If an observer may change the state after the step, the variables are copied before each step.
    """

    def __init__(self, model: keras.Model, plain: Callable) -> None:
        super().__init__(model, plain)
        self._traces: dict[tuple[ArrayObserver, ...], TorchStepTrace] = {}

    def _run(self, arguments: tuple[Any, ...], observers: tuple[ArrayObserver, ...]) -> Any:
        ((data,),) = arguments
        observing = [each for each in observers if each.measures_next]
        logs, before, outputs = self._step(data, observing)
        found = dict(zip(observing, outputs, strict=True))
        for observer in observers:
            observer.end_step(found.get(observer), data, before)
        return logs

    def _step(self, data: Any, observers: list[ArrayObserver]) -> tuple[Any, Any, list[Any]]:
        model = self._model
        if not observers:
            return self._plain((data,)), None, []
        trace = self._trace_for(observers)
        variables, before = [], None
        if any(each.needs_state for each in observers):
            variables = state_variables(model)
            before = [[copy_of(each) for each in some] for some in variables]
        for each in observers:
            each.begin_step(each.carry)
        with trace.recording():
            logs = self._plain((data,))
        with torch.no_grad():
            after = None
            if before is not None:
                after = [[each.value.detach() for each in some] for some in variables]
            step = ObservedStep(trace, before, after, logs, is_compiled=False)
            outputs = []
            for each in observers:
                each.carry, output = each.on_step(step, each.carry)
                outputs.append(output)
            if before is not None and step.after is before:
                for some, values in zip(variables, before, strict=True):
                    for variable, value in zip(some, values, strict=True):
                        variable.assign(value)
                for variable, value in trace.first_values:
                    variable.assign(value)
        return step.logs, before, outputs

    def _trace_for(self, observers: list[ArrayObserver]) -> TorchStepTrace:
        key = tuple(observers)
        if key not in self._traces:
            self._traces[key] = TorchStepTrace(
                self._model,
                self._optimizers(observers),
                [each for each in observers if isinstance(each, Clipper)],
                keeps_values=any(each.needs_values for each in observers),
            )
        return self._traces[key]
