"""Equations of cells and their options, compared with NumPy loops in float64."""

from functools import partial

import keras
import numpy as np
import pytest
import scan_twins
import stable_twins
from every_layer import NAMES
from references import REFERENCES

from gradkeeper.zoo import layers

UNITS, FEATURES = 4, 3


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def ln(x, gain):
    mean, variance = x.mean(), x.var()
    return gain * (x - mean) / np.sqrt(variance + 1e-5)


def simple_rnn_twin(w, inputs):
    h = np.zeros(UNITS)
    for x in inputs:
        h = np.tanh(ln(x @ w["kernel"] + h @ w["recurrent_kernel"], w["gain"]) + w["bias"])
        yield h


def lstm_twin(w, inputs):
    h, c = np.zeros(UNITS), np.zeros(UNITS)
    for x in inputs:
        sums = ln(h @ w["recurrent_kernel"], w["recurrent_gain"])
        sums = sums + ln(x @ w["kernel"], w["input_gain"]) + w["bias"]
        i, f, g, o = np.split(sums, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(ln(c, w["state_gain"]) + w["state_bias"])
        yield h


def gru_twin(w, inputs):
    h = np.zeros(UNITS)
    gates, rest = slice(0, 2 * UNITS), slice(2 * UNITS, None)
    for x in inputs:
        from_x, from_h = x @ w["kernel"], h @ w["recurrent_kernel"]
        z, r = np.split(
            ln(from_x[gates], w["input_gain"][gates])
            + ln(from_h[gates], w["recurrent_gain"][gates])
            + w["bias"][gates],
            2,
        )
        new = ln(from_x[rest], w["input_gain"][rest]) + w["bias"][rest]
        old = ln(from_h[rest], w["recurrent_gain"][rest]) + w["recurrent_bias"]
        n = np.tanh(new + sigmoid(r) * old)
        h = (1 - sigmoid(z)) * h + sigmoid(z) * n
        yield h


def cfn_twin(w, inputs):
    h = np.zeros(UNITS)
    for x in inputs:
        f, i, n = np.split(x @ w["kernel"], 3)
        gates = np.append(f, i) + h @ w["recurrent_kernel"] + w["bias"]
        f, i = np.split(sigmoid(gates), 2)
        h = f * np.tanh(h) + i * np.tanh(n)
        yield h


def coupled_lstm_twin(w, inputs):
    h, c = np.zeros(UNITS), np.zeros(UNITS)
    see_f, see_o = np.split(w["peephole_kernel"], 2)
    for x in inputs:
        f, n, o = np.split(x @ w["kernel"] + h @ w["recurrent_kernel"] + w["bias"], 3)
        f = sigmoid(f + see_f * c)
        c = f * c + (1 - f) * np.tanh(n)
        h = sigmoid(o + see_o * c) * np.tanh(c)
        yield h


def multiplicative_lstm_twin(w, inputs):
    h, c = np.zeros(UNITS), np.zeros(UNITS)
    for x in inputs:
        m, *sums = np.split(x @ w["kernel"], 5)
        m = m * (h @ w["recurrent_kernel"])
        sums = np.concatenate(sums) + m @ w["multiplicative_kernel"] + w["bias"]
        i, f, n, o = np.split(sums, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(n)
        h = sigmoid(o) * np.tanh(c)
        yield h


def star_twin(w, inputs, beta):
    h = np.zeros(UNITS)
    for x in inputs:
        z, s = np.split(x @ w["kernel"] + w["bias"], 2)
        s = s + h @ w["recurrent_kernel"]
        h = np.tanh((1 - sigmoid(s)) * h + sigmoid(s + beta) * np.tanh(z))
        yield h


TWINS = {
    "CFN": cfn_twin,
    "CoupledLSTM": coupled_lstm_twin,
    "LayerNormSimpleRNN": simple_rnn_twin,
    "LayerNormLSTM": lstm_twin,
    "LayerNormGRU": gru_twin,
    "MultiplicativeLSTM": multiplicative_lstm_twin,
    **scan_twins.TWINS,
    **stable_twins.TWINS,
}
LAYER_NORM = [name for name in TWINS if name.startswith("LayerNorm")]


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def random_weights(layer, seed):
    random = np.random.default_rng(seed)
    for weight in layer.weights:
        weight.assign(random.normal(size=weight.shape))
    return {weight.name: array(weight) for weight in layer.weights}


def test_every_layer_has_a_twin_or_a_reference():
    assert set(NAMES) <= set(TWINS) | {each.layer for each in REFERENCES.values()}


# Options that change the equations.
WITH_OPTIONS = [
    (
        "CoRNN",
        {"step_size": 0.3, "frequency": 1.5, "damping": 0.7, "implicit_damping": True},
        partial(stable_twins.co_rnn, dt=0.3, gamma=1.5, epsilon=0.7, implicit=True),
    ),
    ("LEM", {"step_size": 0.6}, partial(stable_twins.lem, dt=0.6)),
    ("LEM", {"implicit": False}, partial(stable_twins.lem, implicit=False)),
    (
        "LipschitzRNN",
        {"step_size": 0.2, "antisymmetry": 0.6, "diffusion": 0.3, "scheme": "midpoint"},
        partial(stable_twins.lipschitz_rnn, epsilon=0.2, beta=0.6, gamma=0.3, midpoint=True),
    ),
    ("OrthogonalRNN", {"angle_scale": 0.1}, partial(stable_twins.orthogonal_rnn, scale=0.1)),
    ("STAR", {"beta": 1.0}, partial(star_twin, beta=1.0)),
]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("name", "options", "twin"),
    [*((name, {}, twin) for name, twin in TWINS.items()), *WITH_OPTIONS],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_equals_a_numpy_loop(name, options, twin):
    layer = getattr(layers, name)(UNITS, return_sequences=True, dtype="float64", **options)
    layer.build((2, 5, FEATURES))
    weights = random_weights(layer, seed=1)
    inputs = np.random.default_rng(2).normal(size=(2, 5, FEATURES))
    expected = [list(twin(weights, sequence)) for sequence in inputs]
    np.testing.assert_allclose(array(layer(inputs)), expected, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", LAYER_NORM)
def test_scaling_the_kernels_changes_nothing(name):
    layer = getattr(layers, name)(UNITS, epsilon=1e-14, dtype="float64")
    inputs = np.random.default_rng(3).normal(size=(2, 5, FEATURES))
    before = array(layer(inputs))
    for kernel in (layer.cell.kernel, layer.cell.recurrent_kernel):
        kernel.assign(kernel * 100)
    np.testing.assert_allclose(array(layer(inputs)), before, rtol=0, atol=1e-9)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["LayerNormLSTM", "LayerNormGRU"])
def test_each_kernel_may_be_scaled_alone(name):
    layer = getattr(layers, name)(UNITS, epsilon=1e-14, dtype="float64")
    inputs = np.random.default_rng(4).normal(size=(2, 5, FEATURES))
    before = array(layer(inputs))
    layer.cell.recurrent_kernel.assign(layer.cell.recurrent_kernel * 100)
    np.testing.assert_allclose(array(layer(inputs)), before, rtol=0, atol=1e-9)


def test_forget_bias_starts_at_one():
    layer = layers.LayerNormLSTM(UNITS)
    layer.build((None, None, FEATURES))
    bias = array(layer.cell.bias)
    np.testing.assert_array_equal(bias, [0] * UNITS + [1] * UNITS + [0] * 2 * UNITS)


@pytest.mark.parametrize("name", TWINS)
def test_without_bias_there_is_none(name):
    layer = getattr(layers, name)(UNITS, use_bias=False)
    assert np.isfinite(array(layer(np.ones((1, 2, FEATURES), "float32")))).all()
    assert not [weight.name for weight in layer.weights if "bias" in weight.name]


def test_statistics_do_not_overflow_in_float16():
    layer = layers.LayerNormSimpleRNN(UNITS, dtype="mixed_float16")
    outputs = layer(np.full((1, 2, FEATURES), 2000, "float32"))
    assert keras.backend.standardize_dtype(outputs.dtype) == "float16"
    assert np.abs(array(outputs)).max() > 0.1
    assert np.isfinite(array(outputs)).all()


REFUSED = [
    ("AntisymmetricRNN", {"step_size": 0}, r"finite number above 0. Received: step_size=0"),
    ("AntisymmetricRNN", {"diffusion": -1}, r"at least 0. Received: diffusion=-1"),
    ("LipschitzRNN", {"antisymmetry": 2}, r"in \[0, 1\]. Received: antisymmetry=2"),
    ("LipschitzRNN", {"scheme": "rk4"}, r"euler, midpoint. Received: scheme='rk4'"),
]


@pytest.mark.parametrize(("name", "options", "message"), REFUSED)
def test_refuses_options_outside_their_range(name, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(layers, name)(UNITS, **options)
