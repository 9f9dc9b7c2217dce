"""Losses of padded sequences with their weights, and baseline losses."""

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np


class SequenceLoss(keras.losses.Loss):
    """Loss per time step that ignores the mask if weights are given.

    A model with masking passes its mask to the loss. Keras would multiply the weights by that mask,
    scaled by the mask's share in each batch: the mean over a split would then depend on how the
    split is batched. Therefore the mask is ignored if weights are given. Without weights it
    applies as in every Keras loss.
    """

    usual_name: ClassVar[str]

    def __init__(self, name: str | None = None, reduction: str = "sum_over_batch_size") -> None:
        super().__init__(name=name or self.usual_name, reduction=reduction)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        if sample_weight is not None:
            y_pred = keras.ops.copy(y_pred)  # the copy has no mask
        return super().__call__(y_true, y_pred, sample_weight)


@keras.saving.register_keras_serializable(package="gradkeeper")
class TokenCrossentropy(SequenceLoss):
    """Cross-entropy of integer targets, in nats per token.

    Targets: int [batch, time]. Predictions: logits [batch, time, tokens].
    """

    usual_name = "token_crossentropy"

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss per time step, [batch, time]."""
        return keras.ops.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)


@keras.saving.register_keras_serializable(package="gradkeeper")
class FrameCrossentropy(SequenceLoss):
    """Negative log-likelihood of frames of independent keys, in nats per frame.

    −Σ_k [y_k ln p_k + (1 − y_k) ln(1 − p_k)] with p = σ(logits), summed over the keys k; as in
    N. Boulanger-Lewandowski, Y. Bengio and P. Vincent, "Modeling temporal dependencies in
    high-dimensional sequences", ICML 2012.

    Targets: 0 or 1, [batch, time, keys]. Predictions: logits [batch, time, keys].
    """

    usual_name = "frame_crossentropy"

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss per time step, [batch, time]."""
        each = keras.ops.binary_crossentropy(y_true, y_pred, from_logits=True)
        return keras.ops.sum(each, axis=-1)


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


def entropy(ids: np.ndarray) -> float:
    """Return −Σ p ln p over the frequencies p of the ids, in nats."""
    frequencies = np.bincount(ids.ravel()) / ids.size
    present = frequencies[frequencies > 0]
    return float(-(present * np.log(present)).sum())


def constant_error(train: np.ndarray, evaluation: np.ndarray) -> float:
    """Return the mean squared error on `evaluation` [examples, units] of the mean of `train`."""
    return float(np.square(evaluation - train.mean(axis=0, dtype=np.float64)).mean())
