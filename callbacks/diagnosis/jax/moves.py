"""Primitives that only move numbers, computed by NumPy.

JAX compiles each primitive once for each set of parameters. A recurrent layer has a slice for each
time step, which would take longer to compile than all of its arithmetic.
"""

from collections.abc import Callable
from typing import Any

import numpy as np


def _broadcast(
    x: np.ndarray, *, shape: tuple[int, ...], broadcast_dimensions: tuple[int, ...], **_: Any
) -> np.ndarray:
    own = [1] * len(shape)
    for size, axis in zip(x.shape, broadcast_dimensions, strict=True):
        own[axis] = size
    return np.broadcast_to(x.reshape(own), shape)


def _slice(
    x: np.ndarray, *, start_indices: Any, limit_indices: Any, strides: Any, **_: Any
) -> np.ndarray:
    steps = strides or [1] * x.ndim
    return x[tuple(map(slice, start_indices, limit_indices, steps))]


_MOVES: dict[str, Callable[..., np.ndarray]] = {
    "broadcast_in_dim": _broadcast,
    "reshape": lambda x, *, new_sizes, **_: x.reshape(new_sizes),
    "slice": _slice,
    "squeeze": lambda x, *, dimensions, **_: np.squeeze(x, tuple(dimensions)),
    "transpose": lambda x, *, permutation, **_: x.transpose(permutation),
}


def moved(equation: Any, arrays: list[Any]) -> np.ndarray | None:
    """Return the result of an equation that only moves numbers; None for others."""
    move = _MOVES.get(equation.primitive.name)
    is_plain = len(arrays) == 1 and isinstance(arrays[0].dtype, np.dtype)
    return move(np.asarray(arrays[0]), **equation.params) if move and is_plain else None
