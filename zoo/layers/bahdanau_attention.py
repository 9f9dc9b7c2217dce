"""BahdanauAttention."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from gradkeeper.zoo import _checks
from gradkeeper.zoo.layers.sequence_attention import SequenceAttention


@keras.saving.register_keras_serializable(package="gradkeeper")
class BahdanauAttention(SequenceAttention):
    """Additive attention.

    Bahdanau, Cho, Bengio: "Neural Machine Translation by Jointly Learning to Align and
    Translate", 2014, arXiv 1409.0473, A.1.2::

        score(q, v) = s . tanh(W q + U v + b)

    The layer allocates a tensor [batch, queries, time, units]. For long sequences with one query
    per time step, use `LuongAttention` instead. See `SequenceAttention` for shapes and masks.

    Weights:
        kernel: W and U, concatenated to [width + features, units].
        bias: b, [units].
        score_kernel: s, [units, 1].

    Args:
        units: width of the hidden layer in the score.
        kernel_initializer: initializer of both kernels.
        causal: whether query i attends only to the values 0..i.
    """

    def __init__(
        self,
        units: int,
        *,
        kernel_initializer: Any = "glorot_uniform",
        causal: bool = False,
        **layer_options: Any,
    ) -> None:
        super().__init__(causal=causal, **layer_options)
        self.units = _checks.positive_int("units", units)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, query_shape: Sequence[Any], values_shape: Sequence[Any]) -> None:
        self.width, features = query_shape[-1], values_shape[-1]
        self.kernel = self.add_weight(
            shape=(self.width + features, self.units),
            name="kernel",
            initializer=self.kernel_initializer,
        )
        self.bias = self.add_weight(shape=(self.units,), name="bias", initializer="zeros")
        self.score_kernel = self.add_weight(
            shape=(self.units, 1), name="score_kernel", initializer=self.kernel_initializer
        )
        self.built = True

    def score(self, query: Any, values: Any) -> Any:
        kernel = ops.convert_to_tensor(self.kernel)
        queries = ops.matmul(query, kernel[: self.width])[:, :, None]
        keys = ops.matmul(values, kernel[self.width :])[:, None] + self.bias
        return ops.matmul(ops.tanh(queries + keys), self.score_kernel)[..., 0]

    def get_config(self) -> dict[str, Any]:
        own = {
            "units": self.units,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
        return {**super().get_config(), **own}
