"""Properties of all tasks: shapes, seeds, endless training, fixed evaluation and a model."""

import functools
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from gradkeeper.training import ExperimentConfig, list_tasks, load_task
from gradkeeper.training.experiment.experiment import build_model

MODELS = {"sequence_to_sequence": "seq2seq_attention"}
EVERY_TASK = pytest.mark.parametrize("name", list_tasks())


def flat(batches, count=-1):
    """Return all arrays of the first `count` batches in one list."""
    return [part.numpy() for batch in batches.take(count) for part in tf.nest.flatten(batch)]


def whole(batches):
    """Return each part of an evaluation split with its batches joined."""
    parts = zip(*(tf.nest.flatten(batch) for batch in batches), strict=True)
    return [np.concatenate(part) for part in parts]


def equal(one, other):
    return len(one) == len(other) and all(map(np.array_equal, one, other))


def fits(shape, expected):
    return len(shape) == len(expected) and all(
        want is None or got == want for got, want in zip(shape, expected, strict=True)
    )


def small_model(task):
    """Return a small version of the model that an experiment builds."""
    model = MODELS.get(task.head, "gru")
    config = ExperimentConfig(model, task.name, units=3)
    return build_model(config, task, steps_per_epoch=1)


@pytest.fixture(scope="module")
def data(load):
    """Return `data(name)`: a task and its datasets, built once for all tests."""

    @functools.cache
    def data(name):
        task = load(name, seed=5)
        return SimpleNamespace(
            task=task,
            epochs=task.train_dataset(8),
            endless=task.train_dataset(8, endless=True),
            evaluation=task.evaluation_dataset(500),
        )

    return data


@pytest.mark.slow
@EVERY_TASK
def test_shapes_types_and_baseline(name, data):
    task = data(name).task
    inputs, targets, *weights = next(iter(data(name).endless))
    tokens = len(task.input_shape) == 1
    if task.head == "sequence_to_sequence":
        assert inputs.keys() == {"source", "target"}
        assert inputs["target"].shape == targets.shape
        inputs = inputs["source"]
    assert fits(inputs.shape, (8, *task.input_shape))
    assert inputs.dtype == (tf.int32 if tokens else tf.float32)
    steps = {"regression": [task.output_units], "classification": []}
    expected = steps.get(task.head, [None, None] if name == "jsb_chorales" else [None])
    assert fits(targets.shape, (8, *expected))
    floats = task.head == "regression" or name == "jsb_chorales"
    assert targets.dtype == (tf.float32 if floats else tf.int32)
    for weight in weights:
        assert (weight.shape, weight.dtype) == (targets.shape[:2], tf.float32)
    assert math.isfinite(task.baseline)
    assert task.baseline > 0
    assert task.baseline_label
    specs = [data(name).epochs.element_spec, data(name).evaluation.element_spec]
    first, second = ([spec.dtype for spec in tf.nest.flatten(each)] for each in specs)
    assert first == second


@pytest.mark.slow
@EVERY_TASK
def test_seeds_and_options_determine_the_batches(name, data, load):
    task = data(name).task
    batches = flat(data(name).endless, 3)
    assert not equal(batches, flat(load(name, seed=6).train_dataset(8, endless=True), 3))
    options = json.loads(json.dumps(task.options))
    twin = load_task(task.name, data_dir=task.data_dir, seed=task.seed, **options)
    assert twin.options == task.options
    assert twin.baseline == task.baseline
    assert equal(batches, flat(twin.train_dataset(8, endless=True), 3))


@pytest.mark.slow
@EVERY_TASK
def test_evaluation_split_is_the_same_for_every_seed_and_batch_size(name, data, load):
    first, other = data(name).evaluation, load(name, seed=6).evaluation_dataset(3)
    parts = whole(first)
    assert [each.cardinality().numpy() for each in (first, other)] == [
        math.ceil(len(parts[0]) / size) for size in (500, 3)
    ]
    assert equal(parts, whole(other))


@EVERY_TASK
def test_no_dataset_is_cached(name, load, monkeypatch):
    """Under a strategy, `Dataset.cache` can lose elements."""
    monkeypatch.delattr(tf.data.Dataset, "cache")
    task = load(name)
    for batches in (task.train_dataset(8, endless=True), task.evaluation_dataset(8)):
        assert batches.cardinality().numpy() != 0


@EVERY_TASK
def test_endless_dataset(name, data):
    task, batches = data(name).task, data(name).endless
    assert batches.cardinality().numpy() == tf.data.INFINITE_CARDINALITY
    assert batches.options().autotune.enabled is False  # freeing it would wait for up to a minute
    assert task.steps_per_epoch(8) >= 1
    steps = min(task.steps_per_epoch(8), 20) + 4
    drawn = flat(batches, steps)
    parts = len(drawn) // steps
    assert {len(each) for each in drawn[::parts]} == {8}
    assert equal(drawn[3 * parts :], flat(batches.skip(3), steps - 3))


@pytest.mark.slow
@EVERY_TASK
def test_each_iteration_is_another_epoch(name, data):
    task, epochs = data(name).task, data(name).epochs
    steps = min(task.steps_per_epoch(8), 3)
    assert epochs.cardinality().numpy() == task.steps_per_epoch(8)
    first, second = flat(epochs, steps), flat(epochs, steps)
    assert equal(first, flat(data(name).endless, steps))
    assert not equal(first, second)
    assert equal(second, flat(task._batches_from(8, 1), steps))


@pytest.mark.slow
@pytest.mark.eager
@EVERY_TASK
def test_model_of_the_zoo_is_trained_and_evaluated_exactly(name, data):
    task, evaluation = data(name).task, data(name).evaluation
    model = small_model(task)
    model.fit(data(name).endless, steps_per_epoch=1, shuffle=False, verbose=0)
    splits, is_padded = [evaluation], len(evaluation.element_spec) == 3
    if is_padded:
        rows = len(whole(evaluation)[0])
        splits.append(task.evaluation_dataset(max(rows // 2 + 1, 3)))
    logs = [model.evaluate(split, return_dict=True, verbose=0) for split in splits]
    assert all(metric.variables for metric in task.metrics)  # else the step is traced twice
    assert logs[0].keys() == {"loss", *(metric.name for metric in task.metrics)}
    assert logs[0] == pytest.approx(logs[-1], rel=1e-5)
