"""The private Keras names that the callbacks need, and why each has no public twin.

`_clip_gradients`: the only place where a gradient can be seen after Keras has clipped it
    and before it is applied; `apply` does both in one call.
`_all_reduce_sum_gradients`: the only place where the gradients of all replicas can be seen
    added up; it stands between clipping and update.
`_trainable_variables`: the variables that `optimizer.apply(gradients)` means when it is
    called without variables.
`_flatten_layers`: a layer's direct sublayers, also those kept in attributes and lists;
    `model.layers` exists on models only, and leaves out an RNN's cell.
`_keras_mask`: the mask that travels with a tensor from layer to layer.
`keras.src.utils.io_utils.print_msg`: the channel of Keras's own messages, which honours
    `keras.config.disable_interactive_logging()`.
"""

from collections.abc import Iterable
from typing import Any

import keras
from keras.src.utils.io_utils import print_msg

CLIP_GRADIENTS = "_clip_gradients"
ALL_REDUCE = "_all_reduce_sum_gradients"


def variables_of(
    optimizer: keras.optimizers.Optimizer, variables: Iterable[Any] | None
) -> list[Any]:
    """The variables that a call `optimizer.apply(gradients, variables)` is about.

    Empty for an optimizer that is not built and is told none: Keras itself refuses that call.
    """
    if variables is None:
        variables = getattr(optimizer, "_trainable_variables", [])
    return list(variables)


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers directly inside a layer or model; none in what is neither."""
    if not isinstance(layer, keras.layers.Layer):
        return []
    return layer._flatten_layers(include_self=False, recursive=False)


def mask_of(tensors: Any) -> Any:
    """The mask of each tensor of a nested structure; None for one without."""
    return keras.tree.map_structure(lambda each: getattr(each, "_keras_mask", None), tensors)


__all__ = ["ALL_REDUCE", "CLIP_GRADIENTS", "mask_of", "print_msg", "sublayers", "variables_of"]
