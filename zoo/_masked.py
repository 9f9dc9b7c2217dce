"""Keras recurrent layers that pass their mask to the next layer.

As of Keras 3.16, `RNN` and `Bidirectional` set `supports_masking = False`. They use the mask of
their input, but do not pass it to the next layers and the loss. The attribute is not saved with
the layer. With such Keras versions, models with masks use the subclasses of this module, which
set the attribute in the constructor.
"""

from typing import Any

import keras

from gradkeeper.zoo._typing import LayerFactory


class _PassesMasks:
    """Mixin that sets `supports_masking`, so that Keras attaches the mask to the layer's output."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.supports_masking = True


@keras.saving.register_keras_serializable(package="gradkeeper")
class MaskedSimpleRNN(_PassesMasks, keras.layers.SimpleRNN):
    """`keras.layers.SimpleRNN` that passes its mask on."""


@keras.saving.register_keras_serializable(package="gradkeeper")
class MaskedLSTM(_PassesMasks, keras.layers.LSTM):
    """`keras.layers.LSTM` that passes its mask on."""


@keras.saving.register_keras_serializable(package="gradkeeper")
class MaskedGRU(_PassesMasks, keras.layers.GRU):
    """`keras.layers.GRU` that passes its mask on."""


@keras.saving.register_keras_serializable(package="gradkeeper")
class MaskedBidirectional(_PassesMasks, keras.layers.Bidirectional):
    """`keras.layers.Bidirectional` that passes its mask on."""


_MASKED: dict[LayerFactory, type[keras.layers.Layer]] = {
    keras.layers.SimpleRNN: MaskedSimpleRNN,
    keras.layers.LSTM: MaskedLSTM,
    keras.layers.GRU: MaskedGRU,
    keras.layers.Bidirectional: MaskedBidirectional,
}


def passes_masks(layer: LayerFactory) -> LayerFactory:
    """Return `layer`, or its subclass that passes masks on if the Keras class does not."""
    if keras.layers.SimpleRNN(1).supports_masking:
        return layer
    return _MASKED.get(layer, layer)
