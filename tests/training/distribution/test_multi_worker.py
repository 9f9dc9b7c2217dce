"""`enable_multi_worker`: two processes train as one device does, with monitor and guard."""

import json
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import on_every_worker
import pytest
import tensorflow as tf
from models import compiled
from worker_processes import TwoWorkers, run_workers

from gradkeeper.callbacks import Capsule, GradientHistory, replay
from gradkeeper.training import enable_multi_worker
from gradkeeper.training.distribution import keras_private

ALONE = tf.distribute.get_strategy()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("workers")


@pytest.fixture(scope="module")
def workers(folder):
    """Return the results of two workers."""
    return run_workers(on_every_worker.__file__, folder)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Return the records of monitor and guard on one device."""
    return on_every_worker.observed(ALONE, tmp_path_factory.mktemp("alone"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", on_every_worker.OPTIMIZERS)
def test_two_workers_equal_one_device(workers, kind):
    alone = on_every_worker.trained(kind, ALONE)
    first, second = (worker[kind] for worker in workers)
    assert first == second
    assert len(alone["losses"]) in (12, 102)
    np.testing.assert_allclose(first["losses"], alone["losses"], rtol=1e-5)
    for name in alone.keys() - {"losses", "weights"}:
        np.testing.assert_allclose(first[name], alone[name], rtol=1e-4, atol=1e-6, err_msg=name)
    for a, b in zip(first["weights"], alone["weights"], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_logs_of_a_custom_train_step(workers):
    for worker in workers:
        assert worker["own step"] == {"own": [9.5], "vector": [[1.0, 3.0]]}


def test_non_finite_step_of_one_worker_is_skipped_on_all(workers, alone):
    first, second = (worker["observed"] for worker in workers)
    assert (first["skipped"], second["skipped"], alone["skipped"]) == (1, 1, 1)
    for a, b in zip(first["weights"], alone["weights"], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert first["weights"] == second["weights"]


def test_replica_with_the_nan_is_named(workers):
    first, second = (worker["observed"] for worker in workers)
    assert (first["replicas"], second["replicas"]) == ([[]], [[1]])
    assert "on another worker" in first["events"][0]
    first, second = (worker["unguarded"][0] for worker in workers)
    assert "The source is a replica of another worker." in first
    assert "The source is replica 1." in second


def test_every_worker_records_the_gradient_of_the_global_batch(workers, alone):
    first, second = (worker["observed"] for worker in workers)
    assert first["steps"] == second["steps"] == list(range(6))
    np.testing.assert_array_equal(first["norms"], second["norms"])
    np.testing.assert_allclose(first["norms"], alone["norms"], rtol=1e-5)
    assert first["skipped_rows"] == [False] * 4 + [True, False]
    assert first["logged"] == [1]


def test_history_on_disk_has_the_replicas_of_all_workers(workers, folder):
    first, second = (worker["observed"] for worker in workers)
    history = GradientHistory.load(folder / "gradients")
    both = np.hstack([first["replica_norms"], second["replica_norms"]])
    np.testing.assert_array_equal(history.replica_global_norms, both)
    assert np.isnan(both[4]).tolist() == [False, True]
    own = GradientHistory.load(folder / "gradients" / "worker-1")
    assert own.first_replica == 1
    np.testing.assert_array_equal(own.replica_global_norms, second["replica_norms"])


def test_capsule_of_the_worker_with_the_nan(workers, folder):
    first, second = (Path(worker["observed"]["capsules"][0]) for worker in workers)
    assert first.parent == folder / "capsules"
    assert second.parent == folder / "capsules" / "worker-1"
    assert "data" in str(replay(second))
    assert Capsule.read(first).replicas == []


def test_model_is_unchanged_on_one_machine():
    model, _ = compiled("dense")
    before = set(vars(model))
    assert enable_multi_worker(model) is model
    assert set(vars(model)) == before


def test_model_outside_the_scope_of_several_workers_is_refused(monkeypatch):
    model, _ = compiled("dense")
    cluster = {"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    with pytest.raises(ValueError, match=r"names 3 workers.*Received: a model under _Default"):
        enable_multi_worker(model)


def test_untested_keras_is_refused(monkeypatch):
    monkeypatch.setattr(keras, "__version__", "3.99.0")
    assert not keras_private.is_tested()
    with pytest.raises(
        RuntimeError, match=r"Install one of these versions. Received: keras 3.99.0"
    ):
        enable_multi_worker(SimpleNamespace(distribute_strategy=TwoWorkers()))
