"""The functions of a replay that depend on the backend of Keras."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING or keras.backend.backend() == "tensorflow":
    from gradkeeper.callbacks.diagnosis._tensorflow_private import key_of
    from gradkeeper.callbacks.diagnosis.rerun import FAILURES, is_finite_with, scaled_down, widened
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
elif keras.backend.backend() == "torch":
    from gradkeeper.callbacks.diagnosis.torch.rerun import (
        FAILURES,
        is_finite_with,
        scaled_down,
        widened,
    )
    from gradkeeper.callbacks.diagnosis.torch.step import (
        ends_well,
        run_step,
        tensors_in,
        to_tensors,
        with_numbers,
    )
    from gradkeeper.callbacks.diagnosis.torch.values import key_of
else:
    raise ImportError(
        "A replay supports these backends of Keras: tensorflow, jax, torch. "
        f"Received: KERAS_BACKEND={keras.backend.backend()}"
    )


@contextmanager
def wide_numbers() -> Iterator[None]:
    """Use float64 in new layers inside the block, and let JAX compute in float64."""
    context: Any = nullcontext()
    if keras.backend.backend() == "jax":
        import jax

        context = jax.enable_x64(True)
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        with context:
            yield
    finally:
        keras.config.set_floatx(before)


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
