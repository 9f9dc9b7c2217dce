"""Conditional execution in the graph, also across replicas."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from gradkeeper.callbacks.instrument.replica import Replica


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


def all_replicas(flag: tf.Tensor, replica: Replica) -> tf.Tensor:
    """Return whether the flag is set on every replica, with the same result on each.

    The flags are combined in the cross-replica context. An all-reduce in the replica context fails
    for a flag on replicas that share a CPU. The flags of other workers can only be read through
    `strategy.reduce`.
    """
    if replica.count == 1:
        return flag

    def merged(strategy: tf.distribute.Strategy, flag: Any) -> tf.Tensor:
        flags = strategy.experimental_local_results(flag)
        unset = tf.add_n([tf.cast(~each, tf.float32) for each in flags])
        if len(flags) < replica.count:
            unset = strategy.reduce(tf.distribute.ReduceOp.SUM, unset, axis=None)
        return tf.equal(unset, 0.0)

    return tf.distribute.get_replica_context().merge_call(merged, args=(flag,))


def apply_if(
    allowed: tf.Tensor,
    apply: Callable[[list[Any]], None],
    gradients: list[Any],
    replica: Replica,
) -> None:
    """Apply the gradients if `allowed` is true.

    Args:
        allowed: a boolean scalar, the same on every replica.
        apply: function that applies the gradients; called on each replica.
        gradients: the gradients of this replica.
        replica: this replica.
    """
    if replica.count == 1:
        when(allowed, lambda: apply(gradients))
        return

    # An update merges the replicas, which TensorFlow forbids in a conditional of a single replica.
    # The conditional is therefore built in the cross-replica context and calls the replicas.
    def merged(strategy: tf.distribute.Strategy, allowed: Any, gradients: list[Any]) -> None:
        def applied() -> None:
            strategy.extended.call_for_each_replica(apply, args=(gradients,))

        when(strategy.experimental_local_results(allowed)[0], applied)

    tf.distribute.get_replica_context().merge_call(merged, args=(allowed, gradients))
