"""Live view of a directory that grows."""

import numpy as np
import pytest
from growing_run import GrowingRun
from histories import VARIABLES, window

from gradkeeper.callbacks import GradientHistory
from gradkeeper.callbacks.reporting.live.view import LiveView
from gradkeeper.callbacks.rules.registry import RuleRunner, default_rules
from gradkeeper.callbacks.sinks import ParquetSink


def steps_of(view):
    return [each.step for each in view.bins.done]


def test_a_view_follows_a_run_from_before_its_first_file(tmp_path):
    view = LiveView(tmp_path / "log")
    view.refresh()
    assert view.recorded == 0
    assert view.facts == {}
    run = GrowingRun(tmp_path / "log")
    for first in range(0, 300, 60):
        run.write(first, first + 60)
        view.refresh()
        assert view.recorded == first + 60
    history = GradientHistory.load(tmp_path / "log")
    assert view.layers == history.layers == ["rnn/cell", "dense"]
    assert steps_of(view) == history.steps.tolist()
    norms = np.stack([each.norms for each in view.bins.done])
    np.testing.assert_array_equal(norms[:, 0], history.global_norm)
    np.testing.assert_array_equal(norms[:, 1:], history.layer_norms)
    assert [each.loss for each in view.bins.done] == history.loss.tolist()
    np.testing.assert_array_equal(view.current_norms, norms[-1])
    assert view.facts["step"] == "299"
    assert view.facts["loss"] == "0.003333"
    assert view.facts["gradient norm"] == f"{300 * 3**0.5:.4g}"
    assert "learning rate" not in view.facts


def test_a_resumed_run_replaces_its_later_rows(tmp_path):
    view, run = LiveView(tmp_path), GrowingRun(tmp_path)
    run.write(0, 100)
    view.refresh()
    version = view.version
    run.resume(60)
    run.write(60, 80, scale=3.0)
    view.refresh()
    assert view.version != version
    assert view.recorded == 80
    assert steps_of(view) == list(range(80))
    assert view.bins.done[70].norms[2] == 3 * 71


def test_a_directory_that_another_run_replaces(tmp_path):
    view = LiveView(tmp_path)
    GrowingRun(tmp_path).write(0, 10)
    view.refresh()
    for part in tmp_path.glob("*.parquet"):
        part.unlink()
    view.refresh()
    assert view.recorded == 0
    assert view.layers == []


def test_rows_that_two_runs_have_written_are_shown_as_far_as_they_are_in_order(tmp_path):
    run = GrowingRun(tmp_path)
    run.write(0, 40)
    run.write(0, 20, scale=3.0)
    view = LiveView(tmp_path)
    for _ in range(2):
        view.refresh()
        assert steps_of(view) == list(range(40))


def test_findings_are_those_of_the_default_rules(tmp_path):
    norms = np.ones((200, 3), np.float32)
    norms[120:123] = 1e6
    norms[160:] = np.nan
    whole = window(norms)
    sink, view, counts = ParquetSink(tmp_path), LiveView(tmp_path), []
    for first in range(0, 200, 50):
        sink.write(whole[first : first + 50])
        view.refresh()
        counts.append(len(view.findings))
    rules = RuleRunner(default_rules(), warmup=0, verbose=False)
    rules.check(whole)
    assert {each.rule for each in rules.findings} >= {"exploding", "nonfinite"}
    assert sorted(view.findings, key=lambda each: each.step) == rules.findings
    assert counts[:2] == [0, 0]
    assert counts[2] > 0
    assert counts[3] > counts[2]
    assert np.isinf(view.current_norms).all()


def test_no_gradient_differs_from_nan(tmp_path):
    part = window([[1.0, 2.0, np.nan], [np.nan, 2.0, np.nan]])
    part.present[:, 2] = False
    ParquetSink(tmp_path).write(part)
    view = LiveView(tmp_path)
    view.refresh()
    np.testing.assert_array_equal(view.bins.done[0].norms, [5**0.5, 5**0.5, np.nan])
    np.testing.assert_array_equal(view.bins.done[1].norms, [np.inf, np.inf, np.nan])


def test_variables_that_train_later_add_layers(tmp_path):
    view = LiveView(tmp_path)
    run = GrowingRun(tmp_path, variables=VARIABLES[2:])
    run.write(0, 5)
    view.refresh()
    run.variables = VARIABLES
    run.write(5, 10)
    view.refresh()
    assert view.layers == ["dense", "rnn/cell"]
    np.testing.assert_array_equal(view.current_norms[1:], [10, 10 * 2**0.5])
    assert len(view.bins.done[0].norms) == 2


def test_a_long_run_is_shown_in_fewer_bins(tmp_path):
    view, run = LiveView(tmp_path), GrowingRun(tmp_path)
    run.write(0, 900)
    view.refresh()
    version = view.version
    run.write(900, 2500)
    view.refresh()
    assert view.version != version
    assert view.bins.size == 4
    assert view.recorded == 2500
    assert steps_of(view) == list(range(0, 2500, 4))


@pytest.mark.parametrize("delay", [False, True])
def test_replicas_of_all_workers_are_compared(tmp_path, delay):
    view = LiveView(tmp_path)
    runs = [GrowingRun(tmp_path, worker=worker) for worker in range(3)]
    for first in range(0, 60, 20):
        for run in runs[: 2 if delay else 3]:
            run.write(first, first + 20, replica_norm=1.0 if run.worker else np.nan)
        view.refresh()
    assert bool(view.findings) is not delay
    if delay:
        runs[2].write(0, 60, replica_norm=1.0)
        view.refresh()
    (finding,) = view.findings
    assert finding.message.startswith("The gradient of replica 0 is not finite")
    assert view.recorded == 60


def test_a_resumed_run_of_several_workers(tmp_path):
    view = LiveView(tmp_path)
    runs = [GrowingRun(tmp_path, worker=worker) for worker in range(2)]
    for run in runs:
        run.write(0, 40, replica_norm=1.0)
    view.refresh()
    for run in reversed(runs):  # the view sees the worker's part first
        run.resume(20)
        view.refresh()
        run.write(20, 30, replica_norm=2.0)
        view.refresh()
    assert view.recorded == 30
    assert view.findings == []
