"""Remedies of the rules: each advice keeps the run finite and reduces the loss."""

import dataclasses
import re

import keras
import numpy as np
import pytest
from twin import trained

from gradkeeper.callbacks import GradientMonitor
from gradkeeper.callbacks.rules import ClipAlways, default_rules

pytestmark = pytest.mark.slow

L = keras.layers


def found(run, rule):
    findings = [each for judge in default_rules() for each in judge.check(run)]
    return next(each for each in findings if each.rule == rule)


def number(pattern, text):
    return float(re.search(pattern, text)[1])


def assert_trains(loss, window=20):
    assert np.isfinite(loss).all()
    assert np.mean(loss[-window:]) < np.mean(loss[:window])


# Runs of the NumPy twin: (optimizer, learning rate, options), the rule, words of its advice, and
# the run with the advice applied.
TWINS = {
    "unscaled targets": (
        ("SGD", 0.02, {"targets": 1e5}),
        "exploding",
        "Standardize the targets",
        lambda advice: ("SGD", 0.02, {}),
    ),
    "unscaled inputs": (
        ("SGD", 0.02, {"inputs": 255.0}),
        "exploding",
        "standardize the inputs",
        lambda advice: ("SGD", 0.02, {}),
    ),
    "unscaled targets, up to NaN": (
        ("SGD", 0.02, {"targets": 1e5}),
        "nonfinite",
        "Standardize the targets",
        lambda advice: ("SGD", 0.02, {}),
    ),
    "learning rate too high": (
        ("SGD", 1.0, {}),
        "exploding",
        "Divide the learning rate by 10, and repeat this if",
        lambda advice: ("SGD", 0.1, {}),
    ),
    "learning rate too high, up to NaN": (
        ("SGD", 1.0, {}),
        "nonfinite",
        "Divide the learning rate by 10, and repeat this if",
        lambda advice: ("SGD", 0.1, {}),
    ),
    "learning rate of adam too high": (
        ("Adam", 100.0, {}),
        "exploding",
        "Clipping does not shorten the steps of Adam",
        lambda advice: ("Adam", 0.1, {}),
    ),
}


@pytest.mark.parametrize("fault", TWINS)
def test_the_advice_against_an_explosion_works(fault):
    (optimizer, rate, options), rule, words, mend = TWINS[fault]
    finding = found(trained(optimizer, rate, **options), rule)
    assert words in finding.advice
    mended, rate, options = mend(finding.advice)
    assert_trains(trained(mended, rate, **options).scalar("loss"))


@pytest.mark.parametrize("optimizer", ["Adam", "RMSprop", "Lion"])
def test_a_limit_under_an_adaptive_optimizer_leaves_the_learning_rate(optimizer):
    finding = found(trained(optimizer, 1e-2, clip=0.01), "clip_always")
    assert finding.severity == "info"
    assert "keep the learning rate" in finding.advice
    assert "lower the learning rate" not in finding.advice
    limit = number(r"global_clipnorm=([\d.e+-]+),", finding.advice)
    mended = trained(optimizer, 1e-2, clip=limit)
    loss = mended.scalar("loss")
    assert_trains(loss)
    assert np.mean(loss[-20:]) < 0.1 * np.mean(loss[:20])
    assert np.mean(mended.clipped) < 0.2


def test_a_limit_under_plain_descent_is_raised_and_the_learning_rate_lowered():
    finding = found(trained("SGD", 1.0, clip=0.05), "clip_always")
    assert finding.severity == "warning"
    limit = number(r"global_clipnorm=([\d.e+-]+),", finding.advice)
    rate = number(r"-fold to ([\d.e-]+)\.$", finding.advice)
    mended = trained("SGD", rate, clip=limit)
    assert_trains(mended.scalar("loss"))
    assert np.mean(mended.clipped) < 0.2


@pytest.mark.parametrize("clipping", ["clipvalue", "clipnorm"])
def test_a_limit_of_parts_is_replaced_by_one_of_the_norm_if_it_reduces_the_norm(clipping):
    run = trained("SGD", 0.02, steps=100)
    facts = dataclasses.replace(run.facts, clipping=clipping)
    for applied, reports in ((0.97, False), (0.1, True)):
        values = {**run.values, "applied_norm": applied * run.values["norm"]}
        limits = {**run.scalars, "clip_limit": np.full(len(run), 0.5)}
        clipped = dataclasses.replace(run, values=values, scalars=limits, facts=facts)
        findings = list(ClipAlways().check(clipped))
        assert bool(findings) == reports
    assert f" in place of {clipping}, above" in findings[0].advice
    assert "Every step has the same length" not in findings[0].advice
    assert "10-fold to 0.002" in findings[0].advice


@pytest.mark.parametrize("clipping", [{"clipvalue": 0.01}, {"clipnorm": 0.1}])
def test_the_limit_of_the_norm_in_place_of_one_of_parts_works(clipping):
    random = np.random.default_rng(0)
    x = random.normal(size=(640, 8))
    y = x @ random.normal(size=(8, 1)) * 3

    def trained(rate, **clipping):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((8,)), L.Dense(16, "tanh"), L.Dense(1)])
        model.compile(keras.optimizers.SGD(rate, **clipping), "mse", jit_compile=False)
        monitor = GradientMonitor(rules=["clip_always"], verbose=0)
        options = {"batch_size": 32, "epochs": 10, "shuffle": False, "verbose": 0}
        losses = model.fit(x, y, callbacks=[monitor], **options).history["loss"]
        return losses[-1], monitor

    loss, monitor = trained(0.05, **clipping)
    (finding,) = monitor.findings
    limit = number(r"global_clipnorm=([\d.e+-]+) in place of", finding.advice)
    rate = number(r"-fold to ([\d.e-]+)\.$", finding.advice)
    mended, monitor = trained(rate, global_clipnorm=limit)
    assert mended < loss
    assert monitor.history.clip_fraction < 0.2
    assert not monitor.findings


def test_a_limit_on_unscaled_targets_advises_scaling():
    finding = found(trained("SGD", 0.02, targets=1e5, clip=1.0), "clip_always")
    assert "Standardize the targets" in finding.advice
    assert "raise the limit" not in finding.advice


def test_a_bad_batch_is_held_by_the_limit_of_the_healthy_steps():
    run = trained("SGD", 0.02, steps=100)
    for values in (run.values["norm"], run.values["applied_norm"]):
        values[60] *= 1e5
    advice = found(run, "exploding").advice
    limit = number(r"global_clipnorm=([\d.e+-]+),", advice)
    assert "this step's batch" in advice
    assert np.median(run.global_norm[:60]) < limit < 1.5 * np.max(run.global_norm[:60])
    assert_trains(trained("SGD", 0.02, clip=limit).scalar("loss"))


def test_the_limit_advised_against_rare_large_steps_holds_them():
    finding = found(trained("SGD", 0.02, steps=600, clip=1e6), "clip_never")
    limit = number(r"global_clipnorm=([\d.e+-]+),", finding.advice)
    mended = trained("SGD", 0.02, steps=600, clip=limit)
    assert_trains(mended.scalar("loss"))
    assert 0 < np.mean(mended.clipped) < 0.3


def regression(*shape):
    random = np.random.default_rng(0)
    x = random.normal(size=(640, *shape)).astype("float32")
    return x, np.tanh(x.reshape(640, -1)[:, :1])


def fitted(layers, optimizer, x, y, rules=None, **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(x.shape[1:]), *layers, L.Dense(1, name="out")])
    model.compile(optimizer, "mse", jit_compile=False)
    monitor = GradientMonitor(rules=rules, verbose=0, **options)
    model.fit(x, y, batch_size=16, shuffle=False, verbose=0, callbacks=[monitor], epochs=2)
    return monitor


def rnn(**options):
    large = {"recurrent_initializer": keras.initializers.Identity(4.0)}
    return [L.SimpleRNN(6, name="rnn", **large, **options)]


def deep(activation, initializer):
    return [L.Dense(8, activation, kernel_initializer=initializer) for _ in range(8)]


def first_of(steps, *recurrent):
    """Return layers that feed the first layer's output as time step 1; later steps are zero."""
    padding = [L.Reshape((1, 6)), L.ZeroPadding1D((0, steps - 1))]
    return [L.Dense(6, "tanh", name="first"), *padding, *recurrent]


def lstm(**options):
    return L.LSTM(6, unit_forget_bias=False, name="rnn", **options)


def half(*layers):
    """Return a hidden layer in mixed_float16, followed by the layers."""
    return [L.Dense(8, "tanh", dtype="mixed_float16"), *layers]


def scaled():
    return keras.optimizers.LossScaleOptimizer(SGD(0.1), initial_scale=8.0)


class Detached(L.Layer):
    """Layer that returns its inputs and stops the gradient."""

    def call(self, inputs):
        return keras.ops.stop_gradient(inputs)


class SelfAttention(L.Layer):
    """Attention of the inputs to themselves, as one vector."""

    def build(self, shape):
        self.attention = L.MultiHeadAttention(2, 4)
        self.attention.build(shape, shape)

    def call(self, inputs):
        outputs = self.attention(inputs, inputs)
        return keras.ops.reshape(outputs, (-1, inputs.shape[1] * inputs.shape[2]))


def large_inputs():
    return [L.Dense(8, kernel_initializer=WIDE)]


def convolutional(**options):
    large = {"recurrent_initializer": keras.initializers.Constant(3.0)}
    return [L.ConvLSTM1D(3, 3, padding="same", name="rnn", **large, **options), L.Flatten()]


def detached():
    return [L.Dense(8, "tanh", name="first"), Detached()]


def shrinking():
    return first_of(20, L.SimpleRNN(6, recurrent_initializer=SMALL, name="rnn"))


def long():
    return first_of(40, lstm())


SMALL = keras.initializers.Identity(0.3)
BELOW = keras.initializers.Constant(-20.0)
WIDE = keras.initializers.RandomNormal(stddev=10.0, seed=0)
ADAM, SGD, UPDATES = keras.optimizers.Adam, keras.optimizers.SGD, ("updates", "weights")
OF_OUTPUTS = (
    *("activation_growth", "attention_collapse", "attention_logit_growth"),
    *("dead_units", "saturated"),
)
# Faulty layers and optimizer, input shape, rule, words that its advice contains, words that its
# advice must not contain, and the layers and the optimizer that the advice requests.
KERAS = {
    "recurrent relu": (
        (lambda: rnn(activation="relu"), lambda: ADAM(1e-3)),
        (20, 2),
        "exploding",
        ["use activation='tanh'"],
        ["Clip", "targets"],
        (lambda: rnn(activation="tanh"), lambda: ADAM(1e-3)),
    ),
    "recurrent relu with gates, at step 0": (
        (lambda: convolutional(activation="relu", recurrent_activation="relu"), lambda: ADAM(1e-2)),
        (5, 6, 3),
        "nonfinite",
        ["activation='tanh' and recurrent_activation='sigmoid'", "neither a lower learning rate"],
        ["If the norms", "restore"],
        (
            lambda: convolutional(activation="tanh", recurrent_activation="sigmoid"),
            lambda: ADAM(1e-2),
        ),
    ),
    "simple_rnn, learning rate too high": (
        (lambda: [L.SimpleRNN(6, name="rnn")], lambda: SGD(3.0)),
        (12, 2),
        "nonfinite",
        ["Divide the learning rate by 10, and repeat this if"],
        ["targets"],
        (lambda: [L.SimpleRNN(6, name="rnn")], lambda: SGD(0.03, global_clipnorm=1.0)),
    ),
    "deep sigmoid network": (
        (lambda: deep("sigmoid", "glorot_uniform"), lambda: ADAM(1e-3)),
        (6,),
        "vanishing_with_depth",
        ["ReLU", "he_normal"],
        ["gated"],
        (lambda: deep("relu", "he_normal"), lambda: ADAM(1e-3)),
    ),
    "relu units that are never active": (
        (lambda: [L.Dense(8, "relu", bias_initializer=BELOW)], lambda: ADAM(1e-2)),
        (6,),
        "dead",
        ["LeakyReLU"],
        [],
        (lambda: [L.Dense(8, "leaky_relu", bias_initializer=BELOW)], lambda: ADAM(1e-2)),
    ),
    "a layer that the gradient does not reach": (
        (detached, lambda: SGD(0.1)),
        (6,),
        "missing",
        ["stop_gradient", "trainable=False if the layer is meant to stay"],
        [],
        (lambda: [L.Dense(8, "tanh", name="first")], lambda: SGD(0.1)),
    ),
    "a layer that is not to be trained": (
        (detached, lambda: SGD(0.1)),
        (6,),
        "missing",
        ["trainable=False if the layer is meant to stay"],
        [],
        (lambda: [L.Dense(8, "tanh", trainable=False), Detached()], lambda: SGD(0.1)),
    ),
    "a recurrent matrix that shrinks": (
        (shrinking, lambda: ADAM(1e-3)),
        (2,),
        "vanishing",
        ["Use gated cells"],
        [],
        (lambda: first_of(20, L.LSTM(6, name="rnn")), lambda: ADAM(1e-2)),
    ),
    "a recurrent matrix that shrinks, made an identity": (
        (shrinking, lambda: ADAM(1e-3)),
        (2,),
        "vanishing",
        ["ReLU with an identity recurrent matrix"],
        [],
        (
            lambda: first_of(20, L.SimpleRNN(6, "relu", recurrent_initializer="identity")),
            lambda: ADAM(1e-2),
        ),
    ),
    "a long sequence": (
        (long, lambda: ADAM(1e-3)),
        (2,),
        "vanishing",
        ["Use a shorter sequence"],
        ["gated"],
        (lambda: first_of(5, lstm()), lambda: ADAM(1e-2)),
    ),
    "a long sequence, most of it padding": (
        (long, lambda: ADAM(1e-3)),
        (2,),
        "vanishing",
        ["mask the padding"],
        ["gated"],
        (lambda: first_of(40, L.Masking(), lstm()), lambda: ADAM(1e-2)),
    ),
    "a long sequence, attended to as a whole": (
        (long, lambda: ADAM(1e-3)),
        (2,),
        "vanishing",
        ["attention over the time steps"],
        ["gated"],
        (
            lambda: first_of(40, lstm(return_sequences=True), L.GlobalAveragePooling1D()),
            lambda: ADAM(1e-2),
        ),
    ),
    "an overflow in float16": (
        (
            lambda: half(L.Rescaling(1e6, dtype="mixed_float16"), L.Rescaling(1e-6)),
            scaled,
        ),
        (6,),
        "loss_scale_stuck",
        ["keep the layer that overflows in float32"],
        [],
        (lambda: half(L.Rescaling(1e6), L.Rescaling(1e-6)), scaled),
    ),
    "relu units with biases below zero": (
        (lambda: [L.Dense(8, "relu", bias_initializer=BELOW)], lambda: ADAM(1e-2)),
        (6,),
        "dead_units",
        ["LeakyReLU", "BatchNormalization before it"],
        ["learning rate"],
        (
            lambda: [L.Dense(8, bias_initializer=BELOW), L.BatchNormalization(), L.ReLU()],
            lambda: ADAM(1e-2),
        ),
    ),
    "tanh layers of large initial weights": (
        (lambda: [L.Dense(8, "tanh", kernel_initializer=WIDE)], lambda: ADAM(1e-2)),
        (6,),
        "saturated",
        ["glorot_uniform", "LayerNormalization before the activation"],
        ["learning rate"],
        (lambda: [L.Dense(8, "tanh")], lambda: ADAM(1e-2)),
    ),
    "outputs that grow from layer to layer": (
        (lambda: deep("relu", WIDE)[:4], lambda: ADAM(1e-3)),
        (6,),
        "activation_growth",
        ["he_normal"],
        ["learning rate"],
        (lambda: deep("relu", "he_normal")[:4], lambda: ADAM(1e-3)),
    ),
    "attention to large inputs": (
        (lambda: [*large_inputs(), SelfAttention()], lambda: ADAM(1e-2)),
        (5, 6),
        "attention_collapse",
        ["LayerNormalization before the attention"],
        ["learning rate"],
        (
            lambda: [*large_inputs(), L.LayerNormalization(), SelfAttention()],
            lambda: ADAM(1e-2),
        ),
    ),
    "attention, learning rate too high": (
        (lambda: [SelfAttention()], lambda: ADAM(1.0)),
        (5, 6),
        "attention_logit_growth",
        ["Divide the learning rate by 10"],
        ["LayerNormalization"],
        (lambda: [SelfAttention()], lambda: ADAM(1e-2)),
    ),
    "updates too long": (
        (lambda: [L.Dense(8, "relu")], lambda: ADAM(1.0)),
        (6,),
        "update_ratio",
        ["Lower the learning rate, or use a warm-up."],
        ["clip"],
        (lambda: [L.Dense(8, "relu")], lambda: ADAM(1e-2)),
    ),
}


@pytest.fixture(scope="module")
def faulty_runs():
    """Return the monitors of runs that several faults share, by the function of their layers."""
    return {}


@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # Keras warns about a missing gradient
@pytest.mark.parametrize("fault", KERAS)
def test_the_advice_of_a_fit_works(fault, faulty_runs):
    (layers, optimizer), shape, rule, words, unfit, (mended, slower) = KERAS[fault]
    x, y = regression(*shape)
    recorded = {"measurements": ["activations"]} if rule in OF_OUTPUTS else {"watch": UPDATES}
    if layers not in faulty_runs:
        faulty_runs[layers] = fitted(layers(), optimizer(), x, y, **recorded)
    monitor = faulty_runs[layers]
    finding = next(each for each in monitor.findings if each.rule == rule)
    for each in words:
        assert each in finding.advice
    for each in unfit:
        assert each not in finding.advice
    again = fitted(mended(), slower(), x, y, **recorded)
    assert_trains(again.history.loss)
    assert rule not in {each.rule for each in again.findings}


def test_an_outlier_is_held_by_the_limit_advised_and_gone_with_its_batch():
    x, y = regression(6)
    outlier = y.copy()
    outlier[16 * 30 : 16 * 31] = 40.0
    layers = [L.Dense(8, "tanh")]
    finding = next(
        each for each in fitted(layers, SGD(0.02), x, outlier).findings if each.rule == "spike"
    )
    assert finding.step == 30
    assert "this step's batch" in finding.advice
    limit = number(r"global_clipnorm=([\d.e+-]+),", finding.advice)
    held = fitted([L.Dense(8, "tanh")], SGD(0.02, global_clipnorm=limit), x, outlier)
    assert held.history.applied_global_norm.max() <= 1.01 * limit
    assert_trains(held.history.loss[:30], 10)
    mended = fitted([L.Dense(8, "tanh")], SGD(0.02), x, y)
    assert_trains(mended.history.loss)
    assert "spike" not in {each.rule for each in mended.findings}


def test_replicas_agree_once_the_data_is_shuffled_before_it_is_sharded(two_replicas):
    x, y = regression(6)
    is_second = np.arange(640) % 16 >= 8  # the half of every batch that the second replica gets
    x[:, 0] = np.where(is_second, 1.0, -1.0)
    y[is_second] += 30.0
    order = np.random.default_rng(0).permutation(640)
    with two_replicas.scope():
        apart = fitted([L.Dense(8, "tanh")], SGD(1e-3), x, y)
        together = fitted([L.Dense(8, "tanh")], SGD(1e-3), x[order], y[order])
    finding = next(each for each in apart.findings if each.rule == "replica_disagreement")
    assert "values out of scale in that replica's data" in finding.advice
    assert "shuffled before it is sharded" in finding.advice
    assert "replica_disagreement" not in {each.rule for each in together.findings}
    assert_trains(together.history.loss)
