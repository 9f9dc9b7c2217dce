"""Operations of an eager train step, and ranges of their values."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradkeeper.callbacks.diagnosis._tensorflow_private import (
    Differentiated,
    contents_of_variable,
    differentiated,
    is_handle,
    key_of,
    operations_watched,
)
from gradkeeper.callbacks.diagnosis.source import (
    OptimizerPart,
    Source,
    calling_source,
    optimizer_part,
)


@dataclass(frozen=True)
class Range:
    """Range of the values of one or more tensors.

    Real and imaginary parts of complex numbers count as separate values.

    Attributes:
        lowest: the smallest finite value; NaN if no value is finite.
        highest: the largest finite value; NaN if no value is finite.
        nonfinite: fraction of values that are NaN or infinite, 0 to 1.
        nan: whether any value is NaN.
    """

    lowest: float
    highest: float
    nonfinite: float
    nan: bool

    @property
    def is_finite(self) -> bool:
        """Return True if all values are finite."""
        return self.nonfinite == 0

    @property
    def magnitude(self) -> float:
        """Return the largest finite magnitude; NaN if no value is finite."""
        return max(abs(self.lowest), abs(self.highest))

    def __str__(self) -> str:
        span = f"{self.lowest:.3g} to {self.highest:.3g}"
        if np.isnan(self.lowest):
            span = "none finite"
        return span if self.is_finite else f"{span}, {100 * self.nonfinite:.3g} % not finite"


def range_of(tensors: Iterable[Any]) -> Range | None:
    """Return the range over all real and complex tensors; None if they have no values."""
    arrays = [array for array in arrays_of(tensors) if array.size]
    parts = [part for array in arrays for part in _real_parts(array)]
    if not parts:
        return None
    finite = [numbers for part in parts if (numbers := part[np.isfinite(part)]).size]
    total = sum(part.size for part in parts)
    return Range(
        min((float(numbers.min()) for numbers in finite), default=float("nan")),
        max((float(numbers.max()) for numbers in finite), default=float("nan")),
        (total - sum(numbers.size for numbers in finite)) / total,
        _any_nan(parts),
    )


def _real_parts(array: np.ndarray) -> tuple[np.ndarray, ...]:
    return (array.real, array.imag) if np.iscomplexobj(array) else (array,)


def all_finite(numbers: Range | None) -> bool:
    """Return True if all values are finite, or if there are none."""
    return numbers is None or numbers.is_finite


def numbers_of(tensor: Any) -> np.ndarray | None:
    """Return a real or complex tensor as an array, at least float32; None for other objects."""
    dtype = getattr(tensor, "dtype", None)
    has_numbers = getattr(dtype, "is_floating", False) or getattr(dtype, "is_complex", False)
    if not (has_numbers and hasattr(tensor, "numpy")):
        return None
    array = np.asarray(tensor.numpy())
    return array if array.dtype.itemsize >= 4 else array.astype(np.float32)


def arrays_of(tensors: Iterable[Any]) -> list[np.ndarray]:
    """Return the real and complex ones of the tensors as arrays."""
    return [array for array in map(numbers_of, tensors) if array is not None]


# Prefixes of the operations that change the variables whose handles are their inputs.
_CHANGING = (
    *("Assign", "ResourceApply", "ResourceSparseApply", "ResourceScatter"),
    "ResourceStridedSliceAssign",
)
# The ranges of these kinds explain the fault of a later operation: an exponential that underflows,
# a difference of two large numbers, the fill value of an empty segment.
_WITH_RANGES = frozenset({"Exp", "Sub", "UnsortedSegmentMax", "UnsortedSegmentMin"})


@dataclass
class Operation:
    """An executed operation.

    Attributes:
        number: index in order of execution.
        kind: TensorFlow's operation type, such as "Log".
        inputs: keys of the inputs. A variable that this step has changed is represented by the
            key of its contents, not by the key of its handle.
        outputs: keys of the outputs and of the contents of the variables that it changed.
        layers: paths of the layers that ran it, the outermost first.
        source: the line of code that called it.
        is_backward: whether it belongs to a backward pass.
        gradient_of: the forward operation whose registered gradient it belongs to.
        own_gradient_of: the forward operation whose custom gradient function it belongs to.
        has_nan: whether an output contains NaN.
        has_inf: whether an output contains an infinity.
        tensors: the inputs, kept if an output is not finite and no input contains NaN.
        attributes: the operation's attributes, kept in the same case.
        part: the part of an optimizer's `apply` that ran it, kept in the same case.
        given: range of the inputs, for the kinds whose range explains a later fault.
        returned: range of the outputs, for the same kinds.
    """

    number: int
    kind: str
    inputs: list[int | None]
    outputs: list[int | None]
    layers: tuple[str, ...]
    source: Source | None
    is_backward: bool
    gradient_of: "Operation | None"
    has_nan: bool
    has_inf: bool
    own_gradient_of: "Operation | None" = None
    tensors: list[Any] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)
    part: OptimizerPart | None = None
    given: Range | None = None
    returned: Range | None = None

    @property
    def is_finite(self) -> bool:
        """Return True if all outputs are finite."""
        return not (self.has_nan or self.has_inf)

    @property
    def forward(self) -> "Operation":
        """Return the forward operation that this one belongs to; itself in a forward pass."""
        of = self.gradient_of or self.own_gradient_of
        return self if of is None else of.forward  # `of` may run backward, in recompute_grad


class OperationTrace:
    """Operations executed inside `watching`, in order of execution.

    Args:
        layers: returns the paths of the layers that are running.

    Attributes:
        operations: the recorded operations.
        targets: the tensors that were differentiated.
    """

    def __init__(self, layers: Callable[[], tuple[str, ...]]) -> None:
        self._layers = layers
        self.operations: list[Operation] = []
        self.targets: list[Any] = []
        self._makers: dict[int | None, Operation] = {}
        self._gradients: dict[int, Range | None] = {}
        self._contents: dict[int | None, int] = {}
        self._changes = 0

    def watching(self) -> AbstractContextManager:
        """Record operations inside the block."""
        return operations_watched(self._see)

    def maker_of(self, key: int | None) -> Operation | None:
        """Return the operation that produced the tensor with this key; None if unknown."""
        return self._makers.get(key)

    def contents_of(self, handle: int) -> int:
        """Return the key of a variable's contents: the handle's key until the step changes it."""
        return self._contents.get(handle, handle)

    def gradient_at(self, operation: Operation) -> Range | None:
        """Return the range of the gradient with respect to the outputs; None if not recorded."""
        return self._gradients.get(operation.number)

    def _see(
        self, kind: str, inputs: Sequence[Any], attrs: dict[str, Any], outputs: Sequence[Any]
    ) -> None:
        keys = [self._contents.get(key_of(each), key_of(each)) for each in inputs]
        if kind == "AssignVariableOp":
            keys = keys[1:]  # the previous value of the variable has no effect
        changes = kind.startswith(_CHANGING)
        handles = [each for each in inputs if is_handle(each)] if changes else []
        numbers = arrays_of([*outputs, *map(contents_of_variable, handles)])
        backward = differentiated()
        forward = None if backward is None else self._forward(backward)
        is_own = backward is None or backward.kind is None
        operation = Operation(
            number=len(self.operations),
            kind=kind,
            inputs=keys,
            outputs=[*map(key_of, outputs), *self._new_contents(handles)],
            layers=self._layers(),
            source=calling_source() if is_own else None,
            is_backward=backward is not None,
            gradient_of=None if is_own else forward,
            own_gradient_of=forward if is_own else None,
            has_nan=_any_nan(numbers),
            has_inf=any(bool(np.isinf(each).any()) for each in numbers),
        )
        if not operation.is_finite and not _any_nan(arrays_of(inputs)):
            operation.tensors, operation.attributes = list(inputs), attrs
            operation.part = optimizer_part()
        if kind in _WITH_RANGES:
            operation.given, operation.returned = range_of(inputs), range_of(outputs)
        self.operations.append(operation)
        self._makers.update({key: operation for key in operation.outputs if key is not None})

    def _new_contents(self, handles: list[Any]) -> list[int]:
        """Assign a key to the contents of each changed variable."""
        keys = []
        for handle in handles:
            self._changes += 1
            # Keys of tensors are not negative.
            self._contents[key_of(handle)] = -self._changes
            keys.append(-self._changes)
        return keys

    def _forward(self, backward: Differentiated) -> Operation | None:
        """Return the forward operation that is being differentiated."""
        known = {key_of(each) for each in self.targets}
        self.targets += [each for each in backward.targets if key_of(each) not in known]
        forward = next((op for key in backward.outputs if (op := self.maker_of(key))), None)
        if forward is None and any(key is not None for key in backward.inputs):
            forward = next((op for op in reversed(self.operations) if _fits(op, backward)), None)
        if forward is None and backward.kind is not None:
            forward = self._next_to_last(backward.kind)
        if forward is not None and forward.number not in self._gradients:
            self._gradients[forward.number] = range_of(backward.gradients)
        return forward

    def _next_to_last(self, kind: str) -> Operation | None:
        """Return the last operation of this kind that has not been differentiated.

        The gradient of such an operation needs neither inputs nor outputs. A backward pass visits
        these operations in reverse order.
        """
        alike = (op for op in reversed(self.operations) if op.kind == kind and not op.is_backward)
        return next((op for op in alike if op.number not in self._gradients), None)


def _fits(operation: Operation, backward: Differentiated) -> bool:
    """Return True if the kind and the known inputs of `backward` match the operation."""
    if operation.is_backward or operation.kind != backward.kind:
        return False
    pairs = zip(operation.inputs, backward.inputs, strict=False)
    return all(known in (None, own) for own, known in pairs)


def _any_nan(arrays: list[np.ndarray]) -> bool:
    return any(bool(np.isnan(each).any()) for each in arrays)
