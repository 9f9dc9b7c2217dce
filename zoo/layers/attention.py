"""Attention layers."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from gradkeeper._arguments import choice, integer
from gradkeeper.zoo._typing import Config, Initializer, Shape, Tensor


class SequenceAttention(keras.layers.Layer):
    """Base class of layers with attention of queries over a sequence of values::

        w_ij = softmax_j(score(q_i, v_j))
        context_i = sum_j w_ij v_j

    The weights of masked values are 0. In a causal layer, so are the weights of values after the
    query. If all weights of a query are 0, its context is zero. The softmax is computed in at
    least float32.

    A subclass defines `score`.

    Inputs:
        query: [batch, queries, width], or one query [batch, width].
        values: [batch, time, features].
    Output: context, [batch, queries, features] or [batch, features]; with
        `return_attention_scores` followed by the weights w, [batch, queries, time] or
        [batch, time].

    Args:
        causal: whether query i attends only to the values 0..i. Use it for queries and values
            from the same sequence.
    """

    def __init__(self, *, causal: bool = False, **layer_options: Any) -> None:
        super().__init__(**layer_options)
        self.causal = causal
        self.supports_masking = True

    def score(self, query: Tensor, values: Tensor) -> Tensor:
        """Compute the scores [batch, queries, time] of queries [batch, queries, width].

        Args:
            query: [batch, queries, width].
            values: [batch, time, features].
        """
        raise NotImplementedError(f"{type(self).__name__} must define `score`.")

    def call(
        self,
        query: Tensor,
        values: Tensor,
        query_mask: Tensor | None = None,
        values_mask: Tensor | None = None,
        return_attention_scores: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        single = len(query.shape) == 2
        scores = self.score(query[:, None] if single else query, values)
        weights = self.attention_weights(scores, self._visible(scores, values_mask))
        weights = ops.cast(weights, values.dtype)
        context = ops.matmul(weights, values)
        if single:
            context, weights = context[:, 0], weights[:, 0]
        return (context, weights) if return_attention_scores else context

    def _visible(self, scores: Tensor, values_mask: Tensor | None) -> Tensor | None:
        """Return a boolean mask that broadcasts to the scores, or None if all are visible."""
        visible = None if values_mask is None else ops.cast(values_mask, "bool")[:, None, :]
        if not self.causal:
            return visible
        queries, time = ops.shape(scores)[1:]
        past = ops.arange(queries)[:, None] >= ops.arange(time)[None, :]
        return past[None] if visible is None else ops.logical_and(visible, past[None])

    def attention_weights(self, scores: Tensor, visible: Tensor | None) -> Tensor:
        """Return the weights of scores, [batch, queries, time] each.

        Args:
            scores: the scores.
            visible: True for the values that count, broadcasts to the scores; None for all.
        """
        scores = ops.cast(scores, keras.backend.result_type(scores.dtype, "float32"))
        if visible is not None:
            scores = ops.where(visible, scores, -1e9)
        # `keras.ops.softmax` warns about sequences of length 1.
        weights = ops.exp(scores - ops.max(scores, axis=-1, keepdims=True))
        weights = weights / ops.sum(weights, axis=-1, keepdims=True)
        return weights if visible is None else ops.where(visible, weights, 0.0)

    def compute_mask(self, query: Tensor, previous_mask: Tensor | None) -> Tensor | None:
        return previous_mask if len(query.shape) == 3 else None

    def compute_output_shape(
        self, query_shape: Shape, values_shape: Shape
    ) -> tuple[int | None, ...]:
        return (*query_shape[:-1], values_shape[-1])

    def get_config(self) -> Config:
        return {**super().get_config(), "causal": self.causal}


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
        kernel_initializer: Initializer = "glorot_uniform",
        causal: bool = False,
        **layer_options: Any,
    ) -> None:
        super().__init__(causal=causal, **layer_options)
        self.units = integer("units", units)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, query_shape: Sequence[int], values_shape: Sequence[int]) -> None:
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

    def score(self, query: Tensor, values: Tensor) -> Tensor:
        kernel = ops.convert_to_tensor(self.kernel)
        queries = ops.matmul(query, kernel[: self.width])[:, :, None]
        keys = ops.matmul(values, kernel[self.width :])[:, None] + self.bias
        return ops.matmul(ops.tanh(queries + keys), self.score_kernel)[..., 0]

    def get_config(self) -> Config:
        own = {
            "units": self.units,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
        return {**super().get_config(), **own}


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
        kernel_initializer: Initializer = "glorot_uniform",
        causal: bool = False,
        **layer_options: Any,
    ) -> None:
        super().__init__(causal=causal, **layer_options)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.score_name = choice("score", score, ("general", "dot"))

    def build(self, query_shape: Shape, values_shape: Shape) -> None:
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

    def score(self, query: Tensor, values: Tensor) -> Tensor:
        keys = values if self.kernel is None else ops.matmul(values, self.kernel)
        return ops.matmul(query, ops.transpose(keys, (0, 2, 1)))

    def get_config(self) -> Config:
        own = {
            "score": self.score_name,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
        return {**super().get_config(), **own}
