"""Replay of capsules on JAX and torch: the planted faults of the TensorFlow tests."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from own_steps import GAN
from planted import BATCH, dense, stacked
from planted_in_keras import IN_KERAS
from planted_in_own import IN_OWN
from planted_steps import FAILING
from replayed import EXCLUDED, as_here, assert_as_planted, capsule_of, verdict_of
from typer.testing import CliRunner

from gradkeeper.callbacks import Capsule, NonFiniteGuard, replay
from gradkeeper.callbacks.capsule.model import state_of
from gradkeeper.callbacks.diagnosis import plot_verdict
from gradkeeper.callbacks.diagnosis.replay import verdict_of_step
from gradkeeper.callbacks.guard import NormAbove

BACKEND = keras.backend.backend()
if BACKEND == "jax":
    from planted_in_jax import IN_JAX as IN_BACKEND
else:
    from planted_in_torch import IN_TORCH as IN_BACKEND

OWN = {each.build.__name__ for each in IN_OWN}
FAULTS = {
    each.build.__name__: as_here(each)
    for each in (*IN_KERAS, *IN_OWN)
    if each.build.__name__ not in EXCLUDED[BACKEND]
} | {each.build.__name__: each for each in IN_BACKEND}
STEPS = {each.build.__name__: as_here(each) for each in FAILING}
SLOW = ("recurrent", "through_time")


@pytest.fixture(autouse=True)
def seed():
    # The backends draw different weights. With these, the planted overflows occur.
    keras.utils.set_random_seed({"jax": 3, "torch": 4}[BACKEND])


@pytest.fixture(scope="module", autouse=True)
def _compiled_operations_are_released():
    yield
    if BACKEND == "jax":
        import jax

        jax.clear_caches()


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault(name):
    planted = FAULTS[name]
    verdict = verdict_of(planted)
    assert_as_planted(verdict, planted)
    if name in OWN and planted.place != "loss":
        assert verdict.source.path == planted.build.__code__.co_filename


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(each, marks=[pytest.mark.slow] if each in SLOW else [])
        for each in STEPS
        if each not in EXCLUDED[BACKEND]
    ],
)
def test_the_cause_of_a_failing_step(name, tmp_path):
    failing = STEPS[name]
    model, batch = failing.build(False)
    verdict = replay(capsule_of(model, batch, tmp_path), model)
    cause = verdict.fault.name if verdict.fault else None
    assert (verdict.place, verdict.layer, cause) == (failing.place, failing.layer, failing.cause)
    assert failing.variable in (None, verdict.variable)
    assert failing.line is None or failing.line in str(verdict.source)
    assert failing.advice in verdict.fault.remedy


def test_excluded_faults_exist():
    of_tensorflow = STEPS.keys() | {each.build.__name__ for each in IN_OWN}
    assert EXCLUDED[BACKEND].keys() <= of_tensorflow
    elsewhere = {name for name, reason in EXCLUDED[BACKEND].items() if "; see" in reason}
    assert elsewhere == EXCLUDED[BACKEND].keys() & FAULTS.keys()


@pytest.mark.slow
def test_the_capsule_alone_is_enough_for_layers_of_keras(tmp_path):
    """Check the verdict of a compiled run, its text, its picture, and the command."""
    planted = FAULTS["exponential"]
    model, xy = planted.build()
    model.jit_compile = BACKEND == "jax"
    guard = NonFiniteGuard("skip", capsule_dir=tmp_path, verbose=0)
    model.fit(xy["x"], xy["y"], batch_size=BATCH, shuffle=False, verbose=0, callbacks=[guard])
    path = guard.events[0].capsule
    verdict = replay(path)
    assert_as_planted(verdict, planted)
    assert str(verdict).splitlines()[:3] == [
        "First not finite: in the forward pass, in layer first",
        "Cause: overflow of an exponential",
        f"Operation: {verdict.what}",
    ]
    assert verdict.what.startswith("exp, given ")
    assert "In float64: the operation is finite, the whole step is not finite" in str(verdict)
    assert [(call.path, call.returned.nan) for call in verdict.path] == [
        (model.name, True),
        ("first", False),
        ("last", True),
    ]
    assert all(call.gradient is not None for call in verdict.path)
    assert "exponential" in plot_verdict(verdict).get_suptitle()
    from gradkeeper.training.cli import app

    shown = CliRunner().invoke(app, ["replay", str(path)])
    assert shown.exit_code == 0
    assert f"{BACKEND} " in shown.output
    assert "overflow of an exponential" in shown.output


def test_a_capsule_of_tensorflow():
    capsule = Path(__file__).parents[1] / "former_run" / "capsules" / "step-00000004"
    verdict = replay(capsule)
    assert (verdict.place, verdict.data) == ("data", "[0], example 1")


@pytest.mark.slow
def test_a_replay_uses_the_dropout_masks_of_the_step(tmp_path):
    """Identify the masks by the loss; examples, targets and weights are equal in all steps."""
    x = np.ones((16 * BATCH, 32), "float32")
    model, xy = stacked([layers.Dropout(0.5), dense(kernel=1.0)], x, jit_compile=BACKEND == "jax")
    weights = np.ones(16 * BATCH, "float32")
    weights[13 * BATCH : 14 * BATCH] = 1e6
    trigger = NormAbove(1e5)
    guard = NonFiniteGuard("skip", trigger=trigger, capsule_dir=tmp_path, verbose=0)
    options = {"sample_weight": weights, "batch_size": BATCH, "shuffle": False, "verbose": 0}
    model.fit(xy["x"], xy["y"], callbacks=[guard], **options)
    capsule = Capsule.read(guard.events[0].capsule)
    before = state_of(model)
    verdict = replay(capsule, model)
    assert capsule.step == 13
    assert (verdict.place, verdict.fault) == ("none", None)
    assert verdict.loss == pytest.approx(capsule.facts["loss"], rel=1e-6)
    for name, value in state_of(model).items():
        np.testing.assert_array_equal(before[name], value)


def test_several_optimizers_in_a_step():
    model = GAN()
    model.build((None, 4))
    model.compile()
    x = np.ones((2, 4), "float32")
    x[1, 2] = 1e38
    model.critic.kernel.assign(np.full((4, 1), 1e30))
    batch = keras.tree.map_structure(keras.ops.convert_to_tensor, (x, np.ones((2, 1), "float32")))
    verdict = verdict_of_step(model, batch)
    assert (verdict.place, verdict.fault.name) == ("forward", "overflow")
    assert "scores = made @" in str(verdict.source)
