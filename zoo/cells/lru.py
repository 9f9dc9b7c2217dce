"""LRUCell and LRU."""

from collections.abc import Sequence
from math import pi
from typing import Any

import keras
from keras import ops

from gradkeeper._arguments import interval, number
from gradkeeper.zoo._typing import Shape, State, Tensor
from gradkeeper.zoo.cells._scan import Coefficients
from gradkeeper.zoo.cells.linear_cell import LinearCell, ScanLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class LRUCell(LinearCell):
    """Linear recurrent unit: complex, diagonal, stable by construction, parallel in time.

    Orvieto et al.: "Resurrecting Recurrent Neural Networks for Long Sequences", 2023, arXiv
    2303.06349, eq. 7 and table 8::

        lambda = exp(-exp(nu) + i exp(theta))
        s_t = lambda * s_{t-1} + exp(gamma) * (B x_t)
        h_t = activation(Re(C s_t) + D x_t + b)

    |lambda| = exp(-exp(nu)) is below 1 for every nu. D is a full matrix here; it is diagonal in the
    paper, where inputs and outputs have the same width.

    Inputs: x_t [batch, features]. States: h, Re s, Im s, each [batch, units]; h is the previous
    output, and no step depends on it. Output: h_t [batch, units].

    Weights:
        kernel: (Re B, Im B, D), [features, 3 * units].
        output_kernel: (Re C, -Im C), [2 * units, units].
        eigenvalues: (nu, theta), [2 * units]. Initially, lambda is uniform over the area of the
            ring with |lambda| in `radius_range` and the angle in [0, `max_phase`].
        gain: gamma, [units]. Initially, exp(gamma) = sqrt(1 - |lambda|^2).
        bias: b, [units]; None if `use_bias=False`.

    Args: those of `keras.layers.SimpleRNNCell` without `recurrent_initializer`, and
        activation: activation of the output; "linear" by default.
        radius_range: lowest and highest initial |lambda|.
        max_phase: highest initial angle of lambda.
    """

    gates = 3
    biased = slice(2, 3)
    state_count = 3

    def __init__(
        self,
        units: int,
        *,
        radius_range: Sequence[float] = (0.9, 0.999),
        max_phase: float = 2 * pi,
        **options: Any,
    ) -> None:
        super().__init__(units, **options)
        self.radius_range = interval("radius_range", radius_range)
        self.max_phase = number("max_phase", max_phase)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.eigenvalues = self.add_recurrent(
            "eigenvalues", (2 * self.units,), self._initial_eigenvalues
        )
        self.gain = self.add_recurrent("gain", (self.units,), self._initial_gain)
        self.output_kernel = self.add_kernel("output_kernel", (2 * self.units, self.units))

    def coefficients(self, projected: Tensor) -> Coefficients:
        nu, theta = ops.split(self.eigenvalues, 2)
        radius, angle = ops.exp(-ops.exp(nu)), ops.exp(theta)
        a = ops.concatenate([radius * ops.cos(angle), radius * ops.sin(angle)])
        b = projected[..., : 2 * self.units] * ops.tile(ops.exp(self.gain), [2])
        # a is the same for all examples, and a batch of 1 saves memory in the scan.
        return ops.broadcast_to(a, (1, *b.shape[1:-1], 2 * self.units)), b

    def carry(self, gates: dict[str, Tensor]) -> dict[str, Tensor]:
        nu, _ = ops.split(self.eigenvalues, 2)
        return {"s": ops.exp(-ops.exp(nu))}

    def output(self, s: Tensor, projected: Tensor) -> Tensor:
        direct = projected[..., 2 * self.units :]
        return self.activation(ops.matmul(s, self.output_kernel) + direct)

    def pack(self, states: State) -> Tensor:
        return ops.concatenate(states[1:], axis=-1)

    def unpack(self, s: Tensor, output: Tensor) -> list[Tensor]:
        real, imaginary = ops.split(s, 2, axis=-1)
        return [output, real, imaginary]

    def multiply(self, a: Tensor, s: Tensor) -> Tensor:
        a_real, a_imaginary = ops.split(a, 2, axis=-1)
        real, imaginary = ops.split(s, 2, axis=-1)
        return ops.concatenate(
            [
                a_real * real - a_imaginary * imaginary,
                a_real * imaginary + a_imaginary * real,
            ],
            axis=-1,
        )

    def identity_like(self, coefficients: Coefficients) -> Coefficients:
        a, b = coefficients
        real, imaginary = ops.split(a, 2, axis=-1)
        one = ops.concatenate([ops.ones_like(real), ops.zeros_like(imaginary)], axis=-1)
        return one, ops.zeros_like(b)

    def _initial_eigenvalues(self, shape: Shape, dtype: str | None = None) -> Tensor:
        low, high = self.radius_range
        seeds = [None, None] if self.seed is None else [self.seed, self.seed + 1]
        squares = keras.random.uniform((self.units,), low**2, high**2, seed=seeds[0])
        angles = keras.random.uniform((self.units,), 1e-4, self.max_phase, seed=seeds[1])
        return ops.cast(ops.concatenate([ops.log(-0.5 * ops.log(squares)), ops.log(angles)]), dtype)

    def _initial_gain(self, shape: Shape, dtype: str | None = None) -> Tensor:
        nu, _ = ops.split(ops.convert_to_tensor(self.eigenvalues), 2)
        return ops.cast(0.5 * ops.log(-ops.expm1(-2 * ops.exp(nu))), dtype)


@keras.saving.register_keras_serializable(package="gradkeeper")
class LRU(ScanLayer):
    """`LRUCell` as a layer that computes all states of a sequence in parallel."""

    cell_class = LRUCell
