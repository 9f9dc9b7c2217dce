"""Run of a train step of JAX that records its operations, layer calls and optimizer calls."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import keras

from gradkeeper.callbacks._keras_private import build_metrics, variables_of
from gradkeeper.callbacks.capsule.capsule import CapsuleError
from gradkeeper.callbacks.diagnosis.jax.derivatives import traced_whole
from gradkeeper.callbacks.diagnosis.jax.equations import mark, scope_of_layer
from gradkeeper.callbacks.diagnosis.jax.recorder import Recorder
from gradkeeper.callbacks.diagnosis.jax.values import Value, arrays_in, is_array
from gradkeeper.callbacks.diagnosis.operations import range_of
from gradkeeper.callbacks.diagnosis.step_trace import (
    LayerCall,
    StepTrace,
    bad_among,
    rates_of,
    watched_layers,
)
from gradkeeper.callbacks.instrument.jax.step_trace import JaxStepTrace
from gradkeeper.callbacks.instrument.optimizers import optimizers_of
from gradkeeper.callbacks.instrument.patch import AttributePatch
from gradkeeper.callbacks.instrument.variable_names import variable_names


class _Marks:
    """Marks of layer calls and optimizer calls in the trace of a step.

    Args:
        model: the model.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._layers = watched_layers(model)
        self._numbers = {id(layer): number for number, (_, layer) in enumerate(self._layers)}
        self._updates: list[tuple[keras.optimizers.Optimizer, list[str]]] = []
        self._open: dict[int, list[LayerCall]] = {}
        self.trace: StepTrace | None = None

    @property
    def paths(self) -> list[str]:
        """Return the paths of the layers, by number."""
        return [path for path, _ in self._layers]

    @contextmanager
    def made(self) -> Iterator[None]:
        """Mark the calls inside the block, and name the equations of the layers."""
        with ExitStack() as stack:
            enter, numbers = keras.layers.Layer.__call__, self._numbers

            def call_in_scope(layer: Any, *args: Any, **kwargs: Any) -> Any:
                number = numbers.get(id(layer))
                with nullcontext() if number is None else scope_of_layer(number):
                    return enter(layer, *args, **kwargs)

            # A layer casts its inputs before `call`.
            stack.enter_context(mock.patch.object(keras.layers.Layer, "__call__", call_in_scope))
            for number, (_, layer) in enumerate(self._layers):
                self._patch(stack, layer, "call", partial(self._call, number))
            for optimizer in optimizers_of(self._model):
                self._patch(stack, optimizer, "stateless_apply", partial(self._apply, optimizer))
            yield

    def _patch(self, stack: ExitStack, owner: Any, name: str, wrapper: Callable) -> None:
        patch = AttributePatch(owner, name, lambda each: partial(wrapper, getattr(each, name)))
        stack.callback(patch.revert)
        patch.apply()

    def _call(self, number: int, original: Callable, /, *args: Any, **kwargs: Any) -> Any:
        mark("in", number, _arrays((args, kwargs)))
        with scope_of_layer(number):
            result = original(*args, **kwargs)
        mark("out", number, _arrays(result))
        return result

    def _apply(
        self,
        optimizer: keras.optimizers.Optimizer,
        original: Callable,
        optimizer_variables: Sequence[Any],
        grads: Sequence[Any],
        trainable_variables: Sequence[Any],
    ) -> Any:
        names = variable_names(self._model, variables_of(optimizer, None))
        known = [(name, grad) for name, grad in zip(names, grads, strict=False) if grad is not None]
        mark("update", len(self._updates), [grad for _, grad in known])
        self._updates.append((optimizer, [name for name, _ in known]))
        return original(optimizer_variables, grads, trainable_variables)

    def seen(self, event: str, number: int, values: list[Value]) -> None:
        """Record the call of a mark that is evaluated."""
        trace = self.trace
        assert trace is not None
        if event == "update":
            trace.add_update(*self._updates[number], values)
        elif event == "in":
            call = LayerCall(self._layers[number][0], range_of(values))
            trace.calls.append(call)
            self._open.setdefault(number, []).append(call)
        elif calls := self._open.get(number):
            call = calls.pop()
            call.returned, call.outputs = range_of(values), [each.key for each in values]


def _arrays(structure: Any) -> list[Any]:
    return [each for each in keras.tree.flatten(structure) if is_array(each)]


def run_step(
    model: keras.Model, batch: Any, variables: Sequence[Any] = (), *, compiled: bool = False
) -> StepTrace:
    """Run and record the model's `train_step`. The model's state is not changed.

    Args:
        model: the compiled and built model.
        batch: the argument of `train_step`.
        variables: the variables whose contents are checked before and after the step.
        compiled: whether the step was compiled, which changes nothing on JAX.

    Raises:
        CapsuleError: if JAX cannot trace the train step.
    """
    lists = _lists(model, batch)
    state = [[Value.of(each.value) for each in some] for some in lists]
    marks = _Marks(model)
    recorder = Recorder(marks.paths, marks.seen)
    trace = marks.trace = StepTrace(model, recorder)
    trace.rates = [rate for each in optimizers_of(model) for rate in rates_of(each)]
    arrays, joined = _split(batch)
    inputs = list(map(Value.of, arrays))
    trace.batch = joined(inputs)
    jaxpr, form = _traced(model, marks, state, batch)
    before = [each for some in state for each in some]
    results = recorder.run(jaxpr, [*before, *inputs])
    logs, after = form(results)
    trace.losses = recorder.losses or _losses_in(logs)
    held = {
        id(variable): (old, new)
        for some, olds, news in zip(lists, state, after, strict=True)
        for variable, old, new in zip(some, olds, news, strict=True)
    }
    for variable in variables:
        value = recorder.constant(variable.value)
        old, new = held.get(id(variable), (value, value))
        trace.variables.append(old.key)
        recorder.change(old.key, new)
        if bad_among([old]):
            trace.bad_before.append(old.key)
        elif bad_among([new]):
            trace.lost.append(old.key)
    return trace


def ends_well(model: keras.Model, batch: Any, *, compiled: bool = False) -> bool:
    """Run the model's `train_step`, and return True if its loss and gradients are finite."""
    state = [[each.value for each in some] for some in _lists(model, batch)]
    arrays, joined = _split(batch)

    @jax.jit
    def are_finite(state: Any, arrays: list[Any]) -> Any:
        trace = JaxStepTrace(model, optimizers_of(model))
        with trace.recording():
            logs, _ = model.train_step(tuple(state), joined(arrays))
        losses = _losses_in(logs) if trace.loss is None else [trace.loss]
        gradients = [each for call in trace.calls for each in call.gradients]
        values = [each for each in (*losses, *gradients) if each is not None]
        return jnp.all(jnp.array([jnp.isfinite(each).all() for each in values]))

    return bool(are_finite(state, arrays))


def _split(structure: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """Return the arrays of a structure, and a function that puts others in their places."""
    parts = keras.tree.flatten(structure)
    places = [n for n, each in enumerate(parts) if is_array(each)]

    def joined(arrays: list[Any]) -> Any:
        every = list(parts)
        for n, array in zip(places, arrays, strict=True):
            every[n] = array
        return keras.tree.pack_sequence_as(structure, every)

    return [parts[n] for n in places], joined


def _lists(model: keras.Model, batch: Any) -> list[list[Any]]:
    """Return the variables in the state of a train step, in four lists."""
    build_metrics(model, batch)
    optimizer = getattr(model, "optimizer", None)
    return [
        model.trainable_variables,
        model.non_trainable_variables,
        [] if optimizer is None else optimizer.variables,
        model.metrics_variables,
    ]


def _traced(
    model: keras.Model, marks: _Marks, state: list[list[Value]], batch: Any
) -> tuple[Any, Callable[[list[Value]], tuple[Any, Any]]]:
    """Return the jaxpr of the step, and a function that gives its results their structure."""
    returned: list[Any] = []
    arrays, joined = _split(batch)

    def step(state: Any, arrays: list[Any]) -> list[Any]:
        results, structure = jax.tree.flatten(model.train_step(tuple(state), joined(arrays)))
        returned[:] = [results, structure]
        return [each for each in results if is_array(each)]

    try:
        with jax.disable_jit(), traced_whole(model), marks.made():
            jaxpr = jax.make_jaxpr(step)(list(map(arrays_in, state)), arrays)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        raise CapsuleError(
            "On JAX, a replay supports only a train step that jax.jit can compile. "
            f"Received: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
        ) from error
    results, structure = returned

    def form(values: list[Value]) -> tuple[Any, Any]:
        rest = iter(values)
        every = [next(rest) if is_array(each) else each for each in results]
        return jax.tree.unflatten(structure, every)

    return jaxpr, form


def _losses_in(logs: Any) -> list[Any]:
    """Return the loss in the logs of a train step that does not call `jax.value_and_grad`."""
    loss = logs.get("loss") if isinstance(logs, dict) else None
    return [] if loss is None else [loss]


def to_tensors(batch: Any) -> Any:
    """Return a batch with arrays of JAX in place of other arrays."""
    return keras.tree.map_structure(
        lambda each: jnp.asarray(each) if is_array(each) else each, batch
    )


def tensors_in(structure: Any) -> list[Any]:
    """Return the arrays of a structure."""
    return [each for each in keras.tree.flatten(structure) if isinstance(each, Value)]


def with_numbers(structure: Any, change: Callable[[Any], Any]) -> Any:
    """Change the real and complex arrays of a structure."""

    def changed(part: Any) -> Any:
        is_number = is_array(part) and jnp.issubdtype(part.dtype, jnp.inexact)
        return change(part) if is_number else part

    return keras.tree.map_structure(changed, structure)
