"""Forecasts of a time series from a window of its values: sunspots, carbon dioxide."""

import functools
from os import PathLike
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from gradkeeper._arguments import choice, integer, number
from gradkeeper.training.tasks.in_memory import InMemoryTask
from gradkeeper.training.tasks.prepare import examples_of, prepared
from gradkeeper.training.tasks.sequences.time_series import TimeSeriesBuilder


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
        data_dir, seed: See `Task`.

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
        length: int = 50,
        horizon: int = 1,
        difference: bool = False,
        evaluation_fraction: float = 0.2,
        options: dict[str, Any] | None = None,
        data_dir: str | PathLike[str] | None = None,
        seed: int = 0,
    ) -> None:
        self.length, self.horizon = integer("length", length), integer("horizon", horizon)
        if not isinstance(difference, bool):
            raise TypeError(f"`difference` must be a bool. Received: difference={difference!r}")
        self.difference = difference
        self.evaluation_fraction = number("evaluation_fraction", evaluation_fraction, "(0, 1)")
        values = _filled(_read(config, data_dir))
        values = np.diff(values) if difference else values
        self._first = len(values) - round(len(values) * self.evaluation_fraction)
        self._require_windows(len(values))
        self.mean, self.deviation = values[: self._first].mean(), values[: self._first].std()
        self._values = (values - self.mean) / self.deviation
        super().__init__(
            self._windows(self._values[: self._first]),
            self._windows(self._values[self._first - self.length :]),
            options={
                **(options or {}),
                "length": self.length,
                "horizon": self.horizon,
                "difference": difference,
                "evaluation_fraction": self.evaluation_fraction,
            },
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
    builder = prepared(TimeSeriesBuilder, config=config, data_dir=data_dir)
    series = examples_of(builder, tfds.Split.TRAIN).get_single_element()
    return series["values"].numpy()


def _filled(values: np.ndarray) -> np.ndarray:
    steps, known = np.arange(len(values)), np.isfinite(values)
    return np.interp(steps, steps[known], values[known])


class Sunspots(ForecastingTask):
    """Predict the number of sunspots, monthly or yearly.

    Sunspot numbers of the National Geophysical Data Center, from statsmodels: 3,126 monthly means
    from January 1749 to June 2009, or 309 yearly ones from 1700 to 2008, the series of G. Yule,
    "On a method of investigating periodicities in disturbed series", 1927. They rise and fall in
    a cycle of some eleven years. Inputs, targets and baseline: see `ForecastingTask`; the cycle is
    too irregular for a seasonal forecast.

    Args:
        frequency: "monthly" or "yearly".
        **options: See `ForecastingTask`.

    Raises:
        ValueError: The frequency is unknown, or a part of the series is shorter than a window.
    """

    name = "sunspots"
    frequencies: ClassVar[tuple[str, ...]] = ("monthly", "yearly")

    def __init__(self, *, frequency: str = "monthly", **options: Any) -> None:
        choice("frequency", frequency, self.frequencies)
        super().__init__(f"sunspots_{frequency}", options={"frequency": frequency}, **options)


class CarbonDioxide(ForecastingTask):
    """Predict the carbon dioxide in the air over Mauna Loa, weekly since 1958.

    C. Keeling and T. Whorf, "Atmospheric CO2 concentrations derived from flask air samples at
    sites in the SIO network", 2004, from statsmodels: 2,284 weeks from March 1958 to December
    2001 in parts per million, 59 of them missing. The values rise from year to year and
    oscillate with the seasons. Inputs, targets and baseline: see `ForecastingTask`, with a season
    of 52 weeks. By default the task is to predict the weekly changes, because the values of the
    last years are higher than any in training.

    Args:
        length, difference, **options: See `ForecastingTask`.

    Raises:
        ValueError: A part of the series is shorter than a window.
    """

    name = "co2"
    season = 52

    def __init__(self, *, length: int = 52, difference: bool = True, **options: Any) -> None:
        super().__init__("co2_weekly", length=length, difference=difference, **options)
