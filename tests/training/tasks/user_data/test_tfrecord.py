"""TFRecord files of the user."""

import numpy as np
import pytest
import tensorflow as tf

from gradkeeper.training import load_task


@pytest.fixture
def records(tmp_path):
    """Return `records(examples, **options)`, which loads the task on records of dicts of lists."""

    def make(examples, **options):
        with tf.io.TFRecordWriter(str(tmp_path / "data.tfrecord")) as writer:
            for example in examples:
                feature = {name: values_of(values) for name, values in example.items()}
                features = tf.train.Features(feature=feature)
                writer.write(tf.train.Example(features=features).SerializeToString())
        file = tmp_path / "data.tfrecord"
        return load_task("tfrecord", files=file, evaluation_files=file, **options)

    return make


def values_of(values):
    if isinstance(values[0], bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    if isinstance(values[0], int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


@pytest.mark.slow
def test_every_epoch_has_each_record_once(load):
    task = load("tfrecord")
    epochs = [
        [float(y[0, 0]) for _, y in task.train_dataset(1, endless=True).skip(17 * e).take(17)]
        for e in (0, 1)
    ]
    assert len(set(epochs[0])) == 17
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert epochs[0] != epochs[1]


def test_values_are_rows_of_features(records):
    task = records([{"inputs": [1.0, 2.0, 3.0, 4.0], "targets": [3]}] * 2, features=2)
    inputs, targets = next(iter(task.evaluation_dataset(1)))
    assert inputs.numpy().tolist() == [[[1, 2], [3, 4]]]
    assert (task.head, task.output_units) == ("classification", 4)
    assert targets.numpy().tolist() == [3]


def test_labelling_of_tokens(records):
    example = {"tokens": [1, 2, 5], "tags": [0, 1, 0]}
    task = records([example], inputs="tokens", targets="tags", vocabulary_size=6)
    inputs, targets = next(iter(task.train_dataset(2)))
    assert (inputs.dtype, inputs.shape, targets.shape) == (tf.int32, (2, 3), (2, 3))
    assert (task.head, task.model_options) == ("labelling", {"vocabulary_size": 6})


def test_order_is_independent_of_the_global_seed(load):
    orders = []
    for seed in (1, 2):
        tf.random.set_seed(seed)
        orders.append(
            [y.numpy() for _, y in load("tfrecord").train_dataset(5, endless=True).take(4)]
        )
    np.testing.assert_array_equal(*orders)


@pytest.mark.parametrize(
    ("examples", "options", "message"),
    [
        ([{"inputs": [1.0]}], {}, r"feature 'targets' .*Received: 'inputs' \(float_list\)"),
        ([{"inputs": [b"x"], "targets": [1]}], {}, r"feature 'inputs' of float or int64"),
        ([{"inputs": [1.0] * 3, "targets": [1]}], {"features": 2}, "3 values, features=2"),
        ([{"inputs": [1, 2], "targets": [1]}], {}, "Received: int64 .*vocabulary_size=None"),
        ([{"inputs": [1.0], "targets": [1]}], {"vocabulary_size": 4}, "Received: float32"),
        ([], {}, r"no records. Received: file='.*data\.tfrecord'"),
        (
            [{"inputs": [1.0] * n, "targets": [1]} for n in (2, 3)],
            {},
            "records all have as many values as the first",
        ),
    ],
)
def test_invalid_records_are_refused(records, examples, options, message):
    with pytest.raises(ValueError, match=message):
        records(examples, **options)


def test_invalid_files_are_refused(tmp_path):
    file = tmp_path / "data.tfrecord"
    with pytest.raises(FileNotFoundError, match=r"No file matches the pattern\. Received: files="):
        load_task("tfrecord", files=file, evaluation_files=file)
    file.write_text("no record at all, just text")
    with pytest.raises(ValueError, match=r"TFRecord files of .*Received: .*data\.tfrecord"):
        load_task("tfrecord", files=file, evaluation_files=file)
