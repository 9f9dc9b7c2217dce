"""Base class of the zoo's attention layers."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


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

    def score(self, query: Any, values: Any) -> Any:
        """Compute the scores [batch, queries, time] of queries [batch, queries, width].

        Args:
            query: [batch, queries, width].
            values: [batch, time, features].
        """
        raise NotImplementedError(f"{type(self).__name__} must define `score`.")

    def call(
        self,
        query: Any,
        values: Any,
        query_mask: Any = None,
        values_mask: Any = None,
        return_attention_scores: bool = False,
    ) -> Any:
        single = len(query.shape) == 2
        scores = self.score(query[:, None] if single else query, values)
        weights = self._weights(scores, self._visible(scores, values_mask))
        weights = ops.cast(weights, values.dtype)
        context = ops.matmul(weights, values)
        if single:
            context, weights = context[:, 0], weights[:, 0]
        return (context, weights) if return_attention_scores else context

    def _visible(self, scores: Any, values_mask: Any) -> Any:
        """Return a boolean mask that broadcasts to the scores, or None if all are visible."""
        visible = None if values_mask is None else ops.cast(values_mask, "bool")[:, None, :]
        if not self.causal:
            return visible
        queries, time = ops.shape(scores)[1:]
        past = ops.arange(queries)[:, None] >= ops.arange(time)[None, :]
        return past[None] if visible is None else ops.logical_and(visible, past[None])

    def _weights(self, scores: Any, visible: Any) -> Any:
        scores = ops.cast(scores, keras.backend.result_type(scores.dtype, "float32"))
        if visible is not None:
            scores = ops.where(visible, scores, -1e9)
        # `keras.ops.softmax` warns about sequences of length 1.
        weights = ops.exp(scores - ops.max(scores, axis=-1, keepdims=True))
        weights = weights / ops.sum(weights, axis=-1, keepdims=True)
        return weights if visible is None else ops.where(visible, weights, 0.0)

    def compute_mask(self, query: Any, previous_mask: Any) -> Any:
        return previous_mask if len(query.shape) == 3 else None

    def compute_output_shape(
        self, query_shape: Sequence[int | None], values_shape: Sequence[int | None]
    ) -> tuple[int | None, ...]:
        return (*query_shape[:-1], values_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "causal": self.causal}
