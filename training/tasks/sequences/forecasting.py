"""Forecasts of a time series from a window of its values."""

import functools
from os import PathLike
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from gradkeeper.training._checks import fraction, integer
from gradkeeper.training.tasks.builders.prepare import prepare, quiet
from gradkeeper.training.tasks.builders.time_series import TimeSeriesBuilder
from gradkeeper.training.tasks.in_memory import InMemoryTask


class ForecastingTask(InMemoryTask):
    """Predict the next values of a series from a window of previous values.

    Inputs: float32 [batch, length, 1], consecutive values.
    Targets: float32 [batch, horizon], the following values.

    Missing values are interpolated linearly. With `difference`, the values are then replaced by
    their changes from step to step, which removes a trend. The first part of the series is for
    training; all values are standardised with the mean and standard deviation of that part. A
    window starts at every step: training windows lie entirely in the first part; evaluation
    windows have all their targets in the last part.

    Baseline: the mean squared error, in the standardised unit, on the evaluation windows, of the
    better of two forecasts: the last value ("persistence") and, if the series has a season, the
    value one season earlier.

    Args:
        config: Configuration name of `TimeSeriesBuilder`.
        length: Values per window.
        horizon: Number of values to predict.
        difference: Predict the changes instead of the values.
        evaluation_fraction: Fraction of the series for evaluation, at its end.
        options: Further entries of `Task.options`.
        data_dir: Data folder of tensorflow-datasets; the file is downloaded unless it is
            prepared there.
        seed: Seed of the training batches.

    Raises:
        ValueError: A part of the series is shorter than a window, or a number is out of its
            range.
        TypeError: `difference` is not a bool.
    """

    head = "regression"
    season: ClassVar[int | None] = None

    def __init__(
        self,
        config: str,
        *,
        length: int,
        horizon: int,
        difference: bool,
        evaluation_fraction: float,
        options: dict[str, Any] | None = None,
        data_dir: str | PathLike[str] | None = None,
        seed: int = 0,
    ) -> None:
        self.length, self.horizon = integer("length", length), integer("horizon", horizon)
        if not isinstance(difference, bool):
            raise TypeError(f"`difference` must be a bool. Received: difference={difference!r}")
        self.difference = difference
        self.evaluation_fraction = fraction("evaluation_fraction", evaluation_fraction)
        values = _filled(_read(config, data_dir))
        values = np.diff(values) if difference else values
        self._first = len(values) - round(len(values) * self.evaluation_fraction)
        self._require_windows(len(values))
        self.mean, self.deviation = values[: self._first].mean(), values[: self._first].std()
        self._values = (values - self.mean) / self.deviation
        super().__init__(
            self._windows(self._values[: self._first]),
            self._windows(self._values[self._first - self.length :]),
            options={**(options or {}), **self._own_options()},
            data_dir=data_dir,
            seed=seed,
        )

    @property
    def input_shape(self) -> tuple[int, int]:
        """[length, 1]."""
        return (self.length, 1)

    @property
    def output_units(self) -> int:
        """Number of values to predict."""
        return self.horizon

    @property
    def baseline(self) -> float:
        """Smallest of `errors`."""
        return min(self.errors.values())

    @property
    def baseline_label(self) -> str:
        """Description of the better forecast, with its unit."""
        better = min(self.errors, key=self.errors.__getitem__)
        return f"mean squared error of {better}, standardised"

    @functools.cached_property
    def errors(self) -> dict[str, float]:
        """Mean squared errors of the simple forecasts on the evaluation windows."""
        inputs, targets = self._evaluation
        unchanged = -self.mean / self.deviation if self.difference else inputs[:, -1]
        forecasts = {"persistence": np.broadcast_to(unchanged, targets.shape)}
        if self.season is not None and self.horizon <= self.season <= self._first:
            earlier = self._values[self._first - self.season : -self.season]
            windows = np.lib.stride_tricks.sliding_window_view(earlier, self.horizon)
            forecasts[f"the value {self.season} steps before"] = windows
        return {
            name: float(np.square(forecast - targets, dtype=np.float64).mean())
            for name, forecast in forecasts.items()
        }

    def _own_options(self) -> dict[str, Any]:
        return {
            "length": self.length,
            "horizon": self.horizon,
            "difference": self.difference,
            "evaluation_fraction": self.evaluation_fraction,
        }

    def _windows(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        both = np.lib.stride_tricks.sliding_window_view(values, self.length + self.horizon)
        both = both.astype(np.float32)
        return both[:, : self.length, None], both[:, self.length :]

    def _require_windows(self, steps: int) -> None:
        if self._first < self.length + self.horizon or steps - self._first < self.horizon:
            raise ValueError(
                f"A window and its targets need length + horizon = {self.length + self.horizon} "
                f"steps. Received: {self._first} steps for training, {steps - self._first} for "
                f"evaluation, length={self.length}, horizon={self.horizon}"
            )


def _read(config: str, data_dir: str | PathLike[str] | None) -> np.ndarray:
    with quiet():
        builder = TimeSeriesBuilder(config=config, data_dir=data_dir)
    prepare(builder)
    with quiet():
        series = builder.as_dataset(split=tfds.Split.TRAIN).get_single_element()
    return series["values"].numpy()


def _filled(values: np.ndarray) -> np.ndarray:
    steps, known = np.arange(len(values)), np.isfinite(values)
    return np.interp(steps, steps[known], values[known])
