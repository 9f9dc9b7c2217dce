"""The functions of a replay that depend on the backend of Keras."""

from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING or keras.backend.backend() == "tensorflow":
    from gradkeeper.callbacks.diagnosis._tensorflow_private import key_of
    from gradkeeper.callbacks.diagnosis.rerun import (
        FAILURES,
        is_finite_with,
        scaled_down,
        wide_numbers,
        widened,
    )
    from gradkeeper.callbacks.diagnosis.step import (
        ends_well,
        run_step,
        tensors_in,
        to_tensors,
        with_numbers,
    )
elif keras.backend.backend() == "jax":
    from gradkeeper.callbacks.diagnosis.jax.rerun import (
        FAILURES,
        is_finite_with,
        scaled_down,
        wide_numbers,
        widened,
    )
    from gradkeeper.callbacks.diagnosis.jax.step import (
        ends_well,
        run_step,
        tensors_in,
        to_tensors,
        with_numbers,
    )
    from gradkeeper.callbacks.diagnosis.jax.values import key_of
else:
    raise ImportError(
        "A replay supports these backends of Keras: tensorflow, jax. "
        f"Received: KERAS_BACKEND={keras.backend.backend()}"
    )

__all__ = [
    "FAILURES",
    "ends_well",
    "is_finite_with",
    "key_of",
    "run_step",
    "scaled_down",
    "tensors_in",
    "to_tensors",
    "wide_numbers",
    "widened",
    "with_numbers",
]
