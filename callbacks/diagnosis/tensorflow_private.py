"""The private TensorFlow names that a replay needs, and why each has no public twin.

`op_callbacks`: has a function called with inputs and outputs of every operation that is run.
    The public `tf.debugging.enable_check_numerics` stops at the first number that is not
    finite, also where one is meant (a mask of -inf), and tells neither the inputs nor which
    operation's gradient was at work.
`backprop._gradient_function`: calls the gradient of each operation. In its frame on the stack
    stand the operation's outputs, by which it is known.
`custom_gradient`'s `actual_grad_fn`: calls a gradient function of a user's own, with what it is
    the gradient of beside it.
`imperative_grad`: a backward pass as a whole; it knows what is differentiated.
`gen_math_ops`: holds the functions by which the gradients of roots and reciprocals are computed.
    The gradients registered by name cannot be replaced.
`handle._handle_data`: the dtype of the variable that a handle belongs to.
`tensor._id`: tells two tensors apart that are one Python object after the other.
"""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any, TypeAlias
from unittest import mock

import tensorflow as tf
from tensorflow.python.eager import backprop
from tensorflow.python.framework import op_callbacks
from tensorflow.python.ops import custom_gradient, gen_math_ops
from tensorflow.python.util import nest

# Called with type, inputs, attributes and outputs of an operation.
Watcher: TypeAlias = Callable[[str, Sequence[Any], dict[str, Any], Sequence[Any]], None]

_GRADIENT = backprop._gradient_function.__code__
_BACKWARD = backprop.imperative_grad.imperative_grad.__code__
_OWN_GRADIENT = (custom_gradient.__file__, "actual_grad_fn")

# The file that a backward pass runs in.
BACKWARD_FILE = _BACKWARD.co_filename


@contextmanager
def operations_watched(watcher: Watcher) -> Iterator[None]:
    """Inside the block, the watcher sees every operation that is run (not built) here."""

    def see(
        op_type: str | bytes,
        inputs: Sequence[Any],
        attrs: Sequence[Any],
        outputs: Sequence[Any],
        op_name: str | None = None,
        graph: Any = None,
    ) -> None:
        if graph is None:
            watcher(
                _kind(op_type), inputs, dict(zip(attrs[::2], attrs[1::2], strict=True)), outputs
            )

    op_callbacks.add_op_callback(see)
    try:
        yield
    finally:
        op_callbacks.remove_op_callback(see)


def _kind(op_type: str | bytes) -> str:
    """The operation's type; of a function, its name without what differs from run to run."""
    kind = op_type.decode() if isinstance(op_type, bytes) else op_type
    function = re.fullmatch(r"__(?:forward|backward|inference)_(.*)_\d+", kind)
    return f"function {function[1]}" if function else kind


def key_of(tensor: Any) -> int | None:
    """By which an eager tensor is known; None for anything else."""
    return getattr(tensor, "_id", None)


@contextmanager
def slopes_as_in_xla() -> Iterator[None]:
    """Inside the block, gradients of roots and reciprocals are computed as XLA computes them.

    TensorFlow's own kernels for a CPU give 0 for a gradient of 0 times an infinite slope, XLA gives
    NaN.
    """
    slopes: dict[str, Callable] = {
        "sqrt_grad": lambda y, dy, name=None: 0.5 * dy / y,
        "rsqrt_grad": lambda y, dy, name=None: -0.5 * dy * (y * y * y),
        "reciprocal_grad": lambda y, dy, name=None: -dy * (y * y),
    }
    with ExitStack() as stack:
        for name, slope in slopes.items():
            stack.enter_context(mock.patch.object(gen_math_ops, name, slope))
        yield


def is_handle(tensor: Any) -> bool:
    """Whether a tensor is the handle of a variable."""
    data = getattr(tensor, "_handle_data", None)
    return data is not None and bool(data.is_set) and len(data.shape_and_type) == 1


def contents_of_variable(handle: Any) -> tf.Tensor:
    """The value that the variable of a handle holds."""
    dtype = tf.as_dtype(handle._handle_data.shape_and_type[0].dtype)
    return tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype)


@dataclass(frozen=True)
class Differentiated:
    """The operation whose gradient is being computed.

    Attributes:
        kind: its type; None where a gradient function of a user's own is at work.
        inputs: keys of its inputs, None for those that its gradient does not need.
        outputs: the same of its outputs.
        gradients: the gradients that come to its outputs.
        targets: what the backward pass differentiates as a whole.
    """

    kind: str | None
    inputs: list[int | None] = field(default_factory=list)
    outputs: list[int | None] = field(default_factory=list)
    gradients: list[Any] = field(default_factory=list)
    targets: list[Any] = field(default_factory=list)


def differentiated() -> Differentiated | None:
    """Whose gradient the caller is part of; None outside a backward pass."""
    found = Differentiated(None)
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _GRADIENT:
            found = _operation_in(frame)
        elif (frame.f_code.co_filename, frame.f_code.co_name) == _OWN_GRADIENT:
            found = _own_gradient_in(frame)
        elif frame.f_code is _BACKWARD:
            targets = nest.flatten(frame.f_locals["target"])
            return replace(found, targets=[each for each in targets if key_of(each) is not None])
        frame = frame.f_back
    return None


def _operation_in(frame: FrameType) -> Differentiated:
    known = frame.f_locals
    return Differentiated(
        known["op_name"],
        [key_of(each) for each in known["inputs"] or ()],
        [key_of(each) for each in known["outputs"] or ()],
        list(known["out_grads"] or ()),
    )


def _own_gradient_in(frame: FrameType) -> Differentiated:
    known = frame.f_locals
    outputs = [key_of(each) for each in nest.flatten(known.get("result"))]
    return Differentiated(None, [], outputs, list(known.get("result_grad_components", ())))
