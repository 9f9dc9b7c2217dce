"""Arrays of a step, each with a unique key."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_KEYS = count(1)


@dataclass(frozen=True, eq=False)
class Value:
    """An array of a step.

    Attributes:
        array: the array.
        key: the unique key.
    """

    array: jax.Array
    key: int

    @classmethod
    def of(cls, array: Any) -> "Value":
        """Return the array with a new key."""
        return cls(array, next(_KEYS))

    @property
    def dtype(self) -> Any:
        return self.array.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def is_inexact(self) -> bool:
        """Return True if the array is real or complex."""
        return jnp.issubdtype(self.dtype, jnp.inexact)

    def numpy(self) -> np.ndarray:
        return np.asarray(self.array)


def key_of(value: Any) -> int | None:
    """Return the unique key of a value; None for any other object."""
    return getattr(value, "key", None)


def arrays_in(values: Sequence[Value]) -> list[jax.Array]:
    """Return the arrays of the values."""
    return [each.array for each in values]


def is_array(value: Any) -> bool:
    """Return True if JAX can trace the value."""
    return isinstance(value, (jax.Array, np.ndarray, np.generic)) and (
        isinstance(value, jax.Array) or value.dtype.kind not in "OSU"
    )
