"""Arrays and TFRecord files of users."""

import numpy as np
import pytest
import tensorflow as tf

from gradkeeper.training import load_task

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(20, 5, 3))
CLASSES = RANDOM.integers(0, 4, 20)


@pytest.fixture
def arrays(tmp_path):
    """Return `arrays(options, x=..., y=..., ...)`, which loads the task on these arrays."""

    def make(options=None, **content):
        np.savez(tmp_path / "data.npz", **content)
        return load_task("arrays", file=tmp_path / "data.npz", **(options or {}))

    return make


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


class TestArrays:
    @pytest.mark.parametrize(
        ("y", "head", "units"),
        [
            (CLASSES, "classification", 4),
            (RANDOM.integers(0, 3, (20, 5)), "labelling", 3),
            (RANDOM.normal(size=20), "regression", 1),
            (RANDOM.normal(size=(20, 2)), "regression", 2),
        ],
    )
    def test_the_targets_tell_the_head(self, arrays, y, head, units):
        task = arrays(x=X, y=y)
        assert (task.head, task.output_units, task.input_shape) == (head, units, (5, 3))

    def test_a_head_may_be_asked_for(self, arrays):
        task = arrays({"head": "regression"}, x=X, y=CLASSES)
        inputs, targets = next(iter(task.train_dataset(4)))
        assert (task.head, targets.dtype, targets.shape) == ("regression", tf.float32, (4, 1))
        assert inputs.dtype == tf.float32

    def test_examples_are_split_once_and_stay_with_their_targets(self, arrays):
        x = np.arange(20.0)[:, None, None] * np.ones((20, 5, 1))
        task = arrays(x=x, y=np.arange(20.0))
        x, y = (np.concatenate(parts) for parts in zip(task._train, task._evaluation, strict=True))
        np.testing.assert_array_equal(x[:, 0, 0], y[:, 0])
        assert sorted(y[:, 0]) == list(range(20))
        assert len(task._evaluation[0]) == 4

    def test_a_split_of_the_users_is_kept(self, arrays):
        task = arrays(x_train=X[:15], y_train=CLASSES[:15], x_test=X[15:], y_test=CLASSES[15:])
        inputs, targets = next(iter(task.evaluation_dataset(50)))
        np.testing.assert_array_equal(inputs, X[15:].astype("float32"))
        np.testing.assert_array_equal(targets, CLASSES[15:])

    def test_two_axes_are_one_feature_or_tokens(self, arrays):
        assert arrays(x=X[:, :, 0], y=CLASSES).input_shape == (5, 1)
        task = arrays(x=RANDOM.integers(0, 9, (20, 5)), y=CLASSES)
        assert task.input_shape == (5,)
        assert task.model_options == {"vocabulary_size": 9}

    def test_padding_of_a_labelling_has_no_weight(self, arrays):
        x = X.copy()
        x[3:, 4] = 0
        x[7, 1] = 0
        task = arrays({"mask_value": 0}, x=x, y=RANDOM.integers(0, 3, (20, 5)))
        inputs, _, weights = next(iter(task.train_dataset(20)))
        np.testing.assert_array_equal(weights.numpy() > 0, (inputs.numpy() != 0).any(axis=-1))
        assert task.model_options == {"mask_value": 0}

    def test_the_baselines_know_the_training_targets_only(self, arrays):
        split = {"x_train": X[:15], "x_test": X[15:]}
        y = RANDOM.normal(size=(20, 2))
        task = arrays(y_train=y[:15], y_test=y[15:], **split)
        expected = np.square(y[15:] - y[:15].mean(axis=0)).mean()
        assert task.baseline == pytest.approx(expected, rel=1e-5)
        task = arrays(y_train=CLASSES[:15], y_test=CLASSES[15:], **split)
        p = np.bincount(CLASSES[:15]) / 15
        assert task.baseline == pytest.approx(-sum(q * np.log(q) for q in p if q))

    @pytest.mark.parametrize(
        ("content", "options", "message"),
        [
            ({"x": X}, {}, r"must contain x, y, or x_train, .*Received: x in file='.*data\.npz'"),
            ({"x": X, "y": CLASSES[:9]}, {}, r"equal lengths. Received: x \[20, 5, 3\], y \[9\]"),
            ({"x": X[:, 0, 0], "y": CLASSES}, {}, r"Inputs must be finite.*float64 \[16\]"),
            ({"x": X + np.inf, "y": CLASSES}, {}, "Inputs must be finite numbers"),
            ({"x": X, "y": CLASSES - 1}, {}, "classes 0, 1, .*head='classification'"),
            ({"x": X, "y": X}, {}, r"Received: float64 \[16, 5, 3\] for head='regression'"),
            ({"x": X, "y": X[:, :, 0]}, {"head": "labelling"}, "steps=5.*head='labelling'"),
            ({"x": X, "y": CLASSES}, {"head": "language_model"}, "Unknown head.*labelling"),
            ({"x": X[:1], "y": CLASSES[:1]}, {}, "At least two examples"),
            ({"x": CLASSES[:, None], "y": CLASSES}, {"mask_value": 0}, "Pad tokens with 0"),
        ],
    )
    def test_arrays_that_do_not_fit_are_refused(self, arrays, content, options, message):
        with pytest.raises(ValueError, match=message):
            arrays(options, **content)

    def test_other_files_are_refused(self, tmp_path):
        file = tmp_path / "data.npz"
        with pytest.raises(FileNotFoundError, match=r"\.npz file does not exist. Received: file="):
            load_task("arrays", file=file)
        for content in (b"text", b""):
            file.write_bytes(content)
            with pytest.raises(ValueError, match=r"an \.npz file with arrays.*Received: file="):
                load_task("arrays", file=file)
        np.save(tmp_path / "x.npy", X)
        with pytest.raises(ValueError, match=r"an \.npz file with arrays.*Received: file="):
            load_task("arrays", file=tmp_path / "x.npy")
        np.savez(file, x=np.array([{}], object), y=CLASSES[:1])
        with pytest.raises(ValueError, match="allow_pickle"):
            load_task("arrays", file=file)


class TestTFRecord:
    def test_each_record_comes_once_an_epoch_from_all_files(self, load):
        task = load("tfrecord")
        epochs = [
            [float(y[0, 0]) for _, y in task.train_dataset(1, endless=True).skip(17 * e).take(17)]
            for e in (0, 1)
        ]
        assert len(set(epochs[0])) == 17
        assert sorted(epochs[0]) == sorted(epochs[1])
        assert epochs[0] != epochs[1]

    def test_values_are_rows_of_features(self, records):
        task = records([{"inputs": [1.0, 2.0, 3.0, 4.0], "targets": [3]}] * 2, features=2)
        inputs, targets = next(iter(task.evaluation_dataset(1)))
        assert inputs.numpy().tolist() == [[[1, 2], [3, 4]]]
        assert (task.head, task.output_units) == ("classification", 4)
        assert targets.numpy().tolist() == [3]

    def test_tokens_may_be_labelled(self, records):
        example = {"tokens": [1, 2, 5], "tags": [0, 1, 0]}
        task = records([example], inputs="tokens", targets="tags", vocabulary_size=6)
        inputs, targets = next(iter(task.train_dataset(2)))
        assert (inputs.dtype, inputs.shape, targets.shape) == (tf.int32, (2, 3), (2, 3))
        assert (task.head, task.model_options) == ("labelling", {"vocabulary_size": 6})

    def test_order_does_not_hang_on_the_global_seed(self, load):
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
    def test_records_that_are_not_as_described_are_refused(
        self, records, examples, options, message
    ):
        with pytest.raises(ValueError, match=message):
            records(examples, **options)

    def test_other_files_are_refused(self, tmp_path):
        file = tmp_path / "data.tfrecord"
        with pytest.raises(
            FileNotFoundError, match=r"No file matches the pattern\. Received: files="
        ):
            load_task("tfrecord", files=file, evaluation_files=file)
        file.write_text("no record at all, just text")
        with pytest.raises(ValueError, match=r"TFRecord files of .*Received: .*data\.tfrecord"):
            load_task("tfrecord", files=file, evaluation_files=file)
