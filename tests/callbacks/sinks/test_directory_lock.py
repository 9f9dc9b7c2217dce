"""Lock of a `log_dir`: one training writes at a time, and an ended process holds no lock."""

import copy
import os
import pickle
import shutil
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import keras
import numpy as np
import pandas as pd
import pytest
from models import compiled, fit

from gradkeeper.callbacks import GradientHistory, GradientMonitor
from gradkeeper.callbacks.sinks.sink import DirectoryLock

pytestmark = pytest.mark.eager

REFUSED = r"Another run writes .*process {}.*Use a separate directory for each run.*log_dir='{}'"


class AtEnd(keras.callbacks.Callback):
    """Call a function when the first epoch ends."""

    def __init__(self, action):
        super().__init__()
        self.action = action

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            self.action()


def train(monitor, *others, epochs=1):
    model, data = compiled("dense")
    fit(model, data, epochs=epochs, callbacks=[monitor, *others])


def refusal(folder, pid):
    return pytest.raises(RuntimeError, match=REFUSED.format(pid, folder))


HOLDS = """
import os, sys
from gradkeeper.callbacks.sinks.sink import DirectoryLock
lock = DirectoryLock(sys.argv[1])
lock.acquire(lambda: True)
print("taken", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process(folder):
    """Run a process that holds the lock."""
    command = [sys.executable, "-c", HOLDS, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"taken\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("end", ["closed", "killed"])
def test_a_second_process_is_refused_until_the_first_ends(tmp_path, end):
    with another_process(tmp_path) as process:
        with refusal(tmp_path, process.pid):
            train(GradientMonitor(log_dir=tmp_path))
        if end == "closed":
            process.stdin.close()
        else:
            process.kill()
        if os.path.exists("/proc"):  # the process has ended and is still in the process table
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        else:
            process.wait()
        train(GradientMonitor(log_dir=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["gradients-000000.parquet"]
    assert len(GradientHistory.load(tmp_path)) == 3


FORKS = """
import os, sys
from gradkeeper.callbacks.sinks.sink import DirectoryLock
lock = DirectoryLock(sys.argv[1])
lock.acquire(lambda: True)
child = os.fork()
if child == 0:
    for refused in (lock.refresh, lambda: lock.acquire(lambda: True)):
        try:
            refused()
        except RuntimeError as error:
            assert f"process {os.getppid()} " in str(error)
        else:
            sys.exit(1)
    lock.release()
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
lock.refresh()
assert os.path.exists(sys.argv[1] + "/_gradients.lock")
"""


def test_a_fork_neither_owns_nor_releases_the_lock(tmp_path):
    subprocess.run([sys.executable, "-c", FORKS, str(tmp_path)], check=True, timeout=60)


def test_two_monitors_of_a_fit_are_refused(tmp_path):
    with refusal(tmp_path, os.getpid()):
        train(GradientMonitor(log_dir=tmp_path), GradientMonitor(log_dir=tmp_path))


def test_another_fit_is_refused_while_the_first_runs(tmp_path):
    def another():
        with refusal(tmp_path, os.getpid()):
            train(GradientMonitor(log_dir=tmp_path))

    train(GradientMonitor(log_dir=tmp_path), AtEnd(another))
    assert len(GradientHistory.load(tmp_path)) == 3


def test_a_watched_loop_is_refused_too(tmp_path):
    model, _ = compiled("dense")
    one, other = GradientMonitor(log_dir=tmp_path), GradientMonitor(log_dir=tmp_path)
    with one.watch(model.optimizer), refusal(tmp_path, os.getpid()):
        other.watch(model.optimizer).__enter__()
    with other.watch(model.optimizer):
        pass


def test_monitors_take_turns(tmp_path):
    one, other = GradientMonitor(log_dir=tmp_path), GradientMonitor(log_dir=tmp_path)
    model, data = compiled("dense")
    for monitor in (one, one, other, one):
        fit(model, data, callbacks=[monitor])
    steps = GradientHistory.load(tmp_path).steps.tolist()
    assert steps == sorted(set(steps))
    assert set(range(9)) <= set(steps)
    assert not list(tmp_path.glob("*.lock"))


def test_a_fit_that_raised_holds_nothing_in_its_process(tmp_path):
    def fails():
        raise ZeroDivisionError

    failed = GradientMonitor(log_dir=tmp_path)
    with pytest.raises(ZeroDivisionError):
        train(failed, AtEnd(fails))
    assert list(tmp_path.glob("*.lock"))
    train(GradientMonitor(log_dir=tmp_path), AtEnd(failed.close), epochs=2)
    assert len(GradientHistory.load(tmp_path)) == 6
    assert not list(tmp_path.glob("*.lock"))


def test_a_copy_does_not_own_the_lock(tmp_path):
    lock = DirectoryLock(tmp_path)
    lock.acquire(lambda: True)
    for another in (copy.deepcopy(lock), pickle.loads(pickle.dumps(lock))):
        another.release()
        with refusal(tmp_path, os.getpid()):
            another.acquire(lambda: True)


def test_a_directory_that_another_process_took_is_not_written_to(tmp_path, capsys):
    with ExitStack() as stack:

        def taken():
            (tmp_path / "_gradients.lock").unlink()
            stack.enter_context(another_process(tmp_path))

        monitor = GradientMonitor(log_dir=tmp_path, flush_every=1)
        train(monitor, AtEnd(taken), epochs=3)
        assert (tmp_path / "_gradients.lock").exists()
    assert len(monitor.history) == 9
    assert capsys.readouterr().out.count("raised RuntimeError: Another run") == 1
    assert len(GradientHistory.load(tmp_path)) == 3


def test_a_lock_that_was_deleted_is_written_again(tmp_path):
    lock = DirectoryLock(tmp_path / "run")
    lock.acquire(lambda: True)
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(FileNotFoundError):
        lock.refresh()
    (tmp_path / "run").mkdir()
    lock.refresh()
    assert list((tmp_path / "run").iterdir())


def test_a_file_that_no_process_has_locked_is_no_lock(tmp_path):
    (tmp_path / "_gradients.lock").write_text("process 1 on host 'elsewhere'")
    lock = DirectoryLock(tmp_path)
    lock.acquire(lambda: True)
    lock.release()
    assert not list(tmp_path.iterdir())


def test_pandas_reads_the_folder_during_training(tmp_path):
    frames = []

    def read():
        assert (tmp_path / "_gradients.lock").exists()
        frames.append(pd.read_parquet(tmp_path))

    monitor = GradientMonitor(log_dir=tmp_path, flush_every=1)
    train(monitor, AtEnd(read), epochs=2)
    (frame,) = frames
    history = monitor.history
    assert frame["step"].tolist() == [0, 1, 2]
    assert frame.attrs["variables"] == history.variables
    norms = np.stack(frame["norm"].to_numpy())
    np.testing.assert_array_equal(norms, history.norms[:3])
    np.testing.assert_array_equal(frame["loss"], history.loss[:3])
