"""Private TensorFlow APIs that the replay uses, and why no public API replaces them.

`op_callbacks`: calls a function with the inputs and outputs of every executed operation. The
    public `tf.debugging.enable_check_numerics` stops at the first non-finite value, even at an
    intentional one (a mask of -inf), and reports neither the inputs nor the forward operation
    that is being differentiated.
`backprop._gradient_function`: calls the gradient of each operation. Its stack frame holds the
    outputs of the forward operation, which identify that operation.
`custom_gradient`'s `actual_grad_fn`: calls a custom gradient function. Its stack frame holds the
    outputs of the differentiated function.
`imperative_grad`: runs a whole backward pass. Its stack frame holds the differentiated tensors.
`gen_math_ops`: contains the functions that compute the gradients of roots and reciprocals.
    Registered gradients cannot be replaced.
`handle._handle_data`: the dtype of the variable that a handle belongs to.
`tensor._id`: a unique key. Python can reuse the `id` of a deleted tensor.
"""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any, TypeAlias
from unittest import mock

import tensorflow as tf
from tensorflow.python.eager import backprop
from tensorflow.python.framework import op_callbacks
from tensorflow.python.ops import custom_gradient, gen_math_ops
from tensorflow.python.util import nest

# The arguments are the type, inputs, attributes and outputs of an operation.
Watcher: TypeAlias = Callable[[str, Sequence[Any], dict[str, Any], Sequence[Any]], None]

_GRADIENT = backprop._gradient_function.__code__
_BACKWARD = backprop.imperative_grad.imperative_grad.__code__
_OWN_GRADIENT = (custom_gradient.__file__, "actual_grad_fn")


@contextmanager
def operations_watched(watcher: Watcher) -> Iterator[None]:
    """Call `watcher` for every operation executed (not traced) inside the block."""

    def see(
        kind: Any, inputs: Any, attrs: Any, outputs: Any, op_name: Any = None, graph: Any = None
    ) -> None:
        if graph is None:
            attributes = dict(zip(attrs[::2], attrs[1::2], strict=True))
            watcher(_kind(kind), inputs, attributes, outputs)

    op_callbacks.add_op_callback(see)
    try:
        yield
    finally:
        op_callbacks.remove_op_callback(see)


def _kind(op_type: str | bytes) -> str:
    """Return the operation type; for a function, its name without the run-specific suffix."""
    kind = op_type.decode() if isinstance(op_type, bytes) else op_type
    function = re.fullmatch(r"__(?:forward|backward|inference)_(.*)_\d+", kind)
    return f"function {function[1]}" if function else kind


def key_of(tensor: Any) -> int | None:
    """Return the unique key of an eager tensor; None for any other object."""
    return getattr(tensor, "_id", None)


def slopes_as_in_xla() -> AbstractContextManager:
    """Compute the gradients of roots and reciprocals as XLA does inside the block.

    For an upstream gradient of 0 times an infinite derivative, TensorFlow's CPU kernels return 0
    and XLA returns NaN.
    """
    return mock.patch.multiple(
        gen_math_ops,
        sqrt_grad=lambda y, dy, name=None: 0.5 * dy / y,
        rsqrt_grad=lambda y, dy, name=None: -0.5 * dy * (y * y * y),
        reciprocal_grad=lambda y, dy, name=None: -dy * (y * y),
    )


def is_handle(tensor: Any) -> bool:
    """Return True if a tensor is the handle of a variable."""
    data = getattr(tensor, "_handle_data", None)
    return data is not None and bool(data.is_set) and len(data.shape_and_type) == 1


def contents_of_variable(handle: Any) -> tf.Tensor:
    """Return the current value of a handle's variable."""
    dtype = tf.as_dtype(handle._handle_data.shape_and_type[0].dtype)
    return tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype)


@dataclass(frozen=True)
class Differentiated:
    """A forward operation whose gradient is being computed.

    Attributes:
        kind: the operation's type; None inside a custom gradient function.
        inputs: keys of the inputs; None for inputs that the gradient does not need.
        outputs: keys of the outputs; None for outputs that the gradient does not need.
        gradients: upstream gradients, with respect to the outputs.
        targets: the tensors that the backward pass differentiates.
    """

    kind: str | None
    inputs: list[int | None] = field(default_factory=list)
    outputs: list[int | None] = field(default_factory=list)
    gradients: list[Any] = field(default_factory=list)
    targets: list[Any] = field(default_factory=list)


def differentiated() -> Differentiated | None:
    """Return the operation that is being differentiated; None outside a backward pass."""
    found = Differentiated(None)
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code is _GRADIENT:
            known = frame.f_locals
            found = Differentiated(
                known["op_name"],
                [key_of(each) for each in known["inputs"] or ()],
                [key_of(each) for each in known["outputs"] or ()],
                list(known["out_grads"] or ()),
            )
        elif (code.co_filename, code.co_name) == _OWN_GRADIENT:
            known = frame.f_locals
            outputs = [key_of(each) for each in nest.flatten(known.get("result"))]
            found = Differentiated(None, [], outputs, list(known.get("result_grad_components", ())))
        elif code is _BACKWARD:
            targets = nest.flatten(frame.f_locals["target"])
            return replace(found, targets=[each for each in targets if key_of(each) is not None])
        frame = frame.f_back
    return None
