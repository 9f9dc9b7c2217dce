"""Checks on JAX and torch whether gradients and variables are finite."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
from keras import ops


def all_finite(tensors: Iterable[Any], *, squares: bool = False) -> Any:
    """Return whether every element is finite, and its square as well if `squares`."""
    return every(ops.all(ops.isfinite(ops.square(x) if squares else x)) for x in tensors)


def remain_finite(after: Sequence[Any], before: Sequence[Any]) -> Any:
    """Return whether every element that was finite before is finite after.

    Some variables hold infinities on purpose, such as a mask or a running minimum.
    """
    pairs = zip(after, before, strict=True)
    return every(
        ops.all(ops.logical_or(ops.isfinite(new), ops.logical_not(ops.isfinite(old))))
        for new, old in pairs
    )


def is_inexact(value: Any) -> bool:
    """Return True if the dtype has non-finite values."""
    dtype = keras.backend.standardize_dtype(value.dtype)
    return keras.backend.is_float_dtype(dtype) or dtype.startswith("complex")


def every(flags: Iterable[Any]) -> Any:
    """Return whether all boolean scalars are true; True if there are none."""
    return ops.all(ops.stack([ops.convert_to_tensor(True), *flags]))
