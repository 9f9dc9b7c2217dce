"""Wording of printed findings: numbers of one, layers, and advice printed once."""

import numpy as np
from histories import window

from gradkeeper.callbacks.rules import (
    DeadGradient,
    ExplodingGradient,
    ReplicaDisagreement,
    VanishingGradient,
    default_rules,
)
from gradkeeper.callbacks.rules.registry import RuleRunner

CALM = [1.0, 0.5, 0.8]


def test_one_step_is_no_plural_and_no_explosion():
    replicas = np.array([[[1.0], [20.0]], [[1.0], [1.0]]])
    run = window(np.ones((2, 1)), variables=["dense/kernel"], replica_norms=replicas)
    first, *_ = ReplicaDisagreement(patience=1).check(run)
    assert first.message.startswith("For 1 measured step (step 0) the gradient norm of replica")
    still = window([[1.0, 0.0, 0.0]] * 2)
    (dead,) = DeadGradient(patience=1).check(window([[0.0, 1.0, 1.0]]))
    assert dead.message.startswith("For 1 measured step (step 0)")
    (small,) = VanishingGradient(patience=1).check(window([[1e-9, 1e-9, 1.0]]))
    assert small.message.startswith("For 1 measured step (step 0)")
    assert len(list(DeadGradient(patience=1).check(still)))


def test_several_layers_that_died_after_an_explosion():
    run = window([*[CALM] * 20, [1e6, 1e6, 1e6], *[[0.0, 0.0, 1.0]] * 60])
    (one,) = DeadGradient().check(run)
    assert "the gradient of this layer has been zero since then" in one.advice
    names = ["a/kernel", "b/kernel", "c/kernel"]
    (several,) = DeadGradient().check(
        window([*[CALM] * 20, [1e6] * 3, *[[0.0, 0.0, 1.0]] * 60], variables=names)
    )
    assert "the gradient of these layers has been zero since then" in several.advice


def test_a_norm_is_not_compared_with_a_usual_one_before_there_is_one():
    norms = np.array([CALM] * 4) * np.array([[1.0], [2e3], [3e5], [1e8]])
    first, *_ = ExplodingGradient().check(window(norms))
    assert "times the median of the first norms, " in first.message
    assert "usual" not in first.message


def test_advice_for_one_event_is_printed_once(capsys):
    runner = RuleRunner(default_rules(), warmup=0, verbose=True)
    first = [1e6, 1e6, 2e6]
    second = [5e6, 5e6, 1e6]
    run = window([*[CALM] * 50, first, second, [np.nan] * 3])
    runner.check(run)
    printed = capsys.readouterr().out
    rules = [(each.rule, each.layer) for each in runner.findings]
    assert rules == [("exploding", "dense"), ("exploding", "rnn/cell"), ("nonfinite", "dense")]
    assert printed.count("Check this step's batch") == 1
    assert printed.count("See the advice above.") >= 1
    assert all("See the advice" not in each.advice for each in runner.findings)
    assert all("Check this step's batch" in each.advice for each in runner.findings[:2])


def test_advice_for_a_later_event_is_printed_again(capsys):
    runner = RuleRunner([ExplodingGradient()], warmup=0, verbose=True)
    runner.check(window([*[CALM] * 50, [1e6, 0, 0], *[CALM] * 300, [0, 0, 1e6]]))
    printed = capsys.readouterr().out
    assert [each.step for each in runner.findings] == [50, 351]
    assert printed.count("Check this step's batch") == 2
