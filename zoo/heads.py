"""Pooling, attention and output layers on top of the recurrent layers."""

import keras

from gradkeeper.zoo._options import ModelOptions
from gradkeeper.zoo._recurrent import seeded
from gradkeeper.zoo._typing import Tensor
from gradkeeper.zoo.layers import (
    BahdanauAttention,
    LuongAttention,
    SequenceAttention,
    SequencePooling,
)


def needs_sequence(options: ModelOptions) -> bool:
    """Return True if the head needs all time steps of the last recurrent layer."""
    pooled = options.pooling != "last" or options.attention != "none"
    # The residual sum of the last layer adds the outputs of the layer below, step by step.
    # BatchNormalization takes its statistics over all steps.
    return options.per_step or pooled or options.residual or options.batch_norm or options.block


def features(x: Tensor, options: ModelOptions) -> Tensor:
    """Compute the inputs of the output layer.

    Args:
        x: output of the last recurrent layer, [batch, time, width] if `needs_sequence`.
        options: the options of the model.

    Returns:
        For per-step tasks, x, or with attention [context_t; x_t] for each step t; in a language
        model, the context at t covers only the steps up to t. For other tasks, the pooled x, or
        with attention [context; x_T], with the last output x_T as the query.
    """
    if not needs_sequence(options):
        return x
    if options.per_step:
        return x if options.attention == "none" else attended(x, x, options)
    # A block mixes the outputs of both directions in each step.
    two_ends = options.bidirectional and not options.block
    pool = SequencePooling(options.pooling, bidirectional=two_ends, name="pooling")
    pooled = pool(x)
    return pooled if options.attention == "none" else attended(pooled, x, options)


def attended(query: Tensor, values: Tensor, options: ModelOptions) -> Tensor:
    """Return [context; query], with the context from attention of the query over the values."""
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
    """Return the linear output layer, in at least float32, as losses of float16 logits overflow."""
    dtype = keras.backend.result_type(keras.config.dtype_policy().compute_dtype, "float32")
    return seeded(keras.layers.Dense(options.output_units, dtype=dtype, name="head"), options.seed)
