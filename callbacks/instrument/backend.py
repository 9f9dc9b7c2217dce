"""The train function and the recorder of Keras's backend."""

from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING or keras.backend.backend() != "jax":
    from gradkeeper.callbacks.instrument.train_function import InstrumentedTrainFunction
    from gradkeeper.callbacks.recording.recorder import Recorder
else:
    from gradkeeper.callbacks.instrument.jax.recorder import JaxRecorder as Recorder
    from gradkeeper.callbacks.instrument.jax.train_function import (
        JaxTrainFunction as InstrumentedTrainFunction,
    )

__all__ = ["InstrumentedTrainFunction", "Recorder"]
