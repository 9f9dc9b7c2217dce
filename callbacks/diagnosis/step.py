"""Eager run of a train step that records its operations, layer calls and optimizer calls.

TensorFlow's stateless random operations return different numbers under XLA. An eager replay
reproduces the dropout masks of a compiled step only if each random operation is compiled as well.
"""

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from traceback import walk_stack
from typing import Any
from unittest import mock

import keras
import tensorflow as tf

from gradkeeper.callbacks.diagnosis._tensorflow_private import key_of, slopes_as_in_xla
from gradkeeper.callbacks.diagnosis.eager_operations import EagerTrace
from gradkeeper.callbacks.diagnosis.operations import range_of
from gradkeeper.callbacks.diagnosis.step_trace import (
    LayerCall,
    StepTrace,
    bad_among,
    rates_of,
    watched_layers,
)
from gradkeeper.callbacks.instrument.losses import as_tensor, mean_loss
from gradkeeper.callbacks.instrument.observer import StepObserver
from gradkeeper.callbacks.instrument.optimizers import optimizers_of
from gradkeeper.callbacks.instrument.patch import AttributePatch
from gradkeeper.callbacks.instrument.rollback import functions_run_eagerly
from gradkeeper.callbacks.instrument.step_context import Gradients, OptimizerCall, StepContext
from gradkeeper.callbacks.instrument.step_patches import StepPatches
from gradkeeper.callbacks.instrument.variable_names import variable_names

# The stack frame of this code holds the layer as `self`.
_LAYER_CALL = inspect.unwrap(keras.layers.Layer.__call__).__code__


class LayerTrace:
    """Calls of a model's layers made inside `watching`, in order of execution.

    Args:
        model: the model.

    Attributes:
        calls: the recorded calls.
        interrupted: path of the innermost layer whose call raised an error.
    """

    def __init__(self, model: keras.Model) -> None:
        self._layers = watched_layers(model)
        self._paths = {id(layer): path for path, layer in self._layers}
        self._stack: list[str] = []
        self.calls: list[LayerCall] = []
        self.interrupted: str | None = None

    def current(self) -> tuple[str, ...]:
        """Return the paths of the layers that are running, the outermost first.

        The last one may run code around its `call`, such as a cast of its inputs.
        """
        for frame, _ in walk_stack(sys._getframe(1)):
            if frame.f_code is LayerTrace._call.__code__:
                break
            if frame.f_code is _LAYER_CALL:
                preparing = self._paths.get(id(frame.f_locals["self"]))
                return tuple(self._stack) if preparing is None else (*self._stack, preparing)
        return tuple(self._stack)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record layer calls inside the block."""
        with ExitStack() as stack:
            for path, layer in self._layers:
                patch = AttributePatch(layer, "call", partial(self._watched, path))
                stack.callback(patch.revert)
                patch.apply()
            yield

    def _watched(self, path: str, layer: keras.Operation) -> Callable:
        return partial(self._call, path, layer.call)

    def _call(self, path: str, original: Callable, /, *args: Any, **kwargs: Any) -> Any:
        noted = LayerCall(path, range_of(_tensors((args, kwargs))))
        self.calls.append(noted)
        self._stack.append(path)
        try:
            result = original(*args, **kwargs)
        except BaseException:
            self.interrupted = self.interrupted or path
            raise
        finally:
            self._stack.pop()
        outputs = _tensors(result)
        noted.returned = range_of(outputs)
        noted.outputs = [key_of(each) for each in outputs]
        return result


def _tensors(structure: Any) -> list[Any]:
    return [each for each in keras.tree.flatten(structure) if isinstance(each, tf.Tensor)]


@dataclass
class EagerStepTrace(StepTrace, StepObserver):
    """Record of an eager train step of TensorFlow."""

    def on_loss(self, context: StepContext, value: Any) -> None:
        losses = map(as_tensor, keras.tree.flatten(value))
        self.losses += [each for each in losses if tf.is_tensor(each)]

    def on_gradients(self, call: OptimizerCall, gradients: Gradients) -> None:
        values = [g.values if isinstance(g, tf.IndexedSlices) else g for g in gradients]
        self.add_update(call.optimizer, variable_names(self.model, call.variables), values)

    @property
    def mean_loss(self) -> float | None:
        mean = mean_loss(self.losses or self.operations.targets, tf.float32)
        return None if mean is None else float(mean)


_DISTRIBUTIONS = ("binomial", "categorical", "gamma", "normal", "truncated_normal", "uniform")
_RANDOM_FUNCTIONS = [
    (tf.nn.experimental, "stateless_dropout"),
    *((tf.random, f"stateless_{name}") for name in _DISTRIBUTIONS),
]


@contextmanager
def _drawn_by_xla() -> Iterator[None]:
    """Compile each random operation of Keras with XLA inside the block."""

    def compiled(draw: Callable, /, *args: Any, **kwargs: Any) -> Any:
        # A replay runs other functions eagerly; a concrete function stays compiled.
        function = tf.function(lambda: draw(*args, **kwargs), jit_compile=True, autograph=False)
        return function.get_concrete_function()()

    with ExitStack() as stack:
        for module, name in _RANDOM_FUNCTIONS:
            draw = partial(compiled, getattr(module, name))
            stack.enter_context(mock.patch.object(module, name, draw))
        yield


def run_step(
    model: keras.Model, batch: Any, variables: Sequence[Any] = (), *, compiled: bool = False
) -> StepTrace:
    """Run and record the model's `train_step`, which changes the model's state.

    Args:
        model: the compiled and built model.
        batch: the argument of `train_step`.
        variables: the variables whose contents are checked before and after the step.
        compiled: whether to reproduce the random numbers and the gradients of roots and
            reciprocals of a step compiled by XLA.
    """
    layers = LayerTrace(model)
    operations = EagerTrace(layers.current)
    optimizers = optimizers_of(model)
    trace = EagerStepTrace(model, operations, layers.calls, batch)
    trace.rates = [rate for each in optimizers for rate in rates_of(each)]
    trace.variables = list(map(_handle, variables))
    trace.bad_before = _not_finite(variables)
    patches = StepPatches([trace], optimizers, model)
    with (
        functions_run_eagerly(),
        _drawn_by_xla() if compiled else nullcontext(),
        slopes_as_in_xla() if compiled else nullcontext(),
        layers.watching(),
        patches.applied(),
        operations.watching(),
    ):
        try:
            model.train_step(batch)
        except tf.errors.InvalidArgumentError as error:
            trace.refusal = error  # under XLA or on a GPU, the operation returns NaN instead
    trace.interrupted = layers.interrupted
    trace.lost = [each for each in _not_finite(variables) if each not in trace.bad_before]
    return trace


def ends_well(model: keras.Model, batch: Any, *, compiled: bool = False) -> bool:
    """Run the model's `train_step`, and return True if its losses and gradients are finite."""
    trace = run_step(model, batch, compiled=compiled)
    return trace.refusal is None and not trace.bad_results


def _handle(variable: keras.Variable) -> int:
    key = key_of(variable.value.handle)
    assert key is not None
    return key


def _not_finite(variables: Sequence[keras.Variable]) -> list[int]:
    return [_handle(each) for each in variables if bad_among([each.value])]


def to_tensors(batch: Any) -> Any:
    """Return a batch with tensors in place of arrays."""
    return keras.tree.map_structure(tf.convert_to_tensor, batch)


def tensors_in(structure: Any) -> list[tf.Tensor]:
    """Return the tensors of a structure, including the parts of ragged and sparse tensors."""
    return [x for x in tf.nest.flatten(structure, expand_composites=True) if tf.is_tensor(x)]


def with_numbers(structure: Any, change: Callable[[tf.Tensor], tf.Tensor]) -> Any:
    """Change the real and complex tensors of a structure."""

    def changed(part: Any) -> Any:
        is_number = tf.is_tensor(part) and (part.dtype.is_floating or part.dtype.is_complex)
        return change(part) if is_number else part

    return tf.nest.map_structure(changed, structure, expand_composites=True)
