"""LinearCell."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from keras import ops

from gradkeeper.zoo.cells.recurrent_cell import RecurrentCell

# a and b of one step, or of several steps in a row, as `LinearCell.coefficients` gives them.
Element: TypeAlias = tuple[Any, Any]


class LinearCell(RecurrentCell):
    """The base of cells whose state s follows s_t = a_t * s_{t-1} + b_t.

    a_t and b_t are made of the inputs alone, so that all states of a sequence can be found in
    parallel: two steps in a row are one step with (a_2 * a_1, a_2 * b_1 + b_2), and putting
    together is associative (`gradkeeper.zoo.layers.scan_layer`).

    A subclass sets `gates` and writes `coefficients`, and `read` where the output is not the state
    itself. There is no recurrent kernel: the options `recurrent_initializer`,
    `recurrent_regularizer` and `recurrent_constraint` are for the weights that make a_t, where a
    cell has some.
    """

    def __init__(self, units: int, *, activation: Any = "linear", **options: Any) -> None:
        super().__init__(units, activation=activation, **options)

    def recurrent_shape(self) -> None:
        """There is none."""

    def coefficients(self, projected: Any) -> Element:
        """a and b of one step [batch, width], or of a whole sequence [batch, time, width]."""
        raise NotImplementedError(f"{type(self).__name__} must define `coefficients`.")

    def read(self, state: Any, projected: Any) -> Any:
        """The output at a state; of one step or of all."""
        return state

    def join(self, states: Sequence[Any]) -> Any:
        """The state s from the states of the layer."""
        return states[0]

    def part(self, state: Any, output: Any) -> list[Any]:
        """The states of the layer from s and the output at it."""
        return [output]

    def combine(self, first: Element, then: Element) -> Element:
        """Two steps as one."""
        (a1, b1), (a2, b2) = first, then
        return self.multiply(a2, a1), self.multiply(a2, b1) + b2

    def after(self, element: Element, state: Any) -> Any:
        """The state after the step, as b is kept."""
        a, b = element
        return self.multiply(a, state) + b

    def state(self, b: Any) -> Any:
        """The state that is kept so."""
        return b

    def multiply(self, a: Any, state: Any) -> Any:
        return a * state

    def idle(self, element: Element) -> Element:
        """Steps that leave the state as it is, shaped like these."""
        a, b = element
        return ops.ones_like(a), ops.zeros_like(b)

    def dropped(self, element: Element, states: Sequence[Any]) -> Element:
        """The same with the sequence's recurrent dropout mask on the state before each step."""
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
        """The mask for the units, as wide as a and for all its steps."""
        mask = ops.cast(self.get_recurrent_dropout_mask(states[0]), a.dtype)
        mask = ops.tile(mask, [1, a.shape[-1] // self.units])
        return mask if len(a.shape) == 2 else ops.expand_dims(mask, 1)
