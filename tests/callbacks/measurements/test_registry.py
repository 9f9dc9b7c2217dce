"""Measurements and sinks defined by users, which require no change of the package."""

import json

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from models import compiled, fit

from gradkeeper.callbacks import GradientHistory, GradientMonitor, Measurement, Sink
from gradkeeper.callbacks.measurements import MEASUREMENTS, measurement, measurements_from


def tiny_share(grads_and_vars, context):
    """Return the share of gradient elements below 1e-8, [variables]."""
    tiny = [tf.abs(gradient) < 1e-8 for gradient, _ in grads_and_vars]
    return tf.stack([tf.reduce_mean(tf.cast(each, context.dtype)) for each in tiny])


TINY = Measurement("tiny_share", tiny_share)


class JsonLines(Sink):
    """Write one JSON object per train step."""

    def __init__(self, path):
        self.path = path

    def write(self, window):
        with open(self.path, "a") as file:
            file.writelines(
                json.dumps({"step": step, "global_norm": float(norm)}) + "\n"
                for step, norm in zip(window.steps.tolist(), window.global_norm, strict=True)
            )


WAYS = {"graph": {}, "xla": {"jit_compile": True}, "eager": {"run_eagerly": True}}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a monitored fit of a network with dead units, and its output folder."""
    folder = tmp_path_factory.mktemp("run")
    model, data = compiled("dense", jit_compile=False)
    first = model.layers[0]
    first.set_weights([np.zeros_like(each) for each in first.get_weights()])
    monitor = GradientMonitor(
        measurements=[TINY],
        sinks=[JsonLines(folder / "steps.jsonl")],
        log_dir=folder / "log",
        tensorboard_dir=folder / "events",
        verbose=0,
    )
    before = model.get_weights()
    fit(model, data, callbacks=[monitor])
    return monitor, folder, model, before


def test_a_measurement_is_that_of_the_true_gradient(run):
    monitor, _, model, before = run
    model.set_weights(before)
    _, (x, y) = compiled("dense")
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(x[:8]) - y[:8]))
    gradients = tape.gradient(loss, [each.value for each in model.trainable_variables])
    shares = [np.mean(np.abs(each) < 1e-8) for each in gradients]
    assert max(shares) == 1
    np.testing.assert_allclose(monitor.history.value("tiny_share")[0], shares, rtol=1e-6)


def test_it_is_in_history_data_frame_files_and_report(run):
    monitor, folder, *_ = run
    history = monitor.history
    assert history.measurements == ("tiny_share",)
    expected = history.value("tiny_share")
    column = f"{history.variables[0]}:tiny_share"
    np.testing.assert_array_equal(history.to_dataframe()[column], expected[:, 0])
    loaded = GradientHistory.load(folder / "log")
    np.testing.assert_array_equal(loaded.value("tiny_share"), expected)
    frame = pd.read_parquet(folder / "log")
    np.testing.assert_array_equal(np.stack(frame["tiny_share"].to_numpy()), expected)
    (path,) = (folder / "events").iterdir()
    events = tf.compat.v1.train.summary_iterator(str(path))
    tags = {value.tag for event in events for value in event.summary.value}
    assert f"gradients/tiny_share/{history.variables[0]}" in tags
    page = monitor.report(folder / "report.html").read_text()
    assert "tiny_share, per variable" in page


def test_a_sink_gets_every_step(run):
    monitor, folder, *_ = run
    lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    assert [each["step"] for each in lines] == monitor.history.steps.tolist()
    np.testing.assert_allclose([each["global_norm"] for each in lines], monitor.history.global_norm)


@pytest.mark.eager
def test_a_sink_that_raises_does_not_stop_training(capsys):
    class Full(Sink):
        def write(self, window):
            raise OSError("no space left")

    model, data = compiled("dense")
    fit(model, data, callbacks=[GradientMonitor(sinks=[Full()])])
    assert "the Full of sinks" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "how"), [("dense", "xla"), ("dense", "eager"), ("embedding", "graph")]
)
def test_training_is_the_same_with_and_without(name, how):
    def change(updates_and_vars, context):
        return tf.stack([tf.reduce_max(tf.abs(each)) for each, _ in updates_and_vars])

    measured = [TINY, Measurement("largest_change", change, "update")]
    monitor = GradientMonitor(measurements=measured, verbose=0)
    weights = []
    for callbacks in ([], [monitor]):
        model, data = compiled(name, optimizer=keras.optimizers.Adam(0.01), **WAYS[how])
        fit(model, data, callbacks=callbacks)
        weights.append(model.get_weights())
    assert np.all(monitor.history.value("largest_change").max(axis=1) > 0)
    for plain, watched in zip(*weights, strict=True):
        if how == "xla":
            np.testing.assert_allclose(plain, watched, rtol=1e-5)
        else:
            np.testing.assert_array_equal(plain, watched)


@pytest.mark.eager
def test_a_loss_scale_is_divided_out():
    def largest(grads_and_vars, context):
        return tf.stack([tf.reduce_max(tf.abs(each)) for each, _ in grads_and_vars])

    found = []
    for scale in (None, 1024.0):
        sgd = keras.optimizers.SGD(0.1)
        scaled = keras.optimizers.LossScaleOptimizer(sgd, initial_scale=scale) if scale else sgd
        model, data = compiled("dense", optimizer=scaled)
        monitor = GradientMonitor(measurements=[Measurement("largest", largest)], verbose=0)
        fit(model, data, callbacks=[monitor])
        found.append(monitor.history.value("largest"))
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_registered_measurements_have_a_name():
    @measurement("test_only")
    def zero(grads_and_vars, context):
        return tf.zeros([len(grads_and_vars)], context.dtype)

    try:
        assert measurements_from(["test_only", zero]) == (zero,)
        with pytest.raises(ValueError, match=r"of this name exists. Received: name='test_only'"):
            measurement("test_only")(tiny_share)
    finally:
        del MEASUREMENTS["test_only"]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (["nosuch"], r"Unknown measurement.*update_norm.*Received: measurement='nosuch'"),
        ([TINY, Measurement("tiny_share", max)], r"have the same name. Received: 'tiny_share'"),
    ],
)
def test_bad_measurements_are_refused(given, error):
    with pytest.raises(ValueError, match=error):
        GradientMonitor(measurements=given)


@pytest.mark.parametrize("name", ["norm", "loss", "two words"])
def test_names_of_other_statistics_are_refused(name):
    with pytest.raises(ValueError, match=rf"no other statistic has. Received: name='{name}'"):
        Measurement(name, tiny_share)
