"""What follows a window of a time series."""

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
    """Predict the next values of a series from a window of it.

    Inputs: float32 [batch, length, 1], consecutive values.
    Targets: float32 [batch, horizon], the values that follow.

    Missing values are interpolated linearly between their neighbours. With `difference` the
    values are then replaced by their changes from step to step, which takes a trend out. The
    first part of the series is for training; all values are standardised with the mean and
    standard deviation of that part. Windows lie at every step: those for training wholly in
    the first part, those for evaluation with all their targets in the last.

    Baseline: the mean squared error, in the same standardised unit, on the evaluation windows,
    of the better one of two forecasts: that the series stays as it last was ("persistence");
    and, where the series has a season, that it does what it did one season before.

    Args:
        config: Of `TimeSeriesBuilder`.
        length: Values in a window.
        horizon: Values to predict.
        difference: Predict the changes instead of the values.
        evaluation_fraction: Of the series, at its end.
        options: What `Task.options` holds besides these.
        data_dir: Folder of tensorflow-datasets; the file is downloaded to it unless it is
            prepared there.
        seed: Seed of the training batches.

    Raises:
        ValueError: A part of the series without a single window, or a number out of its range.
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
            raise TypeError(f"`difference` is a bool. Received: difference={difference!r}")
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
        """The horizon."""
        return self.horizon

    @property
    def baseline(self) -> float:
        """The smaller error of `errors`."""
        return min(self.errors.values())

    @property
    def baseline_label(self) -> str:
        """Which forecast it is."""
        better = min(self.errors, key=self.errors.__getitem__)
        return f"mean squared error of {better}, standardised"

    @functools.cached_property
    def errors(self) -> dict[str, float]:
        """Mean squared errors of the plain forecasts, on the evaluation windows."""
        inputs, targets = self._evaluation
        unchanged = -self.mean / self.deviation if self.difference else inputs[:, -1]
        forecasts = {"persistence": np.broadcast_to(unchanged, targets.shape)}
        if self.season is not None and self.horizon <= self.season <= self._first:
            earlier = self._values[self._first - self.season : -self.season]
            windows = np.lib.stride_tricks.sliding_window_view(earlier, self.horizon)
            forecasts[f"what was {self.season} steps before"] = windows
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
                f"A window and its targets take length + horizon = {self.length + self.horizon} "
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
