"""UGRNNCell and UGRNN."""

import keras
from keras import ops

from gradkeeper.zoo._typing import State, StepOutput, Tensor
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.gated_cell import ForgetGateCell


@keras.saving.register_keras_serializable(package="gradkeeper")
class UGRNNCell(ForgetGateCell):
    """Update gate network: a simple RNN with one gate between the old state and the candidate.

    Collins, Sohl-Dickstein, Sussillo: "Capacity and Trainability in Recurrent Neural Networks",
    2016, arXiv 1611.09913::

        n = tanh(W_n x_t + U_n h_{t-1} + b_n)
        z = sigmoid(W_z x_t + U_z h_{t-1} + b_z)
        h_t = z * h_{t-1} + (1 - z) * n

    Inputs: x_t [batch, features]. States: h [batch, units]. Output: h_t [batch, units].

    Weights, in the order n, z:
        kernel: (W_n, W_z), [features, 2 * units].
        recurrent_kernel: (U_n, U_z), [units, 2 * units].
        bias: (b_n, b_z), [2 * units]; None if `use_bias=False`. b_z starts at 1 with
            `unit_forget_bias`, and at log(u) with `chrono_steps`.

    Args: those of `keras.layers.LSTMCell`, and `chrono_steps` (`ForgetGateCell`).
    """

    gates = 2
    gate_signs = (0, 1)
    forget_gate = ("h", "z")

    def recur(self, projected: Tensor, states: State, training: bool = False) -> StepOutput:
        h = states[0]
        sums = projected + ops.matmul(self.drop_state(h, training), self.recurrent_kernel)
        n, z = ops.split(sums, 2, axis=-1)
        z = self.gate("z", z)
        h = z * h + (1 - z) * self.activation(n)
        return h, [h]


@keras.saving.register_keras_serializable(package="gradkeeper")
class UGRNN(CellLayer):
    """`UGRNNCell` as a layer, with the arguments of `keras.layers.LSTM`."""

    cell_class = UGRNNCell
