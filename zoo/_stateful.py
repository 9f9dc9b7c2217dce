"""Steps of models with stateful layers.

The states of a stateful layer are not among a model's variables, and on JAX the variables are all
that Keras carries from one compiled call to the next: `predict` starts each batch from the same
states (Keras 3.15). There such a model is called as it is.
"""

from typing import Any

import keras
import numpy as np


def predict_next(model: keras.Model, inputs: Any) -> np.ndarray:
    """The outputs for one batch, which continues the last one."""
    if keras.backend.backend() == "jax":
        return np.asarray(model(inputs, training=False))
    return np.asarray(model.predict_on_batch(inputs))
