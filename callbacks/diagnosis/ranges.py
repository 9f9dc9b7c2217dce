"""Ranges of the values of tensors."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Range:
    """Range of the values of one or more tensors.

    Real and imaginary parts of complex numbers count as separate values.

    Attributes:
        lowest: the smallest finite value; NaN if no value is finite.
        highest: the largest finite value; NaN if no value is finite.
        nonfinite: fraction of values that are NaN or infinite, 0 to 1.
        nan: whether any value is NaN.
    """

    lowest: float
    highest: float
    nonfinite: float
    nan: bool

    @property
    def is_finite(self) -> bool:
        """Return True if all values are finite."""
        return self.nonfinite == 0

    def __str__(self) -> str:
        span = (
            "none finite" if np.isnan(self.lowest) else f"{self.lowest:.3g} to {self.highest:.3g}"
        )
        return span if self.is_finite else f"{span}, {100 * self.nonfinite:.3g} % not finite"


def range_of(tensors: Iterable[Any]) -> Range | None:
    """Return the range over all real and complex tensors; None if they have no values."""
    arrays = [array for array in map(numbers_of, tensors) if array is not None and array.size]
    parts = [each for array in arrays for each in _real_parts(array)]
    if not parts:
        return None
    finite = [np.isfinite(array) for array in parts]
    kept = [array[mask] for array, mask in zip(parts, finite, strict=True) if mask.any()]
    total = sum(array.size for array in parts)
    bad = total - sum(int(mask.sum()) for mask in finite)
    return Range(
        min((float(array.min()) for array in kept), default=float("nan")),
        max((float(array.max()) for array in kept), default=float("nan")),
        bad / total,
        any(bool(np.isnan(array).any()) for array in parts),
    )


def numbers_of(tensor: Any) -> np.ndarray | None:
    """Return a real or complex tensor as an array, at least float32; None for other objects."""
    dtype = getattr(tensor, "dtype", None)
    if not (getattr(dtype, "is_floating", False) or getattr(dtype, "is_complex", False)):
        return None
    if not hasattr(tensor, "numpy"):
        return None
    array = np.asarray(tensor.numpy())
    return array if array.dtype.itemsize >= 4 else array.astype(np.float32)


def _real_parts(array: np.ndarray) -> list[np.ndarray]:
    return [array.real, array.imag] if np.iscomplexobj(array) else [array]
