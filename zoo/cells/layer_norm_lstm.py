"""LayerNormLSTMCell and LayerNormLSTM."""

import keras
from keras import ops

from gradkeeper.zoo._typing import Shape, State, StepOutput, Tensor
from gradkeeper.zoo.cells._layer_norm import NormalizedSumsCell
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.gated_cell import ForgetGateCell


@keras.saving.register_keras_serializable(package="gradkeeper")
class LayerNormLSTMCell(NormalizedSumsCell, ForgetGateCell):
    """LSTM with layer normalization.

    Ba, Kiros, Hinton: "Layer Normalization", 2016, arXiv 1607.06450, eq. 20-22::

        (i, f, g, o) = LN(W_h h_{t-1}; a1) + LN(W_x x_t; a2) + b
        c_t = sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g)
        h_t = sigmoid(o) * tanh(LN(c_t; a3) + b3)
        LN(v; a) = a * (v - mean(v)) / sqrt(var(v) + epsilon)

    The statistics are over all 4 * units sums, per example and step. The cell state c is not
    normalized; LN(c) is only used in the output. In the paper, the first two LN also have shifts,
    which are included in b here.

    Inputs: x_t [batch, features]. States: h, c, each [batch, units]. Output: h_t [batch, units].

    Weights, with gates in the order i, f, g, o of `keras.layers.LSTM` (where g is called c):
        kernel: W_x, [features, 4 * units].
        recurrent_kernel: W_h, [units, 4 * units].
        bias: b, [4 * units]; None if `use_bias=False`. The block of f starts at 1 with
            `unit_forget_bias`; with `chrono_steps`, that of f starts at log(u) and that of i at
            -log(u).
        recurrent_gain, input_gain: a1, a2, each [4 * units].
        state_gain: a3, [units].
        state_bias: b3, [units]; None if `use_bias=False`.

    Args: those of `keras.layers.LSTMCell`, `epsilon`, `gain_initializer` and `chrono_steps`
    (`ForgetGateCell`).
    """

    gates = 4
    groups = (4,)
    state_count = 2
    forget_gate = ("c", "f")

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.recurrent_gain = self.add_gain("recurrent_gain", 4 * self.units)
        self.input_gain = self.add_gain("input_gain", 4 * self.units)
        self.state_gain = self.add_gain("state_gain", self.units)
        self.state_bias = self.add_bias("state_bias", self.units)

    def recur(
        self, projected: Tensor, states: State, training: bool = False, kernel: Tensor = None
    ) -> StepOutput:
        h, c = states
        (sums,) = self.normalize_groups(ops.matmul(self.drop_state(h, training), kernel))
        i, f, g, o = ops.split(projected + sums, 4, axis=-1)
        c = self.gate("f", f) * c + self.gate("i", i) * self.activation(g)
        seen = self.normalize(c, self.state_gain)
        seen = seen if self.state_bias is None else seen + self.state_bias
        h = self.gate("o", o) * self.activation(seen)
        return h, [h, c]


@keras.saving.register_keras_serializable(package="gradkeeper")
class LayerNormLSTM(CellLayer):
    """`LayerNormLSTMCell` as a layer, with the arguments of `keras.layers.LSTM`."""

    cell_class = LayerNormLSTMCell
