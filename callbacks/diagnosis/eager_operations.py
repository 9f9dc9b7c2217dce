"""Operations of an eager train step of TensorFlow."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from traceback import walk_stack
from types import FrameType
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
from gradkeeper.callbacks.diagnosis.operations import (
    Operation,
    OperationTrace,
    any_nan,
    arrays_of,
    range_of,
)
from gradkeeper.callbacks.diagnosis.source import optimizer_part, source_of

# Prefixes of the operations that change the variables whose handles are their inputs.
_CHANGING = (
    *("Assign", "ResourceApply", "ResourceSparseApply", "ResourceScatter"),
    "ResourceStridedSliceAssign",
)


class EagerTrace(OperationTrace):
    """Operations executed inside `watching`.

    Args:
        layers: returns the paths of the layers that are running.
    """

    def __init__(self, layers: Callable[[], tuple[str, ...]]) -> None:
        super().__init__()
        self._layers = layers
        self._changes = 0

    def watching(self) -> AbstractContextManager:
        """Record operations inside the block."""
        return operations_watched(self._see)

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
            source=source_of(_stack()) if is_own else None,
            is_backward=backward is not None,
            gradient_of=None if is_own else forward,
            own_gradient_of=forward if is_own else None,
            has_nan=any_nan(numbers),
            has_inf=any(bool(np.isinf(each).any()) for each in numbers),
            # Attributes hold the DataType enum value: float16 is 19.
            is_half=19 in (attrs.get("DstT"), attrs.get("T")),
        )
        if not operation.is_finite and not any_nan(arrays_of(inputs)):
            operation.tensors, operation.attributes = list(inputs), attrs
            operation.part = optimizer_part(_stack())
        self.add(operation, inputs, outputs)

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


def _stack() -> Iterator[tuple[FrameType, int]]:
    return walk_stack(sys._getframe(1))
