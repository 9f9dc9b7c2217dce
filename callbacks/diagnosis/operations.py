"""Operations of a train step, and ranges of their values."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradkeeper.callbacks.diagnosis.source import OptimizerPart, Source


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
        any_nan(parts),
    )


def _real_parts(array: np.ndarray) -> tuple[np.ndarray, ...]:
    return (array.real, array.imag) if np.iscomplexobj(array) else (array,)


def all_finite(numbers: Range | None) -> bool:
    """Return True if all values are finite, or if there are none."""
    return numbers is None or numbers.is_finite


def numbers_of(tensor: Any) -> np.ndarray | None:
    """Return a real or complex tensor as an array, at least float32; None for other objects."""
    # The dtype of a Keras variable is a string, without a name.
    dtype = getattr(getattr(tensor, "dtype", None), "name", "")
    if not (dtype.startswith(("float", "bfloat", "complex")) and hasattr(tensor, "numpy")):
        return None
    array = np.asarray(tensor.numpy())
    return array if array.dtype.itemsize >= 4 else array.astype(np.float32)


def arrays_of(tensors: Iterable[Any]) -> list[np.ndarray]:
    """Return the real and complex ones of the tensors as arrays."""
    return [array for array in map(numbers_of, tensors) if array is not None]


# The ranges of these kinds explain the fault of a later operation: an exponential that underflows,
# a difference of two large numbers, the fill value of an empty segment.
_WITH_RANGES = frozenset({"Exp", "Sub", "UnsortedSegmentMax", "UnsortedSegmentMin"})


@dataclass
class Operation:
    """An executed operation.

    Attributes:
        number: index in order of execution.
        kind: TensorFlow's operation type, such as "Log". An operation of JAX or torch has the type
            of the one that computes the same.
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
        is_half: whether it computes in float16.
        primitive: name of the operation on JAX or torch; None on TensorFlow.
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
    is_half: bool = False
    primitive: str | None = None

    @property
    def name(self) -> str:
        """Return the name of the operation in the backend."""
        return self.primitive or self.kind

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
    """Operations of a step, in order of execution.

    Attributes:
        operations: the recorded operations.
        targets: the tensors that were differentiated.
    """

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.targets: list[Any] = []
        self._makers: dict[int | None, Operation] = {}
        self._gradients: dict[int, Range | None] = {}
        self._contents: dict[int | None, int] = {}

    def maker_of(self, key: int | None) -> Operation | None:
        """Return the operation that produced the tensor with this key; None if unknown."""
        return self._makers.get(key)

    def contents_of(self, handle: int) -> int:
        """Return the key of a variable's contents: the handle's key until the step changes it."""
        return self._contents.get(handle, handle)

    def gradient_at(self, operation: Operation) -> Range | None:
        """Return the range of the gradient with respect to the outputs; None if not recorded."""
        return self._gradients.get(operation.number)

    def add(self, operation: Operation, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Record an operation with its inputs and outputs."""
        if operation.kind in _WITH_RANGES:
            operation.given, operation.returned = range_of(inputs), range_of(outputs)
        self.operations.append(operation)
        self._makers.update({key: operation for key in operation.outputs if key is not None})


def any_nan(arrays: list[np.ndarray]) -> bool:
    """Return True if any array contains NaN."""
    return any(bool(np.isnan(each).any()) for each in arrays)
