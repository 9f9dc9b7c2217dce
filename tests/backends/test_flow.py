"""Gradients through time on JAX, compared with loops written by hand."""

import gate_twins
import keras
import numpy as np
import pytest
from keras.src.backend.common import dtypes  # its float64 rule has no public switch

from gradkeeper.callbacks import (
    TemporalGradientFlow,
    gate_report,
    gradient_flow,
    spectral_report,
)
from gradkeeper.callbacks.flow import Spectrum
from gradkeeper.zoo.layers import MGU, PeepholeLSTM

jax = pytest.importorskip("jax")
jnp = jax.numpy

L = keras.layers
BATCH, TIME, FEATURES, UNITS = 2, 4, 3, 3
X = np.random.default_rng(0).normal(size=(BATCH, TIME, FEATURES))
X[1, 3:] = 0  # masked
MASK = X.any(axis=-1)
# `model_of` replaces the weights.
QUICK = {"kernel_initializer": "zeros", "recurrent_initializer": "zeros"}


@pytest.fixture(scope="module", autouse=True)
def _float64():
    """Enable float64 in JAX, and in Keras, which turns it into float32 on JAX."""
    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    with pytest.MonkeyPatch.context() as patch, jax.enable_x64(True):
        patch.setitem(dtypes.BIT64_TO_BIT32_DTYPE, "float64", "float64")
        yield
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(policy)


def model_of(*stack):
    model = keras.Sequential([keras.Input((TIME, FEATURES)), L.Masking(), *stack])
    random = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(random.normal(size=weight.shape))
    return model


# Steps: (weights by name, x_t, states, numbers to add to the states) -> states, the output first.


def sigmoid(x):
    return 1 / (1 + jnp.exp(-x))


def sums(w, x, h):
    return x @ w["kernel"] + h @ w["recurrent_kernel"] + w["bias"]


def simple_rnn(w, x, states, shifts):
    return [jnp.tanh(sums(w, x, states[0])) + shifts[0]]


def lstm(w, x, states, shifts, see=(0, 0, 0)):
    h, c = states
    i, f, n, o = jnp.split(sums(w, x, h), 4, axis=-1)
    i, f = sigmoid(i + see[0] * c), sigmoid(f + see[1] * c)
    c = f * c + i * jnp.tanh(n) + shifts[1]
    return [sigmoid(o + see[2] * c) * jnp.tanh(c) + shifts[0], c]


def peephole_lstm(w, x, states, shifts):
    return lstm(w, x, states, shifts, np.split(w["peephole_kernel"], 3))


def gru(w, x, states, shifts):
    (h,) = states
    given = jnp.split(x @ w["kernel"] + w["bias"][0], 3, axis=-1)
    seen = jnp.split(h @ w["recurrent_kernel"] + w["bias"][1], 3, axis=-1)
    z, r = sigmoid(given[0] + seen[0]), sigmoid(given[1] + seen[1])
    return [z * h + (1 - z) * jnp.tanh(given[2] + r * seen[2]) + shifts[0]]


def mgu(w, x, states, shifts):
    (h,) = states
    (to_f, to_n), (u_f, u_n), (b_f, b_n) = (
        np.split(w[name], 2, axis=-1) for name in ("kernel", "recurrent_kernel", "bias")
    )
    f = sigmoid(x @ to_f + h @ u_f + b_f)
    return [(1 - f) * h + f * jnp.tanh(x @ to_n + (f * h) @ u_n + b_n) + shifts[0]]


def loop(step, layer, sequences, shifts):
    """Return the outputs [batch, time, units]; `shifts` is [states, time, batch, units]."""
    w = {each.name: np.asarray(each) for each in layer.cell.weights}

    def masked(states, given):
        x, shift, there = given
        after = step(w, x, states, shift)
        states = [jnp.where(there[:, None], *pair) for pair in zip(after, states, strict=True)]
        return states, states[0]

    begun = [jnp.zeros((BATCH, layer.cell.units))] * len(shifts)
    given = jnp.swapaxes(sequences, 0, 1), jnp.swapaxes(shifts, 0, 1), MASK.T
    _, outputs = jax.lax.scan(masked, begun, given, reverse=layer.go_backwards)
    return jnp.swapaxes(outputs, 0, 1)


def test_norms_equal_jax_grad():
    """Check stacked layers, two directions, masks and a loss of a layer in one model."""
    options = {"return_sequences": True, **QUICK}
    both = L.Bidirectional(L.LSTM(UNITS, **options), merge_mode="sum", name="both")
    stack = {
        "peephole": (PeepholeLSTM(UNITS, name="peephole", **options), peephole_lstm, 2),
        "mgu": (MGU(UNITS, name="mgu", **options), mgu, 1),
        "rnn": (L.SimpleRNN(UNITS, name="rnn", **options), simple_rnn, 1),
        "gru": (L.GRU(UNITS, name="gru", activity_regularizer="l2", **options), gru, 1),
    }
    model = model_of(both, *(layer for layer, _, _ in stack.values()))
    model.compile("sgd", "mse")
    y = np.ones((BATCH, TIME, UNITS))
    flow = gradient_flow(model, X, y)

    def loss(shifts):
        outputs = loop(lstm, both.forward_layer, X, shifts["both/forward_lstm"])
        outputs += loop(lstm, both.backward_layer, X, shifts["both/backward_lstm"])
        for name, (layer, step, _) in stack.items():
            outputs = loop(step, layer, outputs, shifts[name])
        return jnp.mean((outputs - y)[MASK] ** 2) + 0.01 * jnp.sum(outputs**2) / BATCH

    states = {"both/forward_lstm": 2, "both/backward_lstm": 2}
    states |= {name: count for name, (_, _, count) in stack.items()}
    shifts = {name: jnp.zeros((each, TIME, BATCH, UNITS)) for name, each in states.items()}
    value, gradients = jax.jit(jax.value_and_grad(loss))(shifts)
    assert flow.loss == pytest.approx(float(value), rel=1e-10)
    assert {each.layer for each in flow} == set(states)
    for name, gradient in gradients.items():
        found = np.stack([each.norms for each in flow if each.layer == name])
        expected = np.where(MASK.T, np.linalg.norm(gradient, axis=-1), np.nan)
        np.testing.assert_allclose(found, expected, rtol=1e-10, err_msg=name)


@pytest.mark.parametrize(("layer", "twin"), [(L.LSTM, gate_twins.lstm), (MGU, gate_twins.mgu)])
def test_gates_equal_a_numpy_loop(layer, twin):
    layer = layer(UNITS, name="rnn", **QUICK)
    report = gate_report(model_of(layer), X)
    w = {each.name: np.asarray(each) for each in layer.cell.weights}
    for example in range(BATCH):
        states = [np.zeros(UNITS)] * len(keras.tree.flatten(layer.cell.state_size))
        for time in range(TIME):
            gates, carries, states = twin(w, X[example, time], states)
            for name, values in {**gates, **carries}.items():
                found = report[f"rnn {name}"].values[time, example]
                expected = values if MASK[example, time] else np.nan
                np.testing.assert_allclose(found, expected * np.ones(UNITS), rtol=1e-10)


def test_spectra_equal_explicit_jacobians():
    layer = L.LSTM(UNITS, name="rnn", **QUICK)
    report = spectral_report(model_of(layer), X, exponents=2 * UNITS)["rnn"]
    w = {each.name: np.asarray(each) for each in layer.cell.weights}

    def after(states, x):
        return jnp.concatenate(lstm(w, x, jnp.split(states, 2, axis=-1), (0, 0)), axis=-1)

    step, jacobian = jax.jit(jax.vmap(after)), jax.jit(jax.vmap(jax.jacfwd(after)))
    states, found = jnp.zeros((BATCH, 2 * UNITS)), []
    for time in range(TIME):
        found.append(np.asarray(jacobian(states, X[:, time])))
        states = step(states, X[:, time])
    found = np.stack(found)  # [time, batch, states, states]
    mean = Spectrum.of_matrix(found[MASK.T].mean(axis=0))
    assert report.jacobian.radius == pytest.approx(mean.radius, rel=1e-8)
    assert report.jacobian.norm == pytest.approx(mean.norm, rel=1e-8)
    # The sum of all exponents is the growth rate of a volume.
    volumes = np.ma.array(np.linalg.slogdet(found)[1], mask=~MASK.T).mean(axis=0)
    assert report.lyapunov.sum() == pytest.approx(volumes.mean(), rel=1e-8)


def test_mixed_precision():
    def norms(policy):
        model = model_of(L.SimpleRNN(UNITS, dtype=policy, name="rnn", **QUICK))
        return gradient_flow(model, X, loss=jnp.sum)["rnn"].norms

    np.testing.assert_allclose(norms("mixed_float16"), norms("float64"), rtol=0.01)


def test_nothing_of_the_model_is_changed():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((TIME, FEATURES), batch_size=BATCH)
    layer = L.SimpleRNN(UNITS, dropout=0.5, stateful=True, return_sequences=True)
    model = keras.Model(inputs, L.BatchNormalization()(layer(inputs)))
    model.compile("sgd", "mse")
    variables = [*model.variables, *layer.states]
    before = [np.array(each) for each in variables]
    gradient_flow(model, X, X, training=True)
    for value, variable in zip(before, variables, strict=True):
        np.testing.assert_array_equal(value, variable)
    assert "inner_loop" not in vars(layer)


class CompiledCell(L.LSTMCell):
    transform = staticmethod(jax.jit)

    def call(self, inputs, states, training=False):
        return self.transform(super().call)(inputs, states)


class RematerializedCell(CompiledCell):
    transform = staticmethod(jax.checkpoint)


class CompiledLayer(keras.Layer):
    def __init__(self):
        super().__init__()
        self.supports_masking = True
        self.memory = L.GRU(UNITS, name="memory", **QUICK)

    def build(self, shape):
        self.memory.build(shape)

    def call(self, inputs):
        return jax.jit(self.memory.call)(inputs)


def flow_of(layer):
    return gradient_flow(model_of(layer), X, loss=jnp.sum)


def test_a_compiled_cell_is_seen_and_a_compiled_layer_refused():
    plain, compiled = (
        flow_of(L.RNN(cell(UNITS, **QUICK), name="rnn")) for cell in (L.LSTMCell, CompiledCell)
    )
    for one, other in zip(plain, compiled, strict=True):
        np.testing.assert_allclose(one.norms, other.norms, rtol=1e-10)
    with pytest.raises(RuntimeError, match="KERAS_BACKEND=jax with the cell again"):
        flow_of(L.RNN(RematerializedCell(UNITS, name="again", **QUICK)))
    message = r"KERAS_BACKEND=jax with compiled_layer\w*/memory"
    with pytest.raises(RuntimeError, match=message):
        flow_of(CompiledLayer())
    for report in (gate_report, spectral_report):
        with pytest.raises(RuntimeError, match=message):
            report(model_of(CompiledLayer()), X)


def test_the_callback_changes_nothing_of_a_training():
    keras.utils.set_random_seed(0)
    model = model_of(L.SimpleRNN(UNITS, dropout=0.2, name="rnn", **QUICK), L.Dense(1))
    model.compile("sgd", "mse", metrics=["mae"])
    begun = [np.array(each) for each in model.variables]

    def trained(*callbacks):
        for variable, value in zip(model.variables, begun, strict=True):
            variable.assign(value)
        options = {"epochs": 2, "verbose": 0, "shuffle": False, "callbacks": list(callbacks)}
        history = model.fit(X, X[:, 0, :1], **options).history
        return history, [np.array(each) for each in model.variables]

    flow = TemporalGradientFlow(X, X[:, 0, :1])
    (expected, plain), (history, variables) = trained(), trained(flow)
    assert list(flow.flows) == [0, 1, 2]
    half_lives = history.pop("flow_half_life/rnn")
    assert half_lives == [flow.flows[epoch]["rnn"].half_life for epoch in (1, 2)]
    assert history == expected
    for one, other in zip(plain, variables, strict=True):
        np.testing.assert_array_equal(one, other)
