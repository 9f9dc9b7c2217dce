"""Padding of sequences to equal length."""

from collections.abc import Sequence

import numpy as np


def padded(sequences: Sequence[np.ndarray], value: float, *, steps: int) -> np.ndarray:
    """Return [sequences, steps, ...]: each sequence [length, ...], padded at the end by `value`."""
    first = sequences[0]
    together = np.full((len(sequences), steps, *first.shape[1:]), value, first.dtype)
    for row, sequence in zip(together, sequences, strict=True):
        row[: len(sequence)] = sequence
    return together


def known_steps(sequences: Sequence[np.ndarray], *, steps: int) -> np.ndarray:
    """Return a bool array [sequences, steps], False at the padding that `padded` adds."""
    lengths = np.array([len(sequence) for sequence in sequences])
    return np.arange(steps) < lengths[:, None]


def step_weights(known: np.ndarray) -> np.ndarray:
    """Return weights with which Keras's mean loss is exact: the mean over all steps but padding.

    With l[n] known steps in sequence n, w[n, t] = steps / mean(l) where step t is known, and 0
    where it is padding. Keras divides the weighted sum of a batch of B sequences by B · steps.
    The mean over all N sequences of the split is then

        Σ loss[n, t] · (steps / mean(l)) / (N · steps) = Σ loss[n, t] / Σ l[n]

    for any batch size and any distribution over replicas.

    Args:
        known: bool [N, steps], for all sequences of the split.

    Returns:
        float32 [N, steps].
    """
    steps = known.shape[1]
    return (known * (steps / known.sum(axis=1).mean())).astype(np.float32)
