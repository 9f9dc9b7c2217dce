"""MinimalRNNCell and MinimalRNN."""

import keras
from keras import ops

from gradkeeper.zoo._typing import Shape, State, StepOutput, Tensor
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.gated_cell import GatedCell


@keras.saving.register_keras_serializable(package="gradkeeper")
class MinimalRNNCell(GatedCell):
    """Gated mean of the old state and an encoding of the input.

    Chen: "MinimalRNN: Toward More Interpretable and Trainable Recurrent Neural Networks", 2017,
    arXiv 1711.06788::

        z = tanh(W x_t + b_z)
        u = sigmoid(U h_{t-1} + V z + b_u)
        h_t = u * h_{t-1} + (1 - u) * z

    The candidate z does not depend on the state, so that the state stays in the space of the
    encoded inputs.

    Inputs: x_t [batch, features]. States: h [batch, units]. Output: h_t [batch, units].

    Weights:
        kernel: W, [features, units].
        recurrent_kernel: U, [units, units].
        gate_kernel: V, [units, units].
        bias: b_z, [units]; None if `use_bias=False`.
        gate_bias: b_u, [units]; None if `use_bias=False`.

    Args: those of `keras.layers.GRUCell` without `reset_after`.
    """

    forget_gate = ("h", "u")

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.gate_kernel = self.add_recurrent("gate_kernel", (self.units, self.units))
        self.gate_bias = self.add_bias("gate_bias", self.units)

    def project(self, prepared: Tensor) -> Tensor:
        z = self.activation(super().project(prepared))
        gate = ops.matmul(z, self.gate_kernel)
        if self.gate_bias is not None:
            gate = gate + self.gate_bias
        return ops.concatenate([z, gate], axis=-1)

    def recur(self, projected: Tensor, states: State, training: bool = False) -> StepOutput:
        h = states[0]
        z, gate = ops.split(projected, 2, axis=-1)
        seen = self.drop_state(h, training)
        u = self.gate("u", gate + ops.matmul(seen, self.recurrent_kernel))
        h = u * h + (1 - u) * z
        return h, [h]


@keras.saving.register_keras_serializable(package="gradkeeper")
class MinimalRNN(CellLayer):
    """`MinimalRNNCell` as a layer, with the arguments of `keras.layers.GRU`."""

    cell_class = MinimalRNNCell
