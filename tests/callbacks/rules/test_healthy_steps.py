"""No findings in healthy runs, for all scales of data, loss and optimizer."""

import dataclasses

import keras
import numpy as np
import pytest
from twin import OPTIMIZERS, trained

from gradkeeper.callbacks import GradientMonitor
from gradkeeper.callbacks.rules import ExplodingGradient, default_rules
from gradkeeper.callbacks.run_facts import RunFacts

# Standard deviations of inputs and targets.
SCALES = [
    (1.0, 1.0),
    (100.0, 1.0),
    (1.0, 100.0),
    (1e-4, 1e-4),
    (1e-4, 1e6),
    (1.0, 1e6),
    (1e6, 1e-4),
    (1e6, 1.0),
    (1e6, 1e6),
]


def learning_rate(optimizer, inputs, targets, sums, batch=32):
    """Return a learning rate with which the loss falls."""
    if optimizer.startswith("SGD"):
        steepest = max(1.0, inputs**2, inputs * targets, targets)
        return 0.02 / steepest / (batch if sums else 1) / (10 if "momentum" in optimizer else 1)
    return 1e-2 * min(1.0, 10 * targets)


@pytest.mark.parametrize("sums", [False, True], ids=["mean", "sum"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_no_rule_fires_in_a_healthy_run(optimizer, sums):
    for inputs, targets in SCALES:
        rate = learning_rate(optimizer, inputs, targets, sums)
        run = trained(optimizer, rate, inputs=inputs, targets=targets, sums=sums, steps=200)
        loss = run.scalar("loss")
        assert np.mean(loss[-20:]) < np.mean(loss[:20]), (inputs, targets)
        without_loss = dataclasses.replace(run, scalars={}, facts=RunFacts())
        for each in (run, without_loss):
            found = [str(finding) for rule in default_rules() for finding in rule.check(each)]
            assert not found, (inputs, targets, found)


def test_norms_that_grow_slowly_while_the_loss_falls_are_no_explosion():
    run = trained("Adam", 0.3, targets=1e6, steps=300)
    norms = run.global_norm
    assert norms.max() > 100 * np.median(norms[:10])
    assert np.mean(run.scalar("loss")[-20:]) < np.mean(run.scalar("loss")[:20])
    for scalars in (run.scalars, {}):
        assert not list(ExplodingGradient().check(dataclasses.replace(run, scalars=scalars)))


def test_large_norms_are_no_explosion():
    """Check that the healthy runs have norms on both sides of the bound."""
    norms = [trained("SGD", 0.0, targets=scale, steps=1).global_norm[0] for scale in (1.0, 1e6)]
    assert norms[0] < 1e4 < norms[1]


@pytest.mark.parametrize(("inputs", "targets"), [(1.0, 1e5), (255.0, 1.0)])
def test_a_run_that_diverges_from_its_first_steps_explodes(inputs, targets):
    run = trained("SGD", 0.02, inputs=inputs, targets=targets, steps=8)
    rules = {rule.name: list(rule.check(run)) for rule in default_rules()}
    explosion = rules["exploding"][0]
    assert explosion.step <= 3
    assert explosion.step < rules["nonfinite"][0].step
    large = "targets" if targets > inputs else "inputs"
    assert f"standardize the {large}" in explosion.advice.lower()


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
def test_a_monitor_finds_nothing_in_a_healthy_fit_on_prices(optimizer):
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    x = random.normal(size=(640, 5)).astype("float32")
    y = (2e5 + 5e4 * x[:, :1]).astype("float32")
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(1)]
    )
    rates = {"Adam": 0.05, "SGD": 1e-8}
    model.compile(getattr(keras.optimizers, optimizer)(rates[optimizer]), "mse", jit_compile=False)
    monitor = GradientMonitor(verbose=0)
    fit = model.fit(x, y, batch_size=16, epochs=5, verbose=0, callbacks=[monitor])
    assert fit.history["loss"][-1] < fit.history["loss"][0]
    assert np.median(monitor.history.global_norm) > 1e4
    assert not monitor.findings
