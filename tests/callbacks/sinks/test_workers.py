"""Recordings of several workers: the folder of each worker and the merged history."""

import dataclasses

import numpy as np
import pytest
from histories import VARIABLES, window
from worker_processes import TwoWorkers

from gradkeeper.callbacks import GradientHistory
from gradkeeper.callbacks._workers import Worker, folders_of_others
from gradkeeper.callbacks.sinks import ParquetSink, read_all_workers
from gradkeeper.callbacks.sinks.multi import MultiSink
from gradkeeper.training.experiment.session import disagreements

ONES = [[1.0] * len(VARIABLES)]


def recent(steps):
    raise AssertionError("no step is missing in a sink")


def write(folder, worker, steps, size=1.0, parts=1):
    """Write steps of a worker with one replica, all norms equal to `size`."""
    sink = ParquetSink(Worker(worker, 9).folder_in(folder))
    for some in np.array_split(np.arange(steps), parts):
        norms = np.full((len(some), 1, len(VARIABLES)), size)
        part = window(ONES * len(some), first=some[0], replica_norms=norms)
        sink.write(dataclasses.replace(part, first_replica=worker))


def test_the_replicas_of_all_workers_are_merged(tmp_path):
    for worker in range(11):
        write(tmp_path, worker, 6, size=worker + 1.0, parts=1 + worker % 3)
    history = GradientHistory.load(tmp_path)
    assert history.steps.tolist() == list(range(6))
    assert history.first_replica == 0
    assert history.replica_norms[:, :, 0].tolist() == [[r + 1.0 for r in range(11)]] * 6


def test_steps_that_a_worker_lacks_have_the_chiefs_replicas(tmp_path):
    write(tmp_path, 0, 5, parts=2)
    write(tmp_path, 1, 4, parts=3)
    widths = {}
    for part in read_all_workers(tmp_path):
        widths |= dict.fromkeys(part.steps.tolist(), part.replica_norms.shape[1])
    assert widths == {0: 2, 1: 2, 2: 2, 3: 2, 4: 1}


def test_nan_of_another_worker_is_not_taken_for_a_step_that_it_lacks(tmp_path):
    write(tmp_path, 0, 3)
    write(tmp_path, 1, 3, size=np.nan)
    norms = GradientHistory.load(tmp_path).replica_global_norms
    assert np.isnan(norms).tolist() == [[False, True]] * 3


@pytest.mark.parametrize(
    ("size", "message"),
    [(np.nan, "The gradient of replica 1 is not finite"), (1e4, "norm of replica 1 has been")],
)
def test_a_replica_that_differs_from_those_of_other_workers_is_found(tmp_path, size, message):
    for worker in range(4):
        write(tmp_path, worker, 60, size=size if worker == 1 else 1.0)
    (finding,) = disagreements(tmp_path, 4)
    assert message in finding.message
    assert not list(disagreements(tmp_path, 5))


def test_a_worker_writes_to_its_own_folder(tmp_path):
    sinks = MultiSink(tmp_path / "log", tmp_path / "events", (), recent)
    sinks.open(lambda: True, Worker(2, 3))
    assert list(folders_of_others(tmp_path / "log")) == [2]
    assert (tmp_path / "log" / "worker-2" / "_gradients.lock").exists()
    assert not (tmp_path / "log" / "_gradients.lock").exists()


def test_where_fewer_workers_go_on_the_tracks_of_the_others_are_cut(tmp_path):
    for worker in (0, 1, 2):
        write(tmp_path, worker, 6)
    sinks = MultiSink(tmp_path, None, (), recent)
    sinks.open(lambda: True, Worker(0, 2))
    assert sum(map(len, sinks.truncate_from(4))) == 4
    tracks = folders_of_others(tmp_path).items()
    ends = {number: GradientHistory.load(folder).steps[-1] for number, folder in tracks}
    assert ends == {1: 5, 2: 3}


@pytest.mark.parametrize("jobs", [("worker",), ("chief", "worker")])
@pytest.mark.parametrize("number", [0, 1])
def test_workers_are_numbered_from_the_chief_on(number, jobs):
    worker = Worker.of(TwoWorkers(number, jobs))
    assert worker == Worker(number, 2)
    assert worker.folder_in("log").name == ("worker-1" if number else "log")


def test_folders_that_are_of_no_worker_are_passed_over(tmp_path):
    for name in ("worker-10", "worker-2", "worker-notes", "workers"):
        (tmp_path / name).mkdir()
    assert list(folders_of_others(tmp_path)) == [2, 10]
