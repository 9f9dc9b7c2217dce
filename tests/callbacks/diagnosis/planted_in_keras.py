"""Faults in models of Keras layers and losses, which a replay finds from the capsule alone."""

import keras
import numpy as np
from keras import layers, ops
from planted import (
    BAD,
    BATCH,
    Built,
    Planted,
    compiled,
    dense,
    numbers,
    stacked,
    with_bad,
    with_row,
    zeros,
)

HUGE = keras.initializers.Constant(1e15)


def nan_in_inputs() -> Built:
    return stacked([dense("first"), dense()], with_bad(numbers(3), np.nan))


def infinity_in_targets() -> Built:
    model, data = stacked([dense()], numbers(3))
    with_bad(data["y"], np.inf)
    return model, data


def nan_in_sample_weight() -> Built:
    model, data = stacked([dense()], numbers(3))
    return model, {**data, "sample_weight": with_bad(numbers(), np.nan)}


def infinity_in_one_input_of_two() -> Built:
    inputs = {name: keras.Input((3,), name=name) for name in ("left", "right")}
    model = keras.Model(inputs, dense()(layers.Concatenate()(list(inputs.values()))))
    return compiled(model, {"left": numbers(3), "right": with_row(numbers(3), np.inf)})


def nan_key() -> Built:
    query, key = keras.Input((3, 2)), keras.Input((3, 2))
    model = keras.Model([query, key], layers.MultiHeadAttention(1, 2)(query, key))
    return compiled(model, [numbers(3, 2), with_bad(numbers(3, 2), np.nan)])


def nan_weight() -> Built:
    model, data = stacked([dense("first"), dense()], numbers(3))
    model.get_layer("last").bias.assign([0.0, np.nan])
    return model, data


def nan_embedding() -> Built:
    """Return a model with a NaN embedding whose token occurs in one batch only."""
    table = layers.Embedding(2, 2, name="table")
    model, data = stacked([table, layers.Flatten(), dense()], with_row(zeros(5).astype("int32"), 1))
    table.embeddings.assign([[1.0, 1.0], [np.nan, 1.0]])
    return model, data


def dense_overflow() -> Built:
    return stacked([dense("first", 1e15), dense()], with_bad(numbers(3), 1e25))


def convolution_1d() -> Built:
    convolution = layers.Conv1D(2, 2, kernel_initializer=HUGE, name="convolution")
    return stacked([convolution, layers.Flatten(), dense()], with_bad(numbers(4, 2), 1e25))


def convolution_2d() -> Built:
    convolution = layers.Conv2D(2, 2, kernel_initializer=HUGE, name="convolution")
    return stacked([convolution, layers.Flatten(), dense()], with_bad(numbers(4, 4, 1), 1e25))


def recurrent(kind: type[layers.RNN], **activations: str) -> Built:
    """Return an RNN that keeps zeros and multiplies other numbers by 1000 at every step."""
    options = {"recurrent_initializer": keras.initializers.Constant(1e3), **activations}
    return stacked([kind(2, name="rnn", **options), dense()], with_bad(zeros(16, 2), 1e3))


def simple_rnn() -> Built:
    return recurrent(layers.SimpleRNN, activation="relu")


def lstm() -> Built:
    return recurrent(layers.LSTM, activation="linear", recurrent_activation="linear")


def gru() -> Built:
    return recurrent(layers.GRU, activation="linear", recurrent_activation="linear")


def bidirectional_in_a_model() -> Built:
    rnn = layers.SimpleRNN(
        2, "relu", kernel_initializer="ones", recurrent_initializer=HUGE, name="rnn"
    )
    both = layers.Bidirectional(rnn, name="both")
    encoder = keras.Sequential([keras.Input((6, 2)), both], name="encoder")
    return stacked([encoder, dense()], with_bad(zeros(6, 2), 1e3))


def exponential() -> Built:
    first = dense("first", 1.0, activation="exponential")
    return stacked([first, dense()], with_bad(numbers(3), 100))


def attention() -> Built:
    query = keras.Input((3, 2))
    attended = layers.Attention(name="attention")([query, query])
    return compiled(keras.Model(query, dense()(attended)), with_bad(numbers(3, 2), 1e25))


def multi_head_attention() -> Built:
    query = keras.Input((3, 2))
    attended = layers.MultiHeadAttention(1, 2, name="attention")(query, query)
    return compiled(keras.Model(query, attended), with_bad(numbers(3, 2), 1e25))


def layer_normalization() -> Built:
    norm = layers.LayerNormalization(epsilon=0, name="norm")
    return stacked([norm, dense()], with_row(numbers(4), 1))


def batch_normalization() -> Built:
    x = numbers(4)
    x[BAD * BATCH : (BAD + 1) * BATCH, 1] = 1
    return stacked([layers.BatchNormalization(epsilon=0, name="norm"), dense()], x)


def average_of_nothing() -> Built:
    """Return a model that averages over a row in which all steps are padding."""
    table = layers.Embedding(3, 2, mask_zero=True)
    pool = layers.GlobalAveragePooling1D(name="pool")
    return stacked([table, pool, dense()], with_row(zeros(5).astype("int32") + 1, 0))


def float16() -> Built:
    some = [dense("first", dtype="mixed_float16"), dense("second", 1e3, dtype="mixed_float16")]
    model, data = stacked(some, with_bad(numbers(3), 1e4))
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.0), initial_scale=1.0)
    model.compile(optimizer, "mse", jit_compile=False)
    return model, data


def inputs_beyond_float16() -> Built:
    some = [dense("first", dtype="mixed_float16"), dense()]
    return stacked(some, with_bad(numbers(3, low=-1), 1e6))


def operation_of_a_functional_model() -> Built:
    x = keras.Input((3,))
    scaled = layers.Dense(3, kernel_initializer="identity", name="first")(x)
    return compiled(keras.Model(x, dense()(ops.log(scaled))), with_bad(numbers(3), 0))


def poisson() -> Built:
    return stacked([dense(kernel=1.0)], with_bad(numbers(3), -10), "poisson")


def targets_too_large() -> Built:
    model, data = stacked([dense()], numbers(3))
    with_bad(data["y"], 1e30)
    return model, data | {"sample_weight": np.full(len(data["y"]), 1e10, "float32")}


def gradient_beyond_float16() -> Built:
    """Return a model whose outputs stay below 100 and whose gradient exceeds float16."""
    some = [dense("first", dtype="mixed_float16"), dense(dtype="mixed_float16")]
    return stacked(some, with_row(numbers(3), 30), loss_weights=[1e3])


def heavy_loss() -> Built:
    """Return a model with a finite loss whose gradient, times the inputs, overflows."""
    some = [dense("first", 1e-5), dense()]
    return stacked(some, with_row(numbers(3), 1e7), "mae", loss_weights=[1e34])


def gradient_through_time() -> Built:
    """Return a model in which 1e-30 grows to 1e10 forward, and 1 grows to 1e40 backward."""
    growing = keras.initializers.Identity(10.0)
    rnn = layers.SimpleRNN(
        2, "relu", kernel_initializer="ones", recurrent_initializer=growing, name="rnn"
    )
    return stacked([rnn, dense(kernel=1.0)], with_row(zeros(42, 2), 1e-33), "mae")


IN_KERAS = [
    Planted(nan_in_inputs, "data", None, "the data is not finite", {"data": "[0], example 2"}),
    Planted(
        infinity_in_targets, "data", None, "the data is not finite", {"data": "[1], example 2"}
    ),
    Planted(
        nan_in_sample_weight,
        "data",
        None,
        "a sample weight is not finite",
        {"data": "[2], example 2"},
    ),
    Planted(
        infinity_in_one_input_of_two,
        "data",
        None,
        "the data is not finite",
        {"data": "[0]['right'], example 2"},
    ),
    Planted(nan_key, "data", None, "the data is not finite", {"data": "[0][1], example 2"}),
    Planted(
        nan_weight, "weights", "last", "a weight is not finite", {"variable": "last/bias"}, step=0
    ),
    Planted(
        nan_embedding,
        "weights",
        "table",
        "a weight is not finite",
        {"variable": "table/embeddings"},
    ),
    Planted(dense_overflow, "forward", "first", "overflow", {"operation": "MatMul"}),
    Planted(convolution_1d, "forward", "convolution", "overflow"),
    Planted(convolution_2d, "forward", "convolution", "overflow", {"operation": "Conv2D"}),
    Planted(simple_rnn, "forward", "rnn/simple_rnn_cell", "overflow", line="recurrent_kernel"),
    Planted(lstm, "forward", "rnn/lstm_cell", "overflow"),
    Planted(gru, "forward", "rnn/gru_cell", "overflow"),
    Planted(
        bidirectional_in_a_model,
        "forward",
        "encoder/both/forward_rnn/simple_rnn_cell",
        "overflow",
    ),
    Planted(exponential, "forward", "first", "overflow of an exponential", {"operation": "Exp"}),
    Planted(attention, "forward", "attention", "overflow", line="matmul("),
    Planted(multi_head_attention, "forward", "attention", "overflow"),
    Planted(layer_normalization, "forward", "norm", "division by the root of a variance of 0"),
    Planted(batch_normalization, "forward", "norm", "division by the root of a variance of 0"),
    Planted(average_of_nothing, "forward", "pool", "0 divided by 0", line="ops.sum("),
    Planted(float16, "forward", "second", "overflow of float16", {"operation": "MatMul"}),
    Planted(inputs_beyond_float16, "forward", "first", "overflow of float16"),
    Planted(operation_of_a_functional_model, "forward", "log", "logarithm of 0"),
    Planted(poisson, "loss", None, "logarithm of a negative number", line="ops.log(y_pred"),
    Planted(targets_too_large, "loss", None, "overflow", {"operation": "Square"}),
    Planted(gradient_beyond_float16, "backward", "last", "overflow of float16"),
    Planted(heavy_loss, "backward", "first", "overflow", {"variable": "first/kernel"}),
    Planted(
        gradient_through_time,
        "backward",
        "rnn/simple_rnn_cell",
        "overflow",
        {"operation": "MatMul"},
        line="recurrent_kernel",
    ),
]
