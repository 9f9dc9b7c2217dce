"""Rerun of an operation of TensorFlow with other inputs."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.diagnosis.operations import Operation, arrays_of, numbers_of

# Errors of an operation or a step that does not support its inputs.
FAILURES = (TypeError, ValueError, tf.errors.OpError)
_SMALLER = 2.0**-10
# Attributes that name the dtype of a result.
_TYPES = frozenset({"DstT", "T", "Tcomplex", "Tout", "Treal", "dtype", "out_type"})


def widened(tensor: tf.Tensor) -> tf.Tensor:
    """Return a real tensor in float64, a complex one in complex128, others unchanged."""
    return tf.cast(tensor, _wide(tensor.dtype))


def _wide(dtype: tf.DType) -> tf.DType:
    if dtype.is_complex:
        return tf.complex128
    return tf.float64 if dtype.is_floating else dtype


def scaled_down(tensor: tf.Tensor) -> tf.Tensor:
    """Return the tensor divided by 1,024."""
    return tensor * tf.cast(_SMALLER, tensor.dtype)


def is_finite_with(change: Callable[[Any], tf.Tensor], operation: Operation) -> bool | None:
    """Return True if an operation is finite with other inputs; None if it cannot run with them.

    Args:
        change: the change of the real and complex inputs: `widened` or `scaled_down`.
        operation: the operation.
    """
    function = getattr(tf.raw_ops, operation.kind, None)
    # An operation on a resource changes the model, or depends on its changed state.
    has_resource = any(each.dtype == tf.resource for each in operation.tensors)
    if function is None or not operation.tensors or has_resource:
        return None
    inputs = [each if numbers_of(each) is None else change(each) for each in operation.tensors]
    try:
        arguments = _arguments(function, inputs, operation.attributes, wide=change is widened)
        results = function(**arguments)
    except FAILURES:
        return None  # no kernel for float64, or ambiguous arguments
    some = results if isinstance(results, (list, tuple)) else [results]
    return all(bool(np.isfinite(each).all()) for each in arrays_of(some))


def _arguments(
    function: Any, inputs: list[Any], attributes: dict[str, Any], *, wide: bool
) -> dict[str, Any]:
    names = [name for name in inspect.signature(function).parameters if name != "name"]
    given = {name: attributes[name] for name in names if name in attributes}
    if wide:
        given |= {name: _wide(tf.as_dtype(given[name])) for name in _TYPES & given.keys()}
    free = [name for name in names if name not in attributes]
    if "N" in attributes:  # the first argument is a list of N tensors
        count = len(inputs) - (len(free) - 1)
        inputs = [inputs[:count], *inputs[count:]]
    return {**dict(zip(free, inputs, strict=True)), **given}
