"""Eager run of a train step that records its operations, layer calls and optimizer calls.

TensorFlow's stateless random operations return different numbers under XLA. An eager replay
reproduces the dropout masks of a compiled step only if each random operation is compiled as well.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import keras
import tensorflow as tf

from gradkeeper.callbacks.diagnosis._tensorflow_private import key_of, slopes_as_in_xla
from gradkeeper.callbacks.diagnosis.eager_layers import LayerTrace
from gradkeeper.callbacks.diagnosis.eager_operations import EagerTrace
from gradkeeper.callbacks.diagnosis.source import raising_source
from gradkeeper.callbacks.diagnosis.step_trace import Refusal, StepTrace, bad_among, rates_of
from gradkeeper.callbacks.instrument.losses import as_tensor, mean_loss
from gradkeeper.callbacks.instrument.observer import StepObserver
from gradkeeper.callbacks.instrument.optimizers import optimizers_of
from gradkeeper.callbacks.instrument.rollback import functions_run_eagerly
from gradkeeper.callbacks.instrument.step_context import Gradients, OptimizerCall, StepContext
from gradkeeper.callbacks.instrument.step_patches import StepPatches
from gradkeeper.callbacks.instrument.variable_names import variable_names


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


def _tensors(structure: Any) -> list[Any]:
    return [each for each in keras.tree.flatten(structure) if isinstance(each, tf.Tensor)]


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
    layers = LayerTrace(model, _tensors, key_of)
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
            # Under XLA or on a GPU, the operation returns NaN instead.
            trace.refusal = _refusal(error)
    trace.interrupted = layers.interrupted
    trace.lost = [each for each in _not_finite(variables) if each not in trace.bad_before]
    return trace


def _refusal(error: tf.errors.InvalidArgumentError) -> Refusal:
    operation = re.search(r"\[Op:(\w+)\]", error.message)
    message = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", error.message).strip()
    return Refusal(operation[1] if operation else None, message, raising_source(error))


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
