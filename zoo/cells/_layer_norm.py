"""Layer normalization inside a cell."""

from collections.abc import Callable
from typing import Any, ClassVar

import keras
from keras import ops

from gradkeeper.zoo.cells._made_kernel import MadeKernelCell
from gradkeeper.zoo.cells._options import resolve
from gradkeeper.zoo.cells.recurrent_cell import RecurrentCell


def layer_norm(x: Any, gain: Any, epsilon: float) -> Any:
    """Normalize over the last axis: gain * (x - mean) / sqrt(variance + epsilon).

    Ba, Kiros, Hinton 2016, eq. 3-4. The statistics are computed in at least float32, because
    squares of deviations above 256 overflow in float16.
    """
    centred = _centred(_wide(x))
    return ops.cast(centred * (_inverse_deviation(centred, epsilon) * gain), x.dtype)


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
        gain_initializer: Any = "ones",
        **options: Any,
    ) -> None:
        super().__init__(units, **options)
        self.epsilon = epsilon
        self.gain_initializer = resolve("gain_initializer", gain_initializer)

    def add_gain(self, name: str, width: int) -> Any:
        """Add a gain weight [width] that is not cast to the compute dtype."""
        return self.add_weight(
            shape=(width,), name=name, initializer=self.gain_initializer, autocast=False
        )

    def normalize(self, x: Any, gain: Any) -> Any:
        return layer_norm(x, gain, self.epsilon)


class NormalizedSumsCell(LayerNormCell, MadeKernelCell):
    """Base class of cells that normalize the products with x and with h separately.

    A subclass sets `groups`, the numbers of gates that are normalized together, in order. It adds
    the weights `input_gain` and `recurrent_gain`, each [gates * units].

    LN(x W; a) is x (W - mean(W)) a / deviation. The mean and the gain are applied to the kernel
    once per sequence, and the inputs are divided by the deviation before the loop.
    """

    groups: ClassVar[tuple[int, ...]]

    def prepare(self, inputs: Any, training: bool = False) -> Any:
        inputs = self.drop_inputs(inputs, training)
        wide = _wide(inputs)
        scaled = [wide * self._inverse_deviation(wide, each) for each in self._parts(self.kernel)]
        return ops.cast(_joined(scaled), inputs.dtype)

    def project(self, prepared: Any) -> Any:
        return self.projector()(prepared)

    def projector(self) -> Callable[[Any], Any]:
        parts = zip(self._parts(self.kernel), self._parts(self.input_gain), strict=True)
        kernels = [
            ops.cast(_centred(_wide(kernel)) * gain, self.compute_dtype) for kernel, gain in parts
        ]

        def project(prepared: Any) -> Any:
            scaled = ops.split(prepared, len(kernels), axis=-1)
            sums = _joined([ops.matmul(*pair) for pair in zip(scaled, kernels, strict=True)])
            return sums if self.bias is None else sums + self.bias

        return project

    def made_kernel(self) -> Any:
        """Return the recurrent kernel, centred so that its products have mean 0 in each group."""
        parts = [_centred(_wide(each)) for each in self._parts(self.recurrent_kernel)]
        return ops.cast(_joined(parts), self.compute_dtype)

    def normalized(self, sums: Any) -> list[Any]:
        """Normalize the products with `made_kernel` and return them by group."""
        parts = zip(self._parts(_wide(sums)), self._parts(self.recurrent_gain), strict=True)
        return [
            ops.cast(each * (_inverse_deviation(each, self.epsilon) * gain), sums.dtype)
            for each, gain in parts
        ]

    def _parts(self, gates: Any) -> list[Any]:
        """Split the gates into the groups, along the last axis."""
        if len(self.groups) == 1:
            return [gates]
        ends = [sum(self.groups[: count + 1]) * self.units for count in range(len(self.groups))]
        return ops.split(gates, ends[:-1], axis=-1)

    def _inverse_deviation(self, inputs: Any, kernel: Any) -> Any:
        """Compute 1 / sqrt(variance + epsilon) of `inputs @ kernel` over the last axis."""
        kernel = _centred(_wide(kernel))
        features, width = kernel.shape
        steps = inputs.shape[1] if len(inputs.shape) == 3 else 1
        if features > min(width, steps or 1):
            return _inverse_deviation(ops.matmul(inputs, kernel), self.epsilon)
        # With few features and many steps, the mean of squares as a quadratic form needs fewer
        # operations. Rounding may make it negative, hence the maximum with 0.
        form = ops.matmul(kernel, ops.transpose(kernel)) / width
        variance = ops.sum(inputs * ops.matmul(inputs, form), axis=-1, keepdims=True)
        return ops.rsqrt(ops.maximum(variance, 0) + self.epsilon)


def _wide(x: Any) -> Any:
    """Cast to at least float32."""
    return ops.cast(x, keras.backend.result_type(x.dtype, "float32"))


def _centred(x: Any) -> Any:
    return x - ops.mean(x, axis=-1, keepdims=True)


def _inverse_deviation(centred: Any, epsilon: float) -> Any:
    return ops.rsqrt(ops.mean(ops.square(centred), axis=-1, keepdims=True) + epsilon)


def _joined(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)
