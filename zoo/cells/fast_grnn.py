"""FastGRNNCell and FastGRNN."""

from typing import Any

import keras
from keras import ops

from gradkeeper._arguments import number
from gradkeeper.zoo._typing import Shape, State, StepOutput, Tensor
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.gated_cell import GatedCell


@keras.saving.register_keras_serializable(package="gradkeeper")
class FastGRNNCell(GatedCell):
    """Gated cell whose gate and candidate share their matrices.

    Kusupati, Singh, Bhatia, Kumar, Jain, Varma: "FastGRNN: A Fast, Accurate, Stable and Tiny
    Kilobyte Sized Gated Recurrent Neural Network", 2018, arXiv 1901.02358, eq. 3-5::

        z = sigmoid(W x_t + U h_{t-1} + b_z)
        n = tanh(W x_t + U h_{t-1} + b_n)
        h_t = (sigmoid(zeta) * (1 - z) + sigmoid(nu)) * n + z * h_{t-1}

    Inputs: x_t [batch, features]. States: h [batch, units]. Output: h_t [batch, units].

    Weights:
        kernel: W, [features, units].
        recurrent_kernel: U, [units, units].
        bias: (b_z, b_n), [2 * units]; None if `use_bias=False`.
        zeta, nu: [1] each.

    Args: those of `keras.layers.GRUCell` without `reset_after`, and
        zeta, nu: initial values of the weights zeta and nu. The defaults are those of the authors'
            code (microsoft/EdgeML, graph/rnn.py:237), in which both biases start at 1.
    """

    forget_gate = ("h", "z")

    def __init__(self, units: int, *, zeta: float = 1.0, nu: float = -4.0, **options: Any) -> None:
        super().__init__(units, **options)
        self.zeta = number("zeta", zeta, "(-inf, inf)")
        self.nu = number("nu", nu, "(-inf, inf)")

    def build(self, input_shape: Shape) -> None:
        self.kernel = self.add_kernel("kernel", (input_shape[-1], self.units))
        self.recurrent_kernel = self.add_recurrent("recurrent_kernel", (self.units, self.units))
        self.bias = self.add_bias("bias", 2 * self.units)
        constant = keras.initializers.Constant
        self.zeta_logit = self.add_weight(shape=(1,), name="zeta", initializer=constant(self.zeta))
        self.nu_logit = self.add_weight(shape=(1,), name="nu", initializer=constant(self.nu))
        self.built = True

    def project(self, prepared: Tensor) -> Tensor:
        return ops.matmul(prepared, self.kernel)

    def recur(self, projected: Tensor, states: State, training: bool = False) -> StepOutput:
        h = states[0]
        gate = candidate = projected + ops.matmul(
            self.drop_state(h, training), self.recurrent_kernel
        )
        if self.bias is not None:
            gate_bias, candidate_bias = ops.split(self.bias, 2)
            gate, candidate = gate + gate_bias, candidate + candidate_bias
        z, n = self.gate("z", gate), self.activation(candidate)
        h = (ops.sigmoid(self.zeta_logit) * (1 - z) + ops.sigmoid(self.nu_logit)) * n + z * h
        return h, [h]


@keras.saving.register_keras_serializable(package="gradkeeper")
class FastGRNN(CellLayer):
    """`FastGRNNCell` as a layer, with the arguments of `keras.layers.GRU`."""

    cell_class = FastGRNNCell
