"""Patches that find masks which a layer does not pass on to a layer, or loss, that would use them.

A tensor without its mask has the layer that did not pass the mask on as an attribute. The attribute
follows the tensor through the layers that pass masks on.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from gradkeeper.callbacks._keras_private import mask_of, sublayers
from gradkeeper.callbacks.instrument.layer_outputs import SEQUENCE_LAYERS
from gradkeeper.callbacks.instrument.observer import Observers
from gradkeeper.callbacks.instrument.patch import AttributePatch

# Layers that take a mask and need not use it.
_PASSING = (keras.layers.Lambda, keras.layers.TimeDistributed)
_LOST_AT = "_gradkeeper_mask_lost_at"


def mask_patches(model: keras.Model, observers: Observers) -> list[AttributePatch]:
    """Return a patch of `call` for each layer, if a layer of the model does not pass masks on.

    Since Keras 3.16, `RNN`, `Bidirectional` and `TimeDistributed` set `supports_masking = False`.

    Args:
        model: the model.
        observers: notified of each layer that does not pass a mask on which is needed later.
    """
    layers = list(_layers_to_follow(model, set()))
    if not any(map(_ends_masks, layers)):
        return []
    return [AttributePatch(layer, "call", partial(_following, observers)) for layer in layers]


def lost_by_loss(
    compute_loss: Callable, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[keras.layers.Layer]:
    """Return the layers that did not pass on a mask which the loss of this call would use.

    The list is empty if the loss has a weight for each time step, because the weights can replace
    the mask.
    """
    arguments = arguments_of(compute_loss, args, kwargs)
    weights = [
        each for each in keras.tree.flatten(arguments.get("sample_weight")) if tf.is_tensor(each)
    ]
    if any(each.shape.rank is None or tuple(each.shape)[1:] not in ((), (1,)) for each in weights):
        return []
    return _lost(arguments.get("y_pred"))


def _layers_to_follow(layer: keras.layers.Layer, seen: set[int]) -> Iterator[keras.layers.Layer]:
    """Yield the layers of a model, except nested models and the layers inside sequence layers."""
    for each in sublayers(layer):
        if id(each) in seen:
            continue
        seen.add(id(each))
        if not isinstance(each, keras.Model):
            yield each
        if not isinstance(each, SEQUENCE_LAYERS):
            yield from _layers_to_follow(each, seen)


def _ends_masks(layer: keras.layers.Layer) -> bool:
    """Return True if the layer returns sequences and does not pass masks on."""
    is_sequence = isinstance(layer, SEQUENCE_LAYERS) and getattr(layer, "return_sequences", True)
    return is_sequence and not layer.supports_masking


def _following(observers: Observers, layer: keras.layers.Layer) -> Callable:
    """Return a wrapper of the layer's `call` that follows the masks."""
    original = layer.call
    ends = _ends_masks(layer)
    names = [name for name in inspect.signature(original).parameters if name.endswith("mask")]
    uses = bool(names) and not isinstance(layer, _PASSING)
    passes = layer.supports_masking or isinstance(layer, _PASSING)

    @tf.autograph.experimental.do_not_convert
    def follow(outputs: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        arguments = arguments_of(original, args, kwargs)
        inputs = [value for name, value in arguments.items() if name not in names]
        masks = [*(arguments.get(name) for name in names), mask_of(inputs)]
        has_mask = any(each is not None for each in keras.tree.flatten(masks))
        lost = _lost(inputs)
        if ends and has_mask:
            _mark(outputs, layer)
        elif lost and uses and not has_mask:
            observers.notify(lambda each: each.on_mask_lost(lost, layer))
        elif lost and passes:
            _mark(outputs, lost[0])

    def call(*args: Any, **kwargs: Any) -> Any:
        outputs = original(*args, **kwargs)
        follow(outputs, args, kwargs)
        return outputs

    return call


def arguments_of(
    function: Callable, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of a call by name."""
    return inspect.signature(function).bind_partial(*args, **kwargs).arguments


def _mark(outputs: Any, layer: keras.layers.Layer) -> None:
    """Note on each sequence among the outputs that its mask was lost at this layer."""
    for each in keras.tree.flatten(outputs):
        if tf.is_tensor(each) and (each.shape.rank or 0) > 2:
            setattr(each, _LOST_AT, layer)


def _lost(structure: Any) -> list[keras.layers.Layer]:
    """Return the layers at which the masks of the tensors without a mask were lost."""
    return [
        layer
        for tensor in keras.tree.flatten(structure)
        if mask_of(tensor) is None and (layer := _lost_at(tensor)) is not None
    ]


def _lost_at(tensor: Any) -> keras.layers.Layer | None:
    # Keras casts the inputs of a layer with another dtype before it calls the layer.
    while _is_cast(tensor):
        tensor = tensor.op.inputs[0]
    return getattr(tensor, _LOST_AT, None)


def _is_cast(tensor: Any) -> bool:
    in_graph = isinstance(tensor, tf.Tensor) and tf.is_symbolic_tensor(tensor)
    return in_graph and tensor.op.type == "Cast"
