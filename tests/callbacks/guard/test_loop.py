"""The guard in custom training loops."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradkeeper.callbacks import NonFiniteGradientError, NonFiniteGuard, replay
from gradkeeper.callbacks.guard import StepModel

BAD = 3


class Policy:
    """Actor whose policy becomes deterministic before step 3, which gives a logarithm of 0."""

    def __init__(self, *, compiled: bool, optimizer: str = "adam") -> None:
        keras.utils.set_random_seed(1)
        layers = [keras.layers.Dense(8, "tanh"), keras.layers.Dense(3, "softmax", name="policy")]
        self.actor = keras.Sequential([keras.Input((4,)), *layers])
        self.optimizer = keras.optimizers.get(optimizer)
        self.step = tf.function(self._step) if compiled else self._step

    def _step(self, states, actions):
        with tf.GradientTape() as tape:
            chosen = tf.reduce_sum(self.actor(states) * tf.one_hot(actions, 3), axis=1)
            loss = -tf.reduce_mean(tf.math.log(chosen))
        variables = self.actor.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    def train(self, step, *, bad: tuple[int, ...] = (BAD,), left_out: tuple[int, ...] = ()):
        random = np.random.default_rng(0)
        bias = self.actor.get_layer("policy").bias
        for number in range(6):
            states = random.normal(size=(16, 4)).astype("float32")
            actions = random.integers(0, 3, 16)
            if number in left_out:
                continue
            before = tf.identity(bias.value)
            if number in bad:
                bias.assign([200.0, 0.0, 0.0])
            step(tf.constant(states), tf.constant(actions))
            if number in bad:
                bias.assign(before)

    @property
    def state(self) -> list[np.ndarray]:
        variables = [*self.actor.variables, *self.optimizer.variables]
        return [keras.ops.convert_to_numpy(each) for each in variables]


def quiet(policy="skip", **options):
    return NonFiniteGuard(policy, verbose=0, **{"capsule_dir": None, **options})


@pytest.mark.slow
@pytest.mark.parametrize(("compiled", "with_step"), [(True, True), (False, False)])
def test_a_refused_step_of_a_loop_leaves_no_trace(compiled, with_step):
    guarded, expected, guard = Policy(compiled=compiled), Policy(compiled=compiled), quiet()
    variables = guarded.actor.trainable_variables
    with guard.watch(
        guarded.optimizer, variables, step=guarded.step if with_step else None
    ) as step:
        guarded.train(step or guarded.step)
    expected.train(expected.step, bad=(), left_out=(BAD,))
    assert [(event.step, event.cause) for event in guard.events] == [(BAD, "gradient")]
    for a, b in zip(guarded.state, expected.state, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_a_capsule_of_a_loop_is_replayed_with_its_step(tmp_path):
    policy, guard = Policy(compiled=True), quiet(capsule_dir=tmp_path)
    variables = policy.actor.trainable_variables
    with guard.watch(policy.optimizer, variables, step=policy.step) as step:
        policy.train(step)
    before = policy.state
    verdict = replay(guard.events[0].capsule, step.model)
    assert (verdict.place, verdict.operation) == ("forward", "Log")
    assert "tf.math.log(chosen)" in str(verdict.source)
    for a, b in zip(policy.state, before, strict=True):
        np.testing.assert_array_equal(a, b)
    again = Policy(compiled=False)
    again.optimizer.build(again.actor.trainable_variables)
    model = StepModel(again.step, [again.optimizer], again.actor.trainable_variables)
    assert replay(guard.events[0].capsule, model).source == verdict.source


@pytest.mark.parametrize("policy", ["stop", "raise"])
def test_a_loop_ends_with_an_error(policy):
    actor, guard = Policy(compiled=True), quiet(policy)
    with (
        pytest.raises(NonFiniteGradientError, match=f"Step {BAD}") as raised,
        guard.watch(actor.optimizer, step=actor.step) as step,
    ):
        actor.train(step)
    assert raised.value.step == BAD
    assert actor.optimizer.iterations == BAD


def test_an_update_that_is_not_finite_is_undone_in_a_loop():
    actor = Policy(compiled=False)
    actor.optimizer = keras.optimizers.Adam(1e-3, epsilon=0.0)
    actor.optimizer.build(actor.actor.trainable_variables)
    actor.actor.get_layer("policy").kernel.assign(np.zeros((8, 3)))
    before, guard = actor.state, quiet(max_consecutive=9)
    with guard.watch(actor.optimizer, actor.actor.trainable_variables, step=actor.step) as step:
        actor.train(step, bad=())
    assert {event.cause for event in guard.events} == {"update"}
    for a, b in zip(actor.state, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_loops_that_cannot_be_guarded():
    actor = Policy(compiled=True)
    with (
        pytest.raises(ValueError, match=r"policy='rollback' needs model\.fit"),
        quiet("rollback").watch(actor.optimizer),
    ):
        pass


@pytest.mark.slow
def test_a_guard_of_a_running_loop_takes_no_second_training():
    actor, guard = Policy(compiled=True), quiet()
    with guard.watch(actor.optimizer, step=actor.step) as step:
        with pytest.raises(RuntimeError, match="guards a loop that is still running"):
            guard.watch(actor.optimizer).__enter__()
        actor.train(step)
    assert [event.step for event in guard.events] == [BAD]


def test_a_loop_without_an_optimizer_call_is_reported(capsys):
    actor = Policy(compiled=True)
    with NonFiniteGuard(capsule_dir=None).watch(actor.optimizer):
        pass
    assert "NonFiniteGuard sees no gradients and skips no steps" in capsys.readouterr().out
