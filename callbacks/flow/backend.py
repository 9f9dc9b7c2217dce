"""Derivatives on Keras's backend."""

from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING or keras.backend.backend() == "tensorflow":
    from gradkeeper.callbacks.flow.derivatives import jvp, state_gradients, unrolled_pass, vjp
elif keras.backend.backend() == "jax":
    from gradkeeper.callbacks.flow.jax_derivatives import jvp, state_gradients, unrolled_pass, vjp
else:
    from gradkeeper.callbacks.flow.torch_derivatives import (
        jvp,
        state_gradients,
        unrolled_pass,
        vjp,
    )

__all__ = ["jvp", "state_gradients", "unrolled_pass", "vjp"]
