"""Replay of capsules on JAX: the planted faults of the TensorFlow tests, and steps of JAX."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

if keras.backend.backend() != "jax":
    pytest.skip("a replay supports TensorFlow and JAX", allow_module_level=True)

import jax
import jax.numpy as jnp
from keras import layers
from own_steps import GAN
from planted import BATCH, Planted, dense, stacked
from planted_in_jax import IN_JAX, Concrete, train_step_of_ones_own
from planted_in_keras import IN_KERAS
from planted_in_own import IN_OWN, Own
from planted_steps import FAILING
from singular import SINGULAR
from typer.testing import CliRunner

from gradkeeper.callbacks import Capsule, NonFiniteGuard, Verdict, replay
from gradkeeper.callbacks.capsule import CapsuleError
from gradkeeper.callbacks.capsule.model import state_of
from gradkeeper.callbacks.capsule.writer import Contents, write_capsule
from gradkeeper.callbacks.diagnosis import plot_verdict
from gradkeeper.callbacks.diagnosis.jax.equations import KINDS
from gradkeeper.callbacks.diagnosis.jax.step import run_step
from gradkeeper.callbacks.diagnosis.replay import verdict_of_step
from gradkeeper.callbacks.guard import NormAbove

FAULTS = {each.build.__name__: each for each in (*IN_KERAS, *IN_OWN, *IN_JAX)}
STEPS = {each.build.__name__: each for each in FAILING}
# Faults of the TensorFlow tests, apart from those of `planted_operations`, that do not exist on
# JAX. `planted_in_jax` has the faults of `planted_in_tensorflow`; `singular` lists its exclusions.
EXCLUDED = {
    "empty_selection": "a shape must not depend on values",
    "label_out_of_range": "the one-hot vector of such a label is 0, and the loss is finite",
    "update_by_hand": "a train step of TensorFlow; see `planted_in_jax`",
    "empty_batch": "a train step of TensorFlow; see `planted_in_jax`",
}
SLOW = ("recurrent", "through_time")
# Layers in the verdict that differ from TensorFlow.
LAYERS = {"gru": "rnn"}  # Keras computes a GRU on JAX without its cell


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(3)


@pytest.fixture(scope="module", autouse=True)
def _compiled_operations_are_released():
    yield
    jax.clear_caches()


def batch_of_step(planted: Planted, of: dict[str, Any]) -> tuple[Any, ...]:
    rows = slice(planted.step * BATCH, (planted.step + 1) * BATCH)
    parts = [of[name] for name in ("x", "y", "sample_weight") if name in of]
    parts = [tuple(each) if isinstance(each, list) else each for each in parts]
    return keras.tree.map_structure(lambda each: jnp.asarray(each[rows]), tuple(parts))


def capsule_of(model: keras.Model, batch: Any, folder: Path, *, step: int = 0) -> Path:
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    facts = {"step": step, "gradients": {"nonfinite": [[0]]}}
    contents = Contents(facts, model, state_of(model), [batch])
    return write_capsule(folder, contents, max_bytes=1 << 20)


def assert_as_planted(verdict: Verdict, planted: Planted) -> None:
    assert verdict.fault is not None
    layer = LAYERS.get(planted.build.__name__, planted.layer)
    assert (verdict.place, verdict.layer, verdict.fault.name) == (
        planted.place,
        layer,
        planted.cause,
    )
    kinds = {"operation": verdict.operation, "gradient_of": verdict.gradient_of}
    for name, expected in planted.more.items():
        assert (KINDS[kinds[name]] if name in kinds else getattr(verdict, name)) == expected
    assert planted.line is None or planted.line in str(verdict.source)


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault(name):
    planted = FAULTS[name]
    model, data = planted.build()
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    verdict = verdict_of_step(model, batch_of_step(planted, data))
    assert_as_planted(verdict, planted)
    if planted in IN_OWN and planted.place != "loss":
        assert verdict.source.path == planted.build.__code__.co_filename


@pytest.mark.parametrize("name", SINGULAR)
def test_the_cause_of_a_singular_operation(name):
    row = SINGULAR[name]
    some = [keras.Input(batch_shape=row.x.shape), Own(row.function), layers.Flatten()]
    model = keras.Sequential([*some, layers.Dense(1)])
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    model.optimizer.build(model.trainable_variables)
    verdict = verdict_of_step(model, (jnp.asarray(row.x), jnp.ones((4, 1))))
    cause = verdict.fault.name if verdict.fault else None
    assert (verdict.place, cause) == (row.place, row.cause)
    if row.cause is not None:
        assert verdict.layer == "own"
        assert row.advice in verdict.fault.remedy
        assert row.primitive in (None, verdict.operation, verdict.gradient_of)
        assert verdict.source.is_own


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(each, marks=[pytest.mark.slow] if each in SLOW else [])
        for each in STEPS
        if each not in EXCLUDED
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


def test_the_faults_of_the_tensorflow_tests_are_here_or_excluded():
    assert EXCLUDED.keys() <= STEPS.keys()
    in_jax = {each.build.__name__ for each in IN_JAX}
    assert EXCLUDED.keys() - in_jax == {"empty_selection", "label_out_of_range"}


@pytest.mark.slow
def test_the_capsule_alone_is_enough_for_layers_of_keras(tmp_path):
    """Check the verdict of a compiled run, its text, its picture, and the command."""
    planted = FAULTS["exponential"]
    model, xy = planted.build()
    model.jit_compile = True
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
    assert f"jax {jax.__version__}" in shown.output
    assert "overflow of an exponential" in shown.output


def test_a_capsule_of_tensorflow():
    capsule = Path(__file__).parents[1] / "former_run" / "capsules" / "step-00000004"
    verdict = replay(capsule)
    assert (verdict.place, verdict.data) == ("data", "[0], example 1")


@pytest.mark.slow
def test_a_replay_uses_the_dropout_masks_of_the_step(tmp_path):
    """Identify the masks by the loss; examples, targets and weights are equal in all steps."""
    x = np.ones((16 * BATCH, 32), "float32")
    model, xy = stacked([layers.Dropout(0.5), dense(kernel=1.0)], x, jit_compile=True)
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


@pytest.mark.slow
def test_the_gradients_are_those_of_jax():
    """The recorder differentiates each operation separately."""
    some = [
        layers.Conv1D(4, 2, activation="gelu"),
        layers.BatchNormalization(),
        layers.LSTM(3, return_sequences=True),
        layers.LayerNormalization(),
        layers.Dropout(0.5),
        layers.Flatten(),
        dense(activation="softmax"),
    ]
    x = np.random.default_rng(0).normal(size=(4, 4, 2)).astype("float32")
    model, xy = stacked(some, x, "categorical_crossentropy")
    batch = (jnp.asarray(x), jnp.asarray(xy["y"]))
    model.optimizer.build(model.trainable_variables)
    trace = run_step(model, batch)
    lists = (model.trainable_variables, model.non_trainable_variables, model.metrics_variables)
    state = [[each.value for each in some] for some in lists]
    of_optimizer = [each.value for each in model.optimizer.variables]

    def loss_of(variables: Any) -> Any:
        options = {"training": True, "optimizer_variables": of_optimizer}
        return model.compute_loss_and_updates(variables, *state[1:], *batch, None, **options)[0]

    loss, gradients = jax.jit(jax.value_and_grad(loss_of))(state[0])
    assert trace.mean_loss == pytest.approx(float(loss), rel=1e-5)
    assert len(trace.gradients) == len(gradients) == len(model.trainable_variables)
    for one, other in zip(trace.gradients.values(), gradients, strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=2e-4, atol=1e-6)


def test_several_optimizers_in_a_step():
    model = GAN()
    model.build((None, 4))
    model.compile()
    x = jnp.ones((2, 4)).at[1, 2].set(1e38)
    model.critic.kernel.assign(jnp.full((4, 1), 1e30))
    verdict = verdict_of_step(model, (x, jnp.ones((2, 1))))
    assert (verdict.place, verdict.fault.name) == ("forward", "overflow")
    assert "scores = made @" in str(verdict.source)


def test_a_train_step_that_cannot_be_compiled_is_refused():
    model, xy = train_step_of_ones_own(Concrete)
    with pytest.raises(CapsuleError, match=r"only a train step that jax\.jit can compile"):
        verdict_of_step(model, (jnp.asarray(xy["x"]), jnp.asarray(xy["y"])))
