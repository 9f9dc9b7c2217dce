"""Layer normalization inside a cell."""

from typing import Any

import keras
from keras import ops

from gradkeeper.zoo.cells._options import resolve
from gradkeeper.zoo.cells.recurrent_cell import RecurrentCell


def layer_norm(x: Any, gain: Any, epsilon: float) -> Any:
    """LN(x; gain) = gain * (x - mean) / sqrt(variance + epsilon) over the last axis.

    Ba, Kiros, Hinton 2016, eq. 3-4. The statistics are taken in float32 at least: in float16
    the squares of deviations beyond 256 overflow.
    """
    wide = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
    centred = wide - ops.mean(wide, axis=-1, keepdims=True)
    variance = ops.mean(ops.square(centred), axis=-1, keepdims=True)
    return ops.cast(centred * (ops.rsqrt(variance + epsilon) * gain), x.dtype)


class LayerNormCell(RecurrentCell):
    """Options and helpers of the layer-normalized cells; mixed in before the base cell.

    Args:
        epsilon: added to the variance.
        gain_initializer: of every gain.
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
        """A gain weight [width], read at full precision."""
        return self.add_weight(
            shape=(width,), name=name, initializer=self.gain_initializer, autocast=False
        )

    def normalize(self, x: Any, gain: Any) -> Any:
        return layer_norm(x, gain, self.epsilon)
