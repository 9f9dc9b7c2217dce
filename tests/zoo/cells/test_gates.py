"""Properties of gates: how far gradients reach, states copied unchanged, equivalent cells."""

import keras
import numpy as np
import pytest
from autodiff import gradients
from every_layer import NAMES

from gradkeeper.zoo import layers

BATCH, TIME, FEATURES, UNITS = 2, 3, 3, 4

pytestmark = pytest.mark.usefixtures("float64")

# The gate that keeps the carried state: its block in the output of `project`, the number of
# blocks, and 1 if the open gate keeps the state or -1 if the closed gate does.
KEEPING_GATE = {
    "ATR": (0, 1, 1),
    "CoupledLSTM": (0, 3, 1),
    "JANET": (0, 2, 1),
    "LSTM": (1, 4, 1),
    "LayerNormLSTM": (1, 4, 1),
    "LiGRU": (0, 2, 1),
    "MGU": (0, 2, -1),
    "MinimalRNN": (1, 2, 1),
    "MultiplicativeLSTM": (2, 5, 1),
    "PeepholeLSTM": (1, 4, 1),
    "RAN": (2, 3, 1),
    "UGRNN": (1, 2, 1),
}
# Weights to set, by name and block, so that a step changes nothing: open (+) or closed (-).
PINNED = {
    "CoupledLSTM": {("bias", 0): 50},
    "JANET": {("bias", 0): 50},
    "LayerNormLSTM": {("bias", 0): -50, ("bias", 1): 50},
    "LiGRU": {("bias", 0): 50},
    "MGU": {("bias", 0): -50},
    "MinimalRNN": {("gate_bias", 0): 50},
    "MultiplicativeLSTM": {("bias", 0): -50, ("bias", 1): 50},
    "OriginalLSTM": {("bias", 0): -50},
    "PeepholeLSTM": {("bias", 0): -50, ("bias", 1): 50},
    "RAN": {("bias", 0): -50, ("bias", 1): 50},
    "UGRNN": {("bias", 1): 50},
}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def close(actual, expected, atol=1e-12):
    np.testing.assert_allclose(array(actual), array(expected), rtol=0, atol=atol)


def random_normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def make(name, **options):
    """Return the layer in float64 with random weights."""
    layer_class = keras.layers.LSTM if name == "LSTM" else getattr(layers, name)
    layer = layer_class(UNITS, return_state=True, dtype="float64", **options)
    layer.build((None, None, FEATURES))
    random = np.random.default_rng(1)
    for weight in layer.weights:
        weight.assign(0.5 * random.normal(size=weight.shape))
    return layer


def zero(layer, *names):
    for weight in layer.weights:
        if weight.name in names:
            weight.assign(np.zeros(weight.shape))


def random_states(layer):
    count = getattr(layer.cell, "state_count", 2)
    return [np.tanh(random_normal(BATCH, UNITS, seed=7 + index)) for index in range(count)]


def reach(layer, inputs):
    """Return d(sum of the last carried state) / d(first carried state)."""

    def loss(tensors):
        return keras.ops.sum(layer(inputs, initial_state=list(tensors))[-1])

    return gradients(loss, layer, random_states(layer))[0][-1]


def gate_sums(layer, inputs):
    if isinstance(layer, keras.layers.LSTM):
        return inputs @ array(layer.cell.kernel) + array(layer.cell.bias)
    return array(layer.cell.project(layer.cell.prepare(inputs)))


@pytest.mark.parametrize("name", KEEPING_GATE)
def test_gradient_of_the_state_is_the_product_of_its_gates(name):
    layer = make(name)
    zero(layer, "recurrent_kernel", "peephole_kernel", "recurrent_bias")
    inputs = random_normal(BATCH, TIME, FEATURES)
    block, blocks, sign = KEEPING_GATE[name]
    kept = sigmoid(sign * np.split(gate_sums(layer, inputs), blocks, axis=-1)[block])
    close(reach(layer, inputs), kept.prod(axis=1))


def test_original_lstm_keeps_the_gradient_over_many_steps():
    layer = make("OriginalLSTM")
    zero(layer, "recurrent_kernel")
    np.testing.assert_array_equal(reach(layer, random_normal(BATCH, 30, FEATURES)), 1)


@pytest.mark.parametrize("name", PINNED)
def test_saturated_gates_copy_the_state(name):
    layer = make(name)
    weights = {weight.name: weight for weight in layer.weights}
    for (weight, block), value in PINNED[name].items():
        pinned = array(weights[weight]).copy()
        pinned[block * UNITS : (block + 1) * UNITS] = value
        weights[weight].assign(pinned)
    states = random_states(layer)
    final = layer(random_normal(BATCH, TIME, FEATURES), initial_state=states)[-1]
    close(final, states[-1])


def test_star_with_closed_gate_is_tanh_of_the_state():
    layer = make("STAR")
    bias = array(layer.cell.bias).copy()
    bias[UNITS:] = -50
    layer.cell.bias.assign(bias)
    (state,) = random_states(layer)
    final = layer(random_normal(BATCH, 2, FEATURES), initial_state=[state])[-1]
    close(final, np.tanh(np.tanh(state)))


@pytest.mark.parametrize("name", ["CoupledLSTM", "MGU", "MinimalRNN", "STAR", "UGRNN"])
def test_means_of_state_and_candidate_stay_below_one(name):
    layer = make(name)
    final = layer(50 * random_normal(BATCH, 10, FEATURES))[-1]
    assert np.abs(array(final)).max() <= 1


def test_cfn_state_decays_to_zero_without_inputs():
    layer = make("CFN", return_sequences=True)
    state = 10 * random_states(layer)[0]
    outputs = array(layer(np.zeros((BATCH, 60, FEATURES)), initial_state=[state])[0])
    sizes = np.abs(outputs)
    assert (np.diff(sizes, axis=1) <= 0).all()
    assert sizes[:, -1].max() < 0.1


def test_ran_is_linear_in_its_content():
    layer = make("RAN", activation="linear")
    zero(layer, "recurrent_kernel")
    kernel = array(layer.cell.kernel).copy()
    kernel[:, UNITS:] = 0  # the gates depend on their biases only
    layer.cell.kernel.assign(kernel)
    one, other = (random_normal(BATCH, TIME, FEATURES, seed=seed) for seed in (3, 4))
    close(layer(one - 2 * other)[0], layer(one)[0] - 2 * layer(other)[0])


def test_original_lstm_equals_the_paper_with_halved_candidate_weights():
    layer = make("OriginalLSTM")
    inputs = random_normal(BATCH, TIME, FEATURES)
    twice = np.repeat([1, 2, 1], UNITS)
    kernel, recurrent_kernel, bias = (twice * array(weight) for weight in layer.weights)
    h, c = np.zeros((BATCH, UNITS)), np.zeros((BATCH, UNITS))
    for x in np.swapaxes(inputs, 0, 1):
        i, n, o = np.split(x @ kernel + h @ recurrent_kernel + bias, 3, axis=-1)
        c = c + sigmoid(i) * (4 * sigmoid(n) - 2)
        h = sigmoid(o) * (2 * sigmoid(c) - 1)
    output, _, state = layer(inputs)
    close(output, h)
    close(2 * state, c)


def test_peephole_lstm_without_peepholes_equals_keras_lstm():
    layer, theirs = make("PeepholeLSTM", peepholes=False), make("LSTM")
    inputs = random_normal(BATCH, TIME, FEATURES)
    theirs.set_weights(layer.get_weights())
    for one, other in zip(layer(inputs), theirs(inputs), strict=True):
        close(one, other)


def test_coupled_lstm_is_a_peephole_lstm_with_one_gate_reversed():
    coupled, layer = make("CoupledLSTM"), make("PeepholeLSTM")
    for weight, own in zip(layer.weights, coupled.weights, strict=True):
        forget = array(own)[..., :UNITS]
        weight.assign(np.concatenate([-forget, array(own)], axis=-1))
    inputs = random_normal(BATCH, TIME, FEATURES)
    for one, other in zip(coupled(inputs), layer(inputs), strict=True):
        close(one, other)


def test_multiplicative_lstm_with_a_constant_factor_is_an_lstm():
    layer, theirs = make("MultiplicativeLSTM", factor_bias=True), make("LSTM")
    zero(layer, "recurrent_bias")
    kernel, bias = array(layer.cell.kernel).copy(), array(layer.cell.bias).copy()
    kernel[:, :UNITS], bias[:UNITS] = 0, 1
    layer.cell.kernel.assign(kernel)
    layer.cell.bias.assign(bias)
    product = array(layer.cell.recurrent_kernel) @ array(layer.cell.multiplicative_kernel)
    theirs.set_weights([kernel[:, UNITS:], product, bias[UNITS:]])
    inputs = random_normal(BATCH, TIME, FEATURES)
    for one, other in zip(layer(inputs), theirs(inputs), strict=True):
        close(one, other)


def first_bias(name, **options):
    layer = getattr(layers, name)(UNITS, **options)
    layer.build((None, None, FEATURES))
    return array(layer.cell.bias).reshape(-1, UNITS)


@pytest.mark.parametrize(
    ("name", "options", "blocks"),
    [
        ("CFN", {}, [1, -1]),
        ("CFN", {"candidate_bias": True}, [1, -1, 0]),
        ("CoupledLSTM", {}, [1, 0, 0]),
        ("JANET", {}, [1, 0]),
        ("MultiplicativeLSTM", {}, [0, 1, 0, 0]),
        ("MultiplicativeLSTM", {"factor_bias": True}, [0, 0, 1, 0, 0]),
        ("OriginalLSTM", {}, [-3, 0, 0]),
        ("OriginalLSTM", {"input_gate_bias": -6, "bias_initializer": "ones"}, [-5, 1, 1]),
        ("PeepholeLSTM", {}, [0, 1, 0, 0]),
        ("PeepholeLSTM", {"unit_forget_bias": False}, [0, 0, 0, 0]),
        ("RAN", {}, [0, 1]),
        ("UGRNN", {}, [0, 1]),
    ],
)
def test_biases_start_with_open_forget_gates_and_closed_input_gates(name, options, blocks):
    np.testing.assert_array_equal(first_bias(name, **options), np.outer(blocks, np.ones(UNITS)))


# Signs of log(u) in the blocks of the bias.
CHRONO = {
    "CFN": [1, -1],
    "CoupledLSTM": [1, 0, 0],
    "JANET": [1, 0],
    "LayerNormLSTM": [-1, 1, 0, 0],
    "MultiplicativeLSTM": [-1, 1, 0, 0],
    "PeepholeLSTM": [-1, 1, 0, 0],
    "RAN": [-1, 1],
    "SLSTM": [0, 1, 0, 0],
    "STAR": [0, -1],
    "UGRNN": [0, 1],
    "ZoneoutLSTM": [-1, 1, 0, 0],
}


@pytest.mark.parametrize("name", CHRONO)
def test_chrono_initialization_spreads_over_the_steps(name):
    bias = first_bias(name, chrono_steps=100, seed=3)
    log_u = np.abs(bias).max(axis=0)
    assert (log_u > 0).all()
    assert (log_u < np.log(99)).all()
    assert len(set(log_u)) == UNITS
    np.testing.assert_array_equal(bias, np.outer(CHRONO[name], log_u))
    np.testing.assert_array_equal(first_bias(name, chrono_steps=100, seed=3), bias)


def test_every_cell_with_chrono_steps_is_tested():
    options = {name: getattr(layers, name).option_defaults() for name in NAMES}
    assert {name for name in NAMES if "chrono_steps" in options[name]} == set(CHRONO)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("JANET", {"chrono_steps": 2}, "must be .* at least 3. Received: chrono_steps=2"),
        ("STAR", {"chrono_steps": 9, "use_bias": False}, "Received: use_bias=False, chrono_steps="),
        ("SLSTM", {"chrono_steps": 9, "exponential_forget": True}, "sigmoid forget gate"),
        ("OriginalLSTM", {"input_gate_bias": "-3"}, "Received: input_gate_bias='-3'"),
        ("STAR", {"beta": None}, "Received: beta=None"),
    ],
)
def test_refuses_wrong_initial_biases(name, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(layers, name)(UNITS, **options)


@pytest.mark.parametrize(
    ("layer_class", "momentum", "epsilon", "initial_gamma"),
    [(layers.LiGRU, 0.95, 1e-5, 1.0), (layers.STAR, 0.999, 1e-3, 0.1)],
)
def test_input_products_are_normalized_over_batch_and_time(
    layer_class, momentum, epsilon, initial_gamma
):
    x = random_normal(BATCH, TIME, FEATURES)
    layer = layer_class(UNITS, normalize_inputs=True, return_sequences=True, dtype="float64")
    layer.build(x.shape)
    np.testing.assert_allclose(layer.trainable_weights[3], initial_gamma, rtol=1e-6)
    values = [
        random_normal(*each.shape, seed=index) for index, each in enumerate(layer.trainable_weights)
    ]
    for weight, value in zip(layer.trainable_weights, values, strict=True):
        weight.assign(value)
    kernel, recurrent, bias, gamma = values
    products = x @ kernel
    mean, variance = products.mean((0, 1)), products.var((0, 1))
    normalized = gamma * (products - mean) / np.sqrt(variance + epsilon) + bias
    plain = layer_class(UNITS, return_sequences=True, dtype="float64")
    plain.build((BATCH, TIME, 2 * UNITS))
    plain.set_weights([np.eye(2 * UNITS), recurrent, np.zeros(2 * UNITS)])
    close(layer(x, training=True), plain(normalized))
    close(layer.cell.input_norm.moving_mean, (1 - momentum) * mean)
    assert layer_class.from_config(layer.get_config()).cell.normalize_inputs
