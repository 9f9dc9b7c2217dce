"""What the rules say about made-up histories."""

import numpy as np
import pytest
from histories import window

from gradkeeper.callbacks.rules import ExplodingGradient, NonFiniteGradient, VanishingGradient

NAN, INF = float("nan"), float("inf")
CALM = [[1.0, 0.5, 0.8]]


def test_nonfinite_names_step_variables_and_the_layer_nearest_the_output():
    rule = NonFiniteGradient()
    assert not list(rule.check(window(CALM * 20)))
    (finding,) = rule.check(window([*CALM, [NAN, INF, 0.8], [NAN] * 3], first=20))
    assert (finding.step, finding.layer, finding.severity) == (21, "rnn/cell", "error")
    assert finding.evidence["variables"] == ["rnn/cell/kernel", "rnn/cell/bias"]
    assert (finding.evidence["kind"], finding.evidence["last_finite_step"]) == ("NaN", 20)
    assert "2 of 3 variables" in finding.message
    assert "global_clipnorm" in finding.advice


def test_nonfinite_from_the_first_step_points_at_the_data():
    (finding,) = NonFiniteGradient().check(window([[INF] * 3]))
    assert (finding.step, finding.evidence["kind"]) == (0, "Inf")
    assert "input data" in finding.advice


def test_a_missing_gradient_is_not_a_nan():
    missing = window(CALM * 3)
    missing.norms[:, 1], missing.present[:, 1] = NAN, False
    assert not list(NonFiniteGradient().check(missing))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
def test_exploding_is_relative_to_what_the_run_is_used_to(scale):
    rule = ExplodingGradient(absolute=INF)
    calm = np.array(CALM * 30) * scale
    assert not list(rule.check(window(calm)))
    (finding,) = rule.check(window(np.array([[500.0, 1.0, 1.0], *CALM]) * scale, first=30))
    assert (finding.step, finding.layer) == (30, "rnn/cell")
    assert finding.evidence["norm"] == pytest.approx(500 * scale, rel=1e-3)
    assert "times the usual" in finding.message


def test_exploding_from_the_first_step():
    first, *_ = ExplodingGradient().check(window([[2.0, 1.0, 3e4]]))
    assert (first.step, first.layer, first.evidence["usual"]) == (0, "dense", None)
    assert "above the bound" in first.message


def test_an_explosion_that_clipping_held_is_not_told_to_clip():
    (held,) = ExplodingGradient().check(window([[2.0, 1.0, 3e4]], applied=[[0.1, 0.1, 1.0]]))
    (free,) = ExplodingGradient().check(window([[2.0, 1.0, 3e4]]))
    assert "Clipping held what was applied to 1.01" in held.advice
    assert "global_clipnorm near" in free.advice


def test_ordinary_noise_is_no_explosion():
    norms = np.random.default_rng(0).lognormal(sigma=0.8, size=(500, 3))
    assert not list(ExplodingGradient().check(window(norms)))


def test_vanishing_needs_patience_across_windows():
    rule = VanishingGradient(patience=30)
    vanished = [[1e-9, 1e-9, 1.0]]
    assert not list(rule.check(window(vanished * 20)))
    (finding,) = rule.check(window(vanished * 20, first=20))
    assert (finding.step, finding.layer) == (0, "rnn/cell")
    rule.reset()
    broken = [*vanished * 20, *CALM, *vanished * 20]
    assert not list(rule.check(window(broken)))


@pytest.mark.parametrize("rule", [ExplodingGradient, VanishingGradient])
def test_bad_thresholds_are_refused(rule):
    with pytest.raises(ValueError, match=r"ratio.*Received: ratio=-1"):
        rule(ratio=-1)
