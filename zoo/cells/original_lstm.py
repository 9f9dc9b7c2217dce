"""OriginalLSTMCell and OriginalLSTM."""

from typing import Any

import keras
from keras import ops

from gradkeeper._arguments import number
from gradkeeper.zoo._typing import Shape, Tensor
from gradkeeper.zoo.cells._lstm_variant import LSTMVariantCell
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.gated_cell import add_to_blocks


@keras.saving.register_keras_serializable(package="gradkeeper")
class OriginalLSTMCell(LSTMVariantCell):
    """Original LSTM of 1997, without a forget gate.

    Hochreiter, Schmidhuber: "Long Short-Term Memory", Neural Computation 9, 1997::

        i, o = sigmoid(W_i x_t + U_i h_{t-1} + b_i), likewise o
        n = tanh(W_n x_t + U_n h_{t-1} + b_n)
        c_t = c_{t-1} + i * n
        h_t = o * tanh(c_t)

    The paper has g(x) = 4 / (1 + exp(-x)) - 2 instead of the first tanh, and
    h(x) = 2 / (1 + exp(-x)) - 1 instead of the second. Because g(x) = 2 tanh(x / 2) and
    h(x) = tanh(x / 2), the paper's cell with weights W_n, U_n, b_n has the same outputs as this
    cell with W_n / 2, U_n / 2, b_n / 2. The paper's cell state is twice the cell state here.

    Inputs: x_t [batch, features]. States: h, c, each [batch, units]. Output: h_t [batch, units].

    Weights, in the order i, n, o:
        kernel: (W_i, W_n, W_o), [features, 3 * units].
        recurrent_kernel: (U_i, U_n, U_o), [units, 3 * units].
        bias: (b_i, b_n, b_o), [3 * units]; None if `use_bias=False`.

    Args: those of `keras.layers.LSTMCell` without `unit_forget_bias`, and
        input_gate_bias: a constant added to the initial b_i. Without a forget gate, everything that
            the input gate lets through stays in c. With b_i near 0, c drifts away from 0 over long
            sequences and saturates the tanh of the output, so that the paper starts the gates
            nearly closed (its section 4). The default is its value for the first block of cells on
            the adding problem (section 5.4); it uses -6 for the second block.
    """

    gates = 3

    def __init__(self, units: int, *, input_gate_bias: float = -3.0, **options: Any) -> None:
        super().__init__(units, **options)
        self.input_gate_bias = number("input_gate_bias", input_gate_bias, "(-inf, inf)")

    def initial_bias(self, shape: Shape, dtype: str | None = None) -> Tensor:
        return add_to_blocks(super().initial_bias(shape, dtype), (self.input_gate_bias, 0, 0))

    def carry(self, gates: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"c": ops.ones_like(gates["i"])}

    def update_cell_state(self, sums: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, n, o = ops.split(sums, 3, axis=-1)
        return c + self.gate("i", i) * self.activation(n), o


@keras.saving.register_keras_serializable(package="gradkeeper")
class OriginalLSTM(CellLayer):
    """`OriginalLSTMCell` as a layer, with the arguments of `keras.layers.LSTM`."""

    cell_class = OriginalLSTMCell
