"""The graph in which code is traced: replica, scope, variables, conditionals, reads."""

import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class Replica:
    """A replica, identified by its index among all replicas in sync.

    Attributes:
        index: 0 to `count` - 1; 0 outside a strategy.
        count: number of replicas in sync.
        device: name of the replica's device; None outside a strategy.
        local: index among the replicas of this process.
    """

    index: int
    count: int
    device: str | None
    local: int = 0

    @classmethod
    def current(cls) -> "Replica":
        """Return the replica whose step is being traced or run."""
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return cls(0, 1, None)
        index = int(tf.get_static_value(context.replica_id_in_sync_group))
        # The devices of this process. `context.devices` uses the index among all replicas, and
        # fails on a second worker.
        devices = context.strategy.extended.worker_devices
        local = index % len(devices)
        return cls(index, context.num_replicas_in_sync, str(devices[local]), local)

    @property
    def is_first(self) -> bool:
        """Return True for the first replica of this process, which records shared values."""
        return self.local == 0

    def home(self, *, compiled: bool) -> str | None:
        """Return the device for the replica's small variables; None for TensorFlow's choice.

        Outside a strategy, this is host memory, which can be read without waiting for a device. A
        step that XLA compiles as a whole (`compiled`) needs the variables on its own device.
        """
        return self.device if compiled or self.device else "CPU:0"


@dataclass(frozen=True)
class TraceScope:
    """Trace scope: a graph under trace, or None for eager execution.

    A `tf.function` that a train step calls is traced once and runs in later steps as well. Tensors
    that the function captures from the outer graph have the values of the step in which the
    function was traced. Values that change from step to step must be read from variables.
    """

    graph: "weakref.ref[tf.Graph] | None"

    @classmethod
    def current(cls) -> "TraceScope":
        """Return the trace scope of the caller."""
        if tf.executing_eagerly():
            return cls(None)
        return cls(weakref.ref(tf.compat.v1.get_default_graph()))


def may_have_functions(train_step: Callable) -> bool:
    """Return True if the train step may call a `tf.function`; Keras's own `train_step` does not."""
    return getattr(train_step, "__func__", None) is not keras.Model.train_step


def make_variable(
    value: np.ndarray | Callable[[], tf.Tensor],
    device: str | None,
    shape: tf.TensorShape | None = None,
) -> tf.Variable:
    """Create a plain variable on the device (None for TensorFlow's choice).

    The shape is that of the initial value, or `shape`, which may be unknown.

    The variable is created in a separate thread, whose TensorFlow context is empty. The graph under
    trace, and a surrounding strategy, device or name scope, do not affect the variable.
    """

    def make() -> tf.Variable:
        with tf.device(device):
            return tf.Variable(value, trainable=False, shape=shape, name="gradkeeper")

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(make).result()


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


class GraphFunction:
    """Function of tensors of the graph under trace, for every step or for some steps.

    A call adds the operations to the surrounding graph, where TensorFlow merges equal ones. `where`
    calls a separate graph: unlike the branches of `tf.cond`, TensorFlow does not visit each
    operation in the steps that leave them out.

    Args:
        compute: returns a vector; uses no variables.
        size: number of elements of the vector.
        dtype: dtype of the vector.
    """

    def __init__(self, compute: Callable[[], tf.Tensor], size: int, dtype: tf.DType) -> None:
        self._compute, self._size, self._dtype = compute, size, dtype

    @cached_property
    def _function(self) -> Any:
        return tf.function(self._compute, autograph=False).get_concrete_function()

    def __call__(self) -> tf.Tensor:
        """Return the vector, from operations of the surrounding graph."""
        return self._compute()

    def where(self, condition: tf.Tensor) -> tf.Tensor:
        """Return the vector if the condition is true, else zeros."""

        def zeros(*_: tf.Tensor) -> tf.Tensor:
            return tf.zeros([self._size], self._dtype)

        if tf.executing_eagerly():
            return self._compute() if condition else zeros()
        inputs = self._function.captured_inputs
        specs = [tf.TensorSpec(x.shape, x.dtype, f"input_{i}") for i, x in enumerate(inputs)]
        (result,) = tf.raw_ops.StatelessIf(
            cond=condition,
            input=inputs,
            Tout=[self._dtype],
            then_branch=self._function,
            else_branch=tf.function(zeros, autograph=False).get_concrete_function(*specs),
            output_shapes=[[self._size]],
        )
        result.set_shape([self._size])
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
    allowed: tf.Tensor, apply: Callable[[list[Any]], None], gradients: list[Any], replica: Replica
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


_SUMS = frozenset({"Add", "AddV2"})
_REORDERED = _SUMS | {"Mul", "RealDiv", "AddN", "Sub"}
# Operations that TensorFlow fuses with a bias, and such a bias with.
_PRODUCTS = frozenset({"MatMul", "BatchMatMulV2", "Conv2D", "Conv3D", "DepthwiseConv2dNative"})
_FUSED_WITH_BIAS = frozenset({"Tanh", "Sigmoid", "Elu"})


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
    """Return the tensor, or a copy from the same inputs if the number of its consumers matters.

    Before a graph runs, TensorFlow reorders chains of products and of sums: `(g * scale) * lr`
    becomes `g * (scale * lr)`. TensorFlow does so only if the intermediate value has a single
    consumer. A measurement is one more consumer. The chain would stay unchanged, and the weights
    would differ in the last bit from a training without the measurement. The measured tensor is
    therefore never the result of a product or a sum, but a copy of that operation on the same
    inputs. (The rewrites are MinimizeBroadcasts, AddOpsRewrite and HoistCommonFactor of Grappler's
    arithmetic optimizer, and ConstantPushDown of its constant folding.)
    """
    return _copied(tensor, {}) if tf.is_symbolic_tensor(tensor) else tensor


def unmerged_output(tensor: tf.Tensor, copies: dict[int, tf.Tensor]) -> tf.Tensor:
    """Return a tensor like `unmerged`, given the complete graph of its consumers.

    The result is a copy only if a consumer forms such a chain with the tensor, or if TensorFlow
    fuses the tensor, a matrix product or convolution with bias, with its activation, or in half
    precision with a sum: the fused operation rounds differently (Grappler's remapper with oneDNN).
    In the latter case, the product is computed again.

    Args:
        tensor: the tensor.
        copies: the copies made for other tensors of this graph, which are reused and extended.
    """
    if not tf.is_symbolic_tensor(tensor):
        return tensor
    consumers = _consumer_types(tensor)
    fusing = _FUSED_WITH_BIAS | (_SUMS if tensor.dtype.size < 4 else set())
    is_fused = _has_bias(tensor.op) and not consumers.isdisjoint(fusing)
    is_chain = tensor.op.type in _REORDERED and not consumers.isdisjoint(_REORDERED)
    # A second consumer, such as the projection behind a normalization: no rewrite, hence no copy.
    is_chain = is_chain and not _feeds_product(tensor)
    return _copied(tensor, copies, is_needed=is_fused) if is_fused or is_chain else tensor


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


def _consumer_types(tensor: tf.Tensor) -> set[str]:
    """Return the types of the operations that read a tensor, directly or through an identity."""
    types = set[str]()
    for each in tensor.consumers():
        types |= _consumer_types(each.outputs[0]) if each.type == "Identity" else {each.type}
    return types


def _feeds_product(tensor: tf.Tensor) -> bool:
    """Return True if a matrix product or convolution reads the tensor, perhaps in another shape."""
    return any(
        each.type in _PRODUCTS
        or (each.type in ("Identity", "Reshape") and _feeds_product(each.outputs[0]))
        for each in tensor.consumers()
    )


def _has_bias(operation: tf.Operation) -> bool:
    """Return True if TensorFlow fuses the sum with the product that is its first input."""
    if operation.type not in ("BiasAdd", *_SUMS):
        return False
    product, bias = operation.inputs
    return product.op.type in _PRODUCTS and (bias.shape.rank or 2) < 2


def _copied(
    tensor: tf.Tensor, copies: dict[int, tf.Tensor], *, is_needed: bool = False
) -> tf.Tensor:
    operation, graph = tensor.op, tf.compat.v1.get_default_graph()
    if not (is_needed or operation.type in _REORDERED):
        return tensor
    if id(tensor) not in copies:
        has_bias, is_short = _has_bias(operation), tensor.dtype.size < 4
        inputs = [
            _copied(
                each, copies, is_needed=(has_bias and i == 0) or (is_short and _has_bias(each.op))
            )
            for i, each in enumerate(operation.inputs)
        ]
        # Mark the copy, which TensorFlow would otherwise merge with the original.
        with graph.gradient_override_map({operation.type: operation.type}):
            copy = graph.create_op(
                operation.type, inputs, [tensor.dtype], attrs=dict(operation.node_def.attr)
            )
        copies[id(tensor)] = copy.outputs[0]
    return copies[id(tensor)]
