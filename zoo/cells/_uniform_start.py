"""Base class of the cells whose weights all start uniform in one interval."""

from typing import Any

import keras

from gradkeeper.zoo._typing import Initializer, Shape, Tensor
from gradkeeper.zoo.cells.recurrent_cell import RecurrentCell


class UniformStartCell(RecurrentCell):
    """Base class of cells whose weights and biases all start uniform in [-limit, limit].

    A subclass defines `initial_limit`. Every weight has its own random numbers.

    Args:
        kernel_initializer, recurrent_initializer, bias_initializer: initializers to use instead.
    """

    def __init__(
        self,
        units: int,
        *,
        kernel_initializer: Initializer = None,
        recurrent_initializer: Initializer = None,
        bias_initializer: Initializer = None,
        **options: Any,
    ) -> None:
        super().__init__(
            units,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            **options,
        )

    def initial_limit(self, features: Any) -> float:
        """Return the limit for inputs [batch, features]."""
        raise NotImplementedError(f"{type(self).__name__} must define `initial_limit`.")

    def build(self, input_shape: Shape) -> None:
        self._limit = self.initial_limit(input_shape[-1])
        super().build(input_shape)

    def add_weight(self, *, initializer: Initializer = None, **options: Any) -> Tensor:
        return super().add_weight(initializer=initializer or self._uniform(), **options)

    def initial_bias(self, shape: Shape, dtype: str | None = None) -> Tensor:
        return (self.bias_initializer or self._uniform())(shape, dtype=dtype)

    def _uniform(self) -> keras.initializers.Initializer:
        seed = None if self.seed is None else self.seed + len(self.weights)
        return keras.initializers.RandomUniform(-self._limit, self._limit, seed)
