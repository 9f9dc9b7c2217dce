"""Spectral radius and largest singular value of matrices and one-step Jacobians."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.flow.unrolled import Steps, cell_step

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


# Means are taken over at most this many pairs of example and time step.
_MOST_ROWS = 4096


class StepJacobian:
    """Jacobian ∂s_{t+1}/∂s_t of a cell, where s is the concatenation of its states.

    Args:
        cell: the cell.
        steps: the recorded inputs and states of the cell on a batch.
    """

    def __init__(self, cell: Any, steps: Steps) -> None:
        self._cell, self._steps = cell, steps
        first = next(iter(steps.given.values()))[1]
        self._nest = first
        self._sizes = [int(each.shape[-1]) for each in keras.tree.flatten(first)]
        self.size = sum(self._sizes)

    def mean_spectrum(self) -> Spectrum:
        """Return the spectrum of the mean Jacobian over all unmasked examples and steps."""
        inputs, states = self._rows()

        def times(vector: np.ndarray) -> np.ndarray:
            moved = self._forward(inputs, states, _like(vector, states))
            return np.asarray(tf.reduce_mean(moved, axis=0), np.float64)

        def transposed_times(vector: np.ndarray) -> np.ndarray:
            with tf.GradientTape() as tape:
                tape.watch(states)
                after = self._after(inputs, states)
            back = tape.gradient(after, states, output_gradients=_like(vector, states))
            return np.asarray(tf.reduce_mean(back, axis=0), np.float64)

        return Spectrum.of_products(self.size, times, transposed_times)

    def lyapunov_exponents(self, count: int) -> np.ndarray:
        """Return the largest Lyapunov exponents, [count], per step, averaged over the examples.

        The QR method propagates vectors along each sequence, orthogonalises them at every step
        and sums the logarithms of their growth (Benettin et al. 1980; for recurrent networks,
        Vogt et al. 2022). Masked steps are skipped.
        """
        count = min(count, self.size)
        batch = int(next(iter(self._steps.given.values()))[0].shape[0])
        frames = np.linalg.qr(np.random.default_rng(0).normal(size=(batch, self.size, count)))[0]
        sums, steps = np.zeros((batch, count)), np.zeros((batch, 1))
        for time, (inputs, nested) in self._steps.given.items():
            states = self._flat(nested)
            columns = [
                self._forward(inputs, states, tf.cast(frames[..., column], states.dtype))
                for column in range(count)
            ]
            moved, growth = np.linalg.qr(np.stack(columns, axis=-1).astype(np.float64))
            there = self._there(time, batch)
            with np.errstate(divide="ignore"):
                logs = np.log(np.abs(np.diagonal(growth, axis1=1, axis2=2)))
            sums += np.where(there, logs, 0.0)
            steps += there
            frames = np.where(there[..., np.newaxis], moved, frames)
        return (sums / np.maximum(steps, 1)).mean(axis=0)

    def _rows(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the inputs and states of all unmasked steps, [rows, ...], evenly subsampled."""
        given = self._steps.given
        inputs = tf.concat([each for each, _ in given.values()], axis=0)
        states = tf.concat([self._flat(nested) for _, nested in given.values()], axis=0)
        batch = len(inputs) // len(given)
        there = np.concatenate([self._there(time, batch)[:, 0] for time in given])
        rows = np.flatnonzero(there)
        chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MOST_ROWS)).astype(int)]
        return tf.gather(inputs, chosen), tf.gather(states, chosen)

    def _there(self, time: int, batch: int) -> np.ndarray:
        """Return the mask of the examples at this time step, [batch, 1]."""
        mask = self._steps.mask
        return np.ones((batch, 1), bool) if mask is None else mask[:, time : time + 1].numpy()

    def _forward(self, inputs: tf.Tensor, states: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
        """Return the Jacobian-vector product of each row, [rows, size]."""
        with tf.autodiff.ForwardAccumulator(states, vectors) as accumulator:
            after = self._after(inputs, states)
        moved = accumulator.jvp(after)
        return tf.zeros_like(states) if moved is None else moved

    def _after(self, inputs: tf.Tensor, states: tf.Tensor) -> tf.Tensor:
        parts = tf.split(states, self._sizes, axis=-1)
        nested = keras.tree.pack_sequence_as(self._nest, parts)
        return self._flat(cell_step(self._cell, inputs, nested)[1])

    def _flat(self, nested: Sequence[Any]) -> tf.Tensor:
        return tf.concat(keras.tree.flatten(nested), axis=-1)


def _like(vector: np.ndarray, states: tf.Tensor) -> tf.Tensor:
    """Broadcast the vector to all rows."""
    return tf.broadcast_to(tf.cast(vector, states.dtype), states.shape)
