"""Measurements: statistics of variables and layer outputs that the compiled step records."""

import keras

if keras.backend.backend() == "tensorflow":
    from gradkeeper.callbacks.measurements import activations as activations
    from gradkeeper.callbacks.measurements import optimizer as optimizer
from gradkeeper.callbacks.measurements.registry import (
    MEASUREMENTS,
    Measurement,
    MeasurementContext,
    measurement,
    measurements_from,
)

__all__ = ["MEASUREMENTS", "Measurement", "MeasurementContext", "measurement", "measurements_from"]
