"""The simple network in NumPy: published values, BPTT, RTRL, autodiff and finite differences."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from autodiff import gradients
from numpy_rnn import Weights, bptt, forward, rtrl, step, step_backward

PUBLISHED = json.loads((Path(__file__).parent / "vectors" / "numpy_rnn_cell.json").read_text())
UNITS, FEATURES, BATCH, TIME = 5, 3, 4, 12


def drawn(recipe):
    """Return the arrays of a notebook, drawn in its order from one legacy random stream."""
    random = np.random.RandomState(1)
    return {name: random.randn(*shape) for name, shape in recipe}


def published_arrays(variant):
    arrays = drawn(PUBLISHED["rng"]["draws"])
    recipe = PUBLISHED["variants"][variant]["ba_recipe"]
    if isinstance(recipe, dict):
        arrays["ba"] = drawn(recipe["draws"])["ba"]
    return arrays


@pytest.fixture
def case():
    """Return weights near the stability limit, a sequence, and gradients into all its states."""
    random = np.random.default_rng(0)
    normal = random.standard_normal
    weights = Weights(
        normal((UNITS, FEATURES)), normal((UNITS, UNITS)) / UNITS**0.5, normal((UNITS, 1))
    )
    x, a0 = normal((FEATURES, BATCH, TIME)), normal((UNITS, BATCH))
    return weights, x, a0, normal((UNITS, BATCH, TIME))


@pytest.mark.parametrize("variant", PUBLISHED["variants"])
def test_the_published_values_come_out(variant):
    expected = PUBLISHED["variants"][variant]
    given = published_arrays(variant)
    np.testing.assert_array_equal(given["ba"], expected["ba_used"])
    weights = Weights(given["Wax"], given["Waa"], given["ba"])
    a_next = step(weights, given["xt"], given["a_prev"])
    found = step_backward(weights, given["xt"], given["a_prev"], a_next, given["da_next"])
    values = {
        "dxt[1][2]": found.x[1][2],
        "da_prev[2][3]": found.a_prev[2][3],
        "dWax[3][1]": found.weights.Wax[3][1],
        "dWaa[1][2]": found.weights.Waa[1][2],
        "dba[4]": found.weights.ba[4],
    }
    exact = PUBLISHED["tolerance"]["default_abs"]
    for name, value in values.items():
        tolerance = PUBLISHED["tolerance"].get(f"{name}_abs", exact)
        np.testing.assert_allclose(value, expected["expected"][name], rtol=0, atol=tolerance)
        np.testing.assert_allclose(value, expected["recomputed"][name], rtol=0, atol=exact)


def test_bptt_equals_rtrl(case):
    back, ahead = bptt(*case), rtrl(*case)
    for one, other in zip([*back.weights, back.a_prev], [*ahead.weights, ahead.a_prev],
                          strict=True):  # fmt: skip
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("method", [bptt, rtrl])
def test_equals_autodiff_through_keras(case, method):
    weights, x, a0, da = case
    layer = keras.layers.SimpleRNN(UNITS, return_sequences=True, dtype="float64")
    layer.build((None, None, FEATURES))
    layer.set_weights([weights.Wax.T, weights.Waa.T, weights.ba[:, 0]])
    inputs, weighing = x.transpose(1, 2, 0), keras.ops.convert_to_tensor(da.transpose(1, 2, 0))

    def loss(tensors):
        return keras.ops.sum(layer(tensors[0], initial_state=tensors[1]) * weighing)

    states = keras.ops.convert_to_numpy(layer(inputs, initial_state=a0.T)).transpose(2, 0, 1)
    np.testing.assert_allclose(states, forward(weights, x, a0), rtol=0, atol=1e-10)
    of_tensors, of_weights = gradients(loss, layer, [inputs, a0.T])
    found = method(*case)
    pairs = [*zip(of_weights, found.weights, strict=True), (of_tensors[1], found.a_prev)]
    if found.x is not None:
        pairs.append((of_tensors[0].transpose(2, 0, 1), found.x))
    for expected, gradient in pairs:
        np.testing.assert_allclose(gradient.T if expected.ndim == 2 else np.squeeze(gradient),
                                   expected, rtol=0, atol=1e-10)  # fmt: skip


@pytest.mark.parametrize("method", [bptt, rtrl])
def test_equals_finite_differences(case, method):
    weights, x, a0, da = case
    found = method(*case)

    def loss():
        return float(np.sum(da * forward(weights, x, a0)))

    def difference(array, index, by=1e-5):
        value, losses = array[index], []
        for moved in (value + by, value - by):
            array[index] = moved
            losses.append(loss())
        array[index] = value
        return (losses[0] - losses[1]) / (2 * by)

    pairs = [*zip(weights, found.weights, strict=True), (a0, found.a_prev)]
    pairs += [] if found.x is None else [(x, found.x)]
    for array, gradient in pairs:
        expected = [difference(array, index) for index in np.ndindex(array.shape)]
        np.testing.assert_allclose(gradient.ravel(), expected, rtol=1e-6, atol=1e-7)
