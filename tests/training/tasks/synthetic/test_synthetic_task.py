"""Base class of synthetic tasks: batches, the evaluation split on disk, and epochs."""

import zlib

import keras
import numpy as np
import pytest

from gradkeeper.training.tasks.prepare import prepare
from gradkeeper.training.tasks.synthetic import synthetic_task
from gradkeeper.training.tasks.synthetic.synthetic_task import EVALUATION_EXAMPLES, EvaluationSplit

# Name and evaluation split on disk.
SPLITS = {
    "adding": "adding-length_20-variant_le",
    "copying": "copying-length_20-variant_arjovsky",
    "temporal_order": "temporal_order-length_20",
}
EVERY_TASK = pytest.mark.parametrize("name", SPLITS)


def batches(dataset, count):
    return [tuple(part.numpy() for part in batch) for batch in dataset.take(count)]


def everything(dataset):
    return tuple(np.concatenate(parts) for parts in zip(*batches(dataset, -1), strict=True))


def equal(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.slow
@EVERY_TASK
def test_training_never_repeats_an_example(name, load_20):
    task = load_20(name)
    assert task.train_dataset(50, endless=True).cardinality().numpy() == -1
    inputs = np.concatenate([inputs for inputs, _ in batches(task.train_dataset(50), 20)])
    evaluated, _ = everything(task.evaluation_dataset(500))
    rows = np.concatenate([inputs, evaluated]).reshape(len(inputs) + len(evaluated), -1)
    assert len(np.unique(rows, axis=0)) == len(rows)


@EVERY_TASK
def test_evaluation_split_is_prepared_once(name, load_20, data_dir, monkeypatch):
    first = everything(load_20(name, seed=1).evaluation_dataset(300))

    def refuse(builder):
        raise AssertionError("generated again")

    monkeypatch.setattr(EvaluationSplit, "_generate_examples", refuse)
    assert equal(first, everything(load_20(name, seed=2).evaluation_dataset(128)))
    folder = data_dir / "gradkeeper_evaluation" / SPLITS[name] / "1.0.0"
    assert len(list(folder.glob("*.tfrecord*"))) == 1


def test_each_choice_of_options_has_its_own_split(load_20):
    task = load_20("selective_copying", symbols=3)
    assert task.options == {"length": 20, "symbols": 3, "alphabet": 10}
    name = task.evaluation_builder().builder_config.name
    assert name == "selective_copying-length_20-symbols_3-alphabet_10"


@EVERY_TASK
def test_evaluation_split_equals_drawn_samples(name, load_20):
    task = load_20(name)
    drawn = everything(
        task.evaluation_builder().builder_config.examples.batch(500).map(task.to_model)
    )
    assert equal(drawn, everything(task.evaluation_dataset(500)))


# If this fails because a task draws other numbers, increase its `version`.
@pytest.mark.parametrize(
    ("name", "options", "checksum"),
    [
        ("adding", {}, 941180268),
        ("adding", {"variant": "bai"}, 1961934465),
        ("copying", {}, 231591324),
        ("copying", {"variant": "bai"}, 2065088529),
        ("parity", {}, 3183949600),
        ("selective_copying", {}, 3105782271),
        ("temporal_order", {}, 3935465526),
    ],
)
def test_evaluation_split_of_former_releases(name, options, checksum, load_20):
    inputs, targets, *_ = everything(load_20(name, **options).evaluation_dataset(500))
    drawn = zlib.crc32(inputs.tobytes() + targets.tobytes())
    assert drawn == checksum


@EVERY_TASK
def test_steps_per_epoch(name, load_20):
    assert [load_20(name).steps_per_epoch(size) for size in (50, 3_000)] == [200, 4]


def test_two_processes_prepare_the_same_split(load_20, tmp_path, monkeypatch):
    first, second = (load_20("adding", data_dir=tmp_path).evaluation_builder() for _ in range(2))
    generate = second._generate_examples

    def overtaken():
        prepare(first)
        yield from generate()

    monkeypatch.setattr(second, "_generate_examples", overtaken)
    prepare(second)
    assert second.as_dataset(split="test").cardinality().numpy() == EVALUATION_EXAMPLES


def test_fit_for_two_epochs(load_20, monkeypatch):
    monkeypatch.setattr(synthetic_task, "EXAMPLES_PER_EPOCH", 12)
    task = load_20("adding", length=2)
    layers = [keras.Input(task.input_shape), keras.layers.Flatten(), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile("sgd", task.loss)
    model.fit(task.train_dataset(5), epochs=2, shuffle=False, verbose=0)
    assert int(model.optimizer.iterations) == 6
