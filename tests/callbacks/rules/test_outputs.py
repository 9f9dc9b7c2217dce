"""Rules on layer outputs: thresholds, layers that they ignore, and advice."""

import dataclasses

import keras
import numpy as np
import pytest
from histories import window

from gradkeeper.callbacks._keras_private import output_layers
from gradkeeper.callbacks.activations import STATISTICS, Activations
from gradkeeper.callbacks.recording.facts import facts_of
from gradkeeper.callbacks.rules import (
    ActivationGrowth,
    AttentionCollapse,
    AttentionLogitGrowth,
    DeadUnits,
    Saturated,
    default_rules,
)
from gradkeeper.callbacks.run_facts import RecurrentLayer, RunFacts

L = keras.layers
NAN = float("nan")
NAMES = ("first", "second", "second, call 2", "out")
VARIABLES = tuple(f"{layer}/{name}" for layer in ("first", "second", "out") for name in "kb")
KINDS = {"first": "relu", "second": "tanh", "out": "sigmoid"}


def run(steps=100, loss=None, facts=None, **values):
    """Return a run of `steps` steps with statistics of the calls `NAMES`.

    Args:
        values: for each statistic, a number for each call, or an array, [steps, calls].
    """
    known = {"mean": 0.0, "std": 1.0, "zeros": 0.5, "saturated": 0.5, **values}
    shape = (steps, len(NAMES))
    statistics = {each: np.broadcast_to(known.get(each, NAN), shape) for each in STATISTICS}
    scalars = {} if loss is None else {"loss": np.broadcast_to(loss, steps)}
    return dataclasses.replace(
        window(np.ones((steps, len(VARIABLES))), variables=VARIABLES, scalars=scalars),
        activations=Activations(NAMES, statistics),
        facts=facts or RunFacts(activations=KINDS, output_layers=("out",)),
    )


def late(values, before=1.0):
    """Return the value `before`, [steps, calls], and the values from step 30 on."""
    return np.where(np.arange(100)[:, None] < 30, before, values)


def advice(rule, history):
    (finding,) = rule.check(history)
    return finding.advice


def test_without_recorded_outputs_there_is_no_finding():
    history = window(np.ones((100, len(VARIABLES))), variables=VARIABLES)
    names = ("dead_units", "saturated", "activation", "attention")
    rules = [rule for rule in default_rules() if rule.name.startswith(names)]
    assert len(rules) == 5
    assert not [finding for rule in rules for finding in rule.check(history)]


def test_units_are_dead_after_50_measured_steps_of_relu_only():
    dead = np.full((100, 4), NAN)
    dead[[39, 79]] = 0.9
    (finding,) = DeadUnits().check(run(dead_units=dead))
    assert (finding.step, finding.layer, finding.evidence["last_step"]) == (30, "first", 79)
    assert finding.evidence["shares"] == {"first": 0.9}
    assert not list(DeadUnits().check(run(dead_units=np.where(dead > 0, 0.5, NAN))))
    leaky = [NAN, 0.5, 0.5, 0.5]  # a ReLU layer with a negative slope does not saturate
    assert not list(DeadUnits().check(run(dead_units=dead, saturated=leaky)))


def test_steps_without_a_finite_gradient_are_ignored():
    dead = np.full((100, 4), NAN)
    dead[79] = 0.9
    for rule, history in (
        (DeadUnits(), run(dead_units=dead)),
        (ActivationGrowth(), run(std=late(200.0))),
    ):
        history.norms[30:] = NAN
        assert not list(rule.check(history))


def test_layers_that_die_together_are_one_finding():
    dead = np.full((100, 4), NAN)
    dead[79] = [0.6, 0.9, 0.9, 0.2]
    facts = RunFacts(layer_types=dict.fromkeys(("first", "second", "out"), "ReLU"))
    (finding,) = DeadUnits().check(run(dead_units=dead, facts=facts))
    assert finding.evidence["layers"] == ["first", "second"]
    assert "60% to 90% of the units of first, second, second, call 2" in finding.message


def test_advice_on_dead_units():
    dead = np.full((100, 4), NAN)
    dead[79] = 0.9
    assert "Divide the learning rate by 10" in advice(DeadUnits(), run(dead_units=dead))
    assert "LeakyReLU" in advice(DeadUnits(), run(dead_units=dead, zeros=0.95))
    dead[49] = 0.9
    assert "LeakyReLU" in advice(DeadUnits(), run(dead_units=dead))
    rnn = RecurrentLayer("first", False, {"activation": "relu"})
    facts = RunFacts(activations=KINDS, recurrent=(rnn,))
    assert "use activation='tanh'" in advice(DeadUnits(), run(dead_units=dead, facts=facts))


def test_saturated_outputs_of_the_model_are_ignored():
    (finding,) = Saturated().check(run(saturated=late([0.95, 0.95, 0.5, 0.95], 0.1)))
    assert (finding.step, finding.layer) == (30, "second")
    unknown = RunFacts(activations=KINDS)  # the last call counts as the output
    assert len(list(Saturated().check(run(saturated=late(0.95, 0.1), facts=unknown)))) == 1


def test_advice_on_saturation():
    assert "GELU in place of tanh" in advice(
        Saturated(), run(saturated=late([0, 0.9, 0.9, 0], 0.1))
    )
    assert "glorot_uniform" in advice(Saturated(), run(saturated=[0, 0.9, 0.9, 0]))
    facts = RunFacts(activations=KINDS, recurrent=(RecurrentLayer("second", False),))
    found = advice(Saturated(), run(saturated=[0, 0.9, 0.9, 0], facts=facts))
    assert "recurrent_initializer='orthogonal'" in found
    assert "GELU" not in found


def test_outputs_grow_relative_to_the_largest_one_while_the_loss_does_not_decrease():
    sizes = late([50.0, 90.0, 150.0, 900.0])
    (finding,) = ActivationGrowth().check(run(std=sizes, loss=1.0))
    assert (finding.step, finding.layer) == (30, "second")
    assert "Divide the learning rate by 10" in finding.advice
    decreasing = np.linspace(1, 0.1, 100)
    assert not list(ActivationGrowth().check(run(std=sizes, loss=decreasing)))
    from_zero = np.where(np.arange(100)[:, None] < 1, [1.0, 0.0, 0.0, 0.0], 50.0)
    assert not list(ActivationGrowth().check(run(std=from_zero)))
    falling = run(std=sizes, loss=np.linspace(0.5, -99, 100))
    assert "no lower bound" in advice(ActivationGrowth(), falling)


def test_outputs_grow_from_layer_to_layer():
    (finding,) = ActivationGrowth().check(run(std=[0.1, 150.0, 9.0, 1e9]))
    assert (finding.step, finding.layer, finding.evidence["first_size"]) == (0, "second", 0.1)
    assert "he_normal" in finding.advice
    assert not list(ActivationGrowth().check(run(std=[0.1, 90.0, 90.0, 1e9])))
    rnn = RecurrentLayer("second", False, {"activation": "relu"})
    facts = RunFacts(output_layers=("out",), recurrent=(rnn,))
    grown = run(std=[0.1, 150.0, 9.0, 1e9], facts=facts)
    assert "use activation='tanh'" in advice(ActivationGrowth(), grown)


def test_infinite_losses_and_outputs_raise_no_warning():
    loss = np.where(np.arange(100) < 20, 1.0, np.where(np.arange(100) < 60, np.inf, NAN))
    (finding,) = ActivationGrowth().check(run(std=late(np.inf), loss=loss))
    assert finding.evidence["size"] is None


def test_attention_that_the_model_has_learned_is_not_collapsed():
    few = {"entropy": late(0.02), "max_entropy": 2.0}
    falling = np.where(np.arange(100) < 35, 1.0, 0.8)
    assert [each.step for each in AttentionCollapse().check(run(**few, loss=1.0))] == [30] * 4
    assert not list(AttentionCollapse().check(run(**few, loss=falling)))


def test_attention_collapsed_from_the_start_is_reported_while_the_loss_decreases():
    few = {"entropy": 0.02, "max_entropy": 2.0, "loss": np.linspace(1, 0.1, 100)}
    first, *_ = AttentionCollapse().check(run(**few))
    assert first.step == 0
    assert "LayerNormalization before the attention" in first.advice
    facts = RunFacts(layer_types={"first": "Attention"})
    first, *_ = AttentionCollapse().check(run(**few, facts=facts))
    assert "MultiHeadAttention" in first.advice


def test_attention_collapsed_before_the_monitor_was_attached_is_not_reported():
    few = {"entropy": 0.02, "max_entropy": 2.0, "loss": 0.01}
    assert list(AttentionCollapse().check(run(**few)))
    continued = dataclasses.replace(run(**few), steps=np.arange(500, 600))
    assert not list(AttentionCollapse().check(continued))
    continued = dataclasses.replace(
        run(**{**few, "entropy": late(0.02)}), steps=np.arange(500, 600)
    )
    assert [each.step for each in AttentionCollapse().check(continued)] == [530] * 4


def test_attention_to_a_single_visible_key_is_not_collapsed():
    assert not list(AttentionCollapse().check(run(entropy=0.0, max_entropy=0.0)))


def test_logits_grow_beyond_the_limit_and_their_first_value():
    large = late([150, 150, 90, NAN], [5.0, 50.0, 5.0, 5.0])
    (finding,) = AttentionLogitGrowth().check(run(max_logit=large))
    assert (finding.step, finding.layer) == (30, "first")
    assert "Divide the learning rate by 10" in finding.advice


def test_a_large_logit_before_a_nan_is_growth():
    large = np.where(np.arange(100)[:, None] < 34, late([150, 150, 90, NAN], 5.0), NAN)
    broken = (np.arange(100) >= 34)[:, None] & np.ones(len(VARIABLES), bool)
    history = dataclasses.replace(
        run(max_logit=large),
        values={**run().values, "nonfinite": np.where(broken, 7.0, 0.0)},
    )
    rule = AttentionLogitGrowth()
    found = [each for start in (0, 34) for each in rule.check(history[start : start + 34])]
    assert [(each.step, each.layer) for each in found] == [(30, "first"), (30, "second")]
    assert found[0].evidence["logit"] == 150
    assert found[0].evidence["last_step"] == 34
    assert found[0].message.startswith("For 4 measured steps (from step 30) the largest")
    assert found[0].message.endswith("The gradient of step 34 is not finite.")
    recovered = dataclasses.replace(
        history, activations=run(max_logit=late(5.0, 150.0)).activations
    )
    assert not list(AttentionLogitGrowth().check(recovered[29:]))


def nested():
    """Return a functional model with a nested model, a reshaped output and an operation."""
    inside = keras.Input((4,))
    hidden = L.Dense(4, "sigmoid", name="code")(L.Dense(3, "relu", name="hidden")(inside))
    inner = keras.Model(inside, L.Reshape((2, 2))(hidden), name="inner")
    inputs = keras.Input((4,))
    x = L.Dense(4, name="first")(inputs)
    gate = L.Activation("sigmoid", name="gate")(L.Dense(2, name="before")(x))
    outputs = [inner(x), gate, keras.ops.squeeze(L.Dense(1, name="score")(x), -1)]
    return keras.Model(inputs, outputs)


def test_facts_have_the_activations_and_the_output_layers():
    facts = facts_of(nested(), [])
    assert set(facts.output_layers) == {"inner/code", "gate", "score"}
    assert facts.activations["inner/hidden"] == "relu"
    assert facts.activations["gate"] == "sigmoid"


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (keras.Sequential([L.Dense(3), L.Dense(1, name="last"), L.Dropout(0.5)]), ["last"]),
        (keras.Sequential([keras.Input((4,)), L.ReLU(name="relu")]), ["relu"]),
    ],
)
def test_output_layers_of_a_sequential_model(model, names):
    model.build((None, 4))
    assert [layer.name for layer in output_layers(model)] == names


def test_output_layers_of_a_subclassed_model_are_unknown():
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    assert output_layers(Subclassed()) == []
