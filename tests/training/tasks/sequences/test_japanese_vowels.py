"""Japanese vowels: padding and the published data."""

import numpy as np

from gradkeeper.training import load_task


def evaluation_of(task, part=0):
    """Return the inputs (0) or targets (1) of the evaluation split."""
    return np.concatenate([batch[part].numpy() for batch in task.evaluation_dataset(64)])


def test_padding(load):
    task = load("japanese_vowels")
    inputs = evaluation_of(task)
    padding = (inputs == task.model_options["mask_value"]).all(axis=-1)
    lengths = (~padding).sum(axis=1)
    assert lengths.min() >= 7
    np.testing.assert_array_equal(padding, np.arange(29) >= lengths[:, None])
    np.testing.assert_array_equal(evaluation_of(task, 1), np.arange(10) % 9)


def test_published_data(real):
    task = load_task("japanese_vowels", data_dir=real)
    np.testing.assert_array_equal(np.bincount(task._train[1]), [30] * 9)
    inputs = evaluation_of(task)
    assert inputs.shape == (370, 29, 12)
    known = inputs[(inputs != -10).any(axis=-1)]
    assert known.min() > -2
    assert known.max() < 3
    np.testing.assert_allclose(task._train[0][0, 0, :2], [1.860936, -0.207383], rtol=1e-6)
