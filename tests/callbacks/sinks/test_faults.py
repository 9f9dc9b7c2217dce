"""Full disks, kills, failing rules and failing sinks: training continues, files stay readable."""

import errno
import functools
import inspect
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from models import compiled, fit

from gradkeeper.callbacks import Finding, GradientHistory, GradientMonitor
from gradkeeper.callbacks.rules import Rule
from gradkeeper.callbacks.sinks import ParquetSink, TensorBoardSink

pytestmark = pytest.mark.slow

EPOCHS = 4
STEPS = list(range(3 * EPOCHS))


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def half_a_part(table, path, **_):
    """Write an incomplete Parquet part, then raise the error of a full disk."""
    path.write_bytes(b"PAR1 and no more")
    full()


def exhausted(*_):
    """Raise the error that TensorFlow's file systems raise for a full disk."""
    raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")


class AtEpoch(keras.callbacks.Callback):
    """Call a function when an epoch begins."""

    def __init__(self, epoch, action):
        super().__init__()
        self.epoch, self.action = epoch, action

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            self.action()


def trained(*callbacks):
    """Return the weights after training with these callbacks."""
    model, data = compiled("dense", optimizer=keras.optimizers.Adam(0.01))
    fit(model, data, epochs=EPOCHS, callbacks=list(callbacks))
    return model.get_weights()


weights_without_callbacks = functools.cache(trained)


def assert_unharmed(monitor, *others):
    """Check that training with the monitor ends with the weights of unmonitored training."""
    for one, other in zip(weights_without_callbacks(), trained(monitor, *others), strict=True):
        np.testing.assert_array_equal(one, other)
    assert monitor.history.steps.tolist() == STEPS


def told(capsys):
    """Return the printed lines that report an exception."""
    return [line for line in capsys.readouterr().out.splitlines() if "raised" in line]


FILES = {"log_dir": ParquetSink, "tensorboard_dir": TensorBoardSink}
FULL_DISKS = {
    "write": ("log_dir", pq, "write_table", half_a_part),
    "rename": ("log_dir", os, "replace", full),
    "events": ("tensorboard_dir", tf.io.TFRecordWriter, "flush", exhausted),
}


@pytest.mark.parametrize(("disk", "verbose"), [("write", 0), ("rename", 1), ("events", 0)])
def test_a_full_disk_is_reported_once(tmp_path, monkeypatch, capsys, disk, verbose):
    argument, *patch = FULL_DISKS[disk]
    monitor = GradientMonitor(**{argument: tmp_path}, flush_every=1, verbose=verbose)
    patched = AtEpoch(1, lambda: monkeypatch.setattr(*patch))
    assert_unharmed(monitor, patched)
    (line,) = told(capsys)
    assert f"{FILES[argument].__name__} of {argument}='{tmp_path}'" in line
    assert "No space left on device" in line
    assert not list(tmp_path.glob("*.lock"))
    if argument == "log_dir":
        assert GradientHistory.load(tmp_path).steps.tolist() == STEPS[:3]
        assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("argument", FILES)
def test_a_removed_folder_is_reported_once(tmp_path, capsys, argument):
    folder = tmp_path / "run"
    monitor = GradientMonitor(**{argument: folder}, flush_every=1)
    assert_unharmed(monitor, AtEpoch(1, lambda: shutil.rmtree(folder)))
    (line,) = told(capsys)
    assert "No such file or directory" in line
    assert not folder.exists()


@pytest.mark.parametrize("last", [2, EPOCHS])
def test_a_disk_with_room_again_is_caught_up_with(tmp_path, monkeypatch, last):
    monitor = GradientMonitor(log_dir=tmp_path, flush_every=1)
    patched = AtEpoch(1, lambda: monkeypatch.setattr(pq, "write_table", half_a_part))
    cleaned = AtEpoch(last, monkeypatch.undo)
    if last == EPOCHS:  # between the last step and the monitor's `on_train_end`
        cleaned.on_train_end = lambda logs=None: monkeypatch.undo()
    trained(cleaned, monitor, patched)
    read = GradientHistory.load(tmp_path)
    assert read.steps.tolist() == STEPS
    np.testing.assert_array_equal(read.norms, monitor.history.norms)


def test_events_go_on_in_a_further_file(tmp_path, monkeypatch):
    def torn(writer):
        """Write an incomplete event; TensorBoard reads no event after it."""
        monkeypatch.undo()
        writer.flush()
        (path,) = tmp_path.iterdir()
        path.write_bytes(path.read_bytes()[:-9])
        exhausted()

    patched = AtEpoch(2, lambda: monkeypatch.setattr(tf.io.TFRecordWriter, "flush", torn))
    trained(GradientMonitor(tensorboard_dir=tmp_path, flush_every=1), patched)
    assert len(list(tmp_path.iterdir())) == 2
    assert {step for path in tmp_path.iterdir() for step in steps_in(path)} == set(STEPS)


def steps_in(path):
    """Yield the steps of a file's events, up to an incomplete event."""
    with suppress(tf.errors.DataLossError):
        for record in tf.data.TFRecordDataset(str(path)):
            yield tf.compat.v1.Event.FromString(record.numpy()).step


def test_what_was_recorded_before_may_be_unreadable(tmp_path, monkeypatch, capsys):
    trained(GradientMonitor(log_dir=tmp_path))
    monkeypatch.setattr("gradkeeper.callbacks.sinks.parquet.steps_of", full)
    assert_unharmed(GradientMonitor(log_dir=tmp_path), AtEpoch(2, monkeypatch.undo))
    assert len(told(capsys)) == 1
    assert GradientHistory.load(tmp_path).steps.tolist() == STEPS


KILLED = """
import os, sys
import keras, numpy as np
import pyarrow.parquet as pq
from gradkeeper.callbacks import GradientMonitor

folder, signal_, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
written, whole = [], pq.write_table

def write_table(table, path, **options):
    whole(table, path, **options)
    written.append(path)
    if len(written) == last:
        os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), signal_)

pq.write_table = write_table
model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(np.ones((400, 6)), np.ones((400, 1)), batch_size=8, verbose=0,
          callbacks=[GradientMonitor(log_dir=folder, flush_every=1)])
"""


# The sink starts to merge parts when it writes the 21st file.
@pytest.mark.eager
@pytest.mark.parametrize(
    ("sent", "file", "steps"), [(signal.SIGTERM, 6, 5), (signal.SIGKILL, 21, 20)]
)
def test_a_kill_in_the_middle_of_a_write(tmp_path, sent, file, steps):
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(int(sent)), str(file)]
    killed = subprocess.run(command, stderr=subprocess.DEVNULL, check=False)
    assert killed.returncode == -sent
    assert list(tmp_path.glob(".*.tmp"))
    assert GradientHistory.load(tmp_path).steps.tolist() == list(range(steps))
    model, data = compiled("dense")
    model.optimizer.iterations.assign(steps)
    monitor = GradientMonitor(log_dir=tmp_path)
    fit(model, data, callbacks=[monitor])
    assert monitor.history.steps.tolist() == list(range(steps + 3))
    assert GradientHistory.load(tmp_path).steps.tolist() == list(range(steps + 3))
    assert all(path.name.startswith("gradients-") for path in tmp_path.iterdir())


@pytest.mark.parametrize("left", [b"", b"PAR1 and no more"])
def test_a_part_that_lost_its_end_with_the_power_is_left_out(tmp_path, left):
    trained(GradientMonitor(log_dir=tmp_path, flush_every=1))
    (tmp_path / "gradients-000004.parquet").write_bytes(left)
    there = [*STEPS[:4], *STEPS[5:]]
    assert GradientHistory.load(tmp_path).steps.tolist() == there
    model, data = compiled("dense")
    model.optimizer.iterations.assign(len(STEPS))
    fit(model, data, callbacks=[GradientMonitor(log_dir=tmp_path)])
    steps = [*there, *range(len(STEPS), len(STEPS) + 3)]
    assert GradientHistory.load(tmp_path).steps.tolist() == steps


class Bad(Rule):
    """Rule that raises, or yields an object that is no finding, in its second window."""

    name = "bad"

    def __init__(self, wrong):
        self.wrong, self.calls = wrong, 0

    def check(self, window):
        self.calls += 1
        if self.calls == 2:
            if isinstance(self.wrong, BaseException):
                raise self.wrong
            yield self.wrong


@pytest.mark.parametrize(
    ("wrong", "error"),
    [(ZeroDivisionError("by nought"), "ZeroDivisionError: by nought"), ("", "AttributeError")],
)
def test_a_rule_that_raises_is_reported_and_disabled(capsys, wrong, error):
    bad = Bad(wrong)
    monitor = GradientMonitor(rules=[bad, "clip_never", Late()], flush_every=1)
    assert_unharmed(monitor)
    (line,) = told(capsys)
    lines, first = inspect.getsourcelines(Bad)
    said = "raise self.wrong" if isinstance(wrong, Exception) else "def check(self, window):"
    at = first + [each.strip() for each in lines].index(said)
    assert f"the rule 'bad' (class Bad, {__file__}:{at})" in line
    assert error in line
    assert bad.calls == 2
    assert [finding.step for finding in monitor.findings] == [STEPS[-1]]


class Late(Rule):
    """Rule with a finding in the last step only."""

    name = "late"

    def check(self, window):
        for step in window.steps[window.steps == STEPS[-1]]:
            yield Finding(int(step), "", self.name, "info", "The end.", "Stop.")


@pytest.mark.parametrize("argument", FILES)
def test_a_sink_that_raises_leaves_the_other_alone(tmp_path, monkeypatch, capsys, argument):
    def raises(*_):
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr(FILES[argument], "write", raises)
    folders = {name: tmp_path / name for name in FILES}
    assert_unharmed(GradientMonitor(**folders, flush_every=1))
    (line,) = told(capsys)
    assert FILES[argument].__name__ in line
    assert "ZeroDivisionError: by nought" in line
    if argument == "tensorboard_dir":
        assert GradientHistory.load(folders["log_dir"]).steps.tolist() == STEPS
    else:
        (path,) = folders["tensorboard_dir"].iterdir()
        assert set(steps_in(path)) == set(STEPS)


@pytest.mark.eager
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_passes_through(tmp_path, monkeypatch, error):
    def interrupted(table, path, **_):
        path.write_bytes(b"half")
        raise error

    with pytest.raises(error):
        trained(GradientMonitor(rules=[Bad(error())], flush_every=1))
    monitor = GradientMonitor(log_dir=tmp_path, flush_every=1)
    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", interrupted)
        with pytest.raises(error):
            trained(monitor)
    assert [path.name for path in tmp_path.iterdir()] == ["_gradients.lock"]
    monitor.close()
    assert not list(tmp_path.iterdir())
