"""LiGRUCell and LiGRU."""

from typing import Any

import keras
from keras import ops

from gradkeeper.zoo._typing import Activation, State, StepOutput, Tensor
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.gated_cell import GatedCell


@keras.saving.register_keras_serializable(package="gradkeeper")
class LiGRUCell(GatedCell):
    """Light GRU, without a reset gate and with relu candidates.

    Ravanelli, Brakel, Omologo, Bengio: "Light Gated Recurrent Units for Speech Recognition",
    2018, arXiv 1803.10225, without its batch normalization::

        z = sigmoid(W_z x_t + U_z h_{t-1} + b_z)
        n = relu(W_n x_t + U_n h_{t-1} + b_n)
        h_t = z * h_{t-1} + (1 - z) * n

    The paper applies batch normalization to W_z x_t and W_n x_t; its shifts are the biases here.
    Without normalization, the relu is unbounded. Scale large inputs beforehand.

    Inputs: x_t [batch, features]. States: h [batch, units]. Output: h_t [batch, units].

    Weights, in the order z, n:
        kernel: (W_z, W_n), [features, 2 * units].
        recurrent_kernel: (U_z, U_n), [units, 2 * units].
        bias: (b_z, b_n), [2 * units]; None if `use_bias=False`.

    Args: those of `keras.layers.GRUCell` without `reset_after`. `activation` is "relu" by default.
    """

    gates = 2
    forget_gate = ("h", "z")

    def __init__(self, units: int, *, activation: Activation = "relu", **options: Any) -> None:
        super().__init__(units, activation=activation, **options)

    def recur(self, projected: Tensor, states: State, training: bool = False) -> StepOutput:
        h = states[0]
        sums = projected + ops.matmul(self.drop_state(h, training), self.recurrent_kernel)
        z, n = ops.split(sums, 2, axis=-1)
        z = self.gate("z", z)
        h = z * h + (1 - z) * self.activation(n)
        return h, [h]


@keras.saving.register_keras_serializable(package="gradkeeper")
class LiGRU(CellLayer):
    """`LiGRUCell` as a layer, with the arguments of `keras.layers.GRU`."""

    cell_class = LiGRUCell
