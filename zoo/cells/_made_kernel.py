"""Base class of cells that compute their recurrent kernel from weights."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from gradkeeper.zoo.cells.recurrent_cell import RecurrentCell


class MadeKernelCell(RecurrentCell):
    """Base class of cells whose recurrent kernel is a function of weights, constant over the steps.

    A subclass defines `made_kernel`, and a `recur` that takes its result as the argument `kernel`.
    """

    def made_kernel(self) -> Any:
        """Compute the matrix that multiplies the states, once per sequence."""
        raise NotImplementedError(f"{type(self).__name__} must define `made_kernel`.")

    def stepper(self, training: bool = False) -> Callable[[Any, Any], tuple[Any, list[Any]]]:
        return partial(self.recur, training=training, kernel=self.made_kernel())

    def recur(
        self, projected: Any, states: Sequence[Any], training: bool = False, kernel: Any = None
    ) -> tuple[Any, list[Any]]:
        raise NotImplementedError(f"{type(self).__name__} must define `recur`.")
