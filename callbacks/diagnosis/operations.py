"""Every operation of a train step that is run eagerly, and where it came from."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradkeeper.callbacks.diagnosis.ranges import Range, numbers_of, range_of
from gradkeeper.callbacks.diagnosis.source import (
    OptimizerPart,
    Source,
    calling_source,
    optimizer_part,
)
from gradkeeper.callbacks.diagnosis.tensorflow_private import (
    Differentiated,
    contents_of_variable,
    differentiated,
    is_handle,
    key_of,
    operations_watched,
)

# Operations that change the variables whose handles they are given begin with one of these.
_CHANGING = (
    *("Assign", "ResourceApply", "ResourceSparseApply", "ResourceScatter"),
    "ResourceStridedSliceAssign",
)
# Kinds whose ranges explain why a later operation fails: an underflow of an exponential, the
# difference of two large numbers, the fill value of an empty segment.
_WITH_RANGES = frozenset({"Exp", "Sub", "UnsortedSegmentMax", "UnsortedSegmentMin"})


@dataclass
class Operation:
    """An operation that was run.

    Attributes:
        number: its place among all.
        kind: TensorFlow's name of it, such as "Log".
        inputs: keys of its inputs. For a variable that this step has changed, the key of the
            variable's contents in place of the key of its handle.
        outputs: keys of its outputs; also of the contents of variables that it has changed.
        layers: paths of the layers it was run in, the outermost first.
        source: where it was called.
        is_backward: whether it belongs to a backward pass.
        gradient_of: the operation whose gradient it is part of.
        own_gradient_of: the operation that made what a gradient function of a user's own, which
            it is part of, is the gradient of.
        has_nan: whether an output holds a NaN.
        has_inf: whether one holds an infinity.
        tensors: the inputs, where outputs are not finite and no input is NaN.
        attributes: its attributes, then.
        part: the part of an optimizer's `apply` that ran it, where outputs are not finite.
        given: the range of its inputs, for the kinds whose range explains a later fault.
        returned: the range of its outputs, for the same kinds.
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
        """Whether all outputs are."""
        return not (self.has_nan or self.has_inf)

    @property
    def forward(self) -> "Operation":
        """The operation of the forward pass that it belongs to; itself in one."""
        of = self.gradient_of or self.own_gradient_of
        return self if of is None else of.forward  # not there yet where it was computed again


class OperationTrace:
    """The operations that are run inside `watching`, in their order.

    Args:
        layers: gives the paths of the layers that are being called.

    Attributes:
        operations: the operations.
        targets: the tensors that were differentiated.
    """

    def __init__(self, layers: Callable[[], tuple[str, ...]]) -> None:
        self._layers = layers
        self.operations: list[Operation] = []
        self.targets: list[Any] = []
        self._makers: dict[int, Operation] = {}
        self._gradients: dict[int, Range | None] = {}
        self._contents: dict[int | None, int] = {}
        self._changes = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside the block, operations are noted."""
        with operations_watched(self._see):
            yield

    def maker_of(self, key: int | None) -> Operation | None:
        """The operation that made the tensor with this key; None if none was seen."""
        return None if key is None else self._makers.get(key)

    def contents_of(self, handle: int) -> int:
        """The key of a variable's contents: its handle's key until the step changes it."""
        return self._contents.get(handle, handle)

    def gradient_at(self, operation: Operation) -> Range | None:
        """The gradient that came to the operation's outputs, as far as it was seen."""
        return self._gradients.get(operation.number)

    def _see(
        self, kind: str, inputs: Sequence[Any], attrs: dict[str, Any], outputs: Sequence[Any]
    ) -> None:
        keys = [self._contents.get(key_of(each), key_of(each)) for each in inputs]
        if kind == "AssignVariableOp":
            keys = keys[1:]  # what the variable held before has no effect
        handles = _changed_by(kind, inputs)
        results = [*outputs, *(contents_of_variable(each) for each in handles)]
        numbers = [each for each in map(numbers_of, results) if each is not None]
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
            has_nan=any(bool(np.isnan(each).any()) for each in numbers),
            has_inf=any(bool(np.isinf(each).any()) for each in numbers),
        )
        if not operation.is_finite and not any(_has_nan(each) for each in inputs):
            operation.tensors, operation.attributes = list(inputs), attrs
            operation.part = optimizer_part()
        if kind in _WITH_RANGES:
            operation.given, operation.returned = range_of(inputs), range_of(outputs)
        self.operations.append(operation)
        self._makers.update({key: operation for key in operation.outputs if key is not None})

    def _new_contents(self, handles: list[Any]) -> list[int]:
        """A key for the contents of each variable that has been changed."""
        keys = []
        for handle in handles:
            self._changes += 1
            # Below 0, where no tensor has its key.
            self._contents[key_of(handle)] = -self._changes
            keys.append(-self._changes)
        return keys

    def _forward(self, backward: Differentiated) -> Operation | None:
        """The operation that is being differentiated."""
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
        """The last operation of this kind that has not been differentiated.

        For those whose gradient needs neither inputs nor outputs: they come in reverse order.
        """
        alike = (op for op in reversed(self.operations) if op.kind == kind and not op.is_backward)
        return next((op for op in alike if op.number not in self._gradients), None)


def _changed_by(kind: str, inputs: Sequence[Any]) -> list[Any]:
    """The handles of the variables that an operation has changed."""
    return [each for each in inputs if is_handle(each)] if kind.startswith(_CHANGING) else []


def _fits(operation: Operation, backward: Differentiated) -> bool:
    """Whether that is the operation, by its kind and the inputs that are known."""
    if operation.is_backward or operation.kind != backward.kind:
        return False
    pairs = zip(operation.inputs, backward.inputs, strict=False)
    return all(known in (None, own) for own, known in pairs)


def _has_nan(tensor: Any) -> bool:
    numbers = numbers_of(tensor)
    return numbers is not None and bool(np.isnan(numbers).any())
