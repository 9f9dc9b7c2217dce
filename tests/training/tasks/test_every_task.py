"""Properties of all tasks: shapes, seeds, endless training, fixed evaluation and a model."""

import json
import math

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


@EVERY_TASK
def test_shapes_types_and_baseline(name, load):
    task = load(name)
    inputs, targets, *weights = next(iter(task.train_dataset(6)))
    tokens = len(task.input_shape) == 1
    if task.head == "sequence_to_sequence":
        assert inputs.keys() == {"source", "target"}
        assert inputs["target"].shape == targets.shape
        inputs = inputs["source"]
    assert fits(inputs.shape, (6, *task.input_shape))
    assert inputs.dtype == (tf.int32 if tokens else tf.float32)
    steps = {"regression": [task.output_units], "classification": []}
    expected = steps.get(task.head, [None, None] if name == "jsb_chorales" else [None])
    assert fits(targets.shape, (6, *expected))
    floats = task.head == "regression" or name == "jsb_chorales"
    assert targets.dtype == (tf.float32 if floats else tf.int32)
    for weight in weights:
        assert (weight.shape, weight.dtype) == (targets.shape[:2], tf.float32)
    assert math.isfinite(task.baseline)
    assert task.baseline > 0
    assert task.baseline_label
    specs = [task.train_dataset(6).element_spec, task.evaluation_dataset(4).element_spec]
    first, second = ([spec.dtype for spec in tf.nest.flatten(each)] for each in specs)
    assert first == second


@EVERY_TASK
def test_seeds_and_options_determine_the_batches(name, load):
    task = load(name, seed=5)
    batches = flat(task.train_dataset(4, endless=True), 3)
    assert not equal(batches, flat(load(name, seed=6).train_dataset(4, endless=True), 3))
    options = json.loads(json.dumps(task.options))
    twin = load_task(task.name, data_dir=task.data_dir, seed=task.seed, **options)
    assert twin.options == task.options
    assert twin.baseline == task.baseline
    assert equal(batches, flat(twin.train_dataset(4, endless=True), 3))


@EVERY_TASK
def test_evaluation_split_is_the_same_for_every_seed_and_batch_size(name, load):
    first, other = (
        load(name, seed=seed).evaluation_dataset(size) for seed, size in [(1, 3), (2, 64)]
    )
    assert [each.cardinality().numpy() for each in (first, other)] == [
        math.ceil(len(whole(first)[0]) / size) for size in (3, 64)
    ]
    assert equal(whole(first), whole(other))


@EVERY_TASK
def test_endless_dataset(name, load):
    task = load(name)
    data = task.train_dataset(8, endless=True)
    assert data.cardinality().numpy() == tf.data.INFINITE_CARDINALITY
    assert task.steps_per_epoch(8) >= 1
    steps = min(task.steps_per_epoch(8), 20) + 4
    batches = flat(data, steps)
    parts = len(batches) // steps
    assert {len(each) for each in batches[::parts]} == {8}
    assert equal(batches[3 * parts :], flat(data.skip(3), steps - 3))


@EVERY_TASK
def test_each_iteration_is_another_epoch(name, load):
    task = load(name)
    steps = min(task.steps_per_epoch(8), 3)
    data = task.train_dataset(8)
    assert data.cardinality().numpy() == task.steps_per_epoch(8)
    first, second = flat(data, steps), flat(data, steps)
    assert equal(first, flat(task.train_dataset(8, endless=True), steps))
    assert not equal(first, second)
    assert equal(second, flat(task._batches_from(8, 1), steps))


@EVERY_TASK
def test_model_of_the_zoo_is_trained_and_evaluated_exactly(name, load):
    task = load(name)
    model = small_model(task)
    model.run_eagerly = True  # tracing takes longer than a step
    model.fit(task.train_dataset(4), steps_per_epoch=1, shuffle=False, verbose=0)
    parts = whole(task.evaluation_dataset(500))
    rows, padded = len(parts[0]), len(task.evaluation_dataset(1).element_spec) == 3
    sizes = (max(rows // 2 + 1, 3), rows) if padded else (rows,)
    logs = [
        model.evaluate(task.evaluation_dataset(size), return_dict=True, verbose=0) for size in sizes
    ]
    assert logs[0].keys() == {"loss", *(metric.name for metric in task.metrics)}
    assert logs[0] == pytest.approx(logs[-1], rel=1e-5)
