"""Statistics of gradients with JAX, exact even if float32 squares over- or underflow."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

# Squares of magnitudes between these limits neither overflow nor lose precision in float32.
_LEAST, _MOST = 1e-15, 1e15


def statistics(gradients: Sequence[jax.Array], dtype: str) -> jax.Array:
    """Return norm, largest magnitude and number of non-finite elements, [3, gradients]."""
    found = [_statistics(each, dtype) for each in gradients]
    return jnp.stack(found, axis=1) if found else jnp.zeros((3, 0), dtype)


def l2_norms(tensors: Sequence[jax.Array], dtype: str) -> jax.Array:
    """Return the L2 norm of each tensor, [tensors]; NaN or Inf if it contains NaN or Inf."""
    return statistics(tensors, dtype)[0]


def _statistics(tensor: jax.Array, dtype: str) -> jax.Array:
    magnitudes = jnp.abs(jnp.asarray(tensor)).astype(dtype)
    if not magnitudes.size:
        return jnp.zeros(3, dtype)
    largest = jnp.max(magnitudes)
    is_safe = ((largest >= _LEAST) & (largest <= _MOST)) | ~jnp.isfinite(largest) | (largest == 0)
    unit = jnp.where(is_safe, jnp.ones((), dtype), largest)
    norm = unit * jnp.sqrt(jnp.sum(jnp.square(magnitudes / unit)))
    nonfinite = jnp.sum(~jnp.isfinite(magnitudes)).astype(dtype)
    return jnp.stack([norm, largest, nonfinite])
