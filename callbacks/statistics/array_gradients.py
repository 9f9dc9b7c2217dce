"""The statistics of gradients on JAX or torch."""

from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING or keras.backend.backend() == "jax":
    from gradkeeper.callbacks.statistics.jax_gradients import (
        joined,
        l2_norms,
        statistics,
        to_host,
        wait_for,
        widest_dtype,
    )
else:
    from gradkeeper.callbacks.statistics.torch_gradients import (
        joined,
        l2_norms,
        statistics,
        to_host,
        wait_for,
        widest_dtype,
    )

__all__ = ["joined", "l2_norms", "statistics", "to_host", "wait_for", "widest_dtype"]
