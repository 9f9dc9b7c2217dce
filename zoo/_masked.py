"""Keras's recurrent layers with masks passed on to the layers after them.

As of Keras 3.16, `RNN` and `Bidirectional` set `supports_masking = False`: they use the mask of
their input, and the layers after them and the loss do not get it. A saved layer does not remember
the attribute. So models with masks hold layers of these classes, which set it, under such a Keras.
"""

from collections.abc import Callable
from typing import Any

import keras


class _PassesMasks:
    """Sets `supports_masking`, so that Keras attaches `compute_mask` to the layer's output."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.supports_masking = True


@keras.saving.register_keras_serializable(package="gradkeeper")
class MaskedSimpleRNN(_PassesMasks, keras.layers.SimpleRNN):
    """`keras.layers.SimpleRNN`."""


@keras.saving.register_keras_serializable(package="gradkeeper")
class MaskedLSTM(_PassesMasks, keras.layers.LSTM):
    """`keras.layers.LSTM`."""


@keras.saving.register_keras_serializable(package="gradkeeper")
class MaskedGRU(_PassesMasks, keras.layers.GRU):
    """`keras.layers.GRU`."""


@keras.saving.register_keras_serializable(package="gradkeeper")
class MaskedBidirectional(_PassesMasks, keras.layers.Bidirectional):
    """`keras.layers.Bidirectional`."""


_MASKED: dict[Callable[..., Any], type[keras.layers.Layer]] = {
    keras.layers.SimpleRNN: MaskedSimpleRNN,
    keras.layers.LSTM: MaskedLSTM,
    keras.layers.GRU: MaskedGRU,
    keras.layers.Bidirectional: MaskedBidirectional,
}


def passes_masks(layer: Callable[..., Any]) -> Callable[..., Any]:
    """The layer class or function, or a subclass where Keras's own class passes no masks on."""
    if keras.layers.SimpleRNN(1).supports_masking:
        return layer
    return _MASKED.get(layer, layer)
