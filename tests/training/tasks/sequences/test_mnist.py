"""Handwritten digits: order of the pixels, sizes, noise and baseline."""

import numpy as np
import pytest

from gradkeeper.training import load_task


def evaluation_of(task, part=0):
    """Return the inputs (0) or targets (1) of the evaluation split."""
    return np.concatenate([batch[part].numpy() for batch in task.evaluation_dataset(64)])


def test_pixels_are_read_line_by_line(load):
    large, small = (evaluation_of(load("sequential_mnist", size=size)) for size in (28, 14))
    assert (large.min(), large.max()) == (0, 1)
    squares = large.reshape(-1, 14, 2, 14, 2)
    np.testing.assert_allclose(
        small[..., 0], squares.mean(axis=(2, 4)).reshape(-1, 196), atol=0.5 / 255 + 1e-6
    )


@pytest.mark.slow
def test_one_order_for_all_images_and_seeds(load):
    plain = evaluation_of(load("sequential_mnist", size=28))[..., 0]
    first, other = (
        evaluation_of(load("permuted_mnist", size=28, seed=seed))[..., 0] for seed in (0, 1)
    )
    np.testing.assert_array_equal(first, other)
    order = np.random.RandomState(0).permutation(784)
    np.testing.assert_array_equal(first, plain[:, order])
    assert order[:4].tolist() == [693, 85, 647, 392]
    again = evaluation_of(load("permuted_mnist", size=28, permutation_seed=1))[..., 0]
    assert not np.array_equal(first, again)


@pytest.mark.parametrize("size", [7, 14])
def test_rows_are_followed_by_noise(load, size):
    task = load("noise_padded", size=size, length=200)
    sequences = evaluation_of(task)
    images = evaluation_of(load("sequential_mnist", size=size)).reshape(-1, size, size)
    np.testing.assert_array_equal(sequences[:, :size], images)
    noise = sequences[:, size:].reshape(13, -1)
    np.testing.assert_allclose(noise.mean(axis=1), 0, atol=0.1)
    np.testing.assert_allclose(np.cov(noise), np.eye(13), atol=0.15)
    np.testing.assert_array_equal(evaluation_of(task, 1), task._evaluation[1])
    assert evaluation_of(load("noise_padded", size=size, length=size)).shape == (13, size, size)


def test_every_epoch_has_other_noise(load):
    task = load("noise_padded", length=20)
    epochs = task.train_dataset(30)

    def by_image():
        (batch,) = epochs
        return {row[:7].tobytes(): row[7:] for row in batch[0].numpy()}

    first, second = by_image(), by_image()
    assert first.keys() == second.keys()
    noise = np.concatenate([*first.values(), *second.values(), *evaluation_of(task)[:, 7:]])
    assert len(np.unique(noise)) == (30 + 30 + 13) * 13 * 7
    (whole,) = task.train_dataset(30)
    (*parts,) = task.train_dataset(10)
    np.testing.assert_array_equal(whole[0], np.concatenate([part[0] for part in parts]))


def test_baseline_is_the_entropy_of_the_digits(load):
    task = load("sequential_mnist")
    p = np.bincount(task._train[1]) / 30
    assert task.baseline == pytest.approx(-sum(q * np.log(q) for q in p if q))


@pytest.mark.parametrize("size", [0, 27, "28"])
def test_invalid_size_is_refused(load, size):
    with pytest.raises(ValueError, match=r"Choose one of: 14, 28, 7\. Received: size="):
        load("permuted_mnist", size=size)


def test_prepared_images_need_no_network(shared):
    if not (shared / "tfds_prepared_mini").is_dir():
        pytest.skip("no prepared mnist in ../shared/data")
    task = load_task("sequential_mnist", data_dir=shared / "tfds_prepared_mini", size=7)
    assert task.baseline == pytest.approx(2.2915, abs=1e-4)
    assert evaluation_of(task).shape == (500, 49, 1)
