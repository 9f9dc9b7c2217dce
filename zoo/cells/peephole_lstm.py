"""PeepholeLSTMCell and PeepholeLSTM."""

import keras
from keras import ops

from gradkeeper.zoo._typing import Tensor
from gradkeeper.zoo.cells._lstm_variant import PeepholeCell
from gradkeeper.zoo.cells.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class PeepholeLSTMCell(PeepholeCell):
    """LSTM with peephole connections from the cell state to the gates.

    Gers, Schraudolph, Schmidhuber: "Learning Precise Timing with LSTM Recurrent Networks",
    Journal of Machine Learning Research 3, 2002; with tanh at the output as in Greff et al.:
    "LSTM: A Search Space Odyssey", 2015, arXiv 1503.04069::

        i = sigmoid(W_i x_t + U_i h_{t-1} + p_i * c_{t-1} + b_i)
        f = sigmoid(W_f x_t + U_f h_{t-1} + p_f * c_{t-1} + b_f)
        n = tanh(W_n x_t + U_n h_{t-1} + b_n)
        c_t = f * c_{t-1} + i * n
        o = sigmoid(W_o x_t + U_o h_{t-1} + p_o * c_t + b_o)
        h_t = o * tanh(c_t)

    Inputs: x_t [batch, features]. States: h, c, each [batch, units]. Output: h_t [batch, units].

    Weights, in the order i, f, n, o of `keras.layers.LSTM`:
        kernel: (W_i, W_f, W_n, W_o), [features, 4 * units].
        recurrent_kernel: (U_i, U_f, U_n, U_o), [units, 4 * units].
        bias: (b_i, b_f, b_n, b_o), [4 * units]. b_f starts at 1 with `unit_forget_bias`; with
            `chrono_steps`, b_f starts at log(u) and b_i at -log(u). None if `use_bias=False`.
        peephole_kernel: (p_i, p_f, p_o), [3 * units]; None if `peepholes=False`.

    Args: those of `keras.layers.LSTMCell`, `peepholes`, `peephole_initializer` and
    `chrono_steps` (`ForgetGateCell`).
    """

    gates = 4
    peephole_gates = 3

    def update_cell_state(self, sums: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, n, o = ops.split(sums, 4, axis=-1)
        i = self.gate("i", self.add_peephole(i, c, 0))
        f = self.gate("f", self.add_peephole(f, c, 1))
        c = f * c + i * self.activation(n)
        return c, self.add_peephole(o, c, 2)


@keras.saving.register_keras_serializable(package="gradkeeper")
class PeepholeLSTM(CellLayer):
    """`PeepholeLSTMCell` as a layer, with the arguments of `keras.layers.LSTM`."""

    cell_class = PeepholeLSTMCell
