"""LayerNormGRUCell and LayerNormGRU."""

import keras
from keras import ops

from gradkeeper.zoo._typing import Shape, State, StepOutput, Tensor
from gradkeeper.zoo.cells._layer_norm import NormalizedSumsCell
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.gated_cell import GatedCell


@keras.saving.register_keras_serializable(package="gradkeeper")
class LayerNormGRUCell(NormalizedSumsCell, GatedCell):
    """GRU with layer normalization.

    Ba, Kiros, Hinton: "Layer Normalization", 2016, arXiv 1607.06450, supplement::

        (z, r) = LN(W_h h_{t-1}; a1) + LN(W_x x_t; a2) + b
        n = tanh(LN(W x_t; a3) + b3 + sigmoid(r) * (LN(U h_{t-1}; a4) + b4))
        h_t = (1 - sigmoid(z)) * h_{t-1} + sigmoid(z) * n
        LN(v; a) = a * (v - mean(v)) / sqrt(var(v) + epsilon)

    The statistics are over all 2 * units sums of (z, r), and over the units of the candidate n.
    As in the paper, z is the weight of the candidate; in `keras.layers.GRU`, z is the weight of
    the old state.

    Inputs: x_t [batch, features]. States: h [batch, units]. Output: h_t [batch, units].

    Weights, in the order z, r, candidate of `keras.layers.GRU`:
        kernel: (W_x, W), [features, 3 * units].
        recurrent_kernel: (W_h, U), [units, 3 * units].
        bias: (b, b3), [3 * units]; None if `use_bias=False`.
        recurrent_bias: b4, [units]; None if `use_bias=False`.
        recurrent_gain: (a1, a4), [3 * units].
        input_gain: (a2, a3), [3 * units].

    Args: those of `keras.layers.GRUCell` without `reset_after` (the reset gate is always applied
    after the matrix product), `epsilon` and `gain_initializer`.
    """

    gates = 3
    groups = (2, 1)
    update_gate = ("h", "z")

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.recurrent_gain = self.add_gain("recurrent_gain", 3 * self.units)
        self.input_gain = self.add_gain("input_gain", 3 * self.units)
        self.recurrent_bias = self.add_bias("recurrent_bias", self.units)

    def recur(
        self, projected: Tensor, states: State, training: bool = False, kernel: Tensor = None
    ) -> StepOutput:
        h = states[0]
        gates, candidate = self.normalize_groups(ops.matmul(self.drop_state(h, training), kernel))
        if self.recurrent_bias is not None:
            candidate = candidate + self.recurrent_bias
        gates = self.recurrent_activation(projected[..., : 2 * self.units] + gates)
        z, r = ops.split(gates, 2, axis=-1)
        z, r = self.record_gate("z", z), self.record_gate("r", r)
        n = self.activation(projected[..., 2 * self.units :] + r * candidate)
        h = (1 - z) * h + z * n
        return h, [h]


@keras.saving.register_keras_serializable(package="gradkeeper")
class LayerNormGRU(CellLayer):
    """`LayerNormGRUCell` as a layer, with the arguments of `keras.layers.GRU`."""

    cell_class = LayerNormGRUCell
