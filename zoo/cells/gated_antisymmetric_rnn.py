"""GatedAntisymmetricRNNCell and GatedAntisymmetricRNN."""

from typing import Any

import keras
from keras import ops

from gradkeeper.zoo._typing import Activation, State, StepOutput, Tensor
from gradkeeper.zoo.cells._options import resolve
from gradkeeper.zoo.cells.antisymmetric_rnn import AntisymmetricRNNCell
from gradkeeper.zoo.cells.cell_layer import CellLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class GatedAntisymmetricRNNCell(AntisymmetricRNNCell):
    """AntisymmetricRNN with an input gate that has the same recurrent matrix.

    Chang, Chen, Haber, Chi: "AntisymmetricRNN: A Dynamical System View on Recurrent Neural
    Networks", 2019, arXiv 1902.09689::

        A = W - W^T - gamma I
        z = sigmoid(A h_{t-1} + V_z x_t + b_z)
        h_t = h_{t-1} + epsilon * z * tanh(A h_{t-1} + V_h x_t + b_h)

    The gate scales the step size of each unit. The stability condition of `AntisymmetricRNNCell`
    applies with epsilon * z instead of epsilon.

    Inputs: x_t [batch, features]. States: h [batch, units]. Output: h_t [batch, units].

    Weights, in the order z, h:
        kernel: (V_z, V_h), [features, 2 * units].
        recurrent_kernel: W, [units, units], for row vectors: h W. Only W - W^T has an effect.
        bias: (b_z, b_h), [2 * units]; None if `use_bias=False`.

    Args: those of `AntisymmetricRNNCell`, and
        recurrent_activation: activation of the gate z.
    """

    gates = 2
    recurrent_gates = 1

    def __init__(
        self, units: int, *, recurrent_activation: Activation = "sigmoid", **options: Any
    ) -> None:
        super().__init__(units, **options)
        self.recurrent_activation = resolve("recurrent_activation", recurrent_activation)

    def carry(self, gates: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"h": ops.ones_like(gates["z"])}

    def recur(
        self, projected: Tensor, states: State, training: bool = False, kernel: Tensor = None
    ) -> StepOutput:
        h = states[0]
        gate, candidate = ops.split(projected, 2, axis=-1)
        from_state = ops.matmul(self.drop_state(h, training), kernel)
        z = self.record_gate("z", self.recurrent_activation(gate + from_state))
        h = h + self.step_size * z * self.activation(candidate + from_state)
        return h, [h]


@keras.saving.register_keras_serializable(package="gradkeeper")
class GatedAntisymmetricRNN(CellLayer):
    """`GatedAntisymmetricRNNCell` as a layer, with the arguments of `keras.layers.SimpleRNN`."""

    cell_class = GatedAntisymmetricRNNCell
