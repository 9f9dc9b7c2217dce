"""Outputs of the layers in the forward pass of a train step."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from gradkeeper.callbacks._keras_private import (
    APPLY_SCORES,
    COMPUTE_ATTENTION,
    dot_product_equation,
    mask_of,
)
from gradkeeper.callbacks.instrument.graph import unmerged_output

# Since Keras 3.16, these layers set `supports_masking = False`.
SEQUENCE_LAYERS = (keras.layers.RNN, keras.layers.Bidirectional, keras.layers.TimeDistributed)


@dataclass(frozen=True)
class AttentionScores:
    """Scores of an attention layer.

    Attributes:
        logits: returns the arguments of the softmax without a mask, in at least float32,
            [batch, ..., *queries, *keys].
        visible: returns which keys a query attends to, a boolean tensor that broadcasts to the
            logits; None for all.
        key_axes: number of axes of the keys.
    """

    logits: Callable[[], tf.Tensor]
    visible: Callable[[], tf.Tensor | None]
    key_axes: int = 1


@dataclass(frozen=True, eq=False)
class LayerOutput:
    """A tensor that a layer call returns.

    Attributes:
        layer: the layer.
        path: the path of layers from the model to the layer.
        position: index among the tensors that the call returns.
        tensor: the tensor.
        masks: masks of tensors that entered a layer, see `StepContext.masks`.
        input_mask: the mask of the first input; None without one.
        attention: the scores of an attention layer; None for other layers.
    """

    layer: keras.layers.Layer
    path: str
    position: int
    tensor: tf.Tensor
    masks: Mapping[int, tuple[Any, Any]]
    input_mask: Any = None
    attention: AttentionScores | None = None

    @property
    def mask(self) -> tf.Tensor | None:
        """Return the mask of the tensor, known once the layer call has returned.

        `MultiHeadAttention` removes the masks of its inputs. A sequence layer that does not pass
        its mask on has computed with it all the same.
        """
        mask = mask_of(self.tensor)
        if mask is None:
            _, mask = self.masks.get(id(self.tensor), (None, None))
        if mask is None and isinstance(self.layer, SEQUENCE_LAYERS):
            is_sequence = getattr(self.layer, "return_sequences", True) and self.position == 0
            mask = self.input_mask if is_sequence else None
        if not tf.is_tensor(mask) or mask.shape.rank > self.tensor.shape.rank:
            return None
        return tf.cast(mask, tf.bool)


def attention_method(layer: keras.layers.Layer) -> str | None:
    """Return the method of an attention layer that receives its scores; None for other layers."""
    if isinstance(layer, keras.layers.MultiHeadAttention):
        return COMPUTE_ATTENTION
    if isinstance(layer, keras.layers.Attention):
        return APPLY_SCORES
    # A method of the zoo's attention layers, which are not imported here.
    return "attention_weights" if hasattr(layer, "attention_weights") else None


def scores_in(
    layer: keras.layers.Layer, method: Callable, args: Sequence[Any], kwargs: dict[str, Any]
) -> AttentionScores | None:
    """Return the scores in a call of the `attention_method`; None if it has other arguments."""
    given = inspect.signature(method).bind(*args, **kwargs).arguments
    if isinstance(layer, keras.layers.MultiHeadAttention) and {"query", "key"} <= given.keys():
        return _scores_of_heads(
            layer,
            given["query"],
            given["key"],
            given.get("attention_mask"),
            bool(given.get("use_causal_mask")),
        )
    if "scores" not in given:
        return None
    scores, mask = given["scores"], given.get("scores_mask", given.get("visible"))

    def visible() -> tf.Tensor | None:
        if mask is None:
            return None
        return tf.cast(mask[:, tf.newaxis] if mask.shape.rank == 2 else mask, tf.bool)

    return AttentionScores(lambda: _wide(scores), visible)


def _scores_of_heads(
    layer: keras.layers.MultiHeadAttention, query: Any, key: Any, mask: Any, causal: bool
) -> AttentionScores:
    equation, axes = dot_product_equation(layer), len(layer.attention_axes)
    rank = len(equation.rpartition(">")[2])

    def logits() -> tf.Tensor:
        # TensorFlow merges this product with that of the layer, because both are written alike: the
        # first as in Keras's `dot_product_attention`, the second as in the layer with dropout.
        queries, keys, scale = _wide(query), _wide(key), 1 / math.sqrt(query.shape[-1])
        if rank == 4 and not layer.dropout:
            return scale * tf.einsum("BTNH,BSNH->BNTS", queries, keys, optimize="optimal")
        return tf.einsum(equation, keys, scale * queries)

    def visible() -> tf.Tensor | None:
        seen = None if mask is None else tf.cast(mask, tf.bool)
        for _ in range(0 if seen is None else rank - seen.shape.rank):
            seen = tf.expand_dims(seen, -2 * axes - 1)  # the axis of the heads
        if not causal:
            return seen
        queries, keys = tf.range(tf.shape(query)[1]), tf.range(tf.shape(key)[1])
        past = queries[:, tf.newaxis] >= keys
        return past if seen is None else seen & past

    return AttentionScores(logits, visible, axes)


def _wide(tensor: tf.Tensor) -> tf.Tensor:
    tensor = unmerged_output(tensor, {})
    return tensor if tensor.dtype == tf.float64 else tf.cast(tensor, tf.float32)
