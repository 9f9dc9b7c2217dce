"""LipschitzRNNCell and LipschitzRNN."""

from typing import Any

import keras
from keras import ops

from gradkeeper._arguments import choice, integer, number
from gradkeeper.zoo._typing import Initializer, State, StepOutput, Tensor
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.recurrent_cell import ComputedKernelCell

SCHEMES = ("euler", "midpoint")


@keras.saving.register_keras_serializable(package="gradkeeper")
class LipschitzRNNCell(ComputedKernelCell):
    """Step of a differential equation with a linear part and a part of Lipschitz constant |W|.

    Erichson, Azencot, Queiruga, Hodgkinson, Mahoney: "Lipschitz Recurrent Neural Networks", 2021,
    arXiv 2006.12070::

        A = (1 - beta) (M_A + M_A^T) + beta (M_A - M_A^T) - gamma I,  likewise W of M_W
        F(h) = A h + tanh(W h + V x_t + b)
        h_t = h_{t-1} + epsilon * F(h_{t-1})                                    "euler"
        h_t = h_{t-1} + epsilon * F(h_{t-1} + epsilon / 2 * F(h_{t-1}))         "midpoint"

    beta interpolates between symmetric (0) and antisymmetric (1) A and W. gamma subtracts from the
    real parts of their eigenvalues. The equation is exponentially stable if the largest eigenvalue
    of (A + A^T) / 2 is below minus the largest singular value of W. An Euler step is stable if
    |1 + epsilon * lambda| <= 1 for the eigenvalues lambda of the Jacobian A + diag(tanh') W.

    Inputs: x_t [batch, features]. States: h [batch, units]. Output: h_t [batch, units].

    Weights:
        kernel: V, [features, units].
        recurrent_kernel: (M_A, M_W), [units, 2 * units], for row vectors: h M.
        bias: b, [units]; None if `use_bias=False`.

    Args: those of `keras.layers.SimpleRNNCell`, and
        step_size: epsilon, above 0.
        antisymmetry: beta, from 0 to 1, of A and W.
        diffusion: gamma, at least 0, of A and W.
        scheme: "euler" or "midpoint".
        recurrent_initializer: by default normal with a standard deviation of 0.1 / units, as in the
            authors' code (erichson/LipschitzRNN, tools.py:58).
    """

    recurrent_gates = 2

    def __init__(
        self,
        units: int,
        *,
        step_size: float = 0.03,
        antisymmetry: float = 0.75,
        diffusion: float = 0.001,
        scheme: str = "euler",
        recurrent_initializer: Initializer = None,
        **options: Any,
    ) -> None:
        if recurrent_initializer is None:
            recurrent_initializer = keras.initializers.RandomNormal(
                stddev=0.1 / integer("units", units), seed=options.get("seed")
            )
        super().__init__(units, recurrent_initializer=recurrent_initializer, **options)
        self.step_size = number("step_size", step_size)
        self.antisymmetry = number("antisymmetry", antisymmetry, "[0, 1]")
        self.diffusion = number("diffusion", diffusion, "[0, inf)")
        self.scheme = choice("scheme", scheme, SCHEMES)

    def compute_kernel(self) -> Tensor:
        """Compute (A, W) for row vectors, [units, 2 * units]."""
        made = []
        for m in ops.split(ops.convert_to_tensor(self.recurrent_kernel), 2, axis=-1):
            # (1 - beta) (M + M^T) + beta (M - M^T)
            mixed = m + (1 - 2 * self.antisymmetry) * ops.transpose(m)
            made.append(mixed - self.diffusion * ops.eye(self.units, dtype=m.dtype))
        return ops.concatenate(made, axis=-1)

    def recur(
        self, projected: Tensor, states: State, training: bool = False, kernel: Tensor = None
    ) -> StepOutput:
        def slope(h: Tensor) -> Tensor:
            linear, sums = ops.split(ops.matmul(self.drop_state(h, training), kernel), 2, axis=-1)
            return linear + self.activation(sums + projected)

        h = states[0]
        halfway = h if self.scheme == "euler" else h + self.step_size / 2 * slope(h)
        h = h + self.step_size * slope(halfway)
        return h, [h]


@keras.saving.register_keras_serializable(package="gradkeeper")
class LipschitzRNN(CellLayer):
    """`LipschitzRNNCell` as a layer, with the arguments of `keras.layers.SimpleRNN`."""

    cell_class = LipschitzRNNCell
