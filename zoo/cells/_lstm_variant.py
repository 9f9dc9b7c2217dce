"""Base classes of the LSTM variants."""

from typing import Any, ClassVar

from keras import ops

from gradkeeper.zoo._typing import Initializer, Shape, State, StepOutput, Tensor
from gradkeeper.zoo.cells._options import resolve
from gradkeeper.zoo.cells.gated_cell import ForgetGateCell, GatedCell


class LSTMVariantCell(GatedCell):
    """Base class of cells with a cell state c and an output gate::

        h_t = sigmoid(o) * tanh(c_t)

    A subclass overrides `gate_sums` or `update_cell_state`.
    """

    state_count = 2
    forget_gate = ("c", "f")

    def recur(self, projected: Tensor, states: State, training: bool = False) -> StepOutput:
        h, c = states
        c, o = self.update_cell_state(self.gate_sums(projected, self.drop_state(h, training)), c)
        h = self.gate("o", o) * self.activation(c)
        return h, [h, c]

    def gate_sums(self, projected: Tensor, h: Tensor) -> Tensor:
        """Return the inputs of the activations of gates and candidate, concatenated."""
        return projected + ops.matmul(h, self.recurrent_kernel)

    def update_cell_state(self, sums: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the next cell state and the input of the output gate's activation.

        This implementation is that of the LSTM.

        Args:
            sums: result of `gate_sums`.
            c: cell state [batch, units].
        """
        i, f, n, o = ops.split(sums, 4, axis=-1)
        c = self.gate("f", f) * c + self.gate("i", i) * self.activation(n)
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
        peephole_initializer: Initializer = "zeros",
        **options: Any,
    ) -> None:
        super().__init__(units, **options)
        self.peepholes = peepholes
        self.peephole_initializer = resolve("peephole_initializer", peephole_initializer)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.peephole_kernel = None
        if self.peepholes:
            shape = (self.peephole_gates * self.units,)
            self.peephole_kernel = self.add_recurrent(
                "peephole_kernel", shape, self.peephole_initializer
            )

    def add_peephole(self, gate_sum: Tensor, c: Tensor, gate: int) -> Tensor:
        """Add the peephole term to the input of a gate's activation."""
        if self.peephole_kernel is None:
            return gate_sum
        weights = ops.split(self.peephole_kernel, self.peephole_gates)
        return gate_sum + weights[gate] * c
