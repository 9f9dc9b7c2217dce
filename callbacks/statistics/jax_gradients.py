"""Statistics of gradients with JAX, exact even if float32 squares over- or underflow."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Squares of magnitudes between these limits neither overflow nor lose precision in float32.
_LEAST, _MOST = 1e-15, 1e15

# Up to this number of elements, starting a reduction takes longer than running it on a CPU.
_SMALL = 16_384
# Number of elements in a row of the matrix that holds all small gradients.
_WIDTH = 32


def statistics(
    gradients: Sequence[jax.Array], dtype: str, largest: jax.Array | bool = True
) -> jax.Array:
    """Return L2 norm, largest magnitude and number of non-finite elements, [3, gradients].

    On a CPU, plain sums of squares are used where they are exact, and the others are computed again
    with scaling. On an accelerator, a branch would make the host wait for the device.

    Args:
        gradients: the gradients, of any shapes.
        dtype: dtype of the result.
        largest: whether the largest magnitudes are needed, a boolean scalar. If it is false, the
            magnitude of a gradient is NaN where the norm does not require it.
    """
    if not gradients:
        return jnp.zeros((3, 0), dtype)
    if not branches():
        found = [_careful(_real(each, dtype), _Segments()) for each in gradients]
        return jnp.concatenate(found, axis=1)
    # Without the barrier, XLA merges the squares with those of the optimizer, and writes them to
    # memory for both.
    tensors = [_real(jax.lax.optimization_barrier(each), dtype) for each in gradients]
    small = [i for i, each in enumerate(tensors) if each.size <= _SMALL]
    large = [i for i, each in enumerate(tensors) if each.size > _SMALL]
    # A branch for each large gradient, because a branch keeps its inputs in memory.
    found = [_measured(tensors[i], _Segments(), largest) for i in large]
    if small:
        rows = [-(-tensors[i].size // _WIDTH) for i in small]
        padded = [
            jnp.pad(jnp.ravel(tensors[i]), (0, count * _WIDTH - tensors[i].size))
            for i, count in zip(small, rows, strict=True)
        ]
        matrix = jnp.concatenate(padded).reshape(-1, _WIDTH)
        found.append(_measured(matrix, _Segments(rows), largest))
    measured = jnp.concatenate(found, axis=1)
    order = [*large, *small]
    return measured if order == sorted(order) else measured[:, np.argsort(order)]


def l2_norms(tensors: Sequence[jax.Array], dtype: str) -> jax.Array:
    """Return the L2 norm of each tensor, [tensors]; NaN or Inf if it contains NaN or Inf."""
    return statistics(tensors, dtype, largest=False)[0]


def branches() -> bool:
    """Return True if statistics that are rarely needed are computed in a branch."""
    return jax.default_backend() == "cpu"


class _Segments:
    """Reduction of an array that holds one or several gradients.

    Args:
        rows: number of consecutive rows of each gradient in a matrix; None for an array of any
            shape that is a single gradient.
    """

    def __init__(self, rows: Sequence[int] | None = None) -> None:
        self._rows = rows

    def reduced(self, reduce: Callable[..., jax.Array], values: jax.Array) -> jax.Array:
        """Apply a reduction such as `jnp.sum` to the values of each gradient, [gradients]."""
        if self._rows is None:
            return reduce(values).reshape(1)
        parts, ends = reduce(values, axis=1), np.cumsum(self._rows).tolist()
        return jnp.stack([reduce(parts[start:end]) for start, end in pairwise([0, *ends])])

    def spread(self, values: jax.Array) -> jax.Array:
        """Return the value of each gradient, [gradients], in a shape that fits to the array."""
        if self._rows is None:
            return values.reshape(())
        rows = np.repeat(np.arange(len(self._rows)), self._rows)
        return values[rows, np.newaxis]


def _measured(array: jax.Array, segments: _Segments, largest: jax.Array | bool) -> jax.Array:
    """Return the statistics, [3, gradients]; see `statistics`."""
    sums = segments.reduced(jnp.sum, jnp.square(array))
    # Above this limit of the mean square, the squares that underflow are negligible.
    is_exact = jnp.all((sums >= _LEAST**2 * array.size) & jnp.isfinite(sums))
    choice = jnp.where(is_exact, jnp.where(largest, 1, 0), 2)

    def plain(sums: jax.Array, array: jax.Array) -> jax.Array:
        return jnp.stack([jnp.sqrt(sums), jnp.full_like(sums, jnp.nan), jnp.zeros_like(sums)])

    def with_largest(sums: jax.Array, array: jax.Array) -> jax.Array:
        magnitudes = segments.reduced(jnp.max, jnp.abs(array))
        return jnp.stack([jnp.sqrt(sums), magnitudes, jnp.zeros_like(sums)])

    def careful(sums: jax.Array, array: jax.Array) -> jax.Array:
        return _careful(array, segments)

    return jax.lax.switch(choice, [plain, with_largest, careful], sums, array)


def _careful(array: jax.Array, segments: _Segments) -> jax.Array:
    """Return the statistics for any values, [3, gradients]."""
    largest = segments.reduced(jnp.max, jnp.abs(array))
    is_safe = ((largest >= _LEAST) & (largest <= _MOST)) | ~jnp.isfinite(largest) | (largest == 0)
    unit = jnp.where(is_safe, jnp.ones_like(largest), largest)
    squares = jnp.square(array / segments.spread(unit))
    norms = unit * jnp.sqrt(segments.reduced(jnp.sum, squares))
    # On a CPU, a maximum may ignore NaN.
    largest = jnp.where(jnp.isnan(norms), norms, largest)
    bad = jnp.where(jnp.isfinite(array), 0, 1).astype(array.dtype)
    return jnp.stack([norms, largest, segments.reduced(jnp.sum, bad)])


def _real(tensor: jax.Array, dtype: str) -> jax.Array:
    """Return a real tensor of this dtype with the same magnitudes, of at least one element."""
    tensor = jnp.asarray(tensor)
    if not tensor.size:
        return jnp.zeros(1, dtype)
    return (jnp.abs(tensor) if jnp.iscomplexobj(tensor) else tensor).astype(dtype)


def joined(arrays: Sequence[jax.Array], dtype: str) -> jax.Array:
    """Return the elements of all arrays as one array of this dtype, [elements]."""
    return jnp.concatenate([jnp.ravel(each).astype(dtype) for each in arrays])


def to_host(arrays: Sequence[jax.Array]) -> np.ndarray:
    """Copy arrays of equal shape to the host, [arrays, ...]."""
    if jax.default_backend() != "cpu":
        for each in arrays:
            each.copy_to_host_async()
    return np.stack([np.asarray(each) for each in arrays])


def wait_for(arrays: Any) -> None:
    """Wait until the device has computed all arrays of a tree."""
    jax.block_until_ready(arrays)


def widest_dtype() -> str:
    """Return the widest real dtype that JAX is configured for."""
    return "float64" if jax.config.jax_enable_x64 else "float32"
