"""The step that the variants of the LSTM share."""

from collections.abc import Sequence
from typing import Any, ClassVar

from keras import ops

from gradkeeper.zoo.cells._options import resolve
from gradkeeper.zoo.cells.gated_cell import ForgetGateCell, GatedCell


class LSTMVariantCell(GatedCell):
    """A cell state c, carried from step to step, behind an output gate::

        h_t = sigmoid(o) * tanh(c_t)

    A subclass overrides `gate_sums` or `remember`.
    """

    state_count = 2

    def recur(
        self, projected: Any, states: Sequence[Any], training: bool = False
    ) -> tuple[Any, list[Any]]:
        h, c = states
        c, o = self.remember(self.gate_sums(projected, self.drop_state(h, training)), c)
        h = self.recurrent_activation(o) * self.activation(c)
        return h, [h, c]

    def gate_sums(self, projected: Any, h: Any) -> Any:
        """What the gates and the candidate squash, side by side."""
        return projected + ops.matmul(h, self.recurrent_kernel)

    def remember(self, sums: Any, c: Any) -> tuple[Any, Any]:
        """The next cell state, and the sum in the output gate; that of the LSTM unless overridden.

        Args:
            sums: from `gate_sums`.
            c: [batch, units].
        """
        i, f, n, o = ops.split(sums, 4, axis=-1)
        c = self.recurrent_activation(f) * c + self.recurrent_activation(i) * self.activation(n)
        return c, o


class PeepholeCell(LSTMVariantCell, ForgetGateCell):
    """A variant whose gates see the cell state, each unit its own.

    Args:
        peepholes: whether they do.
        peephole_initializer: of the weights of the peepholes.
    """

    peephole_gates: ClassVar[int]

    def __init__(
        self,
        units: int,
        *,
        peepholes: bool = True,
        peephole_initializer: Any = "zeros",
        **options: Any,
    ) -> None:
        super().__init__(units, **options)
        self.peepholes = peepholes
        self.peephole_initializer = resolve("peephole_initializer", peephole_initializer)

    def build(self, input_shape: Sequence[int | None]) -> None:
        super().build(input_shape)
        self.peephole_kernel = None
        if self.peepholes:
            shape = (self.peephole_gates * self.units,)
            self.peephole_kernel = self.add_recurrent(
                "peephole_kernel", shape, self.peephole_initializer
            )

    def peep(self, gate_sum: Any, c: Any, gate: int) -> Any:
        """Adds to the sum of a gate what the gate sees of c."""
        if self.peephole_kernel is None:
            return gate_sum
        weights = ops.split(self.peephole_kernel, self.peephole_gates)
        return gate_sum + weights[gate] * c
