"""LuongAttention."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from gradkeeper.zoo import _checks
from gradkeeper.zoo.layers.sequence_attention import SequenceAttention


@keras.saving.register_keras_serializable(package="gradkeeper")
class LuongAttention(SequenceAttention):
    """Multiplicative attention.

    Luong, Pham, Manning: "Effective Approaches to Attention-based Neural Machine Translation",
    2015, arXiv 1508.04025, section 3.1::

        general: score(q, v) = q . (W v)
        dot:     score(q, v) = q . v

    See `SequenceAttention` for shapes and masks.

    Weights:
        kernel: W transposed, [features, width]; None for "dot".

    Args:
        score: "general" or "dot". "dot" needs queries as wide as the values.
        kernel_initializer: initializer of the kernel.
        causal: whether query i attends only to the values 0..i.

    Raises:
        ValueError: if `score` is unknown, or if it is "dot" and the widths differ.
    """

    def __init__(
        self,
        *,
        score: str = "general",
        kernel_initializer: Any = "glorot_uniform",
        causal: bool = False,
        **layer_options: Any,
    ) -> None:
        super().__init__(causal=causal, **layer_options)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.score_name = _checks.choice("score", score, ("general", "dot"))

    def build(self, query_shape: Sequence[int | None], values_shape: Sequence[int | None]) -> None:
        width, features = query_shape[-1], values_shape[-1]
        self.kernel = None
        if self.score_name == "general":
            self.kernel = self.add_weight(
                shape=(features, width), name="kernel", initializer=self.kernel_initializer
            )
        elif width != features:
            raise ValueError(
                '`score="dot"` needs queries as wide as the values. Use `score="general"`. '
                f"Received: query_shape={tuple(query_shape)}, values_shape={tuple(values_shape)}"
            )
        self.built = True

    def score(self, query: Any, values: Any) -> Any:
        keys = values if self.kernel is None else ops.matmul(values, self.kernel)
        return ops.matmul(query, ops.transpose(keys, (0, 2, 1)))

    def get_config(self) -> dict[str, Any]:
        own = {
            "score": self.score_name,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
        return {**super().get_config(), **own}
