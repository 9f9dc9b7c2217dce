"""Losses of a train step, and optimizers that divide by a loss scale."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.instrument.graph import unmerged


def with_values(gradient: Any, change: Callable[[tf.Tensor], tf.Tensor]) -> Any:
    """Return the gradient with changed values; an `IndexedSlices` stays one, None stays None."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(change(gradient.values), gradient.indices, gradient.dense_shape)
    return None if gradient is None else change(gradient)


def tensors_in(structure: Any) -> list[tf.Tensor]:
    """Return the tensors of a nested structure."""
    return [each for each in keras.tree.flatten(structure) if isinstance(each, tf.Tensor)]


def as_tensor(value: Any) -> Any:
    """Return the value of a variable, or a Python or NumPy float, as a tensor.

    Other values are returned unchanged, and so are floats in a graph: there they are constants of
    the trace. The dtype of a Keras variable is a string.
    """
    if isinstance(value, (keras.Variable, tf.Variable)):
        return tf.convert_to_tensor(value)
    is_number = isinstance(value, (float, np.floating, np.ndarray)) and tf.executing_eagerly()
    if is_number and np.issubdtype(np.asarray(value).dtype, np.floating):
        return tf.convert_to_tensor(np.asarray(value))
    return value


def returned_loss(logs: Any) -> Any:
    """Return the losses in the return value of a train step; None if there are none.

    A custom train step need not call `compute_loss`. Its losses are then the value under "loss", or
    else the values under names that end in "_loss", as in `{"d_loss": ..., "g_loss": ...}`. A
    floating-point scalar that is returned instead of logs is the loss.

    Args:
        logs: the return value of `train_step`.
    """
    logs = as_tensor(logs)
    if tf.is_tensor(logs):
        return logs if logs.dtype.is_floating and logs.shape.rank == 0 else None
    if not isinstance(logs, dict):
        return None
    names = ["loss"] if "loss" in logs else [name for name in logs if str(name).endswith("_loss")]
    losses = [as_tensor(logs[name]) for name in names]
    return [each for each in losses if tf.is_tensor(each) and each.dtype.is_floating] or None


def mean_loss(value: Any, dtype: tf.DType | None = None) -> tf.Tensor | None:
    """Return the result of `compute_loss` as one number: the sum of the means of its losses.

    Return None if a custom `compute_loss` returns no loss.

    Args:
        value: the return value of `compute_loss`.
        dtype: dtype of the result; None for float32, or float64 if float32 does not hold the
            losses.
    """
    parts = [as_tensor(part) for part in keras.tree.flatten(value)]
    parts = [unmerged(part) for part in parts if tf.is_tensor(part)]
    if dtype is None:
        dtype = tf.float64 if any(part.dtype.size > 4 for part in parts) else tf.float32
    means = [part if part.shape.rank == 0 else tf.reduce_mean(part) for part in parts]
    means = [tf.cast(mean, dtype) for mean in means]
    if len(means) > 1:
        return tf.add_n(means)
    return means[0] if means else None


# Operations that call a `tf.function`.
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


class ScaledLosses:
    """Record of `scale_loss` calls, which finds calls of `apply` without a `scale_loss` before."""

    def __init__(self) -> None:
        self._scaled: set[int] = set()

    def wrapper(self, optimizer: keras.optimizers.Optimizer) -> Callable:
        """Return a `scale_loss` for the optimizer that records its calls."""
        original, scaled, key = optimizer.scale_loss, self._scaled, id(optimizer)

        def scale_loss(loss: Any) -> Any:
            scaled.add(key)
            return original(loss)

        return scale_loss

    def are_missing_for(
        self, optimizer: keras.optimizers.Optimizer, gradients: Sequence[Any], *, in_step: bool
    ) -> bool:
        """Return True if the optimizer divides by a scale that the loss was not multiplied by.

        If `scale_loss` was not called, the graph is searched for a product with the scale that the
        gradients depend on. A call of `scale_loss` inside a `tf.function` that was traced earlier
        is not recorded: return False for gradients that depend on such a function. Eager code has
        no graph: return True in the `train_step` of a model, and False in a custom loop.

        Args:
            optimizer: the optimizer whose `apply` is called; already built.
            gradients: the gradients that `apply` is called with.
            in_step: whether the `train_step` of a model makes the call.
        """
        is_scaling = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        if not is_scaling or id(optimizer) in self._scaled:
            return False
        if tf.executing_eagerly():
            return in_step
        tensors = tensors_in(list(gradients))
        if all(each.op.type == "Placeholder" and not _sources(each) for each in tensors):
            return False  # computed by another function
        return not _may_depend_on(tensors, optimizer.dynamic_scale.value)


def _may_depend_on(tensors: Sequence[tf.Tensor], variable: tf.Variable) -> bool:
    """Return True if symbolic tensors depend on the variable or on the call of a `tf.function`."""
    copies = tf.distribute.get_strategy().experimental_local_results(variable)
    handles = {id(each.handle) for each in copies}
    waiting, seen = list(tensors), set()
    while waiting:
        tensor = waiting.pop()
        if id(tensor) in handles:
            return True
        if id(tensor) not in seen and tf.is_symbolic_tensor(tensor):
            seen.add(id(tensor))
            if tensor.op.type in _CALLS:
                return True
            waiting += _sources(tensor)
    return False


def _sources(tensor: tf.Tensor) -> list[tf.Tensor]:
    """Return the tensors that a tensor is computed from, including captures from outer graphs."""
    captures = tensor.graph.captures if tensor.op.type == "Placeholder" else ()
    return [*tensor.op.inputs, *(outer for outer, inner in captures if inner is tensor)]
