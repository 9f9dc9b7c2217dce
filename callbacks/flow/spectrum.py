"""Spectral radius and largest singular value of a matrix or linear operator."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Product: TypeAlias = Callable[[np.ndarray], np.ndarray]

# Up to this size, the matrix is built from its products with unit vectors.
_SMALL = 64
_KRYLOV = 60
_POWER_STEPS = 200
_TOLERANCE = 1e-7


@dataclass(frozen=True)
class Spectrum:
    """Spectral radius and largest singular value of a matrix.

    Attributes:
        radius: spectral radius ρ, the largest magnitude of an eigenvalue. It is the growth
            factor per step over many steps.
        norm: largest singular value σ₁. It is the largest growth factor of one step.
    """

    radius: float
    norm: float

    @property
    def prediction(self) -> str:
        """Return the predicted behaviour of a gradient that the matrix multiplies at every step.

        σ₁ < 1 is sufficient for vanishing gradients; σ₁ > 1 is necessary, but not sufficient, for
        exploding gradients (Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, section 2.1). ρ is the
        growth factor per step.
        """
        growth = f"times {self.radius:.3g} per step in the long run"
        if self.norm < 1:
            return f"vanishes, {growth}"
        return f"{'grows' if self.radius > 1 else 'fades'}, {growth}, at most {self.norm:.3g} in one step"

    @classmethod
    def of_matrix(cls, matrix: np.ndarray) -> "Spectrum":
        """Compute the spectrum of a square matrix.

        Raises:
            ValueError: if the matrix contains NaN or infinity.
        """
        if not np.isfinite(matrix).all():
            raise ValueError(
                "The matrix is not finite. Restore finite weights. Received: matrix with NaN or infinity"
            )
        matrix = np.asarray(matrix, np.float64)
        radius = np.abs(np.linalg.eigvals(matrix)).max()
        return cls(float(radius), float(np.linalg.norm(matrix, 2)))

    @classmethod
    def of_products(cls, size: int, times: Product, transposed_times: Product) -> "Spectrum":
        """Compute the spectrum of a linear operator from its products with vectors.

        Args:
            size: number of rows and of columns.
            times: returns the matrix times a vector, [size].
            transposed_times: returns the transposed matrix times a vector, [size].
        """
        if size <= _SMALL:
            return cls.of_matrix(np.stack([times(row) for row in np.eye(size)], axis=1))
        return cls(_radius(size, times), _norm(size, times, transposed_times))


def _radius(size: int, times: Product) -> float:
    """Compute the spectral radius from a Krylov subspace (Arnoldi's method)."""
    count = min(_KRYLOV, size)
    basis = np.zeros((count + 1, size))
    small = np.zeros((count + 1, count))
    basis[0] = _start(size)
    for step in range(count):
        vector = times(basis[step])
        for _ in range(2):  # the second pass removes the rounding error of the first
            parts = basis[: step + 1] @ vector
            vector = vector - parts @ basis[: step + 1]
            small[: step + 1, step] += parts
        length = np.linalg.norm(vector)
        small[step + 1, step] = length
        if length < _TOLERANCE:
            count = step + 1
            break
        basis[step + 1] = vector / length
    return float(np.abs(np.linalg.eigvals(small[:count, :count])).max())


def _norm(size: int, times: Product, transposed_times: Product) -> float:
    """Compute the largest singular value (power method on the transpose times the matrix)."""
    vector, before = _start(size), 0.0
    for _ in range(_POWER_STEPS):
        vector = transposed_times(times(vector))
        length = float(np.linalg.norm(vector))
        if length == 0 or abs(length - before) <= _TOLERANCE * length:
            break
        vector, before = vector / length, length
    return float(np.sqrt(length))


def _start(size: int) -> np.ndarray:
    vector = np.random.default_rng(0).normal(size=size)
    return vector / np.linalg.norm(vector)
