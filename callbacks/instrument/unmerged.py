"""Tensor reads that leave the rewrites of TensorFlow's graph optimizer unchanged.

Before a graph runs, TensorFlow reorders chains of products and of sums: `(g * scale) * lr` becomes
`g * (scale * lr)`. TensorFlow does so only if the intermediate value has a single consumer. A
measurement is one more consumer. The chain would stay unchanged, and the weights would differ in
the last bit from a training without the measurement. The measured tensor is therefore never the
result of a product or a sum, but a copy of that operation on the same inputs. (The rewrites are the
transforms MinimizeBroadcasts, AddOpsRewrite and HoistCommonFactor of Grappler's arithmetic optimizer.)
"""

import tensorflow as tf

_REORDERED = frozenset({"Mul", "Add", "AddV2", "AddN"})


def unscaled(tensor: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Split off the scalars that a tensor was multiplied or divided by.

    Returns:
        A tensor and a scalar (None for 1) whose product is `tensor`. Clipping by norm is such a
        product; its tensor has been measured already.
    """
    factor = None
    while (split := _split(tensor)) is not None:
        tensor, scalar = split
        factor = scalar if factor is None else factor * scalar
    return tensor, factor


def unmerged(tensor: tf.Tensor) -> tf.Tensor:
    """Return the tensor, or a copy from the same inputs if the number of its consumers matters."""
    if not tf.is_symbolic_tensor(tensor):
        return tensor
    return _copied(tensor, {})


def _split(tensor: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor] | None:
    if not tf.is_symbolic_tensor(tensor) or tensor.op.type not in ("Mul", "RealDiv"):
        return None
    left, right = tensor.op.inputs
    if right.shape.num_elements() == 1 and left.shape == tensor.shape:
        scalar = tf.reshape(right, [])
        return left, (tf.math.reciprocal(scalar) if tensor.op.type == "RealDiv" else scalar)
    if tensor.op.type == "Mul" and left.shape.num_elements() == 1 and right.shape == tensor.shape:
        return right, tf.reshape(left, [])
    return None


def _copied(tensor: tf.Tensor, copies: dict[int, tf.Tensor]) -> tf.Tensor:
    operation = tensor.op
    if operation.type not in _REORDERED:
        return tensor
    if id(tensor) not in copies:
        inputs = [_copied(each, copies) for each in operation.inputs]
        # Mark the copy, which TensorFlow would otherwise merge with the original.
        with tensor.graph.gradient_override_map({operation.type: operation.type}):
            copies[id(tensor)] = _apply(operation.type, inputs)
    return copies[id(tensor)]


def _apply(kind: str, inputs: list[tf.Tensor]) -> tf.Tensor:
    if kind == "AddN":
        return tf.raw_ops.AddN(inputs=inputs)
    return getattr(tf.raw_ops, kind)(x=inputs[0], y=inputs[1])
