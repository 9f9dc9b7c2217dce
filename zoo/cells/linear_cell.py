"""Base class of the cells with a linear recurrence."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from keras import ops

from gradkeeper.zoo.cells.recurrent_cell import RecurrentCell

# The coefficients (a, b) of one step, or of several consecutive steps combined.
Element: TypeAlias = tuple[Any, Any]


class LinearCell(RecurrentCell):
    """Base class of cells with a linear recurrence s_t = a_t * s_{t-1} + b_t.

    a_t and b_t depend only on the inputs, so that all states of a sequence can be computed in
    parallel. Two consecutive steps are equal to one step with (a_2 * a_1, a_2 * b_1 + b_2), and
    this combination is associative (`gradkeeper.zoo.layers.scan_layer`).

    A subclass sets `gates` and defines `coefficients`. If the output is not the state, it also
    overrides `read`. There is no recurrent kernel. The options `recurrent_initializer`,
    `recurrent_regularizer` and `recurrent_constraint` apply to the weights of a_t, if there are
    any.
    """

    def __init__(self, units: int, *, activation: Any = "linear", **options: Any) -> None:
        super().__init__(units, activation=activation, **options)

    def recurrent_shape(self) -> None:
        """Return None, as the cell has no recurrent kernel."""

    def coefficients(self, projected: Any) -> Element:
        """Compute a and b of one step [batch, width] or of a sequence [batch, time, width]."""
        raise NotImplementedError(f"{type(self).__name__} must define `coefficients`.")

    def read(self, state: Any, projected: Any) -> Any:
        """Compute the output from a state, for one step or for all."""
        return state

    def join(self, states: Sequence[Any]) -> Any:
        """Return s as one tensor, from the states of the layer."""
        return states[0]

    def part(self, state: Any, output: Any) -> list[Any]:
        """Return the states of the layer, from s and the output."""
        return [output]

    def combine(self, first: Element, then: Element) -> Element:
        """Combine two consecutive steps into one."""
        (a1, b1), (a2, b2) = first, then
        return self.multiply(a2, a1), self.multiply(a2, b1) + b2

    def after(self, element: Element, state: Any) -> Any:
        """Compute the state after the step, in the representation of b."""
        a, b = element
        return self.multiply(a, state) + b

    def state(self, b: Any) -> Any:
        """Convert the representation of b to the state."""
        return b

    def multiply(self, a: Any, state: Any) -> Any:
        return a * state

    def idle(self, element: Element) -> Element:
        """Return steps of the same shape that do not change the state."""
        a, b = element
        return ops.ones_like(a), ops.zeros_like(b)

    def dropped(self, element: Element, states: Sequence[Any]) -> Element:
        """Apply the sequence's recurrent dropout mask to the state before each step."""
        a, b = element
        return a * self._mask_like(a, states), b

    def recur(
        self, projected: Any, states: Sequence[Any], training: bool = False
    ) -> tuple[Any, list[Any]]:
        element = self.coefficients(projected)
        if training and self.recurrent_dropout:
            element = self.dropped(element, states)
        state = self.state(self.after(element, self.join(states)))
        output = ops.cast(self.read(state, projected), projected.dtype)
        return output, self.part(state, output)

    def _mask_like(self, a: Any, states: Sequence[Any]) -> Any:
        """Return the recurrent dropout mask in a shape that broadcasts to a."""
        mask = ops.cast(self.get_recurrent_dropout_mask(states[0]), a.dtype)
        mask = ops.tile(mask, [1, a.shape[-1] // self.units])
        return mask if len(a.shape) == 2 else ops.expand_dims(mask, 1)
