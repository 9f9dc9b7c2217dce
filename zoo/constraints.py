"""What weights are held to, in the form of Keras constraints."""

from typing import Any

import keras
from keras import ops

from gradkeeper.zoo import _checks


@keras.saving.register_keras_serializable(package="gradkeeper")
class MaxMagnitude(keras.constraints.Constraint):
    """Holds every element in [-limit, limit].

    Args:
        limit: the limit, above 0.
    """

    def __init__(self, limit: float) -> None:
        self.limit = _checks.positive("limit", limit)

    def __call__(self, w: Any) -> Any:
        return ops.clip(w, -self.limit, self.limit)

    def get_config(self) -> dict[str, Any]:
        return {"limit": self.limit}
