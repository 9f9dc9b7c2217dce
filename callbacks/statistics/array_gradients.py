"""The statistics of gradients on JAX or torch."""

from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING or keras.backend.backend() == "jax":
    from gradkeeper.callbacks.statistics.jax_gradients import l2_norms, statistics
else:
    from gradkeeper.callbacks.statistics.torch_gradients import l2_norms, statistics

__all__ = ["l2_norms", "statistics"]
