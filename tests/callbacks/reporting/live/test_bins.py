"""Bins of rows."""

import numpy as np

from gradkeeper.callbacks.reporting.live.bins import Bin, Bins


def filled(losses, norms):
    bins = Bins()
    for step, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
        bins.add(Bin(step, loss, np.array(norm)))
    return bins


def test_each_row_is_a_bin_below_1000_rows():
    bins = filled([0.5, 0.25], [[1.0, 2.0], [3.0, 4.0]])
    assert bins.size == 1
    assert [(each.step, each.loss, each.norms.tolist()) for each in bins.done] == [
        (0, 0.5, [1.0, 2.0]),
        (1, 0.25, [3.0, 4.0]),
    ]


def test_bins_have_the_mean_loss_and_the_largest_norms():
    count = 4321
    losses, norms = np.arange(float(count)), np.random.default_rng(0).uniform(size=(count, 3))
    norms[100, 1], norms[50, 2] = np.inf, np.nan
    bins = filled(losses.tolist(), norms)
    size = bins.size
    assert size == 8
    assert len(bins.done) == count // size
    whole = norms[: count // size * size].reshape(-1, size, 3)
    assert [each.step for each in bins.done] == list(range(0, count - size + 1, size))
    np.testing.assert_array_equal([each.norms for each in bins.done], np.fmax.reduce(whole, axis=1))
    np.testing.assert_allclose([each.loss for each in bins.done], losses[:4320:8] + 3.5)


def test_the_loss_of_a_bin_with_an_unknown_loss_is_unknown():
    bins = filled([1.0, np.nan, *[1.0] * 998], [[1.0]] * 1000)
    assert np.isnan(bins.done[0].loss)
    assert bins.done[1].loss == 1.0


def test_layers_that_come_later_have_no_gradient_before():
    bins = filled([1.0] * 1000, [[1.0, 2.0]] * 501 + [[1.0, 2.0, 3.0]] * 499)
    np.testing.assert_array_equal(bins.done[249].norms, [1.0, 2.0])
    np.testing.assert_array_equal(bins.done[250].norms, [1.0, 2.0, 3.0])
