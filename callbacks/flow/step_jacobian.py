"""Jacobians of the steps of a recurrent layer."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import keras
import numpy as np
from keras import ops

from gradkeeper.callbacks.flow.backend import jvp, vjp
from gradkeeper.callbacks.flow.unrolled import Steps, cell_step

# Means are taken over at most this many pairs of example and time step.
_MOST_ROWS = 4096


class StepJacobian:
    """Jacobian ∂s_{t+1}/∂s_t of a cell at recorded steps; s joins its states, [batch, size]."""

    def __init__(self, cell: Any, steps: Steps) -> None:
        self._cell, self._steps = cell, steps
        inputs, self._nest = next(iter(steps.given.values()))
        self._batch = int(inputs.shape[0])
        self._sizes = [int(each.shape[-1]) for each in keras.tree.flatten(self._nest)]
        self.size = sum(self._sizes)
        self._forward, self._backward = jvp(self._after), vjp(self._after)

    def times(self, vector: np.ndarray) -> np.ndarray:
        """Return the mean Jacobian over all unmasked examples and steps times a vector, [size]."""
        return self._mean(self._forward, vector)

    def transposed_times(self, vector: np.ndarray) -> np.ndarray:
        """Return the transposed mean Jacobian times a vector, [size]."""
        return self._mean(self._backward, vector)

    def lyapunov_exponents(self, count: int) -> np.ndarray:
        """Return the largest Lyapunov exponents, [count], per step, averaged over the examples.

        The QR method propagates vectors along each sequence, orthogonalises them at every step
        and sums the logarithms of their growth (Benettin et al. 1980; for recurrent networks,
        Vogt et al. 2022). Masked steps are skipped.
        """
        count, batch = min(count, self.size), self._batch
        frames = np.linalg.qr(np.random.default_rng(0).normal(size=(batch, self.size, count)))[0]
        sums, steps = np.zeros((batch, count)), np.zeros((batch, 1))
        for time, (inputs, nested) in self._steps.given.items():
            states = keras.tree.flatten(nested)
            columns = [
                _joined(self._forward(inputs, states, self._parts(frames[..., column], states)))
                for column in range(count)
            ]
            moved, growth = np.linalg.qr(np.stack(columns, axis=-1))
            there = self._there(time)
            with np.errstate(divide="ignore"):
                logs = np.log(np.abs(np.diagonal(growth, axis1=1, axis2=2)))
            sums += np.where(there, logs, 0.0)
            steps += there
            frames = np.where(there[..., np.newaxis], moved, frames)
        return (sums / np.maximum(steps, 1)).mean(axis=0)

    def _mean(self, product: Callable, vector: np.ndarray) -> np.ndarray:
        inputs, states = self._rows
        products = product(inputs, states, self._parts(vector, states))
        return _joined([ops.mean(each, axis=0) for each in products])

    @cached_property
    def _rows(self) -> tuple[Any, list[Any]]:
        """Return the inputs and states of all unmasked steps, [rows, ...], evenly subsampled."""
        given = self._steps.given
        rows = np.flatnonzero(np.concatenate([self._there(time) for time in given]))
        chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MOST_ROWS)).astype(int)]
        steps = [[inputs, *keras.tree.flatten(nested)] for inputs, nested in given.values()]
        inputs, *states = [
            ops.take(ops.concatenate(each, axis=0), chosen, axis=0)
            for each in zip(*steps, strict=True)
        ]
        return inputs, states

    def _there(self, time: int) -> np.ndarray:
        """Return the mask of the examples at this time step, [batch, 1]."""
        mask = self._steps.mask
        if mask is None:
            return np.ones((self._batch, 1), bool)
        return ops.convert_to_numpy(mask)[:, time, None]

    def _parts(self, vectors: np.ndarray, states: list[Any]) -> list[Any]:
        """Split vectors, [..., size], into tensors like the states."""
        parts = np.split(vectors, np.cumsum(self._sizes)[:-1], axis=-1)
        return [
            ops.broadcast_to(ops.cast(part, state.dtype), state.shape)
            for part, state in zip(parts, states, strict=True)
        ]

    def _after(self, inputs: Any, states: list[Any]) -> list[Any]:
        nested = keras.tree.pack_sequence_as(self._nest, states)
        return keras.tree.flatten(cell_step(self._cell, inputs, nested)[1])


def _joined(parts: list[Any]) -> np.ndarray:
    """Concatenate tensors to vectors, [..., size]."""
    return np.concatenate([np.asarray(each, np.float64) for each in parts], axis=-1)
