"""Base classes of the LSTM variants."""

from collections.abc import Sequence
from typing import Any, ClassVar

from keras import ops

from gradkeeper.zoo.cells._options import resolve
from gradkeeper.zoo.cells.gated_cell import ForgetGateCell, GatedCell


class LSTMVariantCell(GatedCell):
    """Base class of cells with a cell state c and an output gate::

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
        """Return the inputs of the activations of gates and candidate, concatenated."""
        return projected + ops.matmul(h, self.recurrent_kernel)

    def remember(self, sums: Any, c: Any) -> tuple[Any, Any]:
        """Compute the next cell state and the input of the output gate's activation.

        This implementation is that of the LSTM.

        Args:
            sums: result of `gate_sums`.
            c: cell state [batch, units].
        """
        i, f, n, o = ops.split(sums, 4, axis=-1)
        c = self.recurrent_activation(f) * c + self.recurrent_activation(i) * self.activation(n)
        return c, o


class PeepholeCell(LSTMVariantCell, ForgetGateCell):
    """Base class of LSTM variants with peepholes from each cell state to the gates of its unit.

    Args:
        peepholes: whether the cell has peepholes.
        peephole_initializer: initializer of the peephole weights.
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
        """Add the peephole term to the input of a gate's activation."""
        if self.peephole_kernel is None:
            return gate_sum
        weights = ops.split(self.peephole_kernel, self.peephole_gates)
        return gate_sum + weights[gate] * c
