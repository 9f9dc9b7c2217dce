"""Rerun of an operation of JAX with other inputs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkeeper.callbacks.diagnosis.jax.equations import evaluate
from gradkeeper.callbacks.diagnosis.operations import Operation

# Errors of an operation or a step that does not support its inputs.
FAILURES = (TypeError, ValueError, NotImplementedError, jax.errors.JaxRuntimeError)
_SMALLER = 2.0**-10
# Parameters that name the dtype of a result.
_TYPES = ("new_dtype", "preferred_element_type", "dtype")


def scaled_down(array: Any) -> jax.Array:
    """Return the array divided by 1,024."""
    return array * jnp.asarray(_SMALLER, array.dtype)


def widened(array: Any) -> jax.Array:
    """Return a real array in float64, a complex one in complex128, others unchanged."""
    return array.astype(_wide(array.dtype))


def _wide(dtype: Any) -> Any:
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return np.dtype(np.complex128)
    return np.dtype(np.float64) if jnp.issubdtype(dtype, jnp.floating) else dtype


def is_finite_with(change: Callable[[Any], jax.Array], operation: Operation) -> bool | None:
    """Return True if an operation is finite with other inputs; None if it cannot run with them.

    Args:
        change: the change of the real and complex inputs: `widened` or `scaled_down`.
        operation: the operation.
    """
    if not operation.tensors:
        return None
    equation = operation.attributes["equation"]
    with jax.enable_x64(change is widened):
        arrays = [change(x.array) if x.is_inexact else x.array for x in operation.tensors]
        params = {}
        if change is widened:
            named = {n: equation.params.get(n) for n in _TYPES}
            params = {n: _wide(dtype) for n, dtype in named.items() if dtype is not None}
        try:
            results = evaluate(equation, arrays, **params)
        except FAILURES:
            return None
        return all(
            bool(jnp.isfinite(each).all())
            for each in results
            if jnp.issubdtype(each.dtype, jnp.inexact)
        )
