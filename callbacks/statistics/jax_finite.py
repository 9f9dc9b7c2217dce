"""Checks with JAX whether gradients and variables are finite."""

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp


def all_finite(tensors: Iterable[jax.Array], *, squares: bool = False) -> jax.Array:
    """Return whether every element is finite, and its square as well if `squares`."""
    return _all(jnp.isfinite(jnp.square(each) if squares else each) for each in tensors)


def remain_finite(after: Sequence[jax.Array], before: Sequence[jax.Array]) -> jax.Array:
    """Return whether every element that was finite before is finite after.

    Some variables hold infinities on purpose, such as a mask or a running minimum.
    """
    pairs = zip(after, before, strict=True)
    return _all(jnp.isfinite(new) | ~jnp.isfinite(old) for new, old in pairs)


def is_inexact(value: jax.Array) -> bool:
    """Return True if the dtype has non-finite values."""
    return bool(jnp.issubdtype(value.dtype, jnp.inexact))


def _all(flags: Iterable[jax.Array]) -> jax.Array:
    return jnp.all(jnp.array([True, *(jnp.all(each) for each in flags)]))
