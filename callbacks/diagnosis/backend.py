"""The functions of a replay that depend on the backend of Keras."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING or keras.backend.backend() == "tensorflow":
    from gradkeeper.callbacks.diagnosis import _tensorflow_private as values
    from gradkeeper.callbacks.diagnosis import rerun, step
elif keras.backend.backend() == "jax":
    from gradkeeper.callbacks.diagnosis.jax import rerun, step, values
elif keras.backend.backend() == "torch":
    from gradkeeper.callbacks.diagnosis.torch import rerun, step, values
else:
    raise ImportError(
        "A replay supports these backends of Keras: tensorflow, jax, torch. "
        f"Received: KERAS_BACKEND={keras.backend.backend()}"
    )

FAILURES = rerun.FAILURES
ends_well = step.ends_well
is_finite_with = rerun.is_finite_with
key_of = values.key_of
run_step = step.run_step
scaled_down = rerun.scaled_down
tensors_in = step.tensors_in
to_tensors = step.to_tensors
widened = rerun.widened
with_numbers = step.with_numbers


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
