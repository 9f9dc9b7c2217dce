"""Rerun of a single operation in float64 or with smaller inputs."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.diagnosis.operations import Operation
from gradkeeper.callbacks.diagnosis.ranges import numbers_of

_SMALLER = 2.0**-10
# Attributes that name the dtype of a result.
_TYPES = frozenset({"DstT", "T", "Tcomplex", "Tout", "Treal", "dtype", "out_type"})


def wide_dtype(dtype: tf.DType) -> tf.DType:
    """Return float64 for a real dtype and complex128 for a complex one; others unchanged."""
    if dtype.is_complex:
        return tf.complex128
    return tf.float64 if dtype.is_floating else dtype


def is_finite_in_float64(operation: Operation) -> bool | None:
    """Return True if the results are finite in float64; None if it cannot run in float64."""

    def widened(tensor: Any) -> tf.Tensor:
        return tf.cast(tensor, wide_dtype(tensor.dtype))

    return _is_finite(operation, widened, wide=True)


def is_finite_at_smaller_scale(operation: Operation) -> bool | None:
    """Return True if the results are finite with inputs divided by 1,024; None if unknown."""

    def smaller(tensor: Any) -> tf.Tensor:
        return tensor * tf.cast(_SMALLER, tensor.dtype)

    return _is_finite(operation, smaller, wide=False)


def _is_finite(
    operation: Operation, change: Callable[[Any], tf.Tensor], *, wide: bool
) -> bool | None:
    function = getattr(tf.raw_ops, operation.kind, None)
    # An operation on a resource changes the model, or depends on its changed state.
    has_resource = any(each.dtype == tf.resource for each in operation.tensors)
    if function is None or not operation.tensors or has_resource:
        return None
    inputs = [each if numbers_of(each) is None else change(each) for each in operation.tensors]
    try:
        results = function(**_arguments(function, inputs, operation.attributes, wide=wide))
    except (TypeError, ValueError, tf.errors.OpError):
        return None  # no kernel for float64, or ambiguous arguments
    results = results if isinstance(results, (list, tuple)) else [results]
    numbers = [numbers_of(each) for each in results]
    return all(bool(np.isfinite(each).all()) for each in numbers if each is not None)


def _arguments(
    function: Any, inputs: list[Any], attributes: dict[str, Any], *, wide: bool
) -> dict[str, Any]:
    names = [name for name in inspect.signature(function).parameters if name != "name"]
    given = {name: attributes[name] for name in names if name in attributes}
    if wide:
        given |= {name: wide_dtype(tf.as_dtype(given[name])) for name in _TYPES & given.keys()}
    free = [name for name in names if name not in attributes]
    if "N" in attributes:  # the first argument is a list of N tensors
        count = len(inputs) - (len(free) - 1)
        inputs = [inputs[:count], *inputs[count:]]
    return {**dict(zip(free, inputs, strict=True)), **given}
