"""Refused steps change no variable; the policies after a refusal; training without refusals."""

import re

import keras
import numpy as np
import pytest
from guarded import BATCH, WAYS, assert_alike, built, data, fit, poisoned, quiet, state
from models import of_backend

from gradkeeper.callbacks import GradientMonitor
from gradkeeper.callbacks.guard import NonFiniteGradientError, NormZScore
from gradkeeper.callbacks.guard.event import GuardEvent
from gradkeeper.callbacks.non_finite_guard import NonFiniteGuard


@pytest.fixture(autouse=True)
def capsules_in_a_folder_of_the_tests_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


REFUSED = [
    ("sgd", "eager"),
    ("sgd", "xla and several steps"),
    pytest.param("adam", "graph", marks=pytest.mark.unbuilt_optimizer),
]


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "way"), REFUSED)
def test_a_refused_step_is_as_if_its_batch_had_not_come(optimizer, way):
    model = built(optimizer, **WAYS[way])
    # Without the bad batches, on the same model if it can be set back, which is not traced again.
    left_out = model if model.optimizer.built else built(optimizer, **WAYS[way])
    variables = [*model.variables, *model.optimizer.variables]
    before = [keras.ops.convert_to_numpy(each) for each in variables]
    expected = fit(left_out, data(without=(3, 6)), quiet(), epochs=2)
    wanted = state(left_out)
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    guard = quiet()
    history = fit(model, poisoned(3, 6), guard, epochs=2)
    for one, other in zip(state(model), wanted, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [event.step for event in guard.events] == [3, 6, 11, 14]
    assert history.history.pop("skipped_steps") == [2, 2]
    expected.history.pop("skipped_steps")
    if optimizer == "sgd":  # compares the metrics as well
        assert history.history == expected.history


@pytest.mark.slow
@pytest.mark.eager
def test_the_loss_of_an_epoch_without_a_step_is_nan():
    guard = NonFiniteGuard("skip", capsule_dir=None, verbose=0)
    x, y = poisoned(*range(8))
    history = fit(built(), (x, y), guard, epochs=2, validation_data=data()).history
    assert np.isnan([history["loss"], history["mae"]]).all()
    assert np.isfinite(history["val_loss"]).all()
    x, y = poisoned(*range(7))
    assert np.isfinite(fit(built(), (x, y), guard).history["loss"]).all()


@pytest.mark.slow
@pytest.mark.unbuilt_optimizer
@pytest.mark.parametrize("how", ["eager", "several steps"])
def test_with_nothing_refused_training_is_bit_identical(how):
    plain, guarded = built(**WAYS[how]), built(**WAYS[how])
    expected = fit(plain, data(), epochs=2).history
    seen = fit(guarded, data(), NonFiniteGuard(trigger=NormZScore()), epochs=2).history
    assert_alike(guarded, plain)
    assert seen.pop("skipped_steps") == [0, 0]
    assert seen == expected
    # Checkpoints store the optimizer's variables by path.
    paths = [[v.path.partition("/")[2] for v in m.optimizer.variables] for m in (plain, guarded)]
    assert [re.sub(r"_\d+", "", each) for each in paths[0]] == [
        re.sub(r"_\d+", "", each) for each in paths[1]
    ]


@pytest.mark.eager
def test_the_event_names_layer_and_loss():
    class Nan(keras.layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(name="scale", shape=(), initializer="ones")

        def call(self, x):
            return x + keras.ops.sqrt(self.scale - 1.0)

    keras.utils.set_random_seed(0)
    layers = [keras.Input((6,)), keras.layers.Dense(4), Nan(name="root"), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse")
    guard = quiet("raise")
    with pytest.raises(
        NonFiniteGradientError, match=r"Step 0: non-finite gradients in root"
    ) as raised:
        fit(model, data(2), guard)
    assert raised.value.step == 0
    assert raised.value.layers == ("root",)
    assert np.isfinite(raised.value.event.loss)
    assert guard.events == [raised.value.event]
    assert all(np.isfinite(each).all() for each in state(model))


class Ends(keras.callbacks.Callback):
    """Count the calls that Keras makes at the end of training."""

    ended = 0

    def on_train_end(self, logs=None):
        self.ended += 1


@pytest.mark.slow
def test_stop_keeps_the_weights_and_the_backups(tmp_path):
    until, stopped = built(**WAYS["several steps"]), built(**WAYS["several steps"])
    fit(until, data(without=(3, 4, 5, 6, 7)), quiet())
    ends, backup = Ends(), keras.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=2)
    fit(stopped, poisoned(3), NonFiniteGuard(verbose=0), backup, ends, epochs=5)
    assert ends.ended == 1
    assert_alike(stopped, until)
    assert list((tmp_path / "backup").iterdir())


@pytest.mark.slow
@pytest.mark.eager
def test_the_same_guard_after_a_stop():
    model, guard = built(), quiet("stop")
    fit(model, poisoned(3), guard)
    fit(model, data(), guard)
    assert model.optimizer.iterations == 3 + 8
    assert len(guard.events) == guard.skipped == 1


@pytest.mark.eager
def test_skip_stops_after_so_many_in_a_row():
    model, guard = built(), quiet(max_consecutive=3)
    fit(model, poisoned(1, 3, 4, 5, 6), guard)
    assert [event.step for event in guard.events] == [1, 3, 4, 5]
    assert model.optimizer.iterations == 2


@pytest.mark.eager
def test_warn_takes_the_step():
    model, guard = built(), quiet("warn")
    fit(model, poisoned(3), guard)
    assert guard.skipped == 0
    assert guard.events[0].step == 3
    assert not all(np.isfinite(each).all() for each in state(model))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["graph", "xla and several steps"])
def test_rollback_goes_back_to_the_snapshot_with_a_lower_rate(how):
    model = built(keras.optimizers.SGD(0.1), **WAYS[how])
    guard = quiet("rollback", snapshot_every=100, lr_factor=0.5, max_rollbacks=1)
    fit(model, poisoned(3), guard)
    assert guard.rollbacks == 1
    assert float(model.optimizer.learning_rate) == pytest.approx(0.05)
    assert model.optimizer.iterations == 4  # batches 4 to 7, starting from the initial weights
    if how == "graph":
        expected = built(keras.optimizers.SGD(0.05), **WAYS[how])
        fit(expected, data(without=(0, 1, 2, 3)), quiet())
        for a, b in zip(model.get_weights()[:2], expected.get_weights()[:2], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.eager
def test_rollback_needs_a_learning_rate_that_can_be_lowered():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    model = built(keras.optimizers.SGD(schedule))
    with pytest.raises(ValueError, match="lr_factor=1"):
        fit(model, data(), quiet("rollback"))
    fit(model, poisoned(3), quiet("rollback", lr_factor=1.0))
    assert model.optimizer.iterations == 4


@pytest.mark.eager
def test_rollback_ends_when_it_does_not_help(capsys):
    model, guard = built(), NonFiniteGuard("rollback", max_rollbacks=2, capsule_dir=None)
    fit(model, poisoned(1, 3, 5), guard)
    assert guard.rollbacks == 2
    assert [event.step for event in guard.events] == [1, 3, 5]
    printed = capsys.readouterr().out
    assert printed.count("return to the last snapshot") == 2
    assert "training stops" in printed


@pytest.mark.slow
@pytest.mark.parametrize(
    "trigger", [pytest.param(1000.0, marks=pytest.mark.eager), NormZScore(z=6.0, after=4)]
)
def test_a_gradient_too_large_is_refused(trigger):
    left_out, guarded = built("sgd"), built("sgd")
    fit(left_out, data(without=(6,)), quiet())
    x, y = data()
    y[6 * BATCH : 7 * BATCH] *= 1e5
    guard = quiet(trigger=trigger)
    fit(guarded, (x, y), guard)
    assert [(event.step, event.cause) for event in guard.events] == [(6, "norm")]
    assert guard.events[0].norm > 1000
    assert_alike(guarded, left_out)


@pytest.mark.slow
@pytest.mark.eager
def test_a_loss_that_is_not_finite_is_refused():
    class Loss(keras.losses.Loss):
        def call(self, y, predicted):
            return predicted[:, 0] + keras.ops.where(y[:, 0] > 100, np.inf, 0.0)

    def trained(guard):
        model = built()
        model.compile("sgd", Loss())
        x, y = data()
        y[3 * BATCH] = 1000
        fit(model, (x, y), guard)
        return guard.events

    assert not trained(quiet(check_loss=False))
    (event,) = trained(quiet())
    assert (event.step, event.cause) == (3, "loss")
    assert "the loss is inf" in str(event)


@pytest.mark.slow
def test_the_loss_scale_skips_its_own_steps():
    def scaled():
        optimizer = keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(0.1), initial_scale=2.0**127
        )
        return built(optimizer, dtype="mixed_float16", **WAYS["several steps"])

    guarded, guard = scaled(), quiet()
    fit(guarded, data(), guard, epochs=2)
    assert not guard.events  # the loss scale handles an overflow
    assert guarded.optimizer.dynamic_scale < 2.0**127
    plain = scaled()
    fit(plain, data(), epochs=2)
    assert_alike(guarded, plain)
    fit(guarded, poisoned(3), guard)
    assert [event.step for event in guard.events] == [19]


@pytest.mark.slow
def test_a_bad_micro_batch_of_accumulated_gradients():
    def accumulating():
        optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
        return built(optimizer, jit_compile=False)

    left_out, guarded = accumulating(), accumulating()
    fit(left_out, data(without=(3,)), quiet())
    fit(guarded, poisoned(3), quiet())
    assert_alike(guarded, left_out)


@pytest.mark.slow
@pytest.mark.eager
def test_a_monitor_records_a_refused_step_as_skipped():
    alone, guarded = built("sgd"), built("sgd")
    monitors = [GradientMonitor(verbose=0), GradientMonitor(verbose=0)]
    fit(alone, poisoned(3), quiet())
    fit(guarded, poisoned(3), monitors[0], quiet(), monitors[1], epochs=1)
    assert_alike(guarded, alone)
    for monitor in monitors:
        assert monitor.history.updated.any(axis=1).tolist() == [True] * 3 + [False] + [True] * 4
        assert np.isnan(monitor.history.norms[3]).any()
        assert np.flatnonzero(monitor.history.skipped).tolist() == [3]
        assert not monitor.history.accumulated.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"policy": "ignore"},
            "Choose one of: raise, rollback, skip, stop, warn. Received: policy='ignore'",
        ),
        ({"max_consecutive": 0}, "`max_consecutive` must be an integer of at least 1"),
        ({"snapshot_every": 0}, "`snapshot_every` must be an integer of at least 1"),
        ({"lr_factor": 2.0}, r"`lr_factor` must be a number in \(0, 1\]"),
        ({"trigger": -1.0}, "`bound` must be a finite number above 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        NonFiniteGuard(**arguments)


@pytest.mark.slow
@pytest.mark.parametrize(("value", "jit_compile"), [(np.nan, False), (np.inf, True)])
def test_the_event_names_the_layers_when_every_element_is_bad(value, jit_compile):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2), keras.layers.Dense(6)])
    model.compile("sgd", "mse", **of_backend({"jit_compile": jit_compile}))
    guard = NonFiniteGuard(verbose=0, capsule_dir=None)
    fit(model, (np.full((8, 6), value, "float32"), np.zeros((8, 6), "float32")), guard)
    (event,) = guard.events
    assert event.layers == tuple(layer.name for layer in model.layers)
    assert event.nonfinite.tolist() == [[12, 2, 12, 6]]


def test_one_process_has_no_other_worker():
    nothing = np.zeros((1, 1))
    event = GuardEvent(3, "gradient", 0.5, np.nan, ("dense/kernel",), nothing, nothing)
    assert str(event) == "Step 3: non-finite gradients (loss 0.5)."


@pytest.mark.slow
def test_bad_triggers():
    with pytest.raises(ValueError, match="`z` must be a finite number above 0"):
        NormZScore(z=0)
    with pytest.raises(ValueError, match="`window` must be an integer of at least"):
        NormZScore(window=8, after=9)
