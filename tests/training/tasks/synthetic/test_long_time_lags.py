"""Adding, copying and temporal order: generated numbers, guarantees and files on disk."""

import itertools
import zlib

import keras
import numpy as np
import pytest

from gradkeeper.training import load_task
from gradkeeper.training.tasks.prepare import prepare
from gradkeeper.training.tasks.synthetic.synthetic_task import EVALUATION_EXAMPLES, EvaluationSplit

NAMES = ("adding", "copying", "temporal_order")
LENGTH = 20
EVERY_TASK = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="module")
def load(data_dir):
    defaults = {"data_dir": data_dir, "length": LENGTH}
    return lambda name, **options: load_task(name, **{**defaults, **options})


def batches(dataset, count):
    return [tuple(part.numpy() for part in batch) for batch in dataset.take(count)]


def everything(dataset):
    return tuple(np.concatenate(parts) for parts in zip(*batches(dataset, -1), strict=True))


def equal(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@EVERY_TASK
def test_batches_have_the_promised_shape(name, load):
    task = load(name)
    inputs, targets = batches(task.train_dataset(7), 1)[0]
    assert inputs.shape == (7, *task.input_shape)
    assert (
        targets.shape
        == {"adding": (7, 1), "copying": (7, LENGTH + 20), "temporal_order": (7,)}[name]
    )
    evaluated = task.evaluation_dataset(64)
    assert [spec.dtype for spec in evaluated.element_spec] == [inputs.dtype, targets.dtype]
    assert everything(evaluated)[0].shape == (EVALUATION_EXAMPLES, *task.input_shape)


@EVERY_TASK
def test_one_seed_gives_one_order_and_another_seed_another(name, load):
    first, again, other = (
        batches(load(name, seed=seed).train_dataset(4, endless=True), 3) for seed in (5, 5, 6)
    )
    assert all(itertools.starmap(equal, zip(first, again, strict=True)))
    assert not any(itertools.starmap(equal, zip(first, other, strict=True)))


@EVERY_TASK
def test_training_is_endless_and_never_repeats(name, load):
    task = load(name)
    assert task.train_dataset(50, endless=True).cardinality().numpy() == -1
    inputs = np.concatenate([inputs for inputs, _ in batches(task.train_dataset(50), 20)])
    evaluated, _ = everything(task.evaluation_dataset(500))
    rows = np.concatenate([inputs, evaluated]).reshape(len(inputs) + len(evaluated), -1)
    assert len(np.unique(rows, axis=0)) == len(rows)


@EVERY_TASK
def test_evaluation_split_is_prepared_once_and_the_same_for_every_seed(
    name, load, data_dir, monkeypatch
):
    first = everything(load(name, seed=1).evaluation_dataset(300))

    def refuse(builder):
        raise AssertionError("generated again")

    monkeypatch.setattr(EvaluationSplit, "_generate_examples", refuse)
    assert equal(first, everything(load(name, seed=2).evaluation_dataset(128)))
    folder = data_dir / "gradkeeper_evaluation" / f"{name}-length_{LENGTH}" / "1.0.0"
    assert len(list(folder.glob("*.tfrecord*"))) == 1


@EVERY_TASK
def test_evaluation_split_on_disk_is_what_sample_draws(name, load):
    task = load(name)
    drawn = everything(
        task.evaluation_builder().builder_config.examples.batch(500).map(task.to_model)
    )
    assert equal(drawn, everything(task.evaluation_dataset(500)))


# If this fails because a task draws other numbers, increase its `version`.
@pytest.mark.parametrize(
    ("name", "checksum"),
    [("adding", 941180268), ("copying", 231591324), ("temporal_order", 3935465526)],
)
def test_evaluation_split_stays_the_same_from_release_to_release(name, checksum, load):
    inputs, targets = everything(load(name).evaluation_dataset(500))
    drawn = zlib.crc32(inputs.tobytes() + targets.tobytes())
    assert drawn == checksum


@EVERY_TASK
def test_a_task_loads_again_from_its_options(name, load):
    task = load(name, seed=3)
    twin = load_task(task.name, seed=task.seed, **task.options)
    assert twin.options == task.options == {"length": LENGTH}
    assert equal(batches(task.train_dataset(2), 1)[0], batches(twin.train_dataset(2), 1)[0])


@EVERY_TASK
def test_steps_per_epoch_cover_ten_thousand_examples(name, load):
    assert [load(name).steps_per_epoch(size) for size in (50, 3_000)] == [200, 4]


@EVERY_TASK
def test_a_keras_model_trains_on_it(name, load):
    task = load(name)
    layers = [keras.Input(task.input_shape)]
    if task.head != "labelling":
        layers.append(keras.layers.Flatten())
    model = keras.Sequential([*layers, keras.layers.Dense(task.output_units)])
    model.compile("sgd", task.loss, metrics=task.metrics)
    model.fit(task.train_dataset(8), steps_per_epoch=2, shuffle=False, verbose=0)
    logs = model.evaluate(task.evaluation_dataset(500), return_dict=True, verbose=0)
    assert logs.keys() == {"loss", *task.metrics}


def test_two_processes_may_prepare_the_same_split(load, tmp_path, monkeypatch):
    first, second = (load("adding", data_dir=tmp_path).evaluation_builder() for _ in range(2))
    generate = second._generate_examples

    def overtaken():
        prepare(first)
        yield from generate()

    monkeypatch.setattr(second, "_generate_examples", overtaken)
    prepare(second)
    assert second.as_dataset(split="test").cardinality().numpy() == EVALUATION_EXAMPLES


class TestAdding:
    @pytest.mark.parametrize("length", [2, 7, 20])
    def test_one_marker_in_each_half_and_the_target_their_sum(self, load, length):
        inputs, targets = batches(load("adding", length=length).train_dataset(500), 1)[0]
        numbers, markers = inputs[..., 0], inputs[..., 1]
        assert set(np.unique(markers)) <= {0.0, 1.0}
        np.testing.assert_array_equal(markers[:, : length // 2].sum(axis=1), 1)
        np.testing.assert_array_equal(markers[:, length // 2 :].sum(axis=1), 1)
        assert (markers.sum(axis=0) > 0).all()
        assert numbers.min() >= 0
        assert numbers.max() < 1
        np.testing.assert_allclose(targets[:, 0], (numbers * markers).sum(axis=1), rtol=1e-6)

    def test_the_best_constant_meets_the_baseline(self, load):
        task = load("adding")
        _, targets = batches(task.train_dataset(20_000), 1)[0]
        assert targets.mean() == pytest.approx(1, abs=0.01)
        assert targets.var() == pytest.approx(task.baseline, abs=0.005)
        _, targets = everything(task.evaluation_dataset(500))
        assert targets.var() == pytest.approx(task.baseline, abs=0.02)


class TestCopying:
    @pytest.mark.parametrize("length", [1, 20])
    def test_inputs_and_targets_are_laid_out_as_in_the_paper(self, load, length):
        inputs, targets = batches(load("copying", length=length).train_dataset(100), 1)[0]
        np.testing.assert_array_equal(inputs.sum(axis=-1), 1)
        symbols = inputs.argmax(axis=-1)
        copied = symbols[:, :10]
        assert set(np.unique(copied)) == set(range(8))
        layout = [8] * (length - 1) + [9] + [8] * 10
        np.testing.assert_array_equal(symbols[:, 10:], np.tile(layout, (100, 1)))
        np.testing.assert_array_equal(targets[:, : length + 10], 8)
        np.testing.assert_array_equal(targets[:, length + 10 :], copied)

    def test_the_best_answer_without_memory_meets_the_baseline(self, load):
        task = load("copying")
        _, targets = batches(task.train_dataset(2_000), 1)[0]
        logits = np.full((*targets.shape, 10), -1e9, "float32")
        logits[:, : LENGTH + 10, 8] = 0
        logits[:, LENGTH + 10 :, :8] = 0
        assert float(task.loss(targets, logits)) == pytest.approx(task.baseline, rel=1e-5)
        frequencies = np.bincount(targets[:, LENGTH + 10 :].ravel()) / (2_000 * 10)
        np.testing.assert_allclose(frequencies, 1 / 8, atol=0.01)


class TestTemporalOrder:
    @pytest.mark.parametrize("length", [10, 47, 100])
    def test_two_symbols_stand_where_they_may_and_give_the_class(self, load, length):
        inputs, targets = batches(load("temporal_order", length=length).train_dataset(500), 1)[0]
        np.testing.assert_array_equal(inputs.sum(axis=-1), 1)
        symbols = inputs.argmax(axis=-1)
        np.testing.assert_array_equal(symbols[:, 0], 6)
        np.testing.assert_array_equal(symbols[:, -1], 7)
        relevant = (symbols == 4) | (symbols == 5)
        rows, steps = np.nonzero(relevant)
        np.testing.assert_array_equal(np.bincount(rows), 2)
        first, second = steps.reshape(-1, 2).T
        assert {first.min(), first.max()} == {length // 10, 2 * length // 10}
        assert {second.min(), second.max()} == {5 * length // 10, 6 * length // 10}
        x_or_y = symbols[relevant].reshape(-1, 2) - 4
        np.testing.assert_array_equal(targets, 2 * x_or_y[:, 0] + x_or_y[:, 1])
        assert set(np.unique(symbols[:, 1:-1][~relevant[:, 1:-1]])) == {0, 1, 2, 3}

    def test_guessing_meets_the_baseline(self, load):
        task = load("temporal_order")
        _, targets = batches(task.train_dataset(20_000), 1)[0]
        loss = task.loss(targets, np.zeros((20_000, 4), "float32"))
        assert float(loss) == pytest.approx(task.baseline, rel=1e-5)
        np.testing.assert_allclose(np.bincount(targets) / 20_000, 1 / 4, atol=0.02)


def test_fit_ends_after_one_epoch_per_epoch(load, monkeypatch):
    monkeypatch.setattr("gradkeeper.training.tasks.synthetic.synthetic_task.EXAMPLES_PER_EPOCH", 12)
    task = load("adding", length=2)
    layers = [keras.Input(task.input_shape), keras.layers.Flatten(), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile("sgd", task.loss)
    model.fit(task.train_dataset(5), epochs=2, shuffle=False, verbose=0)
    assert int(model.optimizer.iterations) == 6
