"""Eager run of a train step under observation.

TensorFlow's stateless random operations return different numbers under XLA. An eager replay
reproduces the dropout masks of a compiled step only if each random operation is compiled as well.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import keras
import tensorflow as tf

from gradkeeper.callbacks.diagnosis._tensorflow_private import slopes_as_in_xla
from gradkeeper.callbacks.diagnosis.layers import LayerTrace
from gradkeeper.callbacks.diagnosis.operations import OperationTrace
from gradkeeper.callbacks.diagnosis.ranges import Range, range_of
from gradkeeper.callbacks.instrument.losses import mean_loss
from gradkeeper.callbacks.instrument.observer import StepObserver
from gradkeeper.callbacks.instrument.optimizers import optimizers_of, with_nested
from gradkeeper.callbacks.instrument.rollback import functions_run_eagerly
from gradkeeper.callbacks.instrument.step_context import Gradients, OptimizerCall, StepContext
from gradkeeper.callbacks.instrument.step_patches import StepPatches
from gradkeeper.callbacks.instrument.variable_names import variable_names

_PLACES: list[tuple[Any, str]] = [
    (tf.nn.experimental, "stateless_dropout"),
    (tf.random, "stateless_binomial"),
    (tf.random, "stateless_categorical"),
    (tf.random, "stateless_gamma"),
    (tf.random, "stateless_normal"),
    (tf.random, "stateless_truncated_normal"),
    (tf.random, "stateless_uniform"),
]


@contextmanager
def drawn_by_xla() -> Iterator[None]:
    """Compile each random operation of Keras with XLA inside the block."""
    with ExitStack() as stack:
        for module, name in _PLACES:
            compiled = _compiled(getattr(module, name))
            stack.enter_context(mock.patch.object(module, name, compiled))
        yield


def _compiled(draw: Callable) -> Callable:
    def compiled(*args: Any, **kwargs: Any) -> Any:
        # A replay runs other functions eagerly; a concrete function stays compiled.
        function = tf.function(lambda: draw(*args, **kwargs), jit_compile=True, autograph=False)
        return function.get_concrete_function()()

    return compiled


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
        self.losses += [each for each in keras.tree.flatten(value) if tf.is_tensor(each)]

    def on_gradients(self, call: OptimizerCall, gradients: Gradients) -> None:
        names = variable_names(self.model, call.variables)
        for name, gradient in zip(names, gradients, strict=False):
            if not bad_among([self.gradients.get(name)]):
                self.gradients[name] = gradient
        begin = len(self.operations.operations)
        given = range_of(tensors_in(gradients))
        self.updates.append(Update(call.optimizer, begin, given))

    @property
    def has_finite_loss(self) -> bool:
        """Return True if every loss is finite."""
        # A custom train step may differentiate a tensor that `compute_loss` did not return.
        return not bad_among([*self.losses, *self.operations.targets])

    @property
    def bad_results(self) -> list[tf.Tensor]:
        """Return the non-finite losses and gradients."""
        gradients = list(self.gradients.values())
        return bad_among([*self.losses, *self.operations.targets, *gradients])

    @property
    def mean_loss(self) -> float | None:
        """Return the mean loss; None if the step has none."""
        mean = mean_loss(self.losses or self.operations.targets, tf.float32)
        return None if mean is None else float(mean)


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
        drawn_by_xla() if compiled else nullcontext(),
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
    numbers = ((each, range_of([each])) for each in tensors_in(values))
    return [each for each, numbers in numbers if numbers is not None and not numbers.is_finite]


def _rates(optimizer: keras.optimizers.Optimizer) -> list[float]:
    """Return the learning rates of an optimizer and of its inner optimizers."""
    rates = [getattr(each, "learning_rate", None) for each in with_nested(optimizer)]
    return [float(keras.ops.convert_to_numpy(each)) for each in rates if each is not None]


def tensors_in(values: Sequence[Any]) -> list[tf.Tensor]:
    """Return the tensors among `values`, with `IndexedSlices` replaced by their values."""
    parts = [each.values if isinstance(each, tf.IndexedSlices) else each for each in values]
    return [each for each in parts if tf.is_tensor(each)]
