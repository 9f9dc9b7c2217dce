"""ATRCell and ATR."""

from typing import Any

import keras
from keras import ops

from gradkeeper.zoo._typing import Activation, Shape, State, StepOutput, Tensor
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.gated_cell import GatedCell


@keras.saving.register_keras_serializable(package="gradkeeper")
class ATRCell(GatedCell):
    """Addition-subtraction twin-gated cell, whose two gates share their weights.

    Zhang, Xiong, Su, Lin, Zhang: "Simplifying Neural Machine Translation with
    Addition-Subtraction Twin-Gated Recurrent Networks", 2018, arXiv 1810.12546::

        p = W x_t + b
        q = U h_{t-1} + b'
        i = sigmoid(p + q)
        f = sigmoid(p - q)
        h_t = i * p + f * h_{t-1}

    The paper has no biases. Use `use_bias=False` to omit them.

    Inputs: x_t [batch, features]. States: h [batch, units]. Output: h_t [batch, units].

    Weights:
        kernel: W, [features, units].
        recurrent_kernel: U, [units, units].
        bias: b, [units]; None if `use_bias=False`.
        recurrent_bias: b', [units]; None if `use_bias=False`.

    Args: those of `keras.layers.GRUCell` without `reset_after`, where
        activation: activation of p in the sum h_t; "linear" by default.
    """

    forget_gate = ("h", "f")

    def __init__(self, units: int, *, activation: Activation = "linear", **options: Any) -> None:
        super().__init__(units, activation=activation, **options)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.recurrent_bias = self.add_bias("recurrent_bias", self.units)

    def recur(self, projected: Tensor, states: State, training: bool = False) -> StepOutput:
        h = states[0]
        q = ops.matmul(self.drop_state(h, training), self.recurrent_kernel)
        if self.recurrent_bias is not None:
            q = q + self.recurrent_bias
        i = self.gate("i", projected + q)
        f = self.gate("f", projected - q)
        h = i * self.activation(projected) + f * h
        return h, [h]


@keras.saving.register_keras_serializable(package="gradkeeper")
class ATR(CellLayer):
    """`ATRCell` as a layer, with the arguments of `keras.layers.GRU`."""

    cell_class = ATRCell
