"""Sequences of different lengths in one array."""

from collections.abc import Sequence

import numpy as np


def padded(sequences: Sequence[np.ndarray], value: float, *, steps: int) -> np.ndarray:
    """[sequences, steps, ...]: each sequence [length, ...] from step 0 on, then `value`."""
    first = sequences[0]
    together = np.full((len(sequences), steps, *first.shape[1:]), value, first.dtype)
    for row, sequence in zip(together, sequences, strict=True):
        row[: len(sequence)] = sequence
    return together


def known_steps(sequences: Sequence[np.ndarray], *, steps: int) -> np.ndarray:
    """bool [sequences, steps]: False where `padded` puts padding."""
    lengths = np.array([len(sequence) for sequence in sequences])
    return np.arange(steps) < lengths[:, None]


def step_weights(known: np.ndarray) -> np.ndarray:
    """Weights that make Keras's mean loss exact: per time step of the split, padding apart.

    With l[n] known steps in sequence n, w[n, t] = steps / mean(l) where step t is known, and 0
    where it is padding. Keras divides the weighted sum of a batch of B sequences by B · steps.
    The mean over all N sequences of the split is then

        Σ loss[n, t] · (steps / mean(l)) / (N · steps) = Σ loss[n, t] / Σ l[n]

    however the split is cut into batches, and whatever replica computes which.

    Args:
        known: bool [N, steps], of all sequences of the split.

    Returns:
        float32 [N, steps].
    """
    steps = known.shape[1]
    return (known * (steps / known.sum(axis=1).mean())).astype(np.float32)
