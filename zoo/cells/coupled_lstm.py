"""CoupledLSTMCell and CoupledLSTM."""

import keras
from keras import ops

from gradkeeper.zoo._typing import Tensor
from gradkeeper.zoo.cells._lstm_variant import PeepholeCell
from gradkeeper.zoo.cells.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class CoupledLSTMCell(PeepholeCell):
    """LSTM with coupled gates: the input gate is one minus the forget gate.

    Greff, Srivastava, Koutník, Steunebrink, Schmidhuber: "LSTM: A Search Space Odyssey", 2015,
    arXiv 1503.04069, variant CIFG::

        f = sigmoid(W_f x_t + U_f h_{t-1} + p_f * c_{t-1} + b_f)
        n = tanh(W_n x_t + U_n h_{t-1} + b_n)
        c_t = f * c_{t-1} + (1 - f) * n
        o = sigmoid(W_o x_t + U_o h_{t-1} + p_o * c_t + b_o)
        h_t = o * tanh(c_t)

    The paper has the weights of the input gate i and sets f = 1 - i. This is the same function
    with opposite signs of W_f, U_f, p_f and b_f.

    Inputs: x_t [batch, features]. States: h, c, each [batch, units]. Output: h_t [batch, units].

    Weights, in the order f, n, o:
        kernel: (W_f, W_n, W_o), [features, 3 * units].
        recurrent_kernel: (U_f, U_n, U_o), [units, 3 * units].
        bias: (b_f, b_n, b_o), [3 * units]. b_f starts at 1 with `unit_forget_bias`, and at
            log(u) with `chrono_steps`. None if `use_bias=False`.
        peephole_kernel: (p_f, p_o), [2 * units]; None if `peepholes=False`.

    Args: those of `keras.layers.LSTMCell`, `peepholes`, `peephole_initializer` and
    `chrono_steps` (`ForgetGateCell`).
    """

    gates = 3
    gate_signs = (1, 0, 0)
    peephole_gates = 2

    def update_cell_state(self, sums: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        f, n, o = ops.split(sums, 3, axis=-1)
        f = self.gate("f", self.add_peephole(f, c, 0))
        c = f * c + (1 - f) * self.activation(n)
        return c, self.add_peephole(o, c, 1)


@keras.saving.register_keras_serializable(package="gradkeeper")
class CoupledLSTM(CellLayer):
    """`CoupledLSTMCell` as a layer, with the arguments of `keras.layers.LSTM`."""

    cell_class = CoupledLSTMCell
