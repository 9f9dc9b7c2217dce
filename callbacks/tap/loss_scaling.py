"""Whether a train step multiplies its loss by the loss scale of its optimizer."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from gradkeeper.callbacks.tap.values import tensors_in

# The operations that call a `tf.function`.
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


class ScaledLosses:
    """Notes the calls of `scale_loss`, and finds the calls of `apply` that have none before them."""

    def __init__(self) -> None:
        self._scaled: set[int] = set()

    def wrapper(self, optimizer: keras.optimizers.Optimizer) -> Callable:
        """Return a `scale_loss` for the optimizer that notes its calls."""
        original, scaled, key = optimizer.scale_loss, self._scaled, id(optimizer)

        def scale_loss(loss: Any) -> Any:
            scaled.add(key)
            return original(loss)

        return scale_loss

    def are_missed_by(
        self, optimizer: keras.optimizers.Optimizer, gradients: Sequence[Any], *, in_step: bool
    ) -> bool:
        """Return whether the optimizer divides by a scale that the loss was not multiplied by.

        Without a call, a graph is searched for a product with the scale that the gradients
        depend on. A `tf.function` that was traced earlier calls `scale_loss` unseen: gradients
        that depend on such a function are not judged. Eager code has no graph: there, the
        `train_step` of a model is judged, and a loop of the user's own is not.

        Args:
            optimizer: the optimizer whose `apply` is called; already built.
            gradients: the gradients that it is called with.
            in_step: whether the `train_step` of a model makes the call.
        """
        if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            return False
        if id(optimizer) in self._scaled:
            return False
        if tf.executing_eagerly():
            return in_step
        tensors = tensors_in(list(gradients))
        if not tensors or all(_is_argument(each) for each in tensors):
            return False  # made by another function
        return not _may_depend_on(tensors, optimizer.dynamic_scale.value)


def _may_depend_on(tensors: Sequence[tf.Tensor], variable: tf.Variable) -> bool:
    """Return whether symbolic tensors are computed from the variable or by a `tf.function`."""
    copies = tf.distribute.get_strategy().experimental_local_results(variable)
    handles = {id(each.handle) for each in copies}
    waiting, seen = list(tensors), set()
    while waiting:
        tensor = waiting.pop()
        if id(tensor) in handles:
            return True
        if id(tensor) not in seen and tf.is_symbolic_tensor(tensor):
            seen.add(id(tensor))
            if tensor.op.type in _CALLS:
                return True
            waiting += _sources(tensor)
    return False


def _sources(tensor: tf.Tensor) -> list[tf.Tensor]:
    """Return the tensors from which a tensor is made, also outside the function it is in."""
    captures = tensor.graph.captures if tensor.op.type == "Placeholder" else ()
    return [*tensor.op.inputs, *(outer for outer, inner in captures if inner is tensor)]


def _is_argument(tensor: tf.Tensor) -> bool:
    return tensor.op.type == "Placeholder" and not _sources(tensor)
