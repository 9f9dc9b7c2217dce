"""Eager run of a train step of torch that records its operations, layer calls and updates."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import keras
import numpy as np
import torch

from gradkeeper.callbacks._keras_private import variables_of
from gradkeeper.callbacks.diagnosis.eager_layers import LayerTrace
from gradkeeper.callbacks.diagnosis.source import raising_source
from gradkeeper.callbacks.diagnosis.step_trace import Refusal, StepTrace, bad_among, rates_of
from gradkeeper.callbacks.diagnosis.torch.recorder import Recorder
from gradkeeper.callbacks.diagnosis.torch.rerun import is_number
from gradkeeper.callbacks.diagnosis.torch.values import Value, key_of
from gradkeeper.callbacks.instrument.array_step import replaced
from gradkeeper.callbacks.instrument.optimizers import optimizers_of
from gradkeeper.callbacks.instrument.variable_names import variable_names


def run_step(
    model: keras.Model, batch: Any, variables: Sequence[Any] = (), *, compiled: bool = False
) -> StepTrace:
    """Run and record the model's `train_step`, which changes the model's state.

    Args:
        model: the compiled and built model.
        batch: the argument of `train_step`.
        variables: the variables whose contents are checked before and after the step.
        compiled: whether the step was compiled, which changes nothing on torch.
    """
    batch = to_tensors(batch)
    layers = LayerTrace(model, lambda structure: _referred(structure, recorder), key_of)
    recorder = Recorder(layers.current)
    trace = StepTrace(model, recorder, layers.calls)
    optimizers = optimizers_of(model)
    trace.rates = [rate for each in optimizers for rate in rates_of(each)]
    trace.batch = keras.tree.map_structure(
        lambda each: recorder.value(each) if isinstance(each, torch.Tensor) else each, batch
    )
    before = [recorder.value(each.value) for each in variables]
    trace.variables = [each.key or 0 for each in before]
    trace.bad_before = [each.key or 0 for each in bad_among(before)]
    with _recorded(trace, recorder), layers.watching(), recorder.watching():
        try:
            model.train_step(batch)
        except torch.linalg.LinAlgError as error:
            trace.refusal = Refusal(recorder.failed, str(error), raising_source(error))
    trace.interrupted = layers.interrupted
    for key, variable in zip(trace.variables, variables, strict=True):
        after = recorder.value(variable.value)
        recorder.change(key, after)
        if bad_among([after]) and key not in trace.bad_before:
            trace.lost.append(key)
    return trace


@contextmanager
def _recorded(trace: StepTrace, recorder: Recorder) -> Iterator[None]:
    """Record losses, differentiated tensors and optimizer calls inside the block."""
    model = trace.model

    def compute_loss(_: Any, original: Callable, *args: Any, **named: Any) -> Any:
        loss = original(*args, **named)
        trace.losses += [recorder.value(each) for each in _tensors(loss)]
        return loss

    def apply(optimizer: Any, original: Callable, grads: Any, some: Any = None) -> Any:
        names = variable_names(model, variables_of(optimizer, some))
        values = [None if each is None else recorder.value(each) for each in grads]
        trace.add_update(optimizer, names, values)
        return original(grads, some)

    def backward(original: Callable) -> Callable:
        def differentiate(tensors: Any, *args: Any, **named: Any) -> Any:
            recorder.differentiates(_tensors(tensors))
            return original(tensors, *args, **named)

        return differentiate

    with ExitStack() as stack:
        stack.enter_context(replaced(model, "compute_loss", compute_loss))
        for optimizer in optimizers_of(model):
            stack.enter_context(replaced(optimizer, "apply", apply))
        for name in ("backward", "grad"):
            function = getattr(torch.autograd, name)
            stack.enter_context(mock.patch.object(torch.autograd, name, backward(function)))
        yield


def _tensors(structure: Any) -> list[torch.Tensor]:
    return [each for each in keras.tree.flatten(structure) if isinstance(each, torch.Tensor)]


def _referred(structure: Any, recorder: Recorder) -> list[Value]:
    """Return the tensors of a structure with their keys, without copies."""
    return [Value(each.detach(), recorder.key(each)) for each in _tensors(structure)]


def ends_well(model: keras.Model, batch: Any, *, compiled: bool = False) -> bool:
    """Run the model's `train_step`, and return True if its losses and gradients are finite."""
    trace = run_step(model, batch, compiled=compiled)
    return trace.refusal is None and not trace.bad_results


def to_tensors(batch: Any) -> Any:
    """Return a batch with tensors in place of arrays."""

    def tensor(value: Any) -> Any:
        is_array = isinstance(value, (np.ndarray, np.generic))
        return keras.ops.convert_to_tensor(value) if is_array else value

    return keras.tree.map_structure(tensor, batch)


def tensors_in(structure: Any) -> list[Value]:
    """Return the values of a structure."""
    return [each for each in keras.tree.flatten(structure) if isinstance(each, Value)]


def with_numbers(structure: Any, change: Callable[[Any], Any]) -> Any:
    """Change the real and complex tensors of a structure."""
    return keras.tree.map_structure(
        lambda each: change(each) if is_number(each) else each, to_tensors(structure)
    )
