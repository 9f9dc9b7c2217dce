"""Long runs in bounded memory, compared with the complete run."""

import dataclasses
import tracemalloc

import numpy as np
import pytest
from histories import window

from gradkeeper.callbacks import GradientHistory
from gradkeeper.callbacks.window import Window

STEPS = 1_000_000
SPIKES = {3: 50.0, 123_457: 70.0, 500_000: 20.0, 777_777: 900.0, 999_001: 40.0}
BAD = 600_013


def long_window(first, rows, variables=50, seed=0):
    """Return rows with every statistic, spikes in one variable and one non-finite step."""
    norms = np.random.default_rng(seed).random((rows, variables), np.float32)
    for step, spike in {**SPIKES, BAD: np.inf}.items():
        if first <= step < first + rows:
            norms[step - first, step % variables] = spike
    there = np.ones(norms.shape, bool)
    names = ("norm", "applied_norm", "max_abs", "update_norm", "weight_norm")
    values = {name: norms.copy() for name in names}
    values["nonfinite"] = (~np.isfinite(norms)).astype(np.float32)
    # Every 8th step is clipped.
    values["applied_norm"][(first + np.arange(rows)) % 8 == 0] /= 2
    scalars = {name: np.full(rows, np.nan) for name in ("loss", "loss_scale", "unclipped_norm")}
    scalars["learning_rate"] = np.full(rows, 0.1)
    return Window(
        np.arange(first, first + rows),
        tuple(f"layer_{i // 2}/{i}" for i in range(variables)),
        there,
        there.copy(),
        values,
        scalars,
    )


def held_bytes(thing, seen=None):
    """Return the bytes of all reachable arrays, including derived arrays and bases of views."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    if isinstance(thing, np.ndarray):
        behind = thing.base if isinstance(thing.base, np.ndarray) else None
        return thing.nbytes if behind is None else held_bytes(behind, seen)
    if isinstance(thing, dict):
        return sum(held_bytes(each, seen) for each in thing.values())
    if isinstance(thing, list | tuple):
        return sum(held_bytes(each, seen) for each in thing)
    return held_bytes(vars(thing), seen) if hasattr(thing, "__dict__") else 0


def read_everything(history):
    for name, member in vars(GradientHistory).items():
        if isinstance(member, property):
            getattr(history, name)


@pytest.mark.slow
def test_a_million_steps_stay_within_the_bound_and_keep_every_spike():
    rows, variables, max_values = 250, 20, 200_000
    history = GradientHistory(max_values=max_values)
    bytes_held = []
    for first in range(0, STEPS, rows):
        history.append(long_window(first, rows, variables, seed=first // rows % 100))
        if first % 200_000 == 0 or first + rows == STEPS:
            read_everything(history)
            bytes_held.append(held_bytes(history))
    assert max(bytes_held) < 60 * max_values
    assert len(history) * variables <= max_values
    assert history.recorded == history.bins.count.sum() + len(recent(history)) == STEPS
    np.testing.assert_array_equal(recent(history), np.arange(STEPS - len(recent(history)), STEPS))
    assert len(recent(history)) * variables >= max_values / 2
    for step, spike in SPIKES.items():
        assert history.norms[history.steps == step, step % variables].tolist() == [spike]
    assert history.nonfinite[history.steps == BAD].sum() == 1
    assert history.clip_fraction == 1 / 8


def recent(history):
    """Return the steps of the rows after the bins."""
    return history.steps[history.steps > history.bins.last_step[-1]]


@pytest.mark.slow
def test_what_python_allocates_stays_bounded():
    history = GradientHistory(max_values=100_000)
    tracemalloc.start()
    try:
        for first in range(0, 100_000, 50):
            history.append(long_window(first, 50, 20))
        assert tracemalloc.get_traced_memory()[0] < 60 * 100_000
    finally:
        tracemalloc.stop()


def binned(norms, *, rows=10, max_values=1024, applied=None):
    """Return a history of these norms, [steps, 3], in windows of `rows` rows."""
    history = GradientHistory(max_values=max_values)
    for first in range(0, len(norms), rows):
        some = slice(first, first + rows)
        after = None if applied is None else applied[some]
        history.append(window(norms[some], applied=after, first=first))
    return history


@pytest.mark.parametrize("rows", [1, 7, 50, 3000])
def test_bins_equal_those_of_the_whole_run(rows):
    rng = np.random.default_rng(rows)
    norms = rng.lognormal(size=(3000, 3)).astype(np.float32)
    norms[rng.random(norms.shape) < 0.01] = np.nan
    norms[40:90, 1] = np.inf
    bins = binned(norms, rows=rows).bins
    assert 1 < len(bins) <= 8
    total = np.sqrt(np.square(norms.astype(np.float64)).sum(axis=1))
    for b, (first, last) in enumerate(zip(bins.first_step, bins.last_step, strict=True)):
        assert bins.count[b] == last - first + 1
        assert_spread(bins.norms, b, norms[first : last + 1], first)
        assert_spread(bins.global_norm, b, total[first : last + 1], first)


def assert_spread(spread, b, norms, first):
    known = np.where(np.isfinite(norms), norms, np.nan)
    np.testing.assert_array_equal(spread.nonfinite[b], np.isnan(known).sum(axis=0))
    np.testing.assert_array_equal(spread.finite[b], np.isfinite(known).sum(axis=0))
    np.testing.assert_array_equal(spread.min[b], np.nanmin(known, axis=0))
    np.testing.assert_array_equal(spread.max[b], np.nanmax(known, axis=0))
    np.testing.assert_array_equal(spread.min_step[b], first + np.nanargmin(known, axis=0))
    np.testing.assert_array_equal(spread.max_step[b], first + np.nanargmax(known, axis=0))
    np.testing.assert_allclose(spread.mean[b], np.nanmean(known, axis=0, dtype=float), rtol=1e-12)


def test_a_bin_without_a_finite_norm():
    bins = binned(np.full((200, 3), np.nan)).bins
    assert np.isnan(bins.global_norm.max).all()
    assert (bins.norms.max_step == -1).all()
    assert bins.norms.nonfinite.sum() == 3 * bins.count.sum()


def test_rows_that_stay_are_the_largest_finite_and_the_first_not_finite_of_each_bin():
    norms = np.random.default_rng(0).lognormal(size=(1000, 3)).astype(np.float32)
    norms[100:104] = np.inf
    history = binned(norms)
    old = history.steps[history.steps <= history.bins.last_step[-1]]
    assert sorted(old) == sorted([100, *history.bins.global_norm.max_step])
    np.testing.assert_array_equal(history.norms, norms[history.steps])


def test_steps_without_a_gradient_are_neither_finite_nor_not():
    history = GradientHistory(max_values=1024)
    for first in range(0, 500, 10):
        made = window(np.full((10, 3), np.nan), first=first)
        history.append(dataclasses.replace(made, present=~made.present, updated=~made.updated))
    assert history.bins.norms.nonfinite.sum() == history.bins.norms.finite.sum() == 0
    assert history.clip_fraction == 0


def test_clip_fraction_is_of_all_recorded_steps():
    norms = np.ones((4000, 3))
    applied = np.where(np.arange(4000)[:, np.newaxis] < 1000, 0.5, norms)
    assert binned(norms, applied=applied).clip_fraction == 0.25


def test_variables_that_come_later_have_no_norm_in_earlier_bins():
    history = GradientHistory(max_values=1024)
    for first in range(0, 1000, 10):
        name = "a/kernel" if first < 500 else "b/kernel"
        history.append(window([[2.0]] * 10, variables=[name], first=first))
    assert history.bins.variables == tuple(history.variables) == ("a/kernel", "b/kernel")
    assert history.bins.norms.finite[0].tolist()[1] == 0
    assert np.isnan(history.bins.norms.max[0]).tolist() == [False, True]
    assert history.bins.norms.finite.sum() == history.bins.count.sum()


def test_more_variables_leave_room_for_fewer_rows():
    history = GradientHistory(max_values=64 * 100)
    for first in range(0, 1000, 10):
        variables = [f"layer/{i}" for i in range(20 if first < 500 else 100)]
        history.append(window(np.ones((10, len(variables))), variables=variables, first=first))
    assert len(history) <= 64
    assert history.recorded == 1000
    assert history.steps[-1] == 999


def test_since_counts_recorded_steps():
    norms = np.random.default_rng(0).lognormal(size=(1000, 3)).astype(np.float32)
    history = binned(norms)
    assert history.since(990).steps.tolist() == list(range(990, 1000))
    assert history.since(-3).steps.tolist() == [997, 998, 999]
    assert history.since(0).steps.tolist() == history.steps.tolist()
    assert history.since(300).steps.tolist() == history.steps[history.steps >= 300].tolist()


def test_short_runs_are_kept_whole():
    history = GradientHistory()
    for first in range(0, 20_000, 500):
        history.append(window(np.ones((500, 50)), variables=list(map(str, range(50))), first=first))
    assert len(history) == 20_000
    assert len(history.bins) == 0


def test_a_selection_of_a_thinned_history():
    norms = np.random.default_rng(0).lognormal(size=(1000, 3)).astype(np.float32)
    history = binned(norms)
    chosen = history.select("dense")
    np.testing.assert_array_equal(chosen.bins.norms.max, history.bins.norms.max[:, 2:])
    assert np.isnan(chosen.bins.global_norm.max).all()
    assert len(chosen) == len(history)
    assert chosen.recorded == 1000


def test_no_room_is_refused():
    with pytest.raises(ValueError, match=r"Received: max_values=0"):
        GradientHistory(max_values=0)
