"""Global random generators of torch, in the form of variables."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import keras


class GlobalGenerator:
    """State of a global random generator of torch.

    A `Dropout` without a seed draws from these generators. On other backends, Keras stores the
    state of every random generator in a variable.

    Args:
        device: the device of the generator.
    """

    def __init__(self, device: Any) -> None:
        import torch

        self._device = device
        self._module = torch.cuda if device.type == "cuda" else torch.random
        self._args = (device,) if device.type == "cuda" else ()

    @property
    def path(self) -> str:
        return f"torch/generator_{str(self._device).replace(':', '_')}"

    @property
    def value(self) -> Any:
        return self._module.get_rng_state(*self._args)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return self.value.numpy()

    def assign(self, value: Any) -> None:
        """Set the state, [bytes], uint8."""
        import torch

        self._module.set_rng_state(torch.as_tensor(value).cpu(), *self._args)


@cache
def global_generators() -> tuple[GlobalGenerator, ...]:
    """Return the global generators of torch, one for each device; none on other backends."""
    if keras.backend.backend() != "torch":
        return ()
    import torch

    devices = ["cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))]
    return tuple(GlobalGenerator(torch.device(each)) for each in devices)


@contextmanager
def generators_restored() -> Iterator[None]:
    """Restore the states of the global generators after the block."""
    before = [(each, each.value) for each in global_generators()]
    try:
        yield
    finally:
        for each, value in before:
            each.assign(value)
