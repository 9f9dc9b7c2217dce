"""Findings of the rules that read gradient norms, for constructed histories."""

import dataclasses

import numpy as np
import pytest
from histories import window

from gradkeeper.callbacks.rules import (
    DeadGradient,
    ExplodingGradient,
    GradientSpike,
    MissingGradient,
    NonFiniteGradient,
    VanishingGradient,
    VanishingWithDepth,
)
from gradkeeper.callbacks.run_facts import RecurrentLayer, RunFacts

NAN, INF = float("nan"), float("inf")
CALM = [[1.0, 0.5, 0.8]]
DEEP = tuple(f"dense_{i}/kernel" for i in range(6))


def without(history, rows, columns):
    """Return the history without gradients in these rows and columns."""
    for array in (history.present, history.updated):
        array[rows, columns] = False
    history.norms[rows, columns] = history.applied_norms[rows, columns] = NAN
    return history


def test_nonfinite_names_step_variables_and_the_layer_nearest_the_output():
    rule = NonFiniteGradient()
    assert not list(rule.check(window(CALM * 20)))
    (finding,) = rule.check(window([*CALM, [NAN, INF, 0.8], [NAN] * 3], first=20))
    assert (finding.step, finding.layer, finding.severity) == (21, "rnn/cell", "error")
    assert finding.evidence["variables"] == ["rnn/cell/kernel", "rnn/cell/bias"]
    assert (finding.evidence["kind"], finding.evidence["last_finite_step"]) == ("NaN", 20)
    assert "2 of 3 variables" in finding.message
    assert "The fault occurred" not in finding.message
    assert "norms did not grow" in finding.advice


def test_a_spike_stands_out_of_norms_that_are_now_and_then_near_zero():
    random = np.random.default_rng(0)
    norms = np.abs(random.normal(size=(200, 1))) ** 1.5
    norms[150] = 10 * norms[100:150].max()
    (finding,) = GradientSpike().check(window(norms, variables=["dense/kernel"]))
    assert finding.step == 150


def test_nonfinite_from_the_first_step_points_at_the_data():
    (finding,) = NonFiniteGradient().check(window([[INF] * 3]))
    assert (finding.step, finding.evidence["kind"]) == (0, "Inf")
    assert "in the inputs" in finding.advice
    assert "neither a lower learning rate nor clipping can help" in finding.advice


def test_nonfinite_counts_elements():
    bad = window([[NAN, 1.0, NAN]], values={"nonfinite": [[1200, 0, 34]]})
    (finding,) = NonFiniteGradient().check(bad)
    assert finding.evidence["elements"] == 1234
    assert "1,234 elements" in finding.message
    overflown = window([[INF, 1.0, 1.0]], values={"nonfinite": [[0, 0, 0]]})
    (finding,) = NonFiniteGradient().check(overflown)
    assert "the norm overflows" in finding.message


def test_nonfinite_between_measured_steps_says_between_which():
    bad = dataclasses.replace(window([*CALM * 3, [NAN] * 3]), steps=np.array([0, 10, 20, 30]))
    (finding,) = NonFiniteGradient().check(bad)
    assert (finding.step, finding.evidence["after_step"]) == (30, 20)
    assert "occurred between step 20 and step 30" in finding.message


def test_nonfinite_names_the_replicas():
    replicas = [[CALM[0], [NAN] * 3, CALM[0], [1.0, INF, 1.0]]]
    (finding,) = NonFiniteGradient().check(window([[NAN] * 3], replica_norms=replicas))
    assert finding.evidence["replicas"] == [1, 3]
    assert "replica 1, 3" in finding.message
    (alone,) = NonFiniteGradient().check(window([[NAN] * 3]))
    assert "replicas" not in alone.evidence


def test_nonfinite_names_the_only_replica_of_a_worker():
    bad = window([[NAN] * 3], replica_norms=[[[NAN] * 3]])
    (finding,) = NonFiniteGradient().check(dataclasses.replace(bad, first_replica=2))
    assert finding.evidence["replicas"] == [2]
    good = window([[NAN] * 3], replica_norms=[[[1.0] * 3]])
    (finding,) = NonFiniteGradient().check(good)
    assert "The source is a replica of another worker." in finding.message


def test_a_step_that_loss_scaling_skipped_is_no_nonfinite_gradient():
    skipped = window([*CALM, [INF] * 3, *CALM], scalars={"loss_scale": [1024.0] * 3})
    skipped.updated[1] = False
    assert not list(NonFiniteGradient().check(skipped))
    applied = window([*CALM, [INF] * 3, *CALM], scalars={"loss_scale": [1024.0] * 3})
    assert list(NonFiniteGradient().check(applied))


def test_a_missing_gradient_is_not_a_nan():
    assert not list(NonFiniteGradient().check(without(window(CALM * 3), slice(None), 1)))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
def test_exploding_is_relative_to_what_the_run_is_used_to(scale):
    rule = ExplodingGradient(absolute=INF)
    calm = np.array(CALM * 30) * scale
    assert not list(rule.check(window(calm)))
    (finding,) = rule.check(window(np.array([[500.0, 1.0, 1.0], *CALM]) * scale, first=30))
    assert (finding.step, finding.layer) == (30, "rnn/cell")
    assert finding.evidence["norm"] == pytest.approx(500 * scale, rel=1e-3)
    assert "times the usual" in finding.message


@pytest.mark.parametrize(("factor", "told"), [(2e3, "2,000 times"), (3.7e17, "3.7e+17 times")])
def test_an_explosion_is_reported_in_readable_numbers(factor, told):
    usual = [1.0, 0.0, 0.0]
    (finding,) = ExplodingGradient(absolute=INF).check(window([*[usual] * 60, [factor, 0.0, 0.0]]))
    assert f"{told} the usual norm of 1;" in finding.message


def test_exploding_from_the_first_step():
    norms = np.array(CALM * 4) * np.array([[1.0], [2e3], [3e5], [1e8]])
    first, *_ = ExplodingGradient().check(window(norms))
    assert (first.step, first.layer) == (2, "rnn/cell")
    assert "times the median of the first norms, 1.38e+03;" in first.message
    rising = window(norms, scalars={"loss": [1.0, 30.0, 1e4, 1e9]})
    assert [finding.step for finding in ExplodingGradient().check(rising)] == [2, 3]
    falling = window(norms, scalars={"loss": [1.0, 0.9, 0.8, 0.7]})
    assert not list(ExplodingGradient().check(falling))


def test_a_large_norm_alone_is_no_explosion():
    noise = np.random.default_rng(0).lognormal(sigma=0.5, size=(300, 1))
    assert not list(ExplodingGradient().check(window(noise * np.array(CALM) * 1e9)))
    assert not list(ExplodingGradient().check(window([[2.0, 1.0, 3e4]])))


def test_values_that_grow_between_the_layers_of_an_untrained_network_explode():
    names = ["rnn/kernel", "rnn/bias", "dense/kernel", "dense/bias"]
    shapes = dict(zip(names, [(4, 8), (8,), (4, 1), (1,)], strict=True))
    history = window([[2e7, 1e7, 2e9, 10.0]] * 20, variables=names)
    (finding,) = ExplodingGradient().check(
        dataclasses.replace(history, facts=RunFacts(shapes=shapes))
    )
    assert (finding.step, finding.layer) == (0, "dense")
    assert "inputs of rnn have a root mean square of about 1 and those of dense of about 1e+08" in (
        finding.message
    )
    assert not list(ExplodingGradient().check(history))


def test_exploding_step_by_step():
    growing = np.array(CALM) * 2.0 ** np.clip(np.arange(60)[:, None] - 30, 0, None)
    first, *_ = ExplodingGradient(absolute=INF).check(window(growing))
    assert 36 <= first.step <= 40


def test_a_converged_run_that_comes_back_to_old_norms_does_not_explode():
    norms = np.array(CALM * 300) * 10.0 ** np.clip(-np.arange(300) / 40, -4, 0)[:, None]
    norms[250] *= 1e4
    assert not list(ExplodingGradient().check(window(norms)))
    norms[250] *= 20
    (finding,) = ExplodingGradient().check(window(norms))
    assert finding.step == 250


def test_a_clipped_explosion_does_not_advise_clipping():
    calm, large = CALM * 20, [[2.0, 1.0, 3e4]]
    (held,) = ExplodingGradient().check(
        window(calm + large, applied=np.array([*calm, [0.1, 0.1, 1.0]]))
    )
    (free,) = ExplodingGradient().check(window(calm + large))
    assert "Clipping reduced the applied norm to 1.01" in held.advice
    assert "global_clipnorm=1.4" in free.advice


@pytest.mark.parametrize("factor", [4, 30, 2000])
def test_a_spike_lies_between_noise_and_explosion(factor):
    norms = np.random.default_rng(0).lognormal(sigma=0.3, size=(100, 1)) * CALM
    norms[60] = np.array(CALM) * factor
    spikes = [finding.step for finding in GradientSpike().check(window(norms))]
    explosions = [finding.step for finding in ExplodingGradient().check(window(norms))]
    assert (spikes, explosions) == {4: ([], []), 30: ([60], []), 2000: ([], [60])}[factor]


@pytest.mark.parametrize(("limit", "severity"), [(2.0, "info"), (20.0, "warning")])
def test_a_spike_is_a_note_if_its_update_is_clipped_to_a_usual_norm(limit, severity):
    norms = np.array(CALM * 100)
    norms[60] *= 30
    total = np.linalg.norm(norms, axis=1, keepdims=True)
    applied = norms * np.minimum(1, limit / total)
    (finding,) = GradientSpike().check(window(norms, applied=applied))
    assert (finding.step, finding.severity) == (60, severity)


def test_a_spike_that_leads_to_an_explosion_or_to_nan_is_left_to_those():
    for norm, steps in ((1e5, []), (NAN, []), (1.0, [60])):
        norms = np.array(CALM * 100)
        norms[60] *= 50
        norms[65] *= norm
        assert [finding.step for finding in GradientSpike().check(window(norms))] == steps


@pytest.mark.parametrize(
    ("per_epoch", "severity"), [(61, "info"), (None, "warning"), (60, "warning"), (1, "warning")]
)
def test_a_spike_in_the_last_step_of_an_epoch_is_a_note(per_epoch, severity):
    norms = np.array(CALM * 100)
    norms[60] *= 30
    history = dataclasses.replace(window(norms), facts=RunFacts(steps_per_epoch=per_epoch))
    (finding,) = GradientSpike().check(history)
    assert finding.severity == severity
    assert ("last step of an epoch" in finding.advice) == (severity == "info")


@pytest.mark.parametrize("first", [0.0, 1.0])
@pytest.mark.parametrize("zeros", [5, 20, 60])
def test_a_gradient_after_steps_without_one_does_not_explode(first, zeros):
    norms = np.array(CALM * 100)
    norms[:zeros] = 0
    norms[0] *= first
    for rule in (ExplodingGradient(), GradientSpike()):
        assert not list(rule.check(window(norms)))
    norms[90] *= 1e6
    assert [finding.step for finding in ExplodingGradient().check(window(norms))] == [90]


def test_the_start_of_training_is_no_spike():
    start = np.array(CALM * 100) * np.linspace(1, 30, 100)[:, None] ** -1.5
    start[3] *= 50
    assert not list(GradientSpike().check(window(start)))


@pytest.mark.parametrize("rule", [ExplodingGradient, GradientSpike])
def test_ordinary_noise_is_neither_explosion_nor_spike(rule):
    for seed in range(20):
        norms = np.random.default_rng(seed).lognormal(sigma=0.8, size=(500, 1))
        assert not list(rule().check(window(norms, variables=["dense/kernel"])))


def test_vanishing_needs_patience_across_windows():
    rule = VanishingGradient(patience=30)
    vanished = [[1e-9, 1e-9, 1.0]]
    assert not list(rule.check(window(vanished * 20)))
    (finding,) = rule.check(window(vanished * 20, first=20))
    assert (finding.step, finding.layer) == (0, "rnn/cell")
    rule.reset()
    broken = [*vanished * 20, *CALM, *vanished * 20]
    assert not list(rule.check(window(broken)))


def test_vanishing_counts_measured_steps_and_passes_over_gaps():
    history = window([[1e-9, 1e-9, 1.0]] * 60)
    without(history, 5, slice(0, 2))
    downsampled = dataclasses.replace(history, steps=np.arange(60) * 10)
    (finding,) = VanishingGradient().check(downsampled)
    assert (finding.step, finding.evidence["last_step"]) == (0, 500)
    assert "steps 0 to 500" in finding.message


def test_a_gradient_that_sinks_to_zero_vanishes_and_one_that_is_zero_is_dead():
    sinks = [[1e-9, 1e-9, 1.0]] * 10 + [[0.0, 0.0, 1.0]] * 60
    (vanishing,) = VanishingGradient().check(window(sinks))
    (dead,) = DeadGradient().check(window(sinks))
    assert (vanishing.step, dead.step) == (0, 10)
    assert not list(VanishingGradient().check(window([[0.0, 0.0, 1.0]] * 70)))


LSTM = RecurrentLayer("rnn", True, {"activation": "tanh"})
SIMPLE_RNN = RecurrentLayer("rnn", False, {"activation": "tanh"})


@pytest.mark.parametrize(
    ("facts", "fits", "unfit"),
    [
        (RunFacts(layer_types={"dense": "Dense"}), "he_normal", "gated cells"),
        (RunFacts(layer_types={"rnn": "LSTM"}, recurrent=(LSTM,)), "mask_zero", "gated cells"),
        (RunFacts(layer_types={"rnn": "RNN"}, recurrent=(SIMPLE_RNN,)), "gated cells", "he_normal"),
        (RunFacts(), "gated cells", "he_normal"),
    ],
)
def test_the_remedy_of_a_vanishing_gradient_fits_the_layers(facts, fits, unfit):
    history = dataclasses.replace(window([[1e-9, 1e-9, 1.0]] * 60), facts=facts)
    (finding,) = VanishingGradient().check(history)
    assert fits in finding.advice
    assert unfit not in finding.advice


@pytest.mark.parametrize(("layer", "advised"), [(LSTM, False), (SIMPLE_RNN, True)])
def test_gates_are_advised_for_a_recurrent_layer_without_them(layer, advised):
    norms = np.array(CALM * 20 + [[900.0, 1.0, 1.0]])
    history = dataclasses.replace(window(norms), facts=RunFacts(recurrent=(layer,)))
    (finding,) = ExplodingGradient().check(history)
    assert ("gates (LSTM, GRU)" in finding.advice) == advised


def test_an_orthogonal_start_is_advised_only_where_it_is_missing():
    norms = np.array(CALM * 20 + [[900.0, 1.0, 1.0]])
    for can_begin in (False, True):
        layer = dataclasses.replace(SIMPLE_RNN, can_begin_orthogonal=can_begin)
        facts = RunFacts(recurrent=(layer,))
        (finding,) = ExplodingGradient().check(dataclasses.replace(window(norms), facts=facts))
        assert ("recurrent_initializer='orthogonal'" in finding.advice) == can_begin


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_relu_is_advised_in_place_of_saturating_activations_only(name):
    norms = np.random.default_rng(0).lognormal(sigma=0.1, size=(60, 6)) * 10.0 ** np.arange(-5, 1)
    facts = RunFacts(
        layer_types={"dense_0": "Dense"}, activations={f"dense_{i}": name for i in range(6)}
    )
    history = dataclasses.replace(window(norms, variables=DEEP), facts=facts)
    (finding,) = VanishingWithDepth().check(history)
    assert ("in place of sigmoid or tanh" in finding.advice) == (name == "tanh")
    assert "he_normal" in finding.advice


@pytest.mark.parametrize(
    ("factors", "flagged"),
    [
        ([1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1], True),
        ([1e-4, 0, 1e-3, 1e-2, 1e-1, 1], True),
        ([1e-2, 1e-2, 1e-1, 1e-1, 1, 1], False),
        ([1e-5, 1, 1, 1, 1, 1], False),
        ([1, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5], False),
        ([NAN, NAN, NAN, 1e-5, 1e-3, 1], False),
    ],
)
def test_vanishing_with_depth_needs_a_ratio_and_a_trend(factors, flagged):
    norms = np.random.default_rng(0).lognormal(sigma=0.2, size=(50, 6)) * factors
    history = without(window(norms, variables=DEEP), slice(None), np.isnan(factors))
    findings = list(VanishingWithDepth().check(history))
    assert bool(findings) == flagged
    if flagged:
        assert (findings[0].step, findings[0].layer) == (0, "dense_0")
        assert findings[0].evidence["factor_per_layer"] == pytest.approx(0.1, rel=0.5)
        assert "per layer over" in findings[0].message


def test_embeddings_and_lone_biases_are_no_depth():
    names = ["a/embeddings", "b/bias", "c/gamma", "d/kernel", "e/kernel", "f/kernel"]
    norms = [[1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1]] * 50
    assert not list(VanishingWithDepth().check(window(norms, variables=names)))


def test_dead_tells_which_variables_of_the_layer():
    (finding,) = DeadGradient(patience=5).check(window([[1.0, 0.0, 1.0]] * 9, first=3))
    assert (finding.step, finding.layer) == (3, "rnn/cell")
    assert finding.evidence["variables"] == ["rnn/cell/bias"]
    assert "1 of 2 variables" in finding.message


def test_layers_that_die_together_or_after_an_explosion_are_one_finding():
    names = ("a/kernel", "b/kernel", "out/kernel")

    def found(first, second, explosion=1.0):
        norms = np.ones((200, 3))
        norms[100] *= explosion
        norms[first:, 0] = norms[second:, 1] = 0.0
        return list(DeadGradient().check(window(norms, variables=names)))

    (after,) = found(101, 110, explosion=1e6)
    assert (after.step, after.layer) == (101, "a")
    assert "The gradient of step 100 exploded" in after.advice
    (together,) = found(101, 101)
    assert together.evidence["layers"] == ["a", "b"]
    assert "2 of 2 variables of a, b" in together.message
    assert [finding.step for finding in found(101, 110)] == [101, 110]


def test_zeros_with_a_gradient_between_them_are_not_dead():
    assert not list(DeadGradient(patience=5).check(window([[0.0, 0.0, 1.0]] * 4 + CALM * 4)))
    alternating = without(window([[0.0, 0.0, 1.0]] * 20), slice(1, None, 2), slice(0, 2))
    (finding,) = DeadGradient(patience=10).check(alternating)
    assert finding.step == 0


def test_missing_tells_which_variables_of_the_layer():
    (finding,) = MissingGradient().check(without(window(CALM * 9), slice(None), [0, 1]))
    assert (finding.step, finding.layer, finding.severity) == (0, "rnn/cell", "warning")
    assert finding.evidence["variables"] == ["rnn/cell/kernel", "rnn/cell/bias"]


def test_a_variable_that_had_a_gradient_once_is_not_missing():
    for rows in (slice(1, None), slice(0, 4), slice(0, None, 2)):
        assert not list(MissingGradient().check(without(window(CALM * 90), rows, 1)))


def test_steps_without_any_gradient_do_not_make_one_missing():
    assert not list(MissingGradient().check(without(window(CALM * 9), slice(None), [0, 1, 2])))
