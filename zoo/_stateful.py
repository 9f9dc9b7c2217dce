"""Prediction with models that have stateful layers.

The states of a stateful layer are not variables of the model. On JAX, Keras carries only the
variables from one compiled call to the next, so that `predict` starts each batch from the same
states (Keras 3.15). On JAX, the model is therefore called directly.
"""

from typing import Any

import keras
import numpy as np


def predict_next(model: keras.Model, inputs: Any) -> np.ndarray:
    """Return the outputs for one batch that continues the sequences of the last batch."""
    if keras.backend.backend() == "jax":
        return np.asarray(model(inputs, training=False))
    return np.asarray(model.predict_on_batch(inputs))
