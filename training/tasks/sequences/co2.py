"""Carbon dioxide in the air since 1958, the next weeks."""

from os import PathLike

from gradkeeper.training.tasks.sequences.forecasting import ForecastingTask


class CarbonDioxide(ForecastingTask):
    """Predict the carbon dioxide over Mauna Loa.

    C. Keeling and T. Whorf, "Atmospheric CO2 concentrations derived from flask air samples at
    sites in the SIO network", 2004, as statsmodels keeps them: 2,284 weeks from March 1958 to
    December 2001 in parts per million, 59 of them missing. They rise from year to year and
    swing with the seasons. Inputs, targets and baseline: see `ForecastingTask`, with a season
    of 52 weeks. By default the weekly changes are predicted: the values of the last years are
    higher than any in training.

    Args:
        length: Values in a window.
        horizon: Values to predict.
        difference: Predict the changes instead of the values.
        evaluation_fraction: Of the series, at its end.
        data_dir: Folder of tensorflow-datasets; the file is downloaded to it unless it is
            prepared there.
        seed: Seed of the training batches.

    Raises:
        ValueError: A part of the series without a single window.
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
