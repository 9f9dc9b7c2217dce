"""Branches in the graph."""

from collections.abc import Callable, Sequence

import tensorflow as tf


def branch(
    condition: tf.Tensor,
    then: Callable[..., tf.Tensor],
    otherwise: Callable[..., tf.Tensor],
    inputs: Sequence[tf.Tensor],
) -> tf.Tensor:
    """`tf.cond` whose branches are functions of `inputs` alone.

    `tf.cond` spreads both branches out in the graph around it, and TensorFlow visits every
    operation in them, taken or not: in a step of a millisecond that is to be seen. Here each
    is called as one function.

    Args:
        condition: a boolean scalar.
        then: gives a tensor; run where the condition is true.
        otherwise: gives a tensor of the same shape and dtype; run where it is false.
        inputs: what both are called with.
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
    """Has `do` run where the condition is true.

    Returns:
        A tensor that is there once the tensors are that `do` returns, if it is run.
    """

    def taken() -> tf.Tensor:
        with tf.control_dependencies([each for each in [do()] if tf.is_tensor(each)]):
            return tf.constant(0)

    return tf.cond(condition, taken, lambda: tf.constant(0))
