"""`gradkeeper watch`."""

import re
import signal
import subprocess
import sys
import urllib.request

import numpy as np
import pytest

from gradkeeper.callbacks import Window
from gradkeeper.callbacks.sinks import ParquetSink


def write(log_dir):
    norms, there = np.ones((3, 1), np.float32), np.ones((3, 1), bool)
    window = Window(np.arange(3), ("out/kernel",), there, there, {"norm": norms})
    ParquetSink(log_dir).write(window)


@pytest.mark.parametrize("is_run", [False, True])
def test_without_a_terminal_the_state_is_printed_once(run, tmp_path, is_run):
    if is_run:
        (tmp_path / "config.json").write_text("{}")
    write(tmp_path / "gradients" if is_run else tmp_path)
    output = run("watch", tmp_path).output
    assert "step 2" in output
    assert "No findings." in output


def test_waiting_does_not_need_the_directory(run, tmp_path):
    assert "Waiting for" in run("watch", tmp_path / "later").output
    assert not list(tmp_path.iterdir())


# A shell's background job ignores SIGINT, and its child processes inherit this.
MAIN = """
import signal, sys
from gradkeeper.training.cli import app
signal.signal(signal.SIGINT, signal.default_int_handler)
try: app(sys.argv[1:])
except SystemExit as end: assert not end.code, end.code
heavy = {'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)
assert not heavy, heavy
"""


def test_the_page_is_served_until_ctrl_c_without_importing_tensorflow(tmp_path):
    write(tmp_path)
    command = [sys.executable, "-c", MAIN, "watch", str(tmp_path), "--serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        address = re.search(r"http://\S+", process.stdout.readline())[0]
        with urllib.request.urlopen(f"{address}/data", timeout=10) as answer:
            assert b'"step": "2"' in answer.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
