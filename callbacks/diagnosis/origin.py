"""Search for the operation that produced the first non-finite value."""

from collections.abc import Iterable
from dataclasses import dataclass

from gradkeeper.callbacks.diagnosis.meant import brings_in
from gradkeeper.callbacks.diagnosis.operations import Operation, OperationTrace


@dataclass(frozen=True)
class Origin:
    """Origin of the first non-finite value.

    Attributes:
        operation: the operation that produced it; None if it existed before the step.
        leaf: key of the tensor or variable handle that held it before the step.
        reader: the operation that read the leaf; None if the leaf is a result of the step.
    """

    operation: Operation | None
    leaf: int | None = None
    reader: Operation | None = None


def origin_of(trace: OperationTrace, keys: Iterable[int | None], leaves: set[int]) -> Origin | None:
    """Follow non-finite tensors back to the operation that produced the first one.

    The origin of a NaN is the operation that produced it from inputs without NaN. If an input of
    that operation is an infinity that an earlier operation computed from finite numbers, the
    earlier operation is the origin. An intentional infinity, such as that of a mask, is not.

    Args:
        trace: the recorded operations.
        keys: keys of the tensors, or of contents of variables.
        leaves: keys of the batch tensors and variables that were non-finite before the step.

    Returns:
        The first origin in the order of execution; None if the operations do not lead to one.
    """
    # Each tensor with the operation that reads it; None for the initial tensors.
    waiting: list[tuple[int, Operation | None]] = [(key, None) for key in keys if key is not None]
    visited: set[int] = set()
    found: list[tuple[int, Origin]] = []
    while waiting:
        key, by = waiting.pop()
        if key in leaves:
            found.append((-1 if by is None else by.number, Origin(None, key, by)))
        operation = trace.maker_of(key)
        if key in visited or key in leaves or operation is None or operation.is_finite:
            continue
        visited.add(key)
        before, origins = _step_back(trace, operation, leaves)
        waiting += [(each, operation) for each in before]
        found += origins
    return min(found, key=lambda each: each[0])[1] if found else None


def _step_back(
    trace: OperationTrace, operation: Operation, leaves: set[int]
) -> tuple[list[int], list[tuple[int, Origin]]]:
    """Return the inputs to follow further back, or the origins if there are none."""
    before = _bad_inputs(trace, operation, leaves)
    if not operation.has_nan:
        return before, [] if before else [(operation.number, Origin(operation))]
    with_nan = [each for each in before if each in leaves or _has_nan(trace, each)]
    if with_nan:
        return with_nan, []
    made, reached = _infinities(trace, before, leaves)
    if reached and not made:
        return [], [(operation.number, Origin(None, min(reached), operation))]
    return [], [(each.number, Origin(each)) for each in made or [operation]]


def _bad_inputs(trace: OperationTrace, operation: Operation, leaves: set[int]) -> list[int]:
    keys = [key for key in operation.inputs if key is not None]
    makers = {key: trace.maker_of(key) for key in keys}
    return [
        key
        for key, maker in makers.items()
        if key in leaves or (maker is not None and not maker.is_finite)
    ]


def _has_nan(trace: OperationTrace, key: int) -> bool:
    maker = trace.maker_of(key)
    return maker is not None and maker.has_nan


def _infinities(
    trace: OperationTrace, keys: list[int], leaves: set[int]
) -> tuple[list[Operation], set[int]]:
    """Return the preceding operations that made infinities from finite inputs, and the leaves."""
    waiting, visited = list(keys), set[int]()
    found: list[Operation] = []
    while waiting:
        key = waiting.pop()
        operation = trace.maker_of(key)
        if key in visited or (key not in leaves and (operation is None or operation.is_finite)):
            continue
        visited.add(key)
        if operation is None or key in leaves:
            continue
        before = _bad_inputs(trace, operation, leaves)
        waiting += before
        if not before and not brings_in(operation):
            found.append(operation)
    return found, visited & leaves
