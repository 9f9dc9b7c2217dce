"""Experiments on several devices and several workers, compared with one device."""

import json
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from worker_processes import TwoWorkers, run_workers, start_workers

from gradkeeper.training import Experiment, Result, compare, make_strategy
from gradkeeper.training.distribution.strategies import sharded

pytestmark = pytest.mark.usefixtures("undrawn")

COMPARED = ("loss", "val_loss", "grad_norm", "grad_norm_applied")
WORKER = """
import json, sys
from gradkeeper.training import Experiment
arguments = json.loads(sys.argv[1])
result = Experiment(**arguments, strategy="multi_worker").run(verbose=0)
print(json.dumps({"status": result.status, "val_loss": result.metrics["val_loss"]}))
"""


@pytest.fixture(scope="module")
def clipped(small):
    """Return the arguments of an experiment of four epochs of 26 steps."""
    return {**small, "global_clipnorm": 0.1, "epochs": 4, "steps_per_epoch": 26, "seed": 3}


@pytest.fixture(scope="module")
def alone(clipped, tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "alone"
    return Experiment(**clipped, strategy="one_device", run_dir=place).run(verbose=0)


@pytest.fixture(scope="module")
def brief(small):
    """Return the arguments of an experiment of two epochs of 4 steps."""
    return {**small, "global_clipnorm": 0.1, "epochs": 2, "seed": 3}


@pytest.fixture(scope="module")
def briefly_alone(brief, tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "brief"
    return Experiment(**brief, strategy="one_device", run_dir=place).run(verbose=0)


@pytest.fixture(scope="module")
def by_workers(clipped, tmp_path_factory):
    """Return the run of two workers, killed once and resumed, and each worker's final output."""
    place = tmp_path_factory.mktemp("runs") / "workers"
    arguments = {**clipped, "data_dir": str(clipped["data_dir"]), "run_dir": str(place)}
    processes = start_workers("-c", WORKER, json.dumps(arguments))
    metrics = place / "metrics.csv"
    try:
        while not (metrics.exists() and len(metrics.read_text().splitlines()) > 2):
            assert all(process.poll() is None for process in processes), processes[0].communicate()
            time.sleep(0.05)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    said = run_workers("-c", WORKER, json.dumps({**arguments, "resume": True}))
    return Result.load(place), said


def assert_equal_runs(one, other):
    for name in COMPARED:
        np.testing.assert_allclose(one.metrics[name], other.metrics[name], rtol=1e-5, err_msg=name)
    np.testing.assert_array_equal(one.history.steps, other.history.steps)
    np.testing.assert_allclose(one.history.norms, other.history.norms, rtol=1e-4, atol=1e-7)


def test_mirrored_has_all_devices(brief, tmp_path):
    several = Experiment(**brief, strategy="mirrored", run_dir=tmp_path / "run")
    assert several.strategy is make_strategy("mirrored")
    devices = tf.config.list_logical_devices("CPU")
    assert several.strategy.num_replicas_in_sync == len(devices)
    assert several.config.strategy == "mirrored"


@pytest.mark.slow
def test_mirrored_replicas_equal_one_device(briefly_alone, brief, two_replicas, tmp_path):
    own = Experiment(**brief, strategy=two_replicas, flow=True, run_dir=tmp_path / "run")
    result = own.run(verbose=0)
    assert own.config.strategy == result.config["strategy"] == "mirrored"
    assert len(result.flows) == 3
    assert result.history.replica_norms.shape[1] == 2
    assert_equal_runs(result, briefly_alone)
    np.testing.assert_allclose(result.history.loss, briefly_alone.history.loss, rtol=1e-4)


@pytest.mark.slow
def test_two_workers_killed_and_resumed_equal_one_device(alone, by_workers):
    result, _ = by_workers
    assert_equal_runs(result, alone)
    assert result.history.steps.tolist() == list(range(104))


@pytest.mark.slow
def test_other_worker_writes_only_its_gradients(by_workers):
    result, said = by_workers
    assert said[0] == said[1] == {"status": "finished", "val_loss": result.metrics["val_loss"]}
    own = result.run_dir / "gradients" / "worker-1"
    assert {path.name.partition("-")[0] for path in own.iterdir()} == {"gradients"}
    assert result.history.replica_norms.shape[1] == 2
    assert not np.isnan(result.history.replica_norms).any()
    keras.saving.load_model(result.run_dir / "model.keras")


@pytest.mark.slow
def test_one_device_resumes_the_run_of_two_workers(alone, by_workers, tmp_path):
    result, _ = by_workers
    place = {"run_dir": result.run_dir, "strategy": "one_device", "resume": True}
    longer = Experiment.from_config(result.config, epochs=5, **place).run(verbose=0)
    assert longer.metrics["step"] == [26, 52, 78, 104, 130]
    assert longer.metrics["loss"][:4] == result.metrics["loss"]
    replicas = np.isnan(longer.history.replica_norms).all(axis=(1, 2))
    assert replicas.tolist() == [False] * 104 + [True] * 26


def test_auto_is_one_device_without_a_second_gpu():
    assert make_strategy() is make_strategy("one_device") is tf.distribute.get_strategy()


def test_strategy_is_created_once():
    assert make_strategy("mirrored") is make_strategy("mirrored")
    assert make_strategy("mirrored").num_replicas_in_sync > 1


def test_sharding_policy():
    options = sharded(tf.data.Dataset.range(4).batch(2)).options()
    policy = options.experimental_distribute.auto_shard_policy
    assert policy == tf.data.experimental.AutoShardPolicy.DATA


@pytest.mark.parametrize(
    ("name", "cluster", "message"),
    [
        ("mirored", "", "Did you mean 'mirrored'.*Received: strategy='mirored'"),
        ("multi_worker", "", 'reads the machines from.*Received: TF_CONFIG=""'),
        ("auto", "{", "TF_CONFIG is not a JSON object. Received: '{'"),
        ("auto", "[1]", r"TF_CONFIG is not a JSON object. Received: '\[1\]'"),
    ],
)
def test_unknown_strategy_is_refused(name, cluster, message, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", cluster)
    with pytest.raises(ValueError, match=message):
        make_strategy(name)


def test_several_workers_need_a_run_directory(small):
    with pytest.raises(ValueError, match=r"need the same `run_dir`.*Received: run_dir=None"):
        Experiment(**small, strategy=TwoWorkers())


def test_comparison_on_several_workers_is_refused(small, tmp_path):
    options = {name: value for name, value in small.items() if name not in ("model", "task")}
    with pytest.raises(ValueError, match="Received: strategy='multi_worker'"):
        compare(["gru"], **options, strategy=TwoWorkers(), run_dir=tmp_path / "runs")
