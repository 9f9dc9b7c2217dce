"""Detection of layers that use the mask of their input and do not pass the mask on.

As of Keras 3.16, `RNN`, `Bidirectional` and `TimeDistributed` set `supports_masking = False`.
"""

from collections.abc import Callable, Iterator
from typing import Any

import keras

from gradkeeper.callbacks._keras_private import mask_of, sublayers
from gradkeeper.callbacks.instrument.patch import AttributePatch

_SEQUENCE_LAYERS = (
    keras.layers.RNN,
    keras.layers.Bidirectional,
    keras.layers.TimeDistributed,
)


def mask_patches(
    model: keras.Model, tell: Callable[[keras.layers.Layer], None]
) -> list[AttributePatch]:
    """Return a patch of `call` for each layer of the model that does not pass masks on.

    Args:
        model: the model.
        tell: function that is called with the layer each time the layer is called with a mask.
    """

    def noting(layer: keras.layers.Layer) -> Callable:
        original = layer.call

        def call(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            masks = keras.tree.flatten((kwargs.get("mask"), mask_of(inputs)))
            if any(mask is not None for mask in masks):
                tell(layer)
            return original(inputs, *args, **kwargs)

        return call

    return [AttributePatch(layer, "call", noting) for layer in _ending_masks(model, set())]


def _ending_masks(layer: keras.layers.Layer, seen: set[int]) -> Iterator[keras.layers.Layer]:
    for each in sublayers(layer):
        if id(each) in seen:
            continue
        seen.add(id(each))
        if not isinstance(each, _SEQUENCE_LAYERS):
            yield from _ending_masks(each, seen)
        elif not each.supports_masking and getattr(each, "return_sequences", True):
            yield each
