"""RGLRUCell and RGLRU."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from gradkeeper._arguments import interval, number
from gradkeeper.zoo._typing import Shape, Tensor
from gradkeeper.zoo.cells._scan import Coefficients
from gradkeeper.zoo.cells.linear_cell import LinearCell, ScanLayer


@keras.saving.register_keras_serializable(package="gradkeeper")
class RGLRUCell(LinearCell):
    """Real-gated linear recurrent unit, parallel in time.

    De et al.: "Griffin: Mixing Gated Linear Recurrences with Local Attention for Efficient
    Language Models", 2024, arXiv 2402.19427, section 2.4::

        v = W_v x_t + b_v
        r = sigmoid(W_r x_t + b_r),  i = sigmoid(W_i x_t + b_i)
        a = sigmoid(L)^(c r)
        h_t = a * h_{t-1} + sqrt(1 - a^2) * (i * v)

    v is not in the paper, whose inputs are as wide as the states. It allows inputs of any width.

    Inputs: x_t [batch, features]. States: h [batch, units]. Output: h_t [batch, units].

    Weights, in the order r, i, v:
        kernel: (W_r, W_i, W_v), [features, 3 * units].
        decay: L, [units]. Initially, sigmoid(L)^c is uniform in `decay_range`.
        bias: (b_r, b_i, b_v), [3 * units]; None if `use_bias=False`.

    Args: those of `keras.layers.SimpleRNNCell` without `recurrent_initializer`, and
        activation: activation of v; "linear" by default.
        sharpness: c, above 0.
        decay_range: lowest and highest initial a at r = 1. The published code starts sigmoid(L)
            instead of a within 0.9 and 0.999 (google-deepmind/recurrentgemma, torch/layers.py:194
            and 291), so that a is within 0.43 and 0.992. `decay_range=(0.43, 0.992)` has these
            limits.
    """

    gates = 3
    forget_gate = ("h", "a")

    def __init__(
        self,
        units: int,
        *,
        sharpness: float = 8.0,
        decay_range: Sequence[float] = (0.9, 0.999),
        **options: Any,
    ) -> None:
        super().__init__(units, **options)
        self.sharpness = number("sharpness", sharpness)
        self.decay_range = interval("decay_range", decay_range)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.decay = self.add_recurrent("decay", (self.units,), self._initial_decay)

    def coefficients(self, projected: Tensor) -> Coefficients:
        r, i, v = ops.split(projected, 3, axis=-1)
        r, i = self.record_gate("r", ops.sigmoid(r)), self.record_gate("i", ops.sigmoid(i))
        log_a = -self.sharpness * r * ops.softplus(-self.decay)
        kept = self.record_gate("a", ops.exp(log_a))
        # Very small gates round to a = 1, where the square root of 0 has no finite derivative.
        least = 1e-7 if keras.backend.standardize_dtype(log_a.dtype) == "float16" else 1e-30
        return kept, ops.sqrt(least - ops.expm1(2 * log_a)) * i * self.activation(v)

    def _initial_decay(self, shape: Shape, dtype: str | None = None) -> Tensor:
        low, high = self.decay_range
        uniform = keras.initializers.RandomUniform(low, high, seed=self.seed)
        a = uniform(shape, dtype=dtype) ** (1 / self.sharpness)
        return ops.log(a) - ops.log1p(-a)


@keras.saving.register_keras_serializable(package="gradkeeper")
class RGLRU(ScanLayer):
    """`RGLRUCell` as a layer that computes all states of a sequence in parallel."""

    cell_class = RGLRUCell
