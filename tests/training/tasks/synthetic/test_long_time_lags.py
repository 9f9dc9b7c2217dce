"""Adding, copying and temporal order: generated numbers and baselines."""

import numpy as np
import pytest

LENGTH = 20


def batch_of(task, size):
    return [part.numpy() for part in next(iter(task.train_dataset(size)))]


class TestAdding:
    @pytest.mark.parametrize("length", [2, 7, 20])
    def test_markers_and_target(self, load_20, length):
        inputs, targets = batch_of(load_20("adding", length=length), 500)
        numbers, markers = inputs[..., 0], inputs[..., 1]
        assert set(np.unique(markers)) <= {0.0, 1.0}
        np.testing.assert_array_equal(markers[:, : length // 2].sum(axis=1), 1)
        np.testing.assert_array_equal(markers[:, length // 2 :].sum(axis=1), 1)
        assert (markers.sum(axis=0) > 0).all()
        assert numbers.min() >= 0
        assert numbers.max() < 1
        np.testing.assert_allclose(targets[:, 0], (numbers * markers).sum(axis=1), rtol=1e-6)

    @pytest.mark.parametrize("length", [2, 7])
    def test_bai_marks_two_steps_anywhere(self, load_20, length):
        inputs, targets = batch_of(load_20("adding", length=length, variant="bai"), 4_000)
        numbers, markers = inputs[..., 0], inputs[..., 1]
        _, steps = np.nonzero(markers == 1)
        pairs, counts = np.unique(steps.reshape(-1, 2), axis=0, return_counts=True)
        assert (markers == 0).sum() == 4_000 * (length - 2)
        assert len(pairs) == length * (length - 1) / 2
        np.testing.assert_allclose(counts / 4_000, 1 / len(pairs), atol=0.015)
        np.testing.assert_allclose(targets[:, 0], (numbers * markers).sum(axis=1), rtol=1e-6)

    def test_baseline_of_the_best_constant(self, load_20):
        task = load_20("adding")
        _, targets = batch_of(task, 20_000)
        assert targets.mean() == pytest.approx(1, abs=0.01)
        assert targets.var() == pytest.approx(task.baseline, abs=0.005)
        targets = np.concatenate([batch[1].numpy() for batch in task.evaluation_dataset(500)])
        assert targets.var() == pytest.approx(task.baseline, abs=0.02)


class TestCopying:
    @pytest.mark.parametrize(("variant", "end"), [("arjovsky", 8), ("bai", 9)])
    @pytest.mark.parametrize("length", [1, 20])
    def test_layout(self, load_20, length, variant, end):
        inputs, targets = batch_of(load_20("copying", length=length, variant=variant), 100)
        np.testing.assert_array_equal(inputs.sum(axis=-1), 1)
        symbols = inputs.argmax(axis=-1)
        copied = symbols[:, :10]
        assert set(np.unique(copied)) == set(range(8))
        layout = [8] * (length - 1) + [9] + [end] * 10
        np.testing.assert_array_equal(symbols[:, 10:], np.tile(layout, (100, 1)))
        np.testing.assert_array_equal(targets[:, : length + 10], 8)
        np.testing.assert_array_equal(targets[:, length + 10 :], copied)

    def test_baseline_without_memory(self, load_20):
        task = load_20("copying")
        _, targets = batch_of(task, 2_000)
        logits = np.full((*targets.shape, 10), -1e9, "float32")
        logits[:, : LENGTH + 10, 8] = 0
        logits[:, LENGTH + 10 :, :8] = 0
        assert float(task.loss(targets, logits)) == pytest.approx(task.baseline, rel=1e-5)
        frequencies = np.bincount(targets[:, LENGTH + 10 :].ravel()) / (2_000 * 10)
        np.testing.assert_allclose(frequencies, 1 / 8, atol=0.01)


class TestTemporalOrder:
    @pytest.mark.parametrize("length", [10, 47, 100])
    def test_positions_and_class(self, load_20, length):
        inputs, targets = batch_of(load_20("temporal_order", length=length), 500)
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

    def test_baseline_of_guessing(self, load_20):
        task = load_20("temporal_order")
        _, targets = batch_of(task, 20_000)
        loss = task.loss(targets, np.zeros((20_000, 4), "float32"))
        assert float(loss) == pytest.approx(task.baseline, rel=1e-5)
        np.testing.assert_allclose(np.bincount(targets) / 20_000, 1 / 4, atol=0.02)
