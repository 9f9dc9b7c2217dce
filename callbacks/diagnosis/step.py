"""Eager run of a train step that records its operations, layer calls and optimizer calls.

TensorFlow's stateless random operations return different numbers under XLA. An eager replay
reproduces the dropout masks of a compiled step only if each random operation is compiled as well.
"""

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from traceback import walk_stack
from typing import Any
from unittest import mock

import keras
import tensorflow as tf

from gradkeeper.callbacks.diagnosis._tensorflow_private import key_of, slopes_as_in_xla
from gradkeeper.callbacks.diagnosis.operations import OperationTrace, Range, all_finite, range_of
from gradkeeper.callbacks.instrument.losses import as_tensor, mean_loss
from gradkeeper.callbacks.instrument.observer import StepObserver
from gradkeeper.callbacks.instrument.optimizers import optimizers_of, with_nested
from gradkeeper.callbacks.instrument.patch import AttributePatch
from gradkeeper.callbacks.instrument.rollback import functions_run_eagerly
from gradkeeper.callbacks.instrument.step_context import Gradients, OptimizerCall, StepContext
from gradkeeper.callbacks.instrument.step_patches import StepPatches
from gradkeeper.callbacks.instrument.variable_names import layer_paths, variable_names

# The stack frame of this code holds the layer as `self`.
_LAYER_CALL = inspect.unwrap(keras.layers.Layer.__call__).__code__


@dataclass
class LayerCall:
    """One call of a layer.

    Attributes:
        path: path of the layer, from the model on. An operation of a functional model, such as
            `keras.ops.log`, counts as a layer.
        given: range of the inputs; None if no input is a floating-point tensor.
        returned: range of the outputs.
        outputs: keys of the outputs.
        gradient: range of the gradient with respect to the outputs; None if not recorded.
    """

    path: str
    given: Range | None
    returned: Range | None = None
    outputs: list[int | None] = field(default_factory=list)
    gradient: Range | None = None


class LayerTrace:
    """Calls of a model's layers made inside `watching`, in order of execution.

    Args:
        model: the model.

    Attributes:
        calls: the recorded calls.
        interrupted: path of the innermost layer whose call raised an error.
    """

    def __init__(self, model: keras.Model) -> None:
        self._layers = layer_paths(model)
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
            for path, layer in (*self._layers, *_bare_operations(self._layers)):
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


def _bare_operations(layers: list[tuple[str, keras.layers.Layer]]) -> list[tuple[str, Any]]:
    """Return the operations of functional models that are not layers, with their paths."""
    found: dict[int, tuple[str, Any]] = {}
    for number, (path, layer) in enumerate(layers):
        for each in getattr(layer, "operations", ()):
            if not isinstance(each, keras.layers.Layer):
                found.setdefault(id(each), (f"{path}/{each.name}" if number else each.name, each))
    return list(found.values())


def _tensors(structure: Any) -> list[Any]:
    return [each for each in keras.tree.flatten(structure) if isinstance(each, tf.Tensor)]


@dataclass(frozen=True)
class Update:
    """One call of an optimizer's `apply`.

    Attributes:
        optimizer: the optimizer.
        begin: number of operations executed before the call.
        gradients: range of the gradients passed to the call.
    """

    optimizer: keras.optimizers.Optimizer
    begin: int
    gradients: Range | None


@dataclass
class StepTrace(StepObserver):
    """Record of a train step.

    Attributes:
        operations: the executed operations.
        layers: the layer calls.
        losses: the return values of `compute_loss`.
        gradients: gradients by variable name; None if a variable has none. If a step computes
            several for a variable, the first non-finite one, or else the last.
        updates: the optimizer calls.
        rates: learning rates of all optimizers before the step.
        refusal: error of the operation that rejected its inputs and ended the step.
    """

    model: keras.Model
    operations: OperationTrace
    layers: LayerTrace
    losses: list[tf.Tensor] = field(default_factory=list)
    gradients: dict[str, Any] = field(default_factory=dict)
    updates: list[Update] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    refusal: tf.errors.InvalidArgumentError | None = None

    def on_loss(self, context: StepContext, value: Any) -> None:
        losses = map(as_tensor, keras.tree.flatten(value))
        self.losses += [each for each in losses if tf.is_tensor(each)]

    def on_gradients(self, call: OptimizerCall, gradients: Gradients) -> None:
        names = variable_names(self.model, call.variables)
        for name, gradient in zip(names, gradients, strict=False):
            if not bad_among([self.gradients.get(name)]):
                self.gradients[name] = gradient
        given = range_of(_values_of(gradients))
        self.updates.append(Update(call.optimizer, len(self.operations.operations), given))

    @property
    def has_finite_loss(self) -> bool:
        """Return True if every loss is finite."""
        # A custom train step may differentiate a tensor that `compute_loss` did not return.
        return not bad_among([*self.losses, *self.operations.targets])

    @property
    def bad_results(self) -> list[tf.Tensor]:
        """Return the non-finite losses and gradients."""
        return bad_among([*self.losses, *self.operations.targets, *self.gradients.values()])

    @property
    def mean_loss(self) -> float | None:
        """Return the mean loss; None if the step has none."""
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


def run_step(model: keras.Model, batch: Any, *, compiled: bool = False) -> StepTrace:
    """Run and record the model's `train_step`, which changes the model's state.

    Args:
        model: the compiled and built model.
        batch: the argument of `train_step`.
        compiled: whether to reproduce the random numbers and the gradients of roots and
            reciprocals of a step compiled by XLA.
    """
    layers = LayerTrace(model)
    optimizers = optimizers_of(model)
    trace = StepTrace(model, OperationTrace(layers.current), layers)
    trace.rates = [rate for each in optimizers for rate in _rates(each)]
    patches = StepPatches([trace], optimizers, model)
    with (
        functions_run_eagerly(),
        _drawn_by_xla() if compiled else nullcontext(),
        slopes_as_in_xla() if compiled else nullcontext(),
        layers.watching(),
        patches.applied(),
        trace.operations.watching(),
    ):
        try:
            model.train_step(batch)
        except tf.errors.InvalidArgumentError as error:
            trace.refusal = error  # under XLA or on a GPU, the operation returns NaN instead
    return trace


def bad_among(values: Sequence[Any]) -> list[tf.Tensor]:
    """Return the non-finite tensors among `values`."""
    return [each for each in _values_of(values) if not all_finite(range_of([each]))]


def _values_of(tensors: Sequence[Any]) -> list[tf.Tensor]:
    """Return the tensors without other objects; for `IndexedSlices`, their values."""
    parts = [each.values if isinstance(each, tf.IndexedSlices) else each for each in tensors]
    return [each for each in parts if tf.is_tensor(each)]


def _rates(optimizer: keras.optimizers.Optimizer) -> list[float]:
    """Return the learning rates of an optimizer and of its inner optimizers."""
    rates = [getattr(each, "learning_rate", None) for each in with_nested(optimizer)]
    return [float(keras.ops.convert_to_numpy(each)) for each in rates if each is not None]
