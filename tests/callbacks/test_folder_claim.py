"""One training at a time writes to a `log_dir`; a process that is gone holds nothing."""

import copy
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import time

import keras
import numpy as np
import pandas as pd
import pytest
from models import compiled, fit

from gradkeeper.callbacks import GradientHistory, GradientMonitor
from gradkeeper.callbacks.folder_claim import FolderClaim

REFUSED = r"Another run writes .*process {}.*Use a separate directory for each run.*log_dir='{}'"


class AtEnd(keras.callbacks.Callback):
    """Does something when the first epoch ends."""

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
from gradkeeper.callbacks.folder_claim import FolderClaim
claim = FolderClaim(sys.argv[1])
claim.take(lambda: True)
print("taken", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that has the folder."""
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"taken\n"
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_until_the_first_ends(tmp_path, holder):
    with refusal(tmp_path, holder.pid):
        train(GradientMonitor(log_dir=tmp_path))
    holder.stdin.close()
    holder.wait()
    assert not list(tmp_path.iterdir())
    train(GradientMonitor(log_dir=tmp_path))
    assert len(GradientHistory.load(tmp_path)) == 3


def test_what_a_killed_process_held_is_taken_over(tmp_path, holder):
    holder.kill()
    if os.path.exists("/proc"):  # dead, and still in the table
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    else:
        holder.wait()
    train(GradientMonitor(log_dir=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["gradients-000000.parquet"]


FORKS = """
import os, sys
from gradkeeper.callbacks.folder_claim import FolderClaim
claim = FolderClaim(sys.argv[1])
claim.take(lambda: True)
child = os.fork()
if child == 0:
    for refused in (claim.keep, lambda: claim.take(lambda: True)):
        try:
            refused()
        except RuntimeError as error:
            assert f"process {os.getppid()} " in str(error)
        else:
            sys.exit(1)
    claim.release()
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
claim.keep()
assert os.path.exists(sys.argv[1] + "/_gradients.lock")
"""


def test_a_fork_neither_has_the_folder_nor_gives_it_back(tmp_path):
    subprocess.run([sys.executable, "-c", FORKS, str(tmp_path)], check=True, timeout=60)
    assert not list(tmp_path.iterdir())


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


def test_a_copy_holds_nothing(tmp_path):
    claim = FolderClaim(tmp_path)
    claim.take(lambda: True)
    for another in (copy.deepcopy(claim), pickle.loads(pickle.dumps(claim))):
        another.release()
        with refusal(tmp_path, os.getpid()):
            another.take(lambda: True)


def test_a_folder_that_another_took_is_not_written_to(tmp_path, capsys):
    def taken():
        (tmp_path / "_gradients.lock").write_text(lock(host="elsewhere"))

    monitor = GradientMonitor(log_dir=tmp_path, flush_every=1)
    train(monitor, AtEnd(taken), epochs=3)
    assert len(monitor.history) == 9
    assert capsys.readouterr().out.count("raised RuntimeError: Another run") == 1
    assert len(GradientHistory.load(tmp_path)) == 3
    assert "elsewhere" in (tmp_path / "_gradients.lock").read_text()


def test_a_lock_that_was_deleted_is_written_again(tmp_path):
    claim = FolderClaim(tmp_path / "run")
    claim.take(lambda: True)
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(FileNotFoundError):
        claim.keep()
    (tmp_path / "run").mkdir()
    claim.keep()
    assert list((tmp_path / "run").iterdir())


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


def lock(**fields):
    return json.dumps({"pid": 1, "host": socket.gethostname(), "born": "", "token": "", **fields})


LOCKS = {
    "elsewhere, at work": (lock(host="elsewhere"), 0, False),
    "elsewhere, silent": (lock(host="elsewhere"), 300, True),
    "being written": ("", 0, False),
    "torn": ('{"pid": 1', 300, True),
    "our number, before us": (lock(pid=os.getpid()), 0, True),
    "a number given again": (lock(pid=os.getppid(), born="1"), 0, True),
    "no such process": (lock(pid=2**40), 0, True),
}


@pytest.mark.parametrize("name", ["_gradients.lock", "gradients.lock"])
@pytest.mark.parametrize("case", LOCKS)
def test_who_is_gone_holds_nothing(tmp_path, case, name):
    """Under the name that locks had in former versions as well."""
    text, silent, free = LOCKS[case]
    path = tmp_path / name
    path.write_text(text)
    os.utime(path, (time.time() - silent,) * 2)
    claim = FolderClaim(tmp_path)
    if free:
        claim.take(lambda: True)
        claim.release()
        assert not list(tmp_path.iterdir())
    else:
        with pytest.raises(
            RuntimeError, match=rf"delete {name} from the directory. Received: log_dir="
        ):
            claim.take(lambda: True)
        assert path.read_text() == text
