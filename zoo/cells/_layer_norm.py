"""Layer normalization inside a cell."""

from collections.abc import Callable
from typing import Any, ClassVar

import keras
from keras import ops

from gradkeeper.zoo._typing import Initializer, Tensor
from gradkeeper.zoo.cells._options import resolve
from gradkeeper.zoo.cells.recurrent_cell import ComputedKernelCell, RecurrentCell


def layer_norm(x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
    """Normalize over the last axis: gain * (x - mean) / sqrt(variance + epsilon).

    Ba, Kiros, Hinton 2016, eq. 3-4. The statistics are computed in at least float32, because
    squares of deviations above 256 overflow in float16.
    """
    centered = _center(_widen(x))
    return ops.cast(centered * (_inverse_deviation(centered, epsilon) * gain), x.dtype)


class LayerNormCell(RecurrentCell):
    """Base class of cells with layer normalization, listed before the other base classes.

    Args:
        epsilon: constant added to the variance.
        gain_initializer: initializer of every gain.
    """

    def __init__(
        self,
        units: int,
        *,
        epsilon: float = 1e-5,
        gain_initializer: Initializer = "ones",
        **options: Any,
    ) -> None:
        super().__init__(units, **options)
        self.epsilon = epsilon
        self.gain_initializer = resolve("gain_initializer", gain_initializer)

    def add_gain(self, name: str, width: int) -> Tensor:
        """Add a gain weight [width] that is not cast to the compute dtype."""
        return self.add_weight(
            shape=(width,), name=name, initializer=self.gain_initializer, autocast=False
        )

    def normalize(self, x: Tensor, gain: Tensor) -> Tensor:
        return layer_norm(x, gain, self.epsilon)


class NormalizedSumsCell(LayerNormCell, ComputedKernelCell):
    """Base class of cells that normalize the products with x and with h separately.

    A subclass sets `groups`, the numbers of gates that are normalized together, in order. It adds
    the weights `input_gain` and `recurrent_gain`, each [gates * units].

    LN(x W; a) is x (W - mean(W)) a / deviation. The mean and the gain are applied to the kernel
    once per sequence, and the inputs are divided by the deviation before the loop.
    """

    groups: ClassVar[tuple[int, ...]]

    def prepare(self, inputs: Tensor, training: bool = False) -> Tensor:
        inputs = self.drop_inputs(inputs, training)
        wide = _widen(inputs)
        scaled = [
            wide * self._inverse_deviation_of_product(wide, each)
            for each in self._split_groups(self.kernel)
        ]
        return ops.cast(_concatenate(scaled), inputs.dtype)

    def project(self, prepared: Tensor) -> Tensor:
        return self.projector()(prepared)

    def projector(self) -> Callable[[Tensor], Tensor]:
        parts = zip(
            self._split_groups(self.kernel),
            self._split_groups(_widen(self.input_gain)),
            strict=True,
        )
        kernels = [
            ops.cast(_center(_widen(kernel)) * gain, self.compute_dtype) for kernel, gain in parts
        ]

        def project(prepared: Tensor) -> Tensor:
            scaled = ops.split(prepared, len(kernels), axis=-1)
            sums = _concatenate([ops.matmul(*pair) for pair in zip(scaled, kernels, strict=True)])
            return sums if self.bias is None else sums + self.bias

        return project

    def compute_kernel(self) -> Tensor:
        """Return the recurrent kernel, centered so that its products have mean 0 in each group."""
        parts = [_center(_widen(each)) for each in self._split_groups(self.recurrent_kernel)]
        return ops.cast(_concatenate(parts), self.compute_dtype)

    def normalize_groups(self, sums: Tensor) -> list[Tensor]:
        """Normalize the products with `compute_kernel` and return them by group."""
        parts = zip(
            self._split_groups(_widen(sums)),
            self._split_groups(_widen(self.recurrent_gain)),
            strict=True,
        )
        return [
            ops.cast(each * (_inverse_deviation(each, self.epsilon) * gain), sums.dtype)
            for each, gain in parts
        ]

    def _split_groups(self, gates: Tensor) -> list[Tensor]:
        """Split the gates into the groups, along the last axis."""
        if len(self.groups) == 1:
            return [gates]
        ends = [sum(self.groups[: count + 1]) * self.units for count in range(len(self.groups))]
        return ops.split(gates, ends[:-1], axis=-1)

    def _inverse_deviation_of_product(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """Compute 1 / sqrt(variance + epsilon) of `inputs @ kernel` over the last axis."""
        kernel = _center(_widen(kernel))
        features, width = kernel.shape
        steps = inputs.shape[1] if len(inputs.shape) == 3 else 1
        if features > min(width, steps or 1):
            return _inverse_deviation(ops.matmul(inputs, kernel), self.epsilon)
        # With few features and many steps, the mean of squares as a quadratic form needs fewer
        # operations. Rounding may make it negative, hence the maximum with 0.
        form = ops.matmul(kernel, ops.transpose(kernel)) / width
        variance = ops.sum(inputs * ops.matmul(inputs, form), axis=-1, keepdims=True)
        return ops.rsqrt(ops.maximum(variance, 0) + self.epsilon)


def _widen(x: Tensor) -> Tensor:
    """Cast to at least float32."""
    return ops.cast(x, keras.backend.result_type(x.dtype, "float32"))


def _center(x: Tensor) -> Tensor:
    return x - ops.mean(x, axis=-1, keepdims=True)


def _inverse_deviation(centered: Tensor, epsilon: float) -> Tensor:
    return ops.rsqrt(ops.mean(ops.square(centered), axis=-1, keepdims=True) + epsilon)


def _concatenate(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)
