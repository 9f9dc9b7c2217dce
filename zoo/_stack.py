"""Stacks of recurrent layers, with normalization, residual connections or residual blocks."""

from dataclasses import replace

import keras

from gradkeeper.zoo._model_info import ModelInfo
from gradkeeper.zoo._options import ModelOptions
from gradkeeper.zoo._recurrent import recurrent_layer, seeded
from gradkeeper.zoo._typing import Activation, Tensor
from gradkeeper.zoo._user_layer import check_outputs

# Width of the hidden layer in the MLP of a block, in `units`, as in lucidrains/minGRU-pytorch,
# minGRU_pytorch/minLM.py:17.
EXPANSION = 4


def recurrent_stack(
    x: Tensor, info: ModelInfo, options: ModelOptions, *, return_sequences: bool
) -> Tensor:
    """Stack recurrent layers, with optional normalization and residual connections.

    Args:
        x: inputs [batch, time, features].
        info: the entry.
        options: the options of the model.
        return_sequences: whether the last layer returns all time steps. Residual blocks always
            return them.

    Returns:
        Outputs [batch, time, width] or [batch, width]. The width is `units`, or 2 * `units` if
        bidirectional without blocks.
    """
    if options.block:
        return _blocks(x, info, options)
    for index in range(1, options.num_layers + 1):
        every_step = return_sequences or index < options.num_layers
        layer = recurrent_layer(info, options, info.layer_name, index, return_sequences=every_step)
        y = layer(x)
        check_outputs(y, options, return_sequences=every_step)
        if options.layer_norm or options.batch_norm:
            y = _norm(f"norm_{index}", options)(y)
        if options.residual and index > 1:
            y = keras.layers.Add(name=f"residual_{index}")([x, y])
        x = y
    return x


def _blocks(x: Tensor, info: ModelInfo, options: ModelOptions) -> Tensor:
    """Stack residual blocks, with a normalization after the last one. Return [batch, time, units].

    The inputs are mapped to `units` features, if they have another number.
    """
    if x.shape[-1] != options.units:
        x = _dense(options.units, "projection", options)(x)
    for index in range(1, options.num_layers + 1):
        x = _sum(x, _recurrent_branch(x, info, options, index), f"block_{index}", options)
        x = _sum(x, _mlp_branch(x, f"mlp_{index}", options), f"mlp_{index}", options)
    return _norm("norm", options)(x)


def _recurrent_branch(x: Tensor, info: ModelInfo, options: ModelOptions, index: int) -> Tensor:
    """Apply normalization, convolution, the recurrent layer, GELU and a gated linear unit."""
    name = f"block_{index}"
    y = _norm(f"{name}_norm", options)(x)
    if options.convolution is not None:
        y = _causal_convolution(y, options.convolution, name, options)
    # The dropout of a block is that of its branches.
    undropped = replace(options, dropout=0.0)
    y = recurrent_layer(info, undropped, info.layer_name, index, return_sequences=True)(y)
    check_outputs(y, options, return_sequences=True)
    y = keras.layers.Activation("gelu", name=f"{name}_gelu")(y)
    value = _dense(options.units, f"{name}_value", options)(y)
    gate = _dense(options.units, f"{name}_gate", options, activation="sigmoid")(y)
    return keras.layers.Multiply(name=f"{name}_gated")([value, gate])


def _mlp_branch(x: Tensor, name: str, options: ModelOptions) -> Tensor:
    y = _norm(f"{name}_norm", options)(x)
    y = _dense(EXPANSION * options.units, f"{name}_hidden", options, activation="gelu")(y)
    return _dense(options.units, f"{name}_output", options)(y)


def _causal_convolution(x: Tensor, width: int, name: str, options: ModelOptions) -> Tensor:
    """Convolve each feature with the steps t - width + 1 to t.

    The weights start uniform in +-1/sqrt(width), PyTorch's default. Keras's default shrinks with
    the number of features, although each output depends on one feature.
    """
    bound = width**-0.5
    convolution = keras.layers.DepthwiseConv1D(
        width,
        depthwise_initializer=keras.initializers.RandomUniform(-bound, bound),
        name=f"{name}_convolution",
    )
    padded = keras.layers.ZeroPadding1D((width - 1, 0), name=f"{name}_padding")(x)
    return seeded(convolution, options.seed)(padded)


def _sum(x: Tensor, branch: Tensor, name: str, options: ModelOptions) -> Tensor:
    """Add a branch to x, with dropout that has one mask for all steps."""
    dropout = keras.layers.SpatialDropout1D(options.dropout, name=f"{name}_dropout")
    return keras.layers.Add(name=f"{name}_sum")([x, seeded(dropout, options.seed)(branch)])


def _norm(name: str, options: ModelOptions) -> keras.layers.Layer:
    if options.batch_norm:
        return keras.layers.BatchNormalization(name=name)
    return keras.layers.LayerNormalization(name=name)


def _dense(
    units: int, name: str, options: ModelOptions, activation: Activation = None
) -> keras.layers.Layer:
    return seeded(keras.layers.Dense(units, activation=activation, name=name), options.seed)
