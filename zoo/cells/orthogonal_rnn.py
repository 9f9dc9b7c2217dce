"""OrthogonalRNNCell and OrthogonalRNN."""

from typing import Any

import keras
from keras import ops

from gradkeeper._arguments import number
from gradkeeper.zoo._typing import Config, Initializer, Shape, State, StepOutput, Tensor
from gradkeeper.zoo.cells.cell_layer import CellLayer
from gradkeeper.zoo.cells.recurrent_cell import ComputedKernelCell
from gradkeeper.zoo.initializers import SkewAngles

# Halvings of the matrix and terms of the series. The result is exact to the last digits of float64
# for angles up to 20, and three squarings add little rounding error.
_HALVINGS, _TERMS = 3, 18
_SMALL: Config = {"class_name": "RandomUniform", "config": {"minval": -0.01, "maxval": 0.01}}


@keras.saving.register_keras_serializable(package="gradkeeper")
class OrthogonalRNNCell(ComputedKernelCell):
    """RNN whose recurrent matrix is orthogonal for all values of its weights.

    Lezcano-Casado, Martinez-Rubio: "Cheap Orthogonal Constraints in Neural Networks: A Simple
    Parametrization of the Orthogonal and Unitary Group", 2019, arXiv 1901.08428 (expRNN)::

        Q = exp(a (U - U^T)), U strictly upper triangular
        z = V x_t + Q h_{t-1}
        h_t = modReLU(z) = sign(z) * relu(|z| + b)

    (modReLU: Arjovsky, Shah, Bengio 2016, arXiv 1511.06464.) The matrix exponential is computed
    once per sequence.

    Inputs: x_t [batch, features]. States: h [batch, units]. Output: h_t [batch, units].

    Weights:
        kernel: V, [features, units].
        recurrent_kernel: U, [units, units]. Only elements above the diagonal have an effect.
        bias: b, [units]; None if `use_bias=False`, so that modReLU is linear.

    Args: those of `keras.layers.SimpleRNNCell`, and
        mod_relu: whether h_t = modReLU(z), without `activation`. If False, h_t = activation(z + b).
        angle_scale: a, above 0; 1 in the paper. Optimizers such as RMSprop and Adam take steps of
            about the learning rate, whatever the size of the gradient. With a = 0.1, they move Q a
            tenth as fast as the other weights, which the authors recommend (Lezcano/expRNN,
            README.md:31).
        recurrent_initializer: initializer of the initial a U. U starts at its values divided by a.
            By default, Q rotates pairs of units by random angles
            (`gradkeeper.zoo.initializers.SkewAngles`).
        kernel_initializer, bias_initializer: the defaults are those of the authors' code
            (orthogonal.py:71, 94), and b is uniform in [-0.01, 0.01].

    Raises:
        ValueError: if `angle_scale` is not above 0; for another activation than tanh, which modReLU
            does not use, with `mod_relu=True`.
    """

    def __init__(
        self,
        units: int,
        *,
        mod_relu: bool = True,
        angle_scale: float = 1.0,
        kernel_initializer: Initializer = "he_normal",
        recurrent_initializer: Initializer = None,
        bias_initializer: Initializer = _SMALL,
        **options: Any,
    ) -> None:
        if recurrent_initializer is None:
            recurrent_initializer = SkewAngles(options.get("seed"))
        super().__init__(
            units,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            **options,
        )
        if mod_relu and self.activation is not keras.activations.tanh:
            raise ValueError(
                "modReLU takes the place of `activation`. Set `mod_relu=False` to use it. "
                f"Received: mod_relu=True, activation={options['activation']!r}"
            )
        self.mod_relu = mod_relu
        self.angle_scale = number("angle_scale", angle_scale)

    def add_recurrent(self, name: str, shape: Shape, initializer: Initializer = None) -> Tensor:
        def initial(shape: Shape, dtype: str | None = None) -> Tensor:
            return self.recurrent_initializer(shape, dtype=dtype) / self.angle_scale

        return super().add_recurrent(name, shape, initializer or initial)

    def compute_kernel(self) -> Tensor:
        """Compute Q transposed, for row vectors: h Q^T."""
        upper = ops.triu(ops.convert_to_tensor(self.recurrent_kernel), k=1)
        return _exponential(self.angle_scale * (ops.transpose(upper) - upper))

    def project(self, prepared: Tensor) -> Tensor:
        return ops.matmul(prepared, self.kernel)

    def recur(
        self, projected: Tensor, states: State, training: bool = False, kernel: Tensor = None
    ) -> StepOutput:
        z = projected + ops.matmul(self.drop_state(states[0], training), kernel)
        if not self.mod_relu:
            h = self.activation(z if self.bias is None else z + self.bias)
        elif self.bias is None:
            h = z
        else:
            h = ops.sign(z) * ops.relu(ops.abs(z) + self.bias)
        return h, [h]


@keras.saving.register_keras_serializable(package="gradkeeper")
class OrthogonalRNN(CellLayer):
    """`OrthogonalRNNCell` as a layer, with the arguments of `keras.layers.SimpleRNN`."""

    cell_class = OrthogonalRNNCell


def _exponential(matrix: Tensor) -> Tensor:
    """Compute the exponential of a square matrix by scaling, its series and squaring."""
    identity = ops.eye(matrix.shape[0], dtype=matrix.dtype)
    small = matrix / 2**_HALVINGS
    result = identity
    for term in range(_TERMS, 0, -1):
        result = identity + ops.matmul(small, result) / term
    for _ in range(_HALVINGS):
        result = ops.matmul(result, result)
    return result
