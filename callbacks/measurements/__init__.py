"""Measurements: statistics of each variable that the compiled train step records."""

from gradkeeper.callbacks.measurements import optimizer as optimizer
from gradkeeper.callbacks.measurements.registry import (
    MEASUREMENTS,
    Measurement,
    MeasurementContext,
    measurement,
    measurements_from,
)

__all__ = ["MEASUREMENTS", "Measurement", "MeasurementContext", "measurement", "measurements_from"]
