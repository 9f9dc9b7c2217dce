"""Advice from the first step: scale of the inputs, initial weights, activations, targets."""

import dataclasses

import keras
import numpy as np
import pytest
from histories import window

from gradkeeper.callbacks import ClipAdvisor, GradientMonitor
from gradkeeper.callbacks.rules.advice import FirstStep
from gradkeeper.callbacks.run_facts import RunFacts

L = keras.layers
LARGE = keras.initializers.RandomNormal(stddev=5.0, seed=0)


def fitted(layers, optimizer, x, y, *, epochs=4):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(x.shape[1:]), *layers])
    model.compile(optimizer, "mse", jit_compile=False)
    monitor = GradientMonitor(verbose=0)
    options = {"batch_size": 16, "shuffle": False, "verbose": 0}
    model.fit(x, y, epochs=epochs, callbacks=[monitor], **options)
    return monitor


def standardized(*shape):
    random = np.random.default_rng(0)
    x = random.normal(size=(320, *shape)).astype("float32")
    return x, np.tanh(x.reshape(320, -1)[:, :1])


def dense(units=16):
    return [*(L.Dense(units, "relu", kernel_initializer=LARGE) for _ in range(2)), out()]


def out():
    return L.Dense(1, kernel_initializer=LARGE, name="out")


def rnn():
    grows = keras.initializers.Orthogonal(gain=3.0)
    return [L.SimpleRNN(6, "relu", recurrent_initializer=grows, name="rnn"), L.Dense(1, name="out")]


def sgd(rate=0.1, **options):
    return keras.optimizers.SGD(rate, **options)


GROWING = {
    "exploding": (lambda: dense(), lambda: sgd(1e-4), (6,), "smaller initial"),
    "nonfinite": (lambda: dense(), lambda: sgd(1.0), (6,), "smaller initial"),
    "clip_always": (lambda: dense(), lambda: sgd(1e-6, global_clipnorm=1.0), (6,), "smaller init"),
    "clip_always, rnn": (
        lambda: rnn(),
        lambda: sgd(1e-6, global_clipnorm=1.0),
        (12, 2),
        "use activation='tanh'",
    ),
    "nonfinite, rnn": (lambda: rnn(), lambda: sgd(1.0), (12, 2), "use activation='tanh'"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", GROWING)
def test_large_activations_of_standardized_data_are_not_blamed_on_the_targets(case):
    layers, optimizer, shape, words = GROWING[case]
    monitor = fitted(layers(), optimizer(), *standardized(*shape))
    found = [each for each in monitor.findings if each.rule == case.partition(",")[0]]
    assert any(words in each.advice for each in found)
    assert not any("the targets are large" in each.advice for each in monitor.findings)
    problem = ClipAdvisor(monitor.history).problem
    assert words in problem
    assert "the targets are large" not in problem


def test_a_dead_layer_with_large_initial_weights_is_not_blamed_on_the_targets():
    keras.utils.set_random_seed(0)
    never = keras.initializers.Constant(-1e6)
    inputs = keras.Input((6,))
    hidden = L.Dense(16, "relu", kernel_initializer=LARGE)(inputs)
    dead = L.Dense(3, "relu", bias_initializer=never, name="dead")(hidden)
    model = keras.Model(inputs, out()(L.Concatenate()([hidden, dead])))
    model.compile(sgd(1e-9), "mse", jit_compile=False)
    monitor = GradientMonitor(verbose=0)
    model.fit(*standardized(6), batch_size=4, verbose=0, callbacks=[monitor])
    (finding,) = (each for each in monitor.findings if each.rule == "dead")
    assert "smaller initial weights" in finding.advice
    assert "the targets are large" not in finding.advice


def first_step(monitor):
    first = FirstStep()
    first.follow(monitor.history.since(0))
    return first


def test_a_bias_that_changes_nothing_does_not_indicate_large_inputs():
    x, y = standardized(5, 4)
    inputs = keras.Input((5, 4))
    hidden = L.MultiHeadAttention(1, 4)(inputs, inputs)
    hidden = L.BatchNormalization()(L.Dense(4, name="centered")(hidden))
    hidden = L.Dense(4, "relu", name="seen")(hidden)
    layers = [keras.Model(inputs, hidden), L.Flatten(), L.Dense(1, name="out")]
    first = first_step(fitted(layers, sgd(1e-3), x[:16], y[:16], epochs=1))
    assert [path.rpartition("/")[2] for path in first.sizes] == ["seen", "out"]
    assert first.growth < 10


@pytest.mark.parametrize("before", [(), ("norm/gamma",)])
def test_the_inputs_are_large_only_if_the_first_layer_reads_them(before):
    variables = (*before, "dense/kernel", "dense/bias")
    run = window([[*(1.0 for _ in before), 1e3, 1.0]], variables=variables)
    first = FirstStep()
    first.follow(dataclasses.replace(run, facts=RunFacts(shapes={"dense/kernel": (4, 2)})))
    assert ("gradients of dense indicate" in first.input_advice()) == (not before)


def test_the_outputs_of_a_frozen_layer_are_no_inputs_of_the_model():
    x, y = standardized(4)
    frozen = L.Dense(8, kernel_initializer=LARGE, trainable=False, name="frozen")
    monitor = fitted([frozen, L.Dense(1, name="out")], sgd(1e-4, global_clipnorm=1e-3), x, y)
    assert monitor.history.since(-1).facts.first_layer == "frozen"
    assert "inputs with a root mean square" not in str(monitor.findings)
    first = FirstStep()
    first.follow(monitor.history.since(-1))
    assert first.sizes["out"] > 10
    assert not first.input_advice()


def sales():
    random = np.random.default_rng(0)
    series = 300_000 + 80_000 * np.sin(np.arange(400) / 9) + 5_000 * random.normal(size=400)
    windows = np.stack([series[start : start + 28] for start in range(372)])
    return windows[..., None], series[28:, None]


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "scale_targets"), [(L.LSTM, False), (L.GRU, True)])
def test_saturated_gates_are_blamed_on_the_inputs(layer, scale_targets):
    x, y = sales()
    if scale_targets:
        y = (y - y.mean()) / y.std()
    layers = [layer(8, name="memory"), L.Dense(1, name="out")]
    monitor = fitted(layers, keras.optimizers.Adam(1e-3), x, y, epochs=5)
    (finding,) = (each for each in monitor.findings if each.rule == "dead")
    assert "large inputs saturate its gates. Standardize the inputs" in finding.advice
    assert "memory" in finding.advice
    assert ("if the targets are large as well" in finding.advice) != scale_targets
    assert "Standardize the inputs" in ClipAdvisor(monitor.history).problem


def test_a_last_layer_that_begins_at_zero_saturates_nothing():
    x, y = standardized(12, 2)
    layers = [L.LSTM(4, name="memory"), L.Dense(1, kernel_initializer="zeros", name="out")]
    monitor = fitted(layers, sgd(0.1), x, y)
    assert monitor.history.select("memory").global_norm[0] == 0
    assert not ClipAdvisor(monitor.history).problem


@pytest.mark.slow
def test_vanishing_gates_are_told_to_standardize_the_inputs():
    x, y = sales()
    x, y = 1000 + 300 * (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
    layers = [L.LSTM(8, name="memory"), L.Dense(1, name="out")]
    monitor = fitted(layers, sgd(0.01), x, y)
    (finding,) = (each for each in monitor.findings if each.rule == "vanishing")
    assert "gradients of memory/lstm_cell indicate inputs" in finding.advice
    assert "standardize the inputs" in finding.advice


@pytest.mark.slow
def test_the_advisor_names_large_targets_of_a_run_without_findings():
    x, y = sales()
    layers = [L.LSTM(8, name="memory"), L.Dense(1, name="out")]
    monitor = fitted(layers, keras.optimizers.Adam(1e-3), (x - x.mean()) / x.std(), y)
    assert not monitor.findings
    assert monitor.history.loss[-1] > 1e10
    assert "Standardize the targets" in ClipAdvisor(monitor.history).problem
