"""Gradients through time on torch, compared with differences of a NumPy loop."""

import gate_twins
import keras
import numpy as np
import pytest

if keras.backend.backend() != "torch":
    pytest.skip("the tests call torch", allow_module_level=True)

import torch

from gradkeeper.callbacks import TemporalGradientFlow, gate_report, gradient_flow, spectral_report
from gradkeeper.zoo.layers import MGU

L = keras.layers
BATCH, TIME, FEATURES, UNITS = 2, 4, 3, 3
X = np.random.default_rng(0).normal(size=(BATCH, TIME, FEATURES))
X[1, 3:] = 0  # masked
MASK = X.any(axis=-1)
TWINS = [(L.LSTM, gate_twins.lstm, 2), (L.GRU, gate_twins.gru, 1), (MGU, gate_twins.mgu, 1)]


@pytest.fixture(autouse=True)
def _float64():
    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(policy)


def model_of(*stack):
    model = keras.Sequential([keras.Input((TIME, FEATURES)), L.Masking(), *stack])
    random = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(random.normal(size=weight.shape))
    return model


def weights_of(layer):
    return {each.name: keras.ops.convert_to_numpy(each) for each in layer.cell.weights}


def last_sum(twin, w, count, example, shift=None):
    """Return the sum of the last output. `shift`: a time, and a vector to add to h there."""
    states = [np.zeros(UNITS)] * count
    for time in range(TIME):
        if MASK[example, time]:
            _, _, states = twin(w, X[example, time], states)
            if shift is not None and shift[0] == time:
                states = [states[0] + shift[1], *states[1:]]
    return states[0].sum()


@pytest.mark.parametrize(("kind", "twin", "count"), TWINS)
def test_norms_equal_differences(kind, twin, count):
    layer = kind(UNITS, name="rnn")
    flow = gradient_flow(model_of(layer), X, loss=keras.ops.sum)
    w = weights_of(layer)
    for example, time in zip(*np.nonzero(MASK), strict=True):
        slopes = [
            last_sum(twin, w, count, example, (time, step))
            - last_sum(twin, w, count, example, (time, -step))
            for step in 1e-6 * np.eye(UNITS)
        ]
        wanted = np.linalg.norm(slopes) / 2e-6
        np.testing.assert_allclose(flow["rnn"].norms[time, example], wanted, rtol=1e-5)


@pytest.mark.parametrize(("kind", "twin"), [pair[:2] for pair in TWINS])
def test_gates_equal_a_numpy_loop(kind, twin):
    layer = kind(UNITS, name="rnn")
    report = gate_report(model_of(layer), X)
    w = weights_of(layer)
    for example in range(BATCH):
        states = [np.zeros(UNITS)] * len(keras.tree.flatten(layer.cell.state_size))
        for time in range(TIME):
            gates, carries, states = twin(w, X[example, time], states)
            for name, values in {**gates, **carries}.items():
                found = report[f"rnn {name}"].values[time, example]
                expected = values if MASK[example, time] else np.nan
                np.testing.assert_allclose(found, expected * np.ones(UNITS), rtol=1e-6)


def test_spectral_radius_of_a_linear_network():
    layer = L.SimpleRNN(UNITS, activation="linear", name="rnn")
    report = spectral_report(model_of(layer), X)["rnn"]
    eigenvalues = np.linalg.eigvals(weights_of(layer)["recurrent_kernel"])
    assert report.jacobian.radius == pytest.approx(np.abs(eigenvalues).max(), rel=1e-6)
    growth = np.log(np.abs(eigenvalues).max())
    assert report.lyapunov[0] == pytest.approx(growth, abs=1.0)  # four steps


def test_the_callback_changes_nothing_of_a_training():
    model = model_of(L.SimpleRNN(UNITS, dropout=0.2, seed=1, name="rnn"), L.Dense(1))
    model.compile("sgd", "mse", metrics=["mae"])
    begun = [keras.ops.convert_to_numpy(each).copy() for each in model.variables]

    def trained(*callbacks):
        for variable, value in zip(model.variables, begun, strict=True):
            variable.assign(value)
        options = {"epochs": 2, "verbose": 0, "shuffle": False, "callbacks": list(callbacks)}
        history = model.fit(X, X[:, 0, :1], **options).history
        return history, [keras.ops.convert_to_numpy(each).copy() for each in model.variables]

    flow = TemporalGradientFlow(X, X[:, 0, :1])
    (expected, plain), (history, variables) = trained(), trained(flow)
    assert list(flow.flows) == [0, 1, 2]
    assert history.pop("flow_half_life/rnn") == [flow.flows[n]["rnn"].half_life for n in (1, 2)]
    assert history == expected
    for one, other in zip(plain, variables, strict=True):
        np.testing.assert_array_equal(one, other)


def test_dropout_of_the_flow_leaves_the_random_numbers_of_the_training():
    model = model_of(L.LSTM(UNITS, dropout=0.5), L.Dropout(0.5))
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    gradient_flow(model, X, loss=keras.ops.sum, training=True)
    torch.testing.assert_close(torch.rand(4), wanted, rtol=0, atol=0)
