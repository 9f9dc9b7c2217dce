"""Keras weight constraints."""

from typing import Any

import keras
from keras import ops

from gradkeeper.zoo import _checks


@keras.saving.register_keras_serializable(package="gradkeeper")
class MaxMagnitude(keras.constraints.Constraint):
    """Constraint that clips every element to [-limit, limit].

    Args:
        limit: largest magnitude, above 0.
    """

    def __init__(self, limit: float) -> None:
        self.limit = _checks.positive("limit", limit)

    def __call__(self, w: Any) -> Any:
        return ops.clip(w, -self.limit, self.limit)

    def get_config(self) -> dict[str, Any]:
        return {"limit": self.limit}
