"""Patches that report the outputs of a model's layers to observers."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from gradkeeper.callbacks._keras_private import is_inference, is_recomputed, mask_of
from gradkeeper.callbacks.instrument.graph import TraceScope
from gradkeeper.callbacks.instrument.layer_outputs import (
    AttentionScores,
    LayerOutput,
    attention_method,
    scores_in,
)
from gradkeeper.callbacks.instrument.losses import tensors_in
from gradkeeper.callbacks.instrument.observer import Observers
from gradkeeper.callbacks.instrument.patch import AttributePatch
from gradkeeper.callbacks.instrument.step_context import StepContexts
from gradkeeper.callbacks.instrument.variable_names import layer_paths, unique_names


def output_patches(
    model: keras.Model, observers: Observers, contexts: StepContexts
) -> list[AttributePatch]:
    """Return patches of the layers inside the model that report each call in a train step.

    Calls with `training=False` are not reported. Layers that are created in a `keras.RematScope`,
    and calls in another graph than the train step's, are reported as hidden.
    """
    patches: list[AttributePatch] = []
    for path, layer in _reported_layers(model, observers):
        patches += _LayerPatches(path, layer, observers, contexts).patches
    return patches


def _reported_layers(
    model: keras.Model, observers: Observers
) -> list[tuple[str, keras.layers.Layer]]:
    """Return the layers with their paths, without the parts of Keras's own layers and the zoo's.

    The cell of an RNN runs in a loop, and the projections of `MultiHeadAttention` are a detail.
    """
    found, closed = [], tuple[str, ...]()
    for path, layer in layer_paths(model)[1:]:
        if path.startswith(closed):
            continue
        if is_recomputed(layer):
            observers.notify(lambda each, path=path: each.on_hidden_outputs(path))
            closed += (f"{path}/",)
            continue
        is_library = type(layer).__module__.partition(".")[0] in ("keras", "gradkeeper")
        is_whole = isinstance(layer, (keras.layers.RNN, keras.layers.MultiHeadAttention))
        if is_whole or (is_library and not isinstance(layer, keras.Model)):
            closed += (f"{path}/",)
        found.append((path, layer))
    names = unique_names([path for path, _ in found])
    return [(name, layer) for name, (_, layer) in zip(names, found, strict=True)]


class _LayerPatches:
    """Patches of one layer.

    Attributes:
        patches: the patches.
    """

    def __init__(
        self, path: str, layer: keras.layers.Layer, observers: Observers, contexts: StepContexts
    ) -> None:
        self._path, self._observers, self._contexts = path, observers, contexts
        self._attention: AttentionScores | None = None
        self.patches = [AttributePatch(layer, "call", self._call)]
        method = attention_method(layer)
        if method is not None:
            attend = AttributePatch(layer, method, lambda layer: self._attend(layer, method))
            self.patches.append(attend)

    def _call(self, layer: keras.layers.Layer) -> Callable:
        original = layer.call

        def call(*args: Any, **kwargs: Any) -> Any:
            mask = self._input_mask(args, kwargs)
            outputs = original(*args, **kwargs)
            self._report(layer, mask, outputs)
            return outputs

        return call

    def _attend(self, layer: keras.layers.Layer, name: str) -> Callable:
        original = getattr(layer, name)

        def attend(*args: Any, **kwargs: Any) -> Any:
            self._attention = scores_in(layer, original, args, kwargs)
            return original(*args, **kwargs)

        return attend

    @tf.autograph.experimental.do_not_convert
    def _input_mask(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Return the mask of the first input, and store the masks of all inputs."""
        masks = self._contexts.current().masks
        for tensor in tensors_in((args, kwargs)):
            if (mask := mask_of(tensor)) is not None:
                masks[id(tensor)] = tensor, mask
        first = [kwargs.get("mask"), *map(mask_of, keras.tree.flatten(args[:1]))]
        return next((each for each in first if each is not None), None)

    @tf.autograph.experimental.do_not_convert
    def _report(self, layer: keras.layers.Layer, mask: Any, outputs: Any) -> None:
        attention, self._attention = self._attention, None
        context = self._contexts.current()
        if not context.depth or is_inference():
            return
        if TraceScope.current() != context.scope:
            self._observers.notify(lambda each: each.on_hidden_outputs(self._path))
            return
        tensors = [each for each in tensors_in(outputs) if each.dtype.is_floating]
        for position, tensor in enumerate(tensors):
            scores = attention if position == 0 else None
            output = LayerOutput(
                *(layer, self._path, position, tensor, context.masks, mask, scores)
            )
            self._observers.notify(lambda each, output=output: each.on_output(context, output))
