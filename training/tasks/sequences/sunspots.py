"""Sunspot numbers since 1749: prediction of the next ones."""

from os import PathLike
from typing import ClassVar

from gradkeeper.training._checks import unknown_name
from gradkeeper.training.tasks.sequences.forecasting import ForecastingTask


class Sunspots(ForecastingTask):
    """Predict the number of sunspots.

    Sunspot numbers of the National Geophysical Data Center, from statsmodels: 3,126 monthly means
    from January 1749 to June 2009, or 309 yearly ones from 1700 to 2008, the series of G. Yule,
    "On a method of investigating periodicities in disturbed series", 1927. They rise and fall in
    a cycle of some eleven years. Inputs, targets and baseline: see `ForecastingTask`; the cycle is
    too irregular for a seasonal forecast.

    Args:
        frequency: "monthly" or "yearly".
        length: Values per window.
        horizon: Number of values to predict.
        difference: Predict the changes instead of the values.
        evaluation_fraction: Fraction of the series for evaluation, at its end.
        data_dir: Data folder of tensorflow-datasets; the file is downloaded unless it is
            prepared there.
        seed: Seed of the training batches.

    Raises:
        ValueError: The frequency is unknown, or a part of the series is shorter than a window.
    """

    name = "sunspots"
    frequencies: ClassVar[tuple[str, ...]] = ("monthly", "yearly")

    def __init__(
        self,
        *,
        frequency: str = "monthly",
        length: int = 50,
        horizon: int = 1,
        difference: bool = False,
        evaluation_fraction: float = 0.2,
        data_dir: str | PathLike[str] | None = None,
        seed: int = 0,
    ) -> None:
        if frequency not in self.frequencies:
            raise unknown_name("frequency", frequency, self.frequencies)
        super().__init__(
            f"sunspots_{frequency}",
            length=length,
            horizon=horizon,
            difference=difference,
            evaluation_fraction=evaluation_fraction,
            options={"frequency": frequency},
            data_dir=data_dir,
            seed=seed,
        )
