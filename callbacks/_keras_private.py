"""Private Keras names that the callbacks need, and why no public name replaces them.

`_clip_gradients`: the only place to read a gradient after Keras has clipped it and before Keras
    applies it; `apply` does both in one call.
`_backend_apply_gradients`: which variables the gradients in `_clip_gradients` belong to, on JAX.
`_symbolic_build`: creates the metrics passed to `compile`, as `fit` does on JAX before the first
    train step; without it, a train step cannot be traced.
`_accumulated_gradients`: the sums of a gradient accumulation, for the norm before clipping on JAX.
`_iterations`: the number of calls of an optimizer; `iterations` is the number of updates, which is
    smaller with gradient accumulation.
`_all_reduce_sum_gradients`: the only place to read the sum of the gradients of all replicas; Keras
    calls it between clipping and update.
`_trainable_variables`: the variables that `optimizer.apply(gradients)` updates if it is called
    without variables.
`_momentums`, `_velocities`: the moments of an optimizer, one for each trained variable (public in
    `SGD` and `Muon`). The public `optimizer.variables` lists all states; which one belongs to which
    variable follows from names only, which need not be unique.
`_flatten_layers`: the direct sublayers of a layer, including those in attributes and lists;
    `model.layers` exists on models only, and omits the cell of an RNN.
`_keras_history`, `_inbound_nodes`: the layer that computes an output of a functional model, and the
    inputs of the layer.
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

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import keras
from keras.src.backend.common.global_state import get_global_attribute
from keras.src.utils.io_utils import print_msg

CLIP_GRADIENTS = "_clip_gradients"
ALL_REDUCE = "_all_reduce_sum_gradients"
APPLY_GRADIENTS = "_backend_apply_gradients"
COMPUTE_ATTENTION = "_compute_attention"
APPLY_SCORES = "_apply_scores"

# Optimizers whose attributes of the following names hold moments, one for each trained variable.
# In `Muon` of Keras 3.10 to 3.12, they are dicts with the paths of the variables as keys.
_WITH_MOMENTS = ("Adam", "Lamb", "Lion", "Muon", "Nadam", "RMSprop", "SGD")
_FIRST = ("_momentums", "momentums", "adam_momentums")
_SECOND = ("_velocities", "adam_velocities")


class Moments(NamedTuple):
    """Moments of a variable in an optimizer.

    Attributes:
        first: the momentum: a moving average or sum of gradients or updates; None without one.
        second: the moving average of squared gradients; None without one.
        sign: -1 if `first` points against the gradient, as in `SGD`; otherwise 1.
    """

    first: Any = None
    second: Any = None
    sign: float = 1.0


def moments_by_variable(optimizer: keras.optimizers.Optimizer) -> dict[int, Moments]:
    """Return the moments of each variable that the optimizer trains, by `id` of the variable."""
    kinds = [getattr(keras.optimizers, name, None) for name in _WITH_MOMENTS]
    if not isinstance(optimizer, tuple(filter(None, kinds))):
        return {}
    trained = variables_of(optimizer, None)
    first, second = (_slots(optimizer, names, trained) for names in (_FIRST, _SECOND))
    sign = -1.0 if isinstance(optimizer, keras.optimizers.SGD) else 1.0
    return {
        id(variable): Moments(one, two, sign)
        for variable, one, two in zip(trained, first, second, strict=True)
    }


def _slots(
    optimizer: keras.optimizers.Optimizer, names: Iterable[str], variables: list[Any]
) -> list[Any]:
    slots = next((each for name in names if (each := getattr(optimizer, name, None))), None)
    if isinstance(slots, Mapping):
        return [slots.get(variable.path) for variable in variables]
    return slots or [None] * len(variables)


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


def accumulated_gradients(optimizer: keras.optimizers.Optimizer) -> list[Any]:
    """Return the accumulated gradient of each variable that the optimizer trains."""
    return list(optimizer._accumulated_gradients)


def calls_of(optimizer: keras.optimizers.Optimizer) -> Any:
    """Return the number of calls of the optimizer, a variable."""
    return optimizer._iterations


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Return the direct sublayers of a layer or model; an empty list for any other object."""
    if not isinstance(layer, keras.layers.Layer):
        return []
    return layer._flatten_layers(include_self=False, recursive=False)


def output_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers that compute the outputs of a functional or sequential model.

    A layer without weights and activation that has a single input, such as `Reshape`, is replaced
    by the layer before it. The list is empty for other models.
    """
    found, tensors = [], list(keras.tree.flatten(getattr(model, "outputs", None) or []))
    for tensor in tensors:  # grows in the loop
        operation, node, position = tensor._keras_history
        inputs = operation._inbound_nodes[node].input_tensors
        if isinstance(operation, keras.Model) and getattr(operation, "outputs", None):
            tensors.append(operation.outputs[position])
        elif isinstance(operation, keras.layers.InputLayer):
            continue
        elif not _computes(operation) and len(inputs) == 1:
            tensors.append(inputs[0])
        elif isinstance(operation, keras.layers.Layer):
            found.append(operation)
    return found


def _computes(operation: Any) -> bool:
    activations = (keras.layers.Softmax, keras.layers.ReLU, keras.layers.ELU)
    has_activation = hasattr(operation, "activation") or isinstance(operation, activations)
    return has_activation or bool(getattr(operation, "weights", ()))


def metric_variables(model: keras.Model) -> list[Any]:
    """Return the variables of the metrics of a model, including metrics passed to `compile`."""
    names = ("_user_metrics", "_user_weighted_metrics")
    passed = [getattr(each, name, None) for each in model.metrics for name in names]
    metrics = [each for each in keras.tree.flatten(passed) if isinstance(each, keras.Metric)]
    return [*model.metrics_variables, *(each for metric in metrics for each in metric.variables)]


def build_metrics(model: keras.Model, batch: Any) -> None:
    """Create the metrics passed to `compile`, which the first train step needs on JAX."""
    model._symbolic_build(data_batch=batch)


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
    "APPLY_GRADIENTS",
    "APPLY_SCORES",
    "CLIP_GRADIENTS",
    "COMPUTE_ATTENTION",
    "Moments",
    "accumulated_gradients",
    "build_metrics",
    "calls_of",
    "dot_product_equation",
    "is_inference",
    "is_recomputed",
    "mask_of",
    "metric_variables",
    "moments_by_variable",
    "print_msg",
    "sublayers",
    "variables_of",
]
