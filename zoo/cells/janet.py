"""JANETCell and JANET."""

from typing import Any

import keras
from keras import ops

from gradkeeper.zoo._typing import State, StepOutput, Tensor
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.gated_cell import ForgetGateCell


@keras.saving.register_keras_serializable(package="gradkeeper")
class JANETCell(ForgetGateCell):
    """LSTM with only the forget gate ("Just Another NETwork").

    Van der Westhuizen, Lasenby: "The unreasonable effectiveness of the forget gate", 2018, arXiv
    1804.04849::

        s = W_f x_t + U_f h_{t-1} + b_f
        n = tanh(W_n x_t + U_n h_{t-1} + b_n)
        h_t = sigmoid(s) * h_{t-1} + (1 - sigmoid(s - beta)) * n

    In the paper, h_t = c_t. With beta above 0, the input has a larger weight than 1 - sigmoid(s).

    Inputs: x_t [batch, features]. States: h [batch, units]. Output: h_t [batch, units].

    Weights, in the order f, n:
        kernel: (W_f, W_n), [features, 2 * units].
        recurrent_kernel: (U_f, U_n), [units, 2 * units].
        bias: (b_f, b_n), [2 * units]; None if `use_bias=False`. b_f starts at 1 with
            `unit_forget_bias`, and at log(u) with `chrono_steps`. The paper uses the latter.

    Args: those of `keras.layers.LSTMCell`, `chrono_steps` (`ForgetGateCell`), and
        beta: a constant, 1 in the paper.
    """

    gates = 2
    gate_signs = (1, 0)
    forget_gate = ("h", "f")

    def __init__(self, units: int, *, beta: float = 1.0, **options: Any) -> None:
        super().__init__(units, **options)
        self.beta = beta

    def recur(self, projected: Tensor, states: State, training: bool = False) -> StepOutput:
        h = states[0]
        sums = projected + ops.matmul(self.drop_state(h, training), self.recurrent_kernel)
        s, n = ops.split(sums, 2, axis=-1)
        taken_in = self.record_gate("i", 1 - self.recurrent_activation(s - self.beta))
        h = self.gate("f", s) * h + taken_in * self.activation(n)
        return h, [h]


@keras.saving.register_keras_serializable(package="gradkeeper")
class JANET(CellLayer):
    """`JANETCell` as a layer, with the arguments of `keras.layers.LSTM`."""

    cell_class = JANETCell
