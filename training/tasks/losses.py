"""Losses per time step of padded sequences."""

from typing import Any

import keras


class SequenceLoss(keras.losses.Loss):
    """Loss per time step that ignores the mask if weights are given.

    A model with masking passes its mask to the loss. Keras would multiply the weights by that mask,
    scaled by the mask's share in each batch: the mean over a split would then depend on how the
    split is batched. Therefore the mask is ignored if weights are given. Without weights it
    applies as in every Keras loss.
    """

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        if sample_weight is not None:
            y_pred = keras.ops.copy(y_pred)  # the copy has no mask
        return super().__call__(y_true, y_pred, sample_weight)


@keras.saving.register_keras_serializable(package="gradkeeper")
class TokenCrossentropy(SequenceLoss):
    """Cross-entropy of integer targets, in nats per token.

    Targets: int [batch, time]. Predictions: logits [batch, time, tokens].
    """

    def __init__(
        self, name: str = "token_crossentropy", reduction: str = "sum_over_batch_size"
    ) -> None:
        super().__init__(name=name, reduction=reduction)

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

    def __init__(
        self, name: str = "frame_crossentropy", reduction: str = "sum_over_batch_size"
    ) -> None:
        super().__init__(name=name, reduction=reduction)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss per time step, [batch, time]."""
        each = keras.ops.binary_crossentropy(y_true, y_pred, from_logits=True)
        return keras.ops.sum(each, axis=-1)
