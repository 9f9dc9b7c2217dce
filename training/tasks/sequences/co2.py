"""Carbon dioxide in the air since 1958: prediction of the next weeks."""

from os import PathLike

from gradkeeper.training.tasks.sequences.forecasting import ForecastingTask


class CarbonDioxide(ForecastingTask):
    """Predict the carbon dioxide over Mauna Loa.

    C. Keeling and T. Whorf, "Atmospheric CO2 concentrations derived from flask air samples at
    sites in the SIO network", 2004, from statsmodels: 2,284 weeks from March 1958 to December
    2001 in parts per million, 59 of them missing. The values rise from year to year and
    oscillate with the seasons. Inputs, targets and baseline: see `ForecastingTask`, with a season
    of 52 weeks. By default the task is to predict the weekly changes, because the values of the
    last years are higher than any in training.

    Args:
        length: Values per window.
        horizon: Number of values to predict.
        difference: Predict the changes instead of the values.
        evaluation_fraction: Fraction of the series for evaluation, at its end.
        data_dir: Data folder of tensorflow-datasets; the file is downloaded unless it is
            prepared there.
        seed: Seed of the training batches.

    Raises:
        ValueError: A part of the series is shorter than a window.
    """

    name = "co2"
    season = 52

    def __init__(
        self,
        *,
        length: int = 52,
        horizon: int = 1,
        difference: bool = True,
        evaluation_fraction: float = 0.2,
        data_dir: str | PathLike[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            "co2_weekly",
            length=length,
            horizon=horizon,
            difference=difference,
            evaluation_fraction=evaluation_fraction,
            data_dir=data_dir,
            seed=seed,
        )
