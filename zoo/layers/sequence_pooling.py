"""SequencePooling."""

from typing import Any

import keras
from keras import ops

from gradkeeper._arguments import choice
from gradkeeper.zoo._typing import Config, Shape, Tensor

MODES = ("last", "mean", "max")


@keras.saving.register_keras_serializable(package="gradkeeper")
class SequencePooling(keras.layers.Layer):
    """Pooling over time that ignores masked steps.

    Inputs: [batch, time, features]. Output: [batch, features], zeros if all steps are masked.

    Args:
        mode: "last" (the last unmasked step), "mean" or "max" over time.
        bidirectional: with "last", the second half of the features comes from the first
            unmasked step, where the backward direction of `keras.layers.Bidirectional` ends.
    """

    def __init__(
        self, mode: str = "last", *, bidirectional: bool = False, **layer_options: Any
    ) -> None:
        super().__init__(**layer_options)
        self.mode = choice("mode", mode, MODES)
        self.bidirectional = bidirectional
        self.supports_masking = True

    def call(self, sequence: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.mode == "last":
            return self._last(sequence, mask)
        if mask is None:
            mask = ops.ones_like(sequence[..., 0])
        mask = ops.cast(mask, "bool")[..., None]
        return self._mean(sequence, mask) if self.mode == "mean" else self._max(sequence, mask)

    def _mean(self, sequence: Tensor, mask: Tensor) -> Tensor:
        # float16 can count steps exactly only up to 2048.
        wide = keras.backend.result_type(sequence.dtype, "float32")
        total = ops.sum(ops.cast(ops.where(mask, sequence, 0), wide), axis=1)
        steps = ops.maximum(ops.sum(ops.cast(mask, wide), axis=1), 1)
        return ops.cast(total / steps, sequence.dtype)

    def _max(self, sequence: Tensor, mask: Tensor) -> Tensor:
        lowest = ops.min(sequence, axis=1, keepdims=True)
        highest = ops.max(ops.where(mask, sequence, lowest), axis=1)
        return ops.where(ops.any(mask, axis=1), highest, 0)

    def _last(self, sequence: Tensor, mask: Tensor | None) -> Tensor:
        last = self._end(sequence, mask, reverse=True)
        if not self.bidirectional:
            return last
        first = self._end(sequence, mask, reverse=False)
        width = sequence.shape[-1] // 2
        return ops.concatenate([last[..., :width], first[..., width:]], axis=-1)

    def _end(self, sequence: Tensor, mask: Tensor | None, *, reverse: bool) -> Tensor:
        """Return the outputs at the first unmasked step, or with `reverse` at the last one."""
        if mask is None:
            return sequence[:, -1 if reverse else 0]
        steps = ops.cast(mask, "int32")
        steps = ops.flip(steps, axis=1) if reverse else steps
        chosen = ops.logical_and(steps > 0, ops.cumsum(steps, axis=1) == 1)
        chosen = ops.flip(chosen, axis=1) if reverse else chosen
        return ops.sum(ops.where(chosen[..., None], sequence, 0), axis=1)

    def compute_mask(self, sequence: Tensor, previous_mask: Tensor | None) -> None:
        return None

    def compute_output_shape(self, shape: Shape) -> tuple[int | None, ...]:
        return (shape[0], shape[-1])

    def get_config(self) -> Config:
        own = {"mode": self.mode, "bidirectional": self.bidirectional}
        return {**super().get_config(), **own}
