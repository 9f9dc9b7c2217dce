"""MultiplicativeLSTMCell and MultiplicativeLSTM."""

from typing import Any

import keras
from keras import ops

from gradkeeper.zoo._typing import Shape, Tensor
from gradkeeper.zoo.cells._lstm_variant import LSTMVariantCell
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.gated_cell import ForgetGateCell


@keras.saving.register_keras_serializable(package="gradkeeper")
class MultiplicativeLSTMCell(LSTMVariantCell, ForgetGateCell):
    """LSTM with a recurrent matrix that depends on the input.

    Krause, Lu, Murray, Renals: "Multiplicative LSTM for sequence modelling", 2016, arXiv
    1609.07959::

        m = (W_m x_t) * (U h_{t-1})
        i, f, o = sigmoid(W_i x_t + M_i m + b_i), likewise f, o
        n = tanh(W_n x_t + M_n m + b_n)
        c_t = f * c_{t-1} + i * n
        h_t = o * tanh(c_t)

    Inputs: x_t [batch, features]. States: h, c, each [batch, units]. Output: h_t [batch, units].

    Weights, in the order m, i, f, n, o:
        kernel: (W_m, W_i, W_f, W_n, W_o), [features, 5 * units].
        recurrent_kernel: U, [units, units].
        multiplicative_kernel: (M_i, M_f, M_n, M_o), [units, 4 * units].
        bias: (b_i, b_f, b_n, b_o), [4 * units], or (b_m, b_i, b_f, b_n, b_o), [5 * units], with
            `factor_bias`. b_f starts at 1 with `unit_forget_bias`; with `chrono_steps`, b_f
            starts at log(u) and b_i at -log(u). None if `use_bias=False`.
        recurrent_bias: b_u, [units]; None without `factor_bias`.

    Args: those of `keras.layers.LSTMCell`, `chrono_steps` (`ForgetGateCell`), and
        factor_bias: whether m = (W_m x_t + b_m) * (U h_{t-1} + b_u). The paper has no biases in m.
    """

    gates = 5
    recurrent_gates = 1
    gate_signs = (0, -1, 1, 0, 0)

    def __init__(self, units: int, *, factor_bias: bool = False, **options: Any) -> None:
        super().__init__(units, **options)
        self.factor_bias = factor_bias
        self.biased = slice(0 if factor_bias else 1, 5)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.multiplicative_kernel = self.add_recurrent(
            "multiplicative_kernel", (self.units, 4 * self.units)
        )
        self.recurrent_bias = None
        if self.factor_bias:
            self.recurrent_bias = self.add_bias("recurrent_bias", self.units)

    def gate_sums(self, projected: Tensor, h: Tensor) -> Tensor:
        factor = ops.matmul(h, self.recurrent_kernel)
        if self.recurrent_bias is not None:
            factor = factor + self.recurrent_bias
        m = projected[..., : self.units] * factor
        return projected[..., self.units :] + ops.matmul(m, self.multiplicative_kernel)


@keras.saving.register_keras_serializable(package="gradkeeper")
class MultiplicativeLSTM(CellLayer):
    """`MultiplicativeLSTMCell` as a layer, with the arguments of `keras.layers.LSTM`."""

    cell_class = MultiplicativeLSTMCell
