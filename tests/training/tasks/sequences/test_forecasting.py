"""Sunspots and carbon dioxide: windows, standardisation and naive forecasts."""

import numpy as np
import pytest

from gradkeeper.training import load_task
from gradkeeper.training.tasks.sequences.time_series import read_csv, read_monthly


def test_windows(load):
    task = load("sunspots", length=12, horizon=3, evaluation_fraction=0.25)
    steps, first = 98, 98 - round(98 * 0.25)
    (x, y), (x_test, y_test) = task._train, task._evaluation
    values = np.concatenate([x[0, :, 0], y[:, 0]])
    assert (x.shape, y.shape) == ((first - 14, 12, 1), (first - 14, 3))
    for start in (0, 20):
        np.testing.assert_array_equal(x[start, :, 0], values[start : start + 12])
        np.testing.assert_array_equal(y[start][:1], values[start + 12 : start + 13])
    assert len(y_test) == steps - first - 2
    # The first evaluation window ends where the training part ends.
    np.testing.assert_allclose(x_test[0, -2:, 0], y[-1, -2:], rtol=1e-6)


def test_standardisation_by_the_training_part(load):
    task = load("sunspots", length=1)
    x, y = task._train
    values = np.concatenate([x[:1, 0, 0], y[:, 0]]).astype(np.float64)
    assert values.mean() == pytest.approx(0, abs=1e-6)
    assert values.std() == pytest.approx(1, rel=1e-6)
    assert task._evaluation[1].std() != pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("difference", [False, True])
def test_baseline_is_the_error_of_the_better_simple_forecast(load, difference):
    task = load("co2", length=8, horizon=2, difference=difference)
    values = task._values * task.deviation + task.mean
    levels = np.concatenate([[0], np.cumsum(values)]) if difference else values
    errors = {"stays": [], "season": []}
    for target in range(task._first, len(values) - 1):
        for step in range(2):
            last = target if difference else target - 1
            level = levels[last]
            forecast = 0.0 if difference else level
            errors["stays"].append(forecast - values[target + step])
            errors["season"].append(values[target + step - 52] - values[target + step])
    expected = [np.mean(np.square(each)) / task.deviation**2 for each in errors.values()]
    assert list(task.errors.values()) == pytest.approx(expected, rel=1e-5)
    assert task.baseline == min(task.errors.values())
    name = min(task.errors, key=task.errors.get)
    assert name in task.baseline_label


def test_missing_weeks_are_interpolated(load):
    task = load("co2", difference=False)
    values = task._values * task.deviation + task.mean
    assert len(values) == 300
    gap = values[[2, 3, 4, 5]]
    np.testing.assert_allclose(np.diff(gap), (gap[3] - gap[0]) / 3, rtol=1e-6)


def test_reading_of_files():
    assert read_monthly("Year Jan\n1749 58.0 62.6\n1750 1 \n----\nNote: 2 3\n") == [58.0, 62.6, 1.0]
    values = read_csv('"A","B"\n1,2.5\n2,\n')
    assert values[0] == 2.5
    assert np.isnan(values[1])


def test_invalid_options_are_refused(load):
    with pytest.raises(
        ValueError, match=r"length \+ horizon = 101 steps. Received: 78 .*length=100"
    ):
        load("sunspots", length=100)
    with pytest.raises(ValueError, match=r"a number in \(0, 1\). Received: evaluation_fraction=1"):
        load("sunspots", evaluation_fraction=1)
    with pytest.raises(ValueError, match=r"Unknown frequency.*monthly, yearly"):
        load("sunspots", frequency="daily")
    with pytest.raises(TypeError, match=r"a bool\. Received: difference='no'"):
        load("sunspots", difference="no")


@pytest.mark.parametrize(
    ("name", "options", "steps", "baseline"),
    [
        ("sunspots", {}, 3_126, 0.23891),
        ("sunspots", {"frequency": "yearly"}, 309, 0.95443),
        ("co2", {"difference": False}, 2_284, 0.0015690),
        ("co2", {}, 2_283, 1.13376),
    ],
)
def test_published_series(real, name, options, steps, baseline):
    task = load_task(name, data_dir=real, **options)
    assert len(task._values) == steps
    assert task.baseline == pytest.approx(baseline, rel=1e-4)
