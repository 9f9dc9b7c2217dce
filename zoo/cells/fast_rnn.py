"""FastRNNCell and FastRNN."""

import keras
from keras import ops

from gradkeeper.zoo._typing import Shape, State, StepOutput, Tensor
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.recurrent_cell import RecurrentCell


@keras.saving.register_keras_serializable(package="gradkeeper")
class FastRNNCell(RecurrentCell):
    """Simple RNN with a weighted residual connection through time.

    Kusupati, Singh, Bhatia, Kumar, Jain, Varma: "FastGRNN: A Fast, Accurate, Stable and Tiny
    Kilobyte Sized Gated Recurrent Neural Network", 2018, arXiv 1901.02358, eq. 2::

        h_t = sigmoid(alpha) * tanh(W x_t + U h_{t-1} + b) + sigmoid(beta) * h_{t-1}

    Inputs: x_t [batch, features]. States: h [batch, units]. Output: h_t [batch, units].

    Weights:
        kernel: W, [features, units].
        recurrent_kernel: U, [units, units].
        bias: b, [units]; None if `use_bias=False`.
        alpha, beta: [1] each, initially -3 and 3 (as in the authors' code), so that a step
            changes the state only slightly.

    Args: those of `keras.layers.SimpleRNNCell`.
    """

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        constant = keras.initializers.Constant
        self.alpha = self.add_weight(shape=(1,), name="alpha", initializer=constant(-3.0))
        self.beta = self.add_weight(shape=(1,), name="beta", initializer=constant(3.0))

    def recur(self, projected: Tensor, states: State, training: bool = False) -> StepOutput:
        h = states[0]
        sums = projected + ops.matmul(self.drop_state(h, training), self.recurrent_kernel)
        h = ops.sigmoid(self.alpha) * self.activation(sums) + ops.sigmoid(self.beta) * h
        return h, [h]


@keras.saving.register_keras_serializable(package="gradkeeper")
class FastRNN(CellLayer):
    """`FastRNNCell` as a layer, with the arguments of `keras.layers.SimpleRNN`."""

    cell_class = FastRNNCell
