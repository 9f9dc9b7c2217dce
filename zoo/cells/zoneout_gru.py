"""ZoneoutGRUCell and ZoneoutGRU."""

import keras
from keras import ops

from gradkeeper.zoo._typing import Shape, State, StepOutput, Tensor
from gradkeeper.zoo.cells._zoneout import ZoneoutCell
from gradkeeper.zoo.cells.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class ZoneoutGRUCell(ZoneoutCell):
    """GRU with zoneout, which keeps the previous state of random units.

    Krueger et al.: "Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations", 2017,
    arXiv 1606.01305, with the GRU of `keras.layers.GRU` (`reset_after=True`)::

        z, r = sigmoid(W_z x_t + b_z + U_z h_{t-1} + b'_z), likewise r
        n = tanh(W_n x_t + b_n + r * (U_n h_{t-1} + b'_n))
        h_t = d * h_{t-1} + (1 - d) * (z * h_{t-1} + (1 - z) * n)
        d is 1 with probability `zoneout`, or else 0; at inference, d = `zoneout`

    Inputs: x_t [batch, features]. States: h [batch, units]. Output: h_t [batch, units].

    Weights, in the order z, r, n of `keras.layers.GRU`:
        kernel: W, [features, 3 * units].
        recurrent_kernel: U, [units, 3 * units].
        bias: b, [3 * units]; recurrent_bias: b', [3 * units]; None if `use_bias=False`.

    Args: those of `keras.layers.GRUCell` without `reset_after`, and `zoneout`.
    """

    gates = 3
    forget_gate = ("h", "z")

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.recurrent_bias = self.add_bias("recurrent_bias", 3 * self.units)

    def recur(self, projected: Tensor, states: State, training: bool = False) -> StepOutput:
        h = states[0]
        sums = ops.matmul(self.drop_state(h, training), self.recurrent_kernel)
        sums = sums if self.recurrent_bias is None else sums + self.recurrent_bias
        given_z, given_r, given_n = ops.split(projected[..., : 3 * self.units], 3, axis=-1)
        from_z, from_r, from_n = ops.split(sums, 3, axis=-1)
        z = self.gate("z", given_z + from_z)
        r = self.gate("r", given_r + from_r)
        new = z * h + (1 - z) * self.activation(given_n + r * from_n)
        after = self.zone_out(projected, states, [new], training)
        return after[0], after


@keras.saving.register_keras_serializable(package="gradkeeper")
class ZoneoutGRU(CellLayer):
    """`ZoneoutGRUCell` as a layer, with the arguments of `keras.layers.GRU`."""

    cell_class = ZoneoutGRUCell
