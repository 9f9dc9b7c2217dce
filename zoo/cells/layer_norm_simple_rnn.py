"""LayerNormSimpleRNNCell and LayerNormSimpleRNN."""

import keras
from keras import ops

from gradkeeper.zoo._typing import Shape, State, StepOutput, Tensor
from gradkeeper.zoo.cells._layer_norm import LayerNormCell
from gradkeeper.zoo.cells.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class LayerNormSimpleRNNCell(LayerNormCell):
    """Simple RNN with layer normalization before the activation.

    Ba, Kiros, Hinton: "Layer Normalization", 2016, arXiv 1607.06450, eq. 4::

        a_t = W_x x_t + W_h h_{t-1}
        h_t = tanh(g * (a_t - mean(a_t)) / sqrt(var(a_t) + epsilon) + b)

    Scaling W_x and W_h by the same factor does not change h_t, so that a large W_h cannot make
    the recurrence explode. Mean and variance are over the units, per example and step.

    Inputs: x_t [batch, features]. States: h [batch, units]. Output: h_t [batch, units].

    Weights:
        kernel: W_x, [features, units].
        recurrent_kernel: W_h, [units, units].
        bias: b, [units]; None if `use_bias=False`.
        gain: g, [units].

    Args: those of `keras.layers.SimpleRNNCell`, `epsilon` and `gain_initializer`.
    """

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.gain = self.add_gain("gain", self.units)

    def project(self, prepared: Tensor) -> Tensor:
        return ops.matmul(prepared, self.kernel)

    def recur(self, projected: Tensor, states: State, training: bool = False) -> StepOutput:
        h = self.drop_state(states[0], training)
        a = self.normalize(projected + ops.matmul(h, self.recurrent_kernel), self.gain)
        output = self.activation(a if self.bias is None else a + self.bias)
        return output, [output]


@keras.saving.register_keras_serializable(package="gradkeeper")
class LayerNormSimpleRNN(CellLayer):
    """`LayerNormSimpleRNNCell` as a layer, with the arguments of `keras.layers.SimpleRNN`."""

    cell_class = LayerNormSimpleRNNCell
