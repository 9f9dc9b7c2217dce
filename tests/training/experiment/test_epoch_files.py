"""Files that are written after each epoch."""

import numpy as np

from gradkeeper.callbacks import TemporalGradientFlow
from gradkeeper.callbacks.flow import GradientFlow, StateFlow
from gradkeeper.training.experiment.epoch_files import (
    FlowFiles,
    MetricsFile,
    read_flows,
    read_metrics,
    write_flow,
    write_metrics,
)


def test_flow_round_trip(tmp_path):
    flow = GradientFlow((StateFlow("rnn", "h", np.array([[0.5, np.nan], [1.0, 2.0]])),), 0.25)
    write_flow(tmp_path, 3, flow)
    (again,) = read_flows(tmp_path).values()
    assert again.loss == 0.25
    assert (again.states[0].layer, again.states[0].state) == ("rnn", "h")
    np.testing.assert_array_equal(again.states[0].norms, flow.states[0].norms)


def test_later_flows_are_deleted_when_a_run_is_resumed(tmp_path):
    for epochs in range(4):
        write_flow(tmp_path, epochs, GradientFlow((StateFlow("rnn", "h", np.ones((2, 1))),), 0.5))
    callback = TemporalGradientFlow(np.zeros((1, 6, 2)))
    FlowFiles(tmp_path, callback, first_epoch=2)
    assert list(read_flows(tmp_path)) == list(callback.flows) == [0, 1, 2]


def test_later_metrics_are_deleted_when_a_run_is_resumed(tmp_path):
    rows = [{"epoch": epoch, "step": 4 * epoch, "seconds": 0.5} for epoch in range(3)]
    write_metrics(tmp_path / "metrics.csv", rows)
    resumed = MetricsFile(tmp_path / "metrics.csv", first_epoch=1)
    assert resumed.columns == {"epoch": [0.0], "step": [0.0], "seconds": [0.5]}
    resumed.on_train_begin()
    assert read_metrics(tmp_path / "metrics.csv") == rows[:1]
