"""MGUCell and MGU."""

import keras
from keras import ops

from gradkeeper.zoo._typing import State, StepOutput, Tensor
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.gated_cell import GatedCell


@keras.saving.register_keras_serializable(package="gradkeeper")
class MGUCell(GatedCell):
    """Minimal gated unit: a GRU with one gate for both reset and update.

    Zhou, Wu, Zhang, Zhou: "Minimal Gated Unit for Recurrent Neural Networks", 2016, arXiv
    1603.09420, eq. 6::

        f = sigmoid(W_f x_t + U_f h_{t-1} + b_f)
        n = tanh(W_n x_t + U_n (f * h_{t-1}) + b_n)
        h_t = (1 - f) * h_{t-1} + f * n

    Inputs: x_t [batch, features]. States: h [batch, units]. Output: h_t [batch, units].

    Weights, in the order f, n:
        kernel: (W_f, W_n), [features, 2 * units].
        recurrent_kernel: (U_f, U_n), [units, 2 * units].
        bias: (b_f, b_n), [2 * units]; None if `use_bias=False`.

    Args: those of `keras.layers.GRUCell` without `reset_after`.
    """

    gates = 2
    update_gate = ("h", "f")

    def recur(self, projected: Tensor, states: State, training: bool = False) -> StepOutput:
        h = states[0]
        seen = self.drop_state(h, training)
        gate_kernel, candidate_kernel = ops.split(self.recurrent_kernel, 2, axis=-1)
        gate, candidate = ops.split(projected, 2, axis=-1)
        f = self.gate("f", gate + ops.matmul(seen, gate_kernel))
        n = self.activation(candidate + ops.matmul(f * seen, candidate_kernel))
        h = (1 - f) * h + f * n
        return h, [h]


@keras.saving.register_keras_serializable(package="gradkeeper")
class MGU(CellLayer):
    """`MGUCell` as a layer, with the arguments of `keras.layers.GRU`."""

    cell_class = MGUCell
