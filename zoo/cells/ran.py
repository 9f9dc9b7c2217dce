"""RANCell and RAN."""

import keras
from keras import ops

from gradkeeper.zoo._typing import State, StepOutput, Tensor
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.gated_cell import ForgetGateCell


@keras.saving.register_keras_serializable(package="gradkeeper")
class RANCell(ForgetGateCell):
    """Recurrent additive network: the state is a weighted sum of linear maps of the inputs.

    Lee, Levy, Zettlemoyer: "Recurrent Additive Networks", 2017, arXiv 1705.07393::

        n = W_n x_t
        i = sigmoid(W_i x_t + U_i h_{t-1} + b_i)
        f = sigmoid(W_f x_t + U_f h_{t-1} + b_f)
        c_t = i * n + f * c_{t-1}
        h_t = tanh(c_t)

    The paper also has a variant with h_t = c_t. Use `activation="linear"` for this variant.

    Inputs: x_t [batch, features]. States: h, c, each [batch, units]. Output: h_t [batch, units].

    Weights, in the order n, i, f:
        kernel: (W_n, W_i, W_f), [features, 3 * units].
        recurrent_kernel: (U_i, U_f), [units, 2 * units].
        bias: (b_i, b_f), [2 * units]; None if `use_bias=False`. b_f starts at 1 with
            `unit_forget_bias`; with `chrono_steps`, b_f starts at log(u) and b_i at -log(u).

    Args: those of `keras.layers.LSTMCell`, and `chrono_steps` (`ForgetGateCell`). `activation` is
    the activation of the output.
    """

    gates = 3
    recurrent_gates = 2
    biased = slice(1, 3)
    gate_signs = (0, -1, 1)
    forget_gate = ("c", "f")
    state_count = 2

    def recur(self, projected: Tensor, states: State, training: bool = False) -> StepOutput:
        h, c = states
        seen = self.drop_state(h, training)
        sums = projected[..., self.units :] + ops.matmul(seen, self.recurrent_kernel)
        i, f = ops.split(self.recurrent_activation(sums), 2, axis=-1)
        i, f = self.record_gate("i", i), self.record_gate("f", f)
        c = i * projected[..., : self.units] + f * c
        h = self.activation(c)
        return h, [h, c]


@keras.saving.register_keras_serializable(package="gradkeeper")
class RAN(CellLayer):
    """`RANCell` as a layer, with the arguments of `keras.layers.LSTM`."""

    cell_class = RANCell
