"""LiGRUCell and LiGRU."""

from typing import Any, ClassVar

import keras
from keras import ops

from gradkeeper.zoo._typing import Activation, State, StepOutput, Tensor
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.gated_cell import NormalizedInputsCell


@keras.saving.register_keras_serializable(package="gradkeeper")
class LiGRUCell(NormalizedInputsCell):
    """Light GRU, without a reset gate and with relu candidates.

    Ravanelli, Brakel, Omologo, Bengio: "Light Gated Recurrent Units for Speech Recognition",
    2018, arXiv 1803.10225::

        z = sigmoid(W_z x_t + U_z h_{t-1} + b_z)
        n = relu(W_n x_t + U_n h_{t-1} + b_n)
        h_t = z * h_{t-1} + (1 - z) * n

    The paper applies batch normalization to W_z x_t and W_n x_t (`normalize_inputs=True`); its
    shifts are the biases. Without normalization, the relu is unbounded. Scale large inputs
    beforehand.

    Inputs: x_t [batch, features]. States: h [batch, units]. Output: h_t [batch, units].

    Weights, in the order z, n:
        kernel: (W_z, W_n), [features, 2 * units].
        recurrent_kernel: (U_z, U_n), [units, 2 * units].
        bias: (b_z, b_n), [2 * units]; None if `use_bias=False`.
        input_norm: gamma, moving_mean and moving_variance, [2 * units] each; only with
            `normalize_inputs`.

    Args: those of `keras.layers.GRUCell` without `reset_after`, and
        activation: "relu" by default.
        normalize_inputs: whether to apply batch normalization to W_z x_t and W_n x_t, with the
            momentum and epsilon of the authors' code (mravanelli/pytorch-kaldi,
            neural_networks.py:1070); see `NormalizedInputsCell`.
    """

    gates = 2
    forget_gate = ("h", "z")
    input_norm_options: ClassVar[dict[str, Any]] = {"momentum": 0.95, "epsilon": 1e-5}

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
