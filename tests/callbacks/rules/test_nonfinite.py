"""The rule `nonfinite` names layer, optimizer call and replica in real train steps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradkeeper.callbacks import GradientHistory, GradientMonitor, NonFiniteGuard
from gradkeeper.callbacks.rules import Rule

L = keras.layers
BAD = 1  # the step whose batch has a row of -1


def inputs(steps=3):
    x = np.random.default_rng(0).uniform(0.5, 1, (4 * steps, 2)).astype("float32")
    x[4 * BAD + 1] = -1
    return x


class TwoUpdates(keras.Model):
    """Model with two updates and two losses; the gradient of `bad` is NaN where its input is 0.

    `orders` names the losses in the order of the optimizer calls.
    """

    def __init__(self, orders, make=keras.optimizers.SGD):
        super().__init__()
        ones = {"use_bias": False, "kernel_initializer": "ones"}
        self.a = L.Dense(1, "relu", name="a", **ones)
        self.b = L.Dense(1, name="b")
        self.orders, self.one, self.two = orders, make(0.01), make(0.01)

    def call(self, x):
        return self.b(self.a(x))

    def train_step(self, x):
        for name in self.orders:
            with tf.GradientTape() as tape:
                loss = self.bad(x) if name == "bad" else tf.reduce_mean(self(x))
            layers = [self.a] if name == "bad" else [self.b]
            variables = [each for layer in layers for each in layer.trainable_variables]
            optimizer = self.one if name == "bad" else self.two
            optimizer.apply(tape.gradient(loss, variables), variables)
        return {"done": tf.constant(1.0)}

    def bad(self, x):
        return tf.reduce_mean(tf.sqrt(self.a(x)))


def nonfinite(model, x, *, callbacks=(), **options):
    model.compile(jit_compile=False, **options)
    monitor = GradientMonitor(rules=["nonfinite"], verbose=0)
    model.fit(x, batch_size=4, shuffle=False, verbose=0, callbacks=[monitor, *callbacks])
    return monitor


@pytest.mark.slow
@pytest.mark.parametrize("make", [keras.optimizers.SGD, keras.optimizers.Adam])
def test_the_first_of_two_updates_is_named(make):
    model = TwoUpdates(["bad", "good"], make)
    (finding,) = nonfinite(model, inputs()).findings
    assert (finding.step, finding.layer) == (BAD, "a")
    assert finding.evidence["variables"] == ["a/kernel"]
    assert "The first affected call is optimizer call 1 of 2." in finding.message


def test_the_second_of_two_updates_is_named():
    (finding,) = nonfinite(TwoUpdates(["good", "bad"]), inputs()).findings
    assert (finding.step, finding.layer) == (BAD, "a")
    assert "optimizer call 2 of 2" in finding.message


class Critic(keras.Model):
    """Two critic steps and a generator step; the first has bad gradients in `low` only."""

    def __init__(self):
        super().__init__()
        ones = {"use_bias": False, "kernel_initializer": "ones"}
        self.generator = L.Dense(2, name="generator", **ones)
        self.low, self.high = L.Dense(1, "relu", name="low", **ones), L.Dense(1, name="high")
        self.low.build((None, 2)), self.high.build((None, 1)), self.generator.build((None, 2))
        self.one, self.two = keras.optimizers.SGD(0.01), keras.optimizers.SGD(0.01)

    def call(self, x):
        return self.high(tf.sqrt(self.low(x)))

    def train_step(self, x):
        critic = [*self.low.trainable_variables, *self.high.trainable_variables]
        for _ in range(2):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(self(x))
            self.one.apply(tape.gradient(loss, critic), critic)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self(self.generator(x)))
        variables = self.generator.trainable_variables
        self.two.apply(tape.gradient(loss, variables), variables)
        return {"done": tf.constant(1.0)}


@pytest.mark.slow
def test_a_layer_that_is_hit_by_a_later_update_of_the_step_is_not_named():
    monitor = nonfinite(Critic(), inputs())
    (finding,) = monitor.findings
    assert (finding.step, finding.layer) == (BAD, "low")
    assert finding.evidence["variables"] == ["low/kernel"]
    history = monitor.history
    assert history.nonfinite[BAD, history.variables.index("high/kernel")] > 0


@pytest.mark.slow
@pytest.mark.parametrize("orders", [["bad", "good"], ["good", "bad"]])
def test_a_refused_step_with_two_updates_is_no_finding(orders):
    guard = NonFiniteGuard("skip", capsule_dir=None, verbose=0)
    monitor = nonfinite(TwoUpdates(orders), inputs(), callbacks=[guard])
    assert [event.step for event in guard.events] == [BAD]
    assert not monitor.findings
    assert monitor.history.skipped.tolist() == [False, True, False]


class OwnLoss(keras.Model):
    """Model that adds a loss term with gradient 0; the term is non-finite in a bad batch."""

    def __init__(self, term):
        super().__init__()
        self.body, self.term = L.Dense(1, name="body"), term

    def call(self, x):
        return self.body(x)

    def train_step(self, x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x)))
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss + self.term(x)}


def mean_of_positive_rows(x):
    """Return the mean of the positive rows; 0/0 in a batch without positive rows."""
    there = tf.cast(x[1, 0] > 0, tf.float32)
    return tf.reduce_sum(x[1, 0] * there) / tf.reduce_sum(there)


TERMS = {
    "NaN": (mean_of_positive_rows, "is NaN,", "max(count, 1)"),
    "Inf": (lambda x: tf.where(x[1, 0] > 0, 1.0, np.inf), "is infinite,", "The loss overflows"),
}


@pytest.mark.parametrize("kind", TERMS)
@pytest.mark.parametrize("eager", [False, True])
def test_a_loss_that_alone_is_not_finite_is_found(kind, eager):
    term, told, advised = TERMS[kind]
    monitor = nonfinite(OwnLoss(term), inputs(), optimizer="sgd", run_eagerly=eager)
    (finding,) = monitor.findings
    assert (finding.step, finding.layer, finding.severity) == (BAD, "", "error")
    assert f"The loss of step {BAD} {told}" in finding.message.replace(" while", "")
    assert "every gradient is finite" in finding.message
    assert advised in finding.advice
    assert finding.evidence["kind"] == kind


def test_a_step_without_a_loss_is_no_finding():
    class Silent(OwnLoss):
        def train_step(self, x):
            super().train_step(x)
            return {"done": tf.constant(1.0)}

    assert not nonfinite(Silent(mean_of_positive_rows), inputs(), optimizer="sgd").findings


def test_a_step_with_a_refused_loss_is_no_finding():
    guard = NonFiniteGuard("skip", check_loss=True, capsule_dir=None, verbose=0)
    model = keras.Sequential([keras.Input((2,)), L.Dense(1, name="body")])
    loss = keras.losses.MeanSquaredError()
    model.compile("sgd", lambda y, p: loss(y, p) + tf.stop_gradient(mean_of_positive_rows(y)))
    monitor = GradientMonitor(rules=["nonfinite"], verbose=0)
    x = inputs()
    callbacks = [monitor, guard]
    model.fit(x, x[:, :1], batch_size=4, shuffle=False, verbose=0, callbacks=callbacks)
    assert [event.step for event in guard.events] == [BAD]
    assert not monitor.findings


def test_the_replica_with_an_empty_batch_is_named(two_replicas):
    class Mean(OwnLoss):
        def __init__(self):
            super().__init__(lambda x: 0.0)

    with two_replicas.scope():
        model = Mean()
        model(np.ones((1, 2), "float32"))
    data = tf.data.Dataset.from_tensor_slices(np.ones((9, 2), "float32")).batch(8)
    with two_replicas.scope():
        model.compile(keras.optimizers.SGD(0.01), jit_compile=False)
    monitor = GradientMonitor(rules=["nonfinite"], verbose=0)
    model.fit(data, shuffle=False, verbose=0, callbacks=[monitor])
    (finding,) = monitor.findings
    assert (finding.step, finding.layer) == (1, "")
    assert finding.evidence["replicas"] == [1]
    assert "is NaN on replica 1" in finding.message
    assert "drop_remainder=True" in finding.advice


@pytest.mark.slow
def test_the_facts_about_a_run_reach_the_rules_and_the_files(tmp_path):
    class Seen(Rule):
        name = "seen"

        def check(self, window):
            facts.append(window[:1].facts)
            return iter(())

    facts = []
    layers = [keras.Input((5, 2)), L.Bidirectional(L.SimpleRNN(3, "relu", name="rnn"), name="both")]
    model = keras.Sequential([*layers, L.Dense(1, name="out")])
    inner = keras.optimizers.Lion(clipvalue=1.0)
    model.compile(keras.optimizers.LossScaleOptimizer(inner), "mse")
    monitor = GradientMonitor(rules=[Seen()], log_dir=tmp_path, verbose=0)
    model.fit(np.ones((4, 5, 2)), np.ones((4, 1)), verbose=0, callbacks=[monitor])
    (known,) = facts
    assert (known.optimizers, known.is_adaptive, known.has_loss) == (("Lion",), True, True)
    layer = known.recurrent_layer("both/forward_rnn/simple_rnn_cell")
    assert (layer.path, layer.is_gated) == ("both/forward_rnn", False)
    assert layer.unbounded == {"activation": "relu"}
    assert known.first_layer == "both/forward_rnn/simple_rnn_cell"
    assert (known.clipping, known.clips_parts, known.steps_per_epoch) == ("clipvalue", True, 1)
    assert known.layer_types["out"] == "Dense"
    assert known.recurrent_layer("out") is None
    assert known.shapes["out/kernel"] == (6, 1)
    assert monitor.history.since(0).facts == known
    assert GradientHistory.load(tmp_path).since(0).facts == known
