"""Largest eigenvalue and largest singular value of a matrix that need not be there."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Product: TypeAlias = Callable[[np.ndarray], np.ndarray]

# Up to this size, a matrix is built from its products with unit vectors.
_SMALL = 64
_KRYLOV = 60
_POWER_STEPS = 200
_TOLERANCE = 1e-7


@dataclass(frozen=True)
class Spectrum:
    """What a matrix does to a vector that it is applied to again and again, and once.

    Attributes:
        radius: spectral radius ρ, the largest magnitude of an eigenvalue: the growth per step
            in the long run.
        norm: largest singular value σ₁: the most by which one step can stretch a vector.
    """

    radius: float
    norm: float

    @property
    def prediction(self) -> str:
        """What it says of a gradient that is sent back through it at every step.

        σ₁ < 1 suffices for vanishing; σ₁ > 1 is only necessary for exploding (Pascanu, Mikolov,
        Bengio 2013, arXiv:1211.5063, section 2.1). ρ is the growth per step.
        """
        growth = f"times {self.radius:.3g} per step in the long run"
        if self.norm < 1:
            return f"vanishes, {growth}"
        return (
            f"{'grows' if self.radius > 1 else 'fades'}, {growth}, at most {self.norm:.3g} at once"
        )

    @classmethod
    def of_matrix(cls, matrix: np.ndarray) -> "Spectrum":
        """The spectrum of a square matrix.

        Raises:
            ValueError: if it holds a number that is not finite.
        """
        if not np.isfinite(matrix).all():
            raise ValueError("A matrix with numbers that are not finite has no spectrum.")
        matrix = np.asarray(matrix, np.float64)
        radius = np.abs(np.linalg.eigvals(matrix)).max()
        return cls(float(radius), float(np.linalg.norm(matrix, 2)))

    @classmethod
    def of_products(cls, size: int, times: Product, transposed_times: Product) -> "Spectrum":
        """The spectrum of a matrix that is known by its products only.

        Args:
            size: rows and columns.
            times: the matrix times a vector.
            transposed_times: its transpose times a vector.
        """
        if size <= _SMALL:
            return cls.of_matrix(np.stack([times(row) for row in np.eye(size)], axis=1))
        return cls(_radius(size, times), _norm(size, times, transposed_times))


def _radius(size: int, times: Product) -> float:
    """By Arnoldi's method: the eigenvalues of the matrix in a Krylov subspace."""
    count = min(_KRYLOV, size)
    basis = np.zeros((count + 1, size))
    small = np.zeros((count + 1, count))
    basis[0] = _start(size)
    for step in range(count):
        vector = times(basis[step])
        for _ in range(2):  # the second time for what rounding has left
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
    """By the power method on the matrix times its transpose."""
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
