"""Sinks in a background thread: they may block or raise, and training does not wait for them."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest
from histories import window
from models import compiled, fit

from gradkeeper.callbacks import Finding, GradientHistory, GradientMonitor
from gradkeeper.callbacks._workers import Worker
from gradkeeper.callbacks.rules import Rule
from gradkeeper.callbacks.sinks import JsonlSink, Sink, background
from gradkeeper.callbacks.sinks.background import BackgroundSink
from gradkeeper.callbacks.sinks.multi import MultiSink

FINDING = Finding(3, "dense", "spike", "warning", "One.", "Two.")


class Remote(Sink):
    """Sink of a server that blocks until `answers` is set, and raises `error` if it is set."""

    in_background = chief_only = True

    def __init__(self):
        self.answers = threading.Event()
        self.answers.set()
        self.error = None
        self.steps, self.findings, self.reports, self.calls = [], [], [], []

    def _call(self, name):
        self.calls.append((name, threading.current_thread()))
        assert self.answers.wait(60)
        if self.error is not None:
            raise self.error

    def start(self):
        self.calls.append(("start", threading.current_thread()))

    def write(self, window):
        self._call("write")
        self.steps += window.steps.tolist()

    def write_finding(self, finding):
        self._call("finding")
        self.findings.append(finding)

    def write_report(self, path):
        self._call("report")
        self.reports.append(path.read_text())

    def close(self):
        self._call("close")


class Run:
    """Monitor without a training: a history, and a sink that is written to in steps of ten."""

    def __init__(self, remote):
        self.history = GradientHistory()
        self.sink = BackgroundSink(remote, "sinks", self._recent)
        self.sink.open(lambda: True)

    def _recent(self, steps):
        return self.history.since(-steps) if steps else self.history.since(len(self.history))

    def flush(self, finding=None):
        """Record ten steps."""
        recorded = window(np.ones((10, 3)), first=len(self.history))
        self.history.append(recorded)
        if finding is not None:
            self.sink.write_finding(finding)
        self.sink.write(recorded)
        return self

    def wait(self):
        """Wait until the thread, if there is one, has ended."""
        if self.sink._thread is not None:
            self.sink._thread.join()
        return self


@pytest.fixture
def remote():
    remote = Remote()
    yield remote
    remote.answers.set()  # lets the threads end


def printed(capsys):
    return [line for line in capsys.readouterr().out.splitlines() if line]


def test_a_resumed_run_writes_the_steps_since_its_backup_again(remote):
    first = Run(remote).flush().wait()
    first.sink.close()
    resumed = Run(remote)
    assert list(resumed.sink.truncate_from(5)) == []
    again = window(np.ones((10, 3)), first=5)
    resumed.history.append(again)
    resumed.sink.write(again)
    resumed.wait()
    assert remote.steps == [*range(10), *range(5, 15)]


def test_a_sink_that_answers_has_everything(remote, tmp_path, capsys):
    run = Run(remote)
    for _ in range(3):
        run.flush().wait()
    run.flush(FINDING).wait()
    page = tmp_path / "report.html"
    page.write_text("report")
    run.sink.write_report(page)
    page.unlink()
    run.sink.close()
    assert remote.steps == list(range(40))
    assert remote.findings == [FINDING]
    assert remote.reports == ["report"]
    assert [name for name, _ in remote.calls] == [
        *["start", *["write"] * 4, "finding", "report", "close"]
    ]
    (name, first), *others = remote.calls
    assert (name, first) == ("start", threading.current_thread())
    assert all(thread.daemon and thread is not first for _, thread in others)
    assert not printed(capsys)


def test_no_call_waits_for_a_sink_that_blocks(remote, capsys):
    run = Run(remote)
    remote.answers.clear()
    for _ in range(20):
        run.flush(FINDING)
    assert [name for name, _ in remote.calls] == ["start", "write"]
    assert remote.steps == []
    remote.answers.set()
    run.wait().sink.close()
    assert remote.steps == list(range(200))
    assert len(remote.findings) == 20
    assert not printed(capsys)


def test_the_end_of_training_waits_a_bounded_time(remote, monkeypatch, capsys):
    monkeypatch.setattr(background, "CLOSE_TIMEOUT", 0.05)
    run = Run(remote)
    remote.answers.clear()
    run.flush().flush()
    run.sink.close()
    (line,) = printed(capsys)
    assert "the Remote of sinks raised TimeoutError: no response within 0.05 s" in line
    assert "may be missing there; the history is complete" in line
    monkeypatch.setattr(background, "CLOSE_TIMEOUT", 30.0)
    started = time.monotonic()
    run.flush().sink.close()  # of a later `fit`
    assert time.monotonic() - started < 15
    remote.answers.set()
    run.wait().sink.close()
    assert remote.steps == list(range(30))


def test_a_sink_that_blocks_is_reported_during_training_once(remote, monkeypatch, capsys):
    run = Run(remote)
    remote.answers.clear()
    run.flush().flush()
    assert not printed(capsys)
    monkeypatch.setattr(background, "_REPORT_AFTER", -1.0)
    monkeypatch.setattr(background, "CLOSE_TIMEOUT", 0.0)
    run.flush().flush().sink.close()
    (line,) = printed(capsys)
    assert "the Remote of sinks raised TimeoutError: no response for 0 s. Training and" in line


def test_an_exception_is_reported_once_and_the_steps_are_written_later(remote, capsys):
    run = Run(remote)
    run.flush().wait()
    remote.error = ConnectionError("refused")
    for _ in range(20):
        run.flush().wait()
    # The number of missing steps doubles from one attempt to the next.
    assert [name for name, _ in remote.calls].count("write") == 1 + 5
    remote.error = None
    run.flush(FINDING).sink.close()
    assert remote.steps == list(range(220))
    assert remote.findings == [FINDING]
    (line,) = printed(capsys)
    assert "the Remote of sinks raised ConnectionError: refused" in line


def test_steps_that_were_written_before_an_exception_are_not_written_again(remote):
    run = Run(remote)
    remote.answers.clear()
    run.flush()
    for _ in range(29):
        run.flush()
    remote.answers.set()
    run.wait()
    write, calls = remote.write, []

    def third_fails(window):
        calls.append(len(window))
        if len(calls) == 3:
            raise OSError
        write(window)

    remote.write = third_fails
    run.flush().wait()
    run.sink.close()
    assert calls == [100, 100, 100, 100]
    assert remote.steps == list(range(310))


def test_a_finding_that_was_not_sent_is_sent_again(remote):
    run = Run(remote)
    write_finding = remote.write_finding
    remote.write_finding = lambda finding: 1 / 0
    for _ in range(3):
        run.flush(FINDING).wait()
    remote.write_finding = write_finding
    run.sink.close()
    assert remote.findings == [FINDING] * 3
    assert remote.steps == list(range(30))


def test_a_finding_that_always_fails_does_not_block_the_others(remote, capsys):
    run, sent = Run(remote), []

    def write_finding(finding):
        if finding.rule == FINDING.rule:
            raise KeyError("unknown")
        sent.append(finding)

    remote.write_finding = write_finding
    other = dataclasses.replace(FINDING, rule="nonfinite")
    run.flush(FINDING).wait()
    run.flush(other).wait()
    run.sink.close()
    assert sent == [other]
    assert remote.steps == list(range(20))
    assert len(printed(capsys)) == 1


def test_a_sink_of_findings_is_called_for_findings_only(capsys):
    sent, attempts = [], []

    class Alerts(Sink):
        def write_finding(self, finding):
            attempts.append(len(run.history))
            if len(run.history) < 100:
                raise ConnectionError("refused")
            sent.append(finding)

    run = Run(Alerts())
    for _ in range(5):
        run.flush()
        assert run.sink._thread is None
    run.flush(FINDING).wait()
    for _ in range(20):
        run.flush().wait()
    assert attempts == [60, 80, 120]
    run.sink.close()
    assert sent == [FINDING]
    assert len(printed(capsys)) == 1


def test_a_thread_that_cannot_start_is_no_error_of_the_training(remote, monkeypatch, capsys):
    run = Run(remote)
    with monkeypatch.context() as patch:

        def start(thread):
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", start)
        run.flush()
    run.flush().sink.close()
    assert remote.steps == list(range(20))
    assert "can't start new thread" in printed(capsys)[0]


def test_only_the_chief_calls_a_sink_that_is_for_it(tmp_path):
    for number, expected in ((0, ["start", "close"]), (1, [])):
        remote = Remote()
        sinks = MultiSink(None, None, [remote], lambda steps: GradientHistory().since(0))
        assert sinks.takes_report
        sinks.open(lambda: True, Worker(number, 2))
        assert sinks.takes_report == (number == 0)
        sinks.close()
        assert [name for name, _ in remote.calls] == expected


ENDS = """
import os, sys, threading
sys.path.insert(0, sys.argv[1])
from histories import window
from gradkeeper.callbacks.sinks import Sink, background, fault_tolerant
from gradkeeper.callbacks.sinks.background import BackgroundSink

class Blocked(Sink):
    def write(self, window):
        print("blocked", flush=True)
        called.set()
        threading.Event().wait()

fault_tolerant.print_failure = lambda name, error, _: print(error)  # without TensorFlow
background.CLOSE_TIMEOUT = 0.01
called = threading.Event()
sink = BackgroundSink(Blocked(), "sinks", lambda steps: window([[1.0, 1, 1]] * steps))
sink.open(lambda: True)
sink.write(window([[1.0, 1, 1]]))
assert called.wait(60)
child = os.fork()
sink.close()
sink.write(window([[1.0, 1, 1]]))
print("parent" if child else "child", flush=True)
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_process_and_its_fork_end_while_a_sink_blocks():
    code = [sys.executable, "-c", ENDS, os.path.dirname(os.path.dirname(__file__))]
    ended = subprocess.run(code, capture_output=True, text=True, timeout=60, check=True)
    # The fork neither calls nor reports the sink.
    for text in ("blocked", "parent", "child", "no response within"):
        assert ended.stdout.count(text) == 1


@pytest.mark.eager
def test_training_is_the_same_with_faulty_sinks(remote, monkeypatch, capsys, tmp_path):
    model, data = compiled("dense")
    fit(model, data, epochs=2)
    expected = model.get_weights()

    monkeypatch.setattr(background, "CLOSE_TIMEOUT", 0.05)
    monkeypatch.setattr(
        "gradkeeper.callbacks.reporting.report.write_report",
        lambda path, history, findings, **_: path.write_text(f"{len(history)} steps") and path,
    )
    blocked, raising, alerts = Remote(), Remote(), []
    raising.error = ConnectionError("the tracker disappeared")
    blocked.answers.clear()
    lines = JsonlSink(tmp_path / "new" / "gradients.jsonl")
    # Closed after the sink that blocks, and before those that may need more time.
    lines.close = lambda: monkeypatch.setattr(background, "CLOSE_TIMEOUT", 60.0)
    monitor = GradientMonitor(
        rules=[EveryStep()],
        sinks=[blocked, lines, raising, remote],
        alerts=alerts.append,
        flush_every=1,
    )
    model, data = compiled("dense")
    fit(model, data, epochs=2, callbacks=[monitor, WaitFor(alerts)])
    blocked.answers.set()

    for one, other in zip(expected, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert monitor.history.steps.tolist() == list(range(6))
    faults = [line for line in printed(capsys) if "the Remote of sinks" in line]
    assert sorted("TimeoutError" in line for line in faults) == [False, True]
    assert remote.steps == list(range(6))
    assert remote.reports == ["6 steps"]
    assert remote.findings == alerts == monitor.findings
    assert [(finding.step, finding.layer) for finding in alerts] == [(0, "a"), (3, "b")]
    text = (tmp_path / "new" / "gradients.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == list(range(6))
    assert [row["finding"]["layer"] for row in rows if "finding" in row] == ["a", "b"]


class WaitFor(keras.callbacks.Callback):
    """Wait for the alert of step 3 at the next flush, before step 4; fail without it."""

    def __init__(self, alerts):
        super().__init__()
        self.alerts, self.step = alerts, 0

    def on_train_batch_begin(self, batch, logs=None):
        deadline = time.monotonic() + 60
        while self.step == 4 and len(self.alerts) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        self.step += 1


class EveryStep(Rule):
    """Rule with a finding in every step, of a layer that changes in step 3."""

    name = "every_step"

    def check(self, window):
        for step in window.steps.tolist():
            yield Finding(step, "ab"[step >= 3], self.name, "info", "A step.", "Wait.")
