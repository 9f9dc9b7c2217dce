"""Script of `test_resumption.py`: an uninterrupted experiment, and one that is often killed.

    python kill_and_resume.py FOLDER

Each training is a fork of this process, which has imported TensorFlow without using it, so that
the training starts without delay.
"""

import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import keras
import tensorflow as tf

from gradkeeper.training import Experiment

KILLS = 3
EPOCHS = 8
SECONDS = 300


class StandsStill(keras.callbacks.Callback):
    """Pause training after two epochs, so that no attempt before the last one completes the run."""

    def __init__(self):
        super().__init__()
        self._begun = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._begun += 1
        if self._begun > 2:
            time.sleep(2 * SECONDS)


def experiment(folder, run_dir, **options):
    """Return an experiment with random batches, weights, dropout and zoneout."""
    return Experiment(
        "zoneout_lstm",
        "adding",
        units=4,
        num_layers=2,
        model_options={"dropout": 0.2},
        task_options={"length": 5},
        batch_size=40,
        epochs=EPOCHS,
        steps_per_epoch=2,
        schedule="cosine",
        global_clipnorm=0.5,
        seed=5,
        strategy="one_device",
        data_dir=folder / "data",
        run_dir=run_dir,
        **options,
    )


def fork(folder, run_dir, callbacks=()):
    """Fork a process that starts or resumes a training, and return its process id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        resume = (run_dir / "config.json").exists()
        experiment(folder, run_dir, resume=resume, callbacks=callbacks).run(verbose=0)
        os._exit(0)
    except BaseException:  # noqa: BLE001 (the fork must not run the parent's code)
        traceback.print_exc()
        os._exit(1)


def wait(pid):
    _, status = os.waitpid(pid, 0)
    if not os.WIFEXITED(status) or os.WEXITSTATUS(status):
        sys.exit(f"A training ended with {status}")


def kill_somewhere(pid, run_dir, chance):
    """Kill a training while it starts, or shortly after its next epoch."""
    if chance.random() < 0.2:
        time.sleep(chance.uniform(0, 3))
    else:
        wait_for_an_epoch(pid, run_dir / "metrics.csv")
        time.sleep(chance.uniform(0, 0.2))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def wait_for_an_epoch(pid, metrics):
    begun = time.time()
    before = metrics.stat().st_mtime_ns if metrics.exists() else 0
    written = 0  # the first write can be the one at the start of training
    while written < 2:
        if os.waitpid(pid, os.WNOHANG)[0]:
            sys.exit("The training has ended before it could be killed")
        if time.time() - begun > SECONDS:
            os.kill(pid, signal.SIGKILL)
            sys.exit("The training has not begun before it could be killed")
        now = metrics.stat().st_mtime_ns if metrics.exists() else 0
        written, before = written + (now != before), now
        time.sleep(0.01)


def main(folder):
    chance = random.Random()
    wait(fork(folder, folder / "uninterrupted"))
    for _ in range(KILLS):
        pid = fork(folder, folder / "killed", [StandsStill()])
        kill_somewhere(pid, folder / "killed", chance)
    wait(fork(folder, folder / "killed"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
