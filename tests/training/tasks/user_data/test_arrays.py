"""Arrays of the user."""

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


@pytest.mark.parametrize(
    ("y", "head", "units"),
    [
        (CLASSES, "classification", 4),
        (RANDOM.integers(0, 3, (20, 5)), "labelling", 3),
        (RANDOM.normal(size=20), "regression", 1),
        (RANDOM.normal(size=(20, 2)), "regression", 2),
    ],
)
def test_head_derived_from_the_targets(arrays, y, head, units):
    task = arrays(x=X, y=y)
    assert (task.head, task.output_units, task.input_shape) == (head, units, (5, 3))


def test_requested_head(arrays):
    task = arrays({"head": "regression"}, x=X, y=CLASSES)
    inputs, targets = next(iter(task.train_dataset(4)))
    assert (task.head, targets.dtype, targets.shape) == ("regression", tf.float32, (4, 1))
    assert inputs.dtype == tf.float32


def test_random_split(arrays):
    x = np.arange(20.0)[:, None, None] * np.ones((20, 5, 1))
    task = arrays(x=x, y=np.arange(20.0))
    x, y = (np.concatenate(parts) for parts in zip(task._train, task._evaluation, strict=True))
    np.testing.assert_array_equal(x[:, 0, 0], y[:, 0])
    assert sorted(y[:, 0]) == list(range(20))
    assert len(task._evaluation[0]) == 4


def test_split_of_the_file(arrays):
    task = arrays(x_train=X[:15], y_train=CLASSES[:15], x_test=X[15:], y_test=CLASSES[15:])
    inputs, targets = next(iter(task.evaluation_dataset(50)))
    np.testing.assert_array_equal(inputs, X[15:].astype("float32"))
    np.testing.assert_array_equal(targets, CLASSES[15:])


def test_inputs_with_two_axes(arrays):
    assert arrays(x=X[:, :, 0], y=CLASSES).input_shape == (5, 1)
    task = arrays(x=RANDOM.integers(0, 9, (20, 5)), y=CLASSES)
    assert task.input_shape == (5,)
    assert task.model_options == {"vocabulary_size": 9}


def test_padding_of_a_labelling_has_no_weight(arrays):
    x = X.copy()
    x[3:, 4] = 0
    x[7, 1] = 0
    task = arrays({"mask_value": 0}, x=x, y=RANDOM.integers(0, 3, (20, 5)))
    inputs, _, weights = next(iter(task.train_dataset(20)))
    np.testing.assert_array_equal(weights.numpy() > 0, (inputs.numpy() != 0).any(axis=-1))
    assert task.model_options == {"mask_value": 0}


def test_baseline_of_the_training_targets(arrays):
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
def test_invalid_arrays_are_refused(arrays, content, options, message):
    with pytest.raises(ValueError, match=message):
        arrays(options, **content)


def test_invalid_files_are_refused(tmp_path):
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
