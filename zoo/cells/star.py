"""STARCell and STAR."""

import keras
from keras import ops

from gradkeeper.zoo._typing import State, StepOutput, Tensor
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.gated_cell import GatedCell


@keras.saving.register_keras_serializable(package="gradkeeper")
class STARCell(GatedCell):
    """Stackable recurrent cell, designed for deep stacks of layers.

    Turkoglu, D'Aronco, Wegner, Schindler: "Gating Revisited: Deep Multi-layer RNNs That Can Be
    Trained", 2019, arXiv 1911.11033::

        z = tanh(W_z x_t + b_z)
        k = sigmoid(W_k x_t + U h_{t-1} + b_k)
        h_t = tanh((1 - k) * h_{t-1} + k * z)

    Inputs: x_t [batch, features]. States: h [batch, units]. Output: h_t [batch, units].

    Weights, in the order z, k:
        kernel: (W_z, W_k), [features, 2 * units].
        recurrent_kernel: U, [units, units].
        bias: (b_z, b_k), [2 * units]; None if `use_bias=False`.

    Args: those of `keras.layers.GRUCell` without `reset_after`.
    """

    gates = 2
    recurrent_gates = 1

    def project(self, prepared: Tensor) -> Tensor:
        z, gate = ops.split(super().project(prepared), 2, axis=-1)
        return ops.concatenate([self.activation(z), gate], axis=-1)

    def recur(self, projected: Tensor, states: State, training: bool = False) -> StepOutput:
        h = states[0]
        z, gate = ops.split(projected, 2, axis=-1)
        seen = self.drop_state(h, training)
        k = self.recurrent_activation(gate + ops.matmul(seen, self.recurrent_kernel))
        h = self.activation((1 - k) * h + k * z)
        return h, [h]


@keras.saving.register_keras_serializable(package="gradkeeper")
class STAR(CellLayer):
    """`STARCell` as a layer, with the arguments of `keras.layers.GRU`."""

    cell_class = STARCell
