"""Private Keras names that the callbacks need, and why no public name replaces them.

`_clip_gradients`: the only place to read a gradient after Keras has clipped it and before Keras
    applies it; `apply` does both in one call.
`_all_reduce_sum_gradients`: the only place to read the sum of the gradients of all replicas; Keras
    calls it between clipping and update.
`_trainable_variables`: the variables that `optimizer.apply(gradients)` updates if it is called
    without variables.
`_flatten_layers`: the direct sublayers of a layer, including those in attributes and lists;
    `model.layers` exists on models only, and omits the cell of an RNN.
`_user_metrics`, `_user_weighted_metrics`: the metrics passed to `compile`, whose variables are not
    in `metrics_variables` before the first train step was traced.
`_keras_mask`: the mask that a tensor carries from layer to layer.
`keras.src.backend.common.global_state`: whether a layer is called for training; a layer without an
    argument `training` does not receive the value. `_get_call_context` of the layer would change
    the state in a direct call of `layer.call`.
`_remat_mode`: whether the backward pass calls the layer again (`keras.RematScope`).
`_compute_attention`, `_dot_product_equation`: the queries and keys of the heads of
    `MultiHeadAttention`, and their product; the layer returns weights only on request, and then
    computes them in another way.
`_apply_scores`: the only place to read the scores of `Attention` and `AdditiveAttention` and the
    mask of the keys.
`keras.src.utils.io_utils.print_msg`: the output function of Keras's own messages, which respects
    `keras.config.disable_interactive_logging()`.
"""

from collections.abc import Iterable
from typing import Any

import keras
from keras.src.backend.common.global_state import get_global_attribute
from keras.src.utils.io_utils import print_msg

CLIP_GRADIENTS = "_clip_gradients"
ALL_REDUCE = "_all_reduce_sum_gradients"
COMPUTE_ATTENTION = "_compute_attention"
APPLY_SCORES = "_apply_scores"


def variables_of(
    optimizer: keras.optimizers.Optimizer, variables: Iterable[Any] | None
) -> list[Any]:
    """Return the variables that `optimizer.apply(gradients, variables)` updates.

    The list is empty for an unbuilt optimizer without `variables`. Keras raises an error for that
    call.
    """
    if variables is None:
        variables = getattr(optimizer, "_trainable_variables", [])
    return list(variables)


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Return the direct sublayers of a layer or model; an empty list for any other object."""
    if not isinstance(layer, keras.layers.Layer):
        return []
    return layer._flatten_layers(include_self=False, recursive=False)


def metric_variables(model: keras.Model) -> list[Any]:
    """Return the variables of the metrics of a model, including metrics passed to `compile`."""
    names = ("_user_metrics", "_user_weighted_metrics")
    passed = [getattr(each, name, None) for each in model.metrics for name in names]
    metrics = [each for each in keras.tree.flatten(passed) if isinstance(each, keras.Metric)]
    return [*model.metrics_variables, *(each for metric in metrics for each in metric.variables)]


def mask_of(tensors: Any) -> Any:
    """Return the mask of each tensor of a nested structure; None for a tensor without a mask."""
    return keras.tree.map_structure(lambda each: getattr(each, "_keras_mask", None), tensors)


def is_inference() -> bool:
    """Return True if the layer under call is called with `training=False`."""
    return getattr(get_global_attribute("current_call_ctx"), "training", None) is False


def is_recomputed(layer: keras.layers.Layer) -> bool:
    """Return True if the layer was created in a `keras.RematScope`."""
    return getattr(layer, "_remat_mode", None) is not None


def dot_product_equation(layer: keras.layers.MultiHeadAttention) -> str:
    """Return the einsum equation of keys and queries, in this order."""
    return layer._dot_product_equation


__all__ = [
    "ALL_REDUCE",
    "APPLY_SCORES",
    "CLIP_GRADIENTS",
    "COMPUTE_ATTENTION",
    "dot_product_equation",
    "is_inference",
    "is_recomputed",
    "mask_of",
    "metric_variables",
    "print_msg",
    "sublayers",
    "variables_of",
]
