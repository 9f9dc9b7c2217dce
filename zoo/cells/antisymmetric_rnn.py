"""AntisymmetricRNNCell and AntisymmetricRNN."""

from typing import Any

import keras
from keras import ops

from gradkeeper._arguments import number
from gradkeeper.zoo._typing import Initializer, State, StepOutput, Tensor
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.recurrent_cell import ComputedKernelCell


@keras.saving.register_keras_serializable(package="gradkeeper")
class AntisymmetricRNNCell(ComputedKernelCell):
    """Euler step of a differential equation whose solutions neither grow nor decay.

    Chang, Chen, Haber, Chi: "AntisymmetricRNN: A Dynamical System View on Recurrent Neural
    Networks", 2019, arXiv 1902.09689::

        A = W - W^T - gamma I
        h_t = h_{t-1} + epsilon * tanh(A h_{t-1} + V x_t + b)

    The eigenvalues of A have the real part -gamma. The Euler step is stable around h if
    |1 + epsilon * lambda| <= 1 for the eigenvalues lambda of the Jacobian diag(tanh') A. For an
    eigenvalue -gamma + i omega of A, the condition is epsilon * (gamma^2 + omega^2) <= 2 * gamma.
    With gamma = 0, every Euler step grows slightly, and less with a smaller epsilon.

    Inputs: x_t [batch, features]. States: h [batch, units]. Output: h_t [batch, units].

    Weights:
        kernel: V, [features, units].
        recurrent_kernel: W, [units, units], for row vectors: h W. Only W - W^T has an effect.
        bias: b, [units]; None if `use_bias=False`.

    Args: those of `keras.layers.SimpleRNNCell`, and
        step_size: epsilon, above 0.
        diffusion: gamma, at least 0.
    """

    def __init__(
        self,
        units: int,
        *,
        step_size: float = 0.01,
        diffusion: float = 0.01,
        recurrent_initializer: Initializer = "lecun_normal",
        **options: Any,
    ) -> None:
        super().__init__(units, recurrent_initializer=recurrent_initializer, **options)
        self.step_size = number("step_size", step_size)
        self.diffusion = number("diffusion", diffusion, "[0, inf)")

    def compute_kernel(self) -> Tensor:
        w = ops.convert_to_tensor(self.recurrent_kernel)
        return w - ops.transpose(w) - self.diffusion * ops.eye(self.units, dtype=w.dtype)

    def recur(
        self, projected: Tensor, states: State, training: bool = False, kernel: Tensor = None
    ) -> StepOutput:
        h = states[0]
        sums = projected + ops.matmul(self.drop_state(h, training), kernel)
        h = h + self.step_size * self.activation(sums)
        return h, [h]


@keras.saving.register_keras_serializable(package="gradkeeper")
class AntisymmetricRNN(CellLayer):
    """`AntisymmetricRNNCell` as a layer, with the arguments of `keras.layers.SimpleRNN`."""

    cell_class = AntisymmetricRNNCell
