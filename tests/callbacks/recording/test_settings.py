"""Recording: its contents, frequency, destinations and cost."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from models import compiled, fit

from gradkeeper.callbacks import Finding, GradientHistory, GradientMonitor, NonFiniteGuard
from gradkeeper.callbacks.recording import settings
from gradkeeper.callbacks.recording.recorder import Recorder
from gradkeeper.callbacks.recording.settings import Overhead
from gradkeeper.callbacks.rules import Rule


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"jit_compile": True}, {"run_eagerly": True}])
def test_every_so_many_steps(how):
    model, data = compiled("dense", **how)
    downsampled, whole = GradientMonitor(every_n_steps=3), GradientMonitor()
    fit(model, data, epochs=3, callbacks=[downsampled, whole])
    assert downsampled.history.steps.tolist() == [0, 3, 6]
    np.testing.assert_array_equal(downsampled.history.norms, whole.history.norms[::3])
    fit(model, data, callbacks=[downsampled, whole])  # which is not traced again
    assert downsampled.history.steps.tolist() == [0, 3, 6, 9]


def batches_of_unknown_number(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(5).filter(lambda x, y: True)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("per_call", [1, 2])
def test_calls_without_a_measured_step_run_another_graph(monkeypatch, per_call):
    plain, (x, y) = compiled("dense", steps_per_execution=per_call, jit_compile=False)
    watched, _ = compiled("dense", steps_per_execution=per_call, jit_compile=False)
    x = x.copy()
    x[12] = np.nan  # in the third batch
    # Five batches: the last call of an epoch has fewer steps, or finds no batch.
    data = batches_of_unknown_number(x, y)
    whole, downsampled = GradientMonitor(verbose=0), GradientMonitor(every_n_steps=4, verbose=0)
    guards = [NonFiniteGuard("skip", capsule_dir=None, verbose=0) for _ in range(2)]
    plain.fit(data, epochs=2, shuffle=False, verbose=0, callbacks=[guards[0], whole])
    chosen, choose = [], Recorder.for_next_call

    def noted(recorder):
        chosen.append(choose(recorder))
        return chosen[-1]

    monkeypatch.setattr(Recorder, "for_next_call", noted)
    watched.fit(data, epochs=2, shuffle=False, verbose=0, callbacks=[guards[1], downsampled])
    assert downsampled.history.steps.tolist() == [0, 4, 8]
    np.testing.assert_array_equal(downsampled.history.norms, whole.history.norms[::4])
    for each, other in zip(plain.get_weights(), watched.get_weights(), strict=True):
        np.testing.assert_array_equal(each, other)
    assert [each.step for each in guards[1].events] == [2, 7]
    # All calls but the first, also those that find no batch.
    letters = "".join(type(each).__name__[0] for each in chosen)
    assert letters == {1: "SSSRSSSSRSS", 2: "SRSSRSR"}[per_call]


def test_a_nan_between_measured_steps_is_located_between_them():
    model, (x, y) = compiled("dense")
    x = x.copy()
    x[8] = np.nan
    monitor = GradientMonitor(every_n_steps=2, verbose=0)
    fit(model, (x, y), callbacks=[monitor])
    (finding,) = (each for each in monitor.findings if each.rule == "nonfinite")
    assert finding.step == 2
    assert finding.evidence["after_step"] == 0
    assert "between step 0 and step 2" in finding.message


class Slow(keras.layers.Layer):
    """Layer that makes a step long enough for a time measurement."""

    def call(self, x):
        return x + 0.0 * tf.reduce_sum(tf.random.normal((400, 400)) @ tf.random.normal((400, 400)))


@pytest.mark.slow
def test_the_overhead_of_a_run_is_measured_and_reported(tmp_path):
    model = keras.Sequential([keras.Input((6,)), Slow(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    monitor = GradientMonitor()
    assert "too few steps" in str(monitor.overhead)
    model.fit(np.ones((160, 6)), np.ones((160, 1)), batch_size=1, verbose=0, callbacks=[monitor])
    cost = monitor.overhead
    assert cost.pairs == 16
    assert cost.quartiles[0] <= cost.measuring <= cost.quartiles[1]
    assert cost.host > 0
    assert monitor.history.steps.tolist() == list(range(160))
    page = monitor.report(tmp_path / "report.html").read_text()
    assert "Overhead of the monitor" in page
    assert "16 pairs of steps" in page


# Gradients of zero use another code path.
@pytest.mark.slow
@pytest.mark.parametrize(("watch", "scale"), [("gradients", 1.0), ("max_abs", 0.0)])
def test_steps_are_measured_once_and_twice_in_turn(monkeypatch, watch, scale):
    begin = 100
    if not scale:
        begin = 10
        monkeypatch.setattr(settings, "_FIRST_CALL", begin)
    from gradkeeper.callbacks.statistics import groups

    plain, calls = groups.all_sums, []

    def counted(*arguments):
        calls.append(1)
        return plain(*arguments)

    monkeypatch.setattr(groups, "all_sums", counted)
    # With a learning rate of 0, no gradient becomes zero during training.
    model, (x, y) = compiled("dense", optimizer=keras.optimizers.SGD(0.0), run_eagerly=True)
    steps = []

    class Counts(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            steps.append(len(calls))
            calls.clear()

    data = scale * x[:1].repeat(begin + 36, 0), y[:1].repeat(begin + 36, 0)
    fit(model, data, batch_size=1, callbacks=[GradientMonitor(watch=watch), Counts()])
    twice = [number for number, count in enumerate(steps) if count == 2]
    assert set(steps) == {1, 2}
    compared = set(range(begin + 1, begin + 33, 2))
    assert compared <= set(twice)
    if scale:  # gradients of zero are measured twice if largest magnitudes are due
        assert set(twice) <= {0} | compared


@pytest.mark.slow
def test_the_largest_magnitudes_are_found_in_one_step_of_eight():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((200,)), keras.layers.Dense(100), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse", jit_compile=True)
    x = np.random.default_rng(0).normal(size=(10, 200)).astype("float32")
    x[9] = np.nan
    sampled, whole = GradientMonitor(verbose=0), GradientMonitor(verbose=0, watch="max_abs")
    model.fit(
        x, np.ones((10, 1)), batch_size=1, shuffle=False, verbose=0, callbacks=[sampled, whole]
    )
    assert np.isfinite(whole.history.max_abs[:9]).all()
    assert (whole.history.max_abs <= whole.history.norms)[:9].all()
    known = np.isfinite(sampled.history.max_abs)
    assert [row.tolist() for row in known[:9].T] == [[True, *[False] * 7, True]] * 4
    np.testing.assert_array_equal(sampled.history.max_abs[known], whole.history.max_abs[known])
    assert sampled.history.nonfinite[9, 0] == 200 * 100


@pytest.mark.slow
def test_gradients_of_zero_are_shown_as_zero_in_every_step():
    keras.utils.set_random_seed(0)
    dead = keras.layers.Dense(3, "relu", bias_initializer=keras.initializers.Constant(-1e6))
    model = keras.Sequential([keras.Input((4,)), dead, keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    x = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
    monitor = GradientMonitor(verbose=0)
    model.fit(x, np.ones((12, 1)), batch_size=1, verbose=0, callbacks=[monitor])
    assert (monitor.history.norms[:, :3] == 0).all()
    assert (monitor.history.norms[:, 3] > 0).all()
    assert (monitor.history.max_abs[:, :3] == 0).all()
    np.testing.assert_allclose(monitor.history.max_abs[:, 3], monitor.history.norms[:, 3])


@pytest.mark.slow
def test_a_fit_that_ends_during_the_comparison_resets_the_sampling():
    model, (x, y) = compiled("dense")
    data = x[:1].repeat(112, 0), y[:1].repeat(112, 0)
    monitor = GradientMonitor(every_n_steps=3)
    fit(model, data, batch_size=1, callbacks=[monitor])
    fit(model, data, batch_size=1, epochs=1, callbacks=[monitor])
    second = monitor.history.steps[monitor.history.steps >= 112]
    assert set(np.diff(second[second < 112 + 100])) == {3}


@pytest.mark.slow
def test_a_budget_thins_the_measuring(monkeypatch):
    model, (x, y) = compiled("dense")
    monitor = GradientMonitor(budget=0.05)

    def measured_steps_take_half_as_long_again(meter):
        return Overhead(measuring=0.5, quartiles=(0.5, 0.5), pairs=16, every=1, host=0.0)

    monkeypatch.setattr(
        "gradkeeper.callbacks.recording.settings.OverheadMeter.overhead",
        property(measured_steps_take_half_as_long_again),
    )
    fit(model, (x[:1].repeat(200, 0), y[:1].repeat(200, 0)), batch_size=1, callbacks=[monitor])
    steps = monitor.history.steps
    assert steps[:100].tolist() == list(range(100))
    assert steps[100:116].tolist() == list(range(100, 132, 2))  # the comparison
    # An overhead of 0.5 with a budget of 0.05 gives one step of ten.
    assert np.diff(steps)[-5:].tolist() == [10] * 5


class Always(Rule):
    """Rule with a finding in every step."""

    name = "always"

    def check(self, window):
        for step in window.steps:
            yield Finding(int(step), "", self.name, "info", "It is so.", "Do nothing.")


@pytest.mark.eager
def test_warmup_steps_are_recorded_and_not_checked():
    model, data = compiled("dense")
    monitor = GradientMonitor(rules=[Always()], warmup=2)
    fit(model, data, callbacks=[monitor])
    assert len(monitor.history) == 3
    assert [finding.step for finding in monitor.findings] == [2]


@pytest.mark.eager
def test_a_finding_is_printed_once_and_on_a_line_of_its_own(capsys):
    model, data = compiled("dense")
    fit(model, data, epochs=2, verbose=1, callbacks=[GradientMonitor(rules=[Always()])])
    told = capsys.readouterr().out
    assert told.count("It is so.") == 1
    (line,) = (line for line in told.splitlines() if "It is so." in line)
    assert line == "GradientMonitor [always] step 0: It is so. Do nothing."


@pytest.mark.eager
def test_rules_by_name():
    monitor = GradientMonitor(rules=["nonfinite", Always()])
    model, data = compiled("dense")
    fit(model, data, callbacks=[monitor])
    assert [finding.rule for finding in monitor.findings] == ["always"]


@pytest.mark.slow
@pytest.mark.eager
def test_tensorboard_files(tmp_path):
    model, data = compiled("dense")
    monitor = GradientMonitor(tensorboard_dir=tmp_path, histograms=True, flush_every=2)
    fit(model, data, callbacks=[monitor])
    (events,) = tmp_path.glob("events*")
    scalars, histograms = {}, {}
    for record in tf.data.TFRecordDataset(str(events)):
        event = tf.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            if value.HasField("histo"):
                histograms.setdefault(value.tag, []).append(value.histo)
            else:
                scalars.setdefault(value.tag, {})[event.step] = value.simple_value
    assert scalars["gradients/global_norm"].keys() == {0, 1, 2}
    np.testing.assert_allclose(
        list(scalars["gradients/global_norm"].values()), monitor.history.global_norm, rtol=1e-6
    )
    kernel = next(each for tag, each in histograms.items() if tag.endswith("kernel"))
    assert kernel[0].num == 6 * 5
    assert len(kernel) == 2


@pytest.mark.parametrize("scaled", [False, True])
def test_histograms_count_every_element_at_its_magnitude(scaled, monkeypatch, tmp_path):
    taken = {}

    def keep(self, step, histograms):
        taken[step] = histograms

    monkeypatch.setattr("gradkeeper.callbacks.sinks.TensorBoardSink.write_histograms", keep)
    sgd = keras.optimizers.SGD(0.1)
    model, (x, y) = compiled(
        "dense", optimizer=keras.optimizers.LossScaleOptimizer(sgd) if scaled else sgd
    )
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(x[:8]) - y[:8]))
    gradients = tape.gradient(loss, model.trainable_variables)
    monitor = GradientMonitor(tensorboard_dir=tmp_path, histograms=True)
    fit(model, (x, y), callbacks=[monitor])
    assert list(taken) == [0]
    for (edges, counts), gradient in zip(taken[0].values(), gradients, strict=True):
        logs = np.log10(np.abs(gradient.numpy()).ravel())
        np.testing.assert_array_equal(counts, np.histogram(logs, edges)[0])


@pytest.mark.slow
def test_a_killed_training_keeps_every_window_that_was_read(tmp_path):
    """Check that `kill -9` during `fit` loses only the steps since the last read."""
    code = (
        "import keras, numpy as np\n"
        "from gradkeeper.callbacks import GradientMonitor\n"
        "class Tells(keras.callbacks.Callback):\n"
        "    def on_train_batch_end(self, batch, logs=None): print(batch, flush=True)\n"
        "model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])\n"
        "model.compile('sgd', 'mse')\n"
        f"monitor = GradientMonitor(log_dir={str(tmp_path)!r}, flush_every=20)\n"
        "model.fit(np.ones((10**6, 6)), np.ones((10**6, 1)), batch_size=1, verbose=0,\n"
        "          callbacks=[monitor, Tells()])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            last = next(int(line) for line in process.stdout if int(line) >= 150)
        finally:
            process.kill()
        last = max([last, *(int(line) for line in process.stdout if line.strip().isdigit())])
    steps = GradientHistory.load(tmp_path).steps
    assert steps.tolist() == list(range(len(steps)))
    assert len(steps) >= last - 20 - 1


@pytest.mark.slow
def test_short_fits_leave_nothing_behind():
    import gc

    model, data = compiled("dense")
    fit(model, data, callbacks=[GradientMonitor()])
    counts = []
    for _ in range(2):
        for _ in range(3):
            fit(model, data, callbacks=[GradientMonitor()])
        gc.collect()
        counts.append(sum(isinstance(each, tf.Variable) for each in gc.get_objects()))
    assert counts[0] == counts[-1]


@pytest.mark.eager
def test_the_epoch_logs_can_be_left_alone():
    model, data = compiled("dense")
    history = fit(model, data, callbacks=[GradientMonitor(epoch_logs=False)]).history
    assert list(history) == ["loss"]
