"""The base of cells that make their recurrent kernels of their weights."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from gradkeeper.zoo.cells.recurrent_cell import RecurrentCell


class MadeKernelCell(RecurrentCell):
    """A cell whose recurrent kernel is no weight but a function of weights, the same at all steps.

    A subclass writes `made_kernel`, and `recur` with its result as the argument `kernel`.
    """

    def made_kernel(self) -> Any:
        """What the states are multiplied with."""
        raise NotImplementedError(f"{type(self).__name__} must define `made_kernel`.")

    def stepper(self, training: bool = False) -> Callable[[Any, Any], tuple[Any, list[Any]]]:
        return partial(self.recur, training=training, kernel=self.made_kernel())

    def recur(
        self, projected: Any, states: Sequence[Any], training: bool = False, kernel: Any = None
    ) -> tuple[Any, list[Any]]:
        raise NotImplementedError(f"{type(self).__name__} must define `recur`.")
