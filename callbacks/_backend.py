"""The classes that observe train steps on the backend of Keras."""

from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING or keras.backend.backend() == "tensorflow":
    from gradkeeper.callbacks.clipping.transform import ClipTransform
    from gradkeeper.callbacks.guard.transform import SkipTransform
    from gradkeeper.callbacks.instrument.train_function import InstrumentedTrainFunction
    from gradkeeper.callbacks.recording.recorder import Recorder
else:
    from gradkeeper.callbacks.clipping.array_transform import ArrayClipTransform as ClipTransform
    from gradkeeper.callbacks.guard.array_transform import ArraySkipTransform as SkipTransform
    from gradkeeper.callbacks.instrument.array_recorder import ArrayRecorder as Recorder

    if keras.backend.backend() == "jax":
        from gradkeeper.callbacks.instrument.jax.train_function import (
            JaxTrainFunction as InstrumentedTrainFunction,
        )
    else:
        from gradkeeper.callbacks.instrument.torch.train_function import (
            TorchTrainFunction as InstrumentedTrainFunction,
        )

__all__ = ["ClipTransform", "InstrumentedTrainFunction", "Recorder", "SkipTransform"]
