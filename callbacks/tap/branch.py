"""Conditionals in the graph."""

from collections.abc import Callable, Sequence

import tensorflow as tf


def branch(
    condition: tf.Tensor,
    then: Callable[..., tf.Tensor],
    otherwise: Callable[..., tf.Tensor],
    inputs: Sequence[tf.Tensor],
) -> tf.Tensor:
    """Return `then(*inputs)` if `condition` is true, else `otherwise(*inputs)`.

    `tf.cond` inlines both branches into the surrounding graph, and TensorFlow visits every
    operation in them, taken or not. The cost is measurable in a step of one millisecond. Here, each
    branch is one function call.

    Args:
        condition: a boolean scalar.
        then: returns a tensor; uses no tensors besides its arguments.
        otherwise: returns a tensor of the same shape and dtype; uses no tensors besides its
            arguments.
        inputs: arguments of both functions.
    """
    if tf.executing_eagerly():
        return then(*inputs) if condition else otherwise(*inputs)
    specs = [tf.TensorSpec(x.shape, x.dtype, f"input_{i}") for i, x in enumerate(inputs)]
    branches = [
        tf.function(function, autograph=False).get_concrete_function(*specs)
        for function in (then, otherwise)
    ]
    shape = branches[0].structured_outputs.shape
    (result,) = tf.raw_ops.StatelessIf(
        cond=condition,
        input=list(inputs),
        Tout=[branches[0].structured_outputs.dtype],
        then_branch=branches[0],
        else_branch=branches[1],
        output_shapes=[shape],
    )
    result.set_shape(shape)
    return result


def when(condition: tf.Tensor, do: Callable[[], object]) -> tf.Tensor:
    """Call `do` if the condition is true.

    Returns:
        A tensor that depends on the tensor that `do` returns, if `do` is called and returns one.
    """

    def taken() -> tf.Tensor:
        with tf.control_dependencies([each for each in [do()] if tf.is_tensor(each)]):
            return tf.constant(0)

    return tf.cond(condition, taken, lambda: tf.constant(0))
