"""What stands on top of the recurrent layers."""

from typing import Any

import keras

from gradkeeper.zoo._options import ModelOptions
from gradkeeper.zoo._recurrent import seeded
from gradkeeper.zoo.layers.bahdanau_attention import BahdanauAttention
from gradkeeper.zoo.layers.luong_attention import LuongAttention
from gradkeeper.zoo.layers.sequence_attention import SequenceAttention
from gradkeeper.zoo.layers.sequence_pooling import SequencePooling


def needs_sequence(options: ModelOptions) -> bool:
    """Whether the head looks at all time steps of the last recurrent layer."""
    pooled = options.pooling != "last" or options.attention is not None
    # Around the last layer the residual sum needs the layer below at the same step.
    return options.per_step or pooled or options.residual


def features(x: Any, options: ModelOptions) -> Any:
    """What the output layer sees.

    Args:
        x: output of the last recurrent layer, [batch, time, width] where `needs_sequence`.

    Returns:
        Per-step tasks: x, or with attention [context_t; x_t] for each step t, where the language
        model's context is of the steps up to t. Otherwise the pooled x, or with attention
        [context; x_T], the last output being the query.
    """
    if not needs_sequence(options):
        return x
    if options.per_step:
        return x if options.attention is None else attended(x, x, options)
    pool = SequencePooling(options.pooling, bidirectional=options.bidirectional, name="pooling")
    pooled = pool(x)
    return pooled if options.attention is None else attended(pooled, x, options)


def attended(query: Any, values: Any, options: ModelOptions) -> Any:
    """[context; query], the context from the attention of the query over the values."""
    context = attention_layer(options)(query, values)
    return keras.layers.Concatenate(name="attended")([context, query])


def attention_layer(options: ModelOptions) -> SequenceAttention:
    layer: SequenceAttention
    causal = options.task == "language_model"
    if options.attention == "additive":
        layer = BahdanauAttention(options.units, causal=causal, name="attention")
    else:
        layer = LuongAttention(causal=causal, name="attention")
    return seeded(layer, options.seed)


def output_layer(options: ModelOptions) -> keras.layers.Layer:
    """Linear, in float32 at least: losses of float16 logits overflow."""
    dtype = keras.backend.result_type(keras.config.dtype_policy().compute_dtype, "float32")
    return seeded(keras.layers.Dense(options.output_units, dtype=dtype, name="head"), options.seed)
