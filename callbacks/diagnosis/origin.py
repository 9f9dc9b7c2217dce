"""Where a number that is not finite came from: back through the operations that made it."""

from collections.abc import Iterable
from dataclasses import dataclass

from gradkeeper.callbacks.diagnosis.meant import brings_in
from gradkeeper.callbacks.diagnosis.operations import Operation, OperationTrace


@dataclass(frozen=True)
class Origin:
    """What made the first number that is not finite.

    Attributes:
        operation: the operation; None where the number was there before the step.
        leaf: the key of the tensor, or of the variable's handle, that it was in, then.
    """

    operation: Operation | None
    leaf: int | None = None


def origin_of(trace: OperationTrace, keys: Iterable[int | None], leaves: set[int]) -> Origin | None:
    """Goes back from tensors that are not finite to the first number that was not.

    A NaN is followed to the operation that was given none and made one. Where that was given an
    infinity, which an operation made of finite numbers, that operation is the origin: what
    overflowed first. An infinity that was brought in on purpose, such as a mask's, is not.

    Args:
        trace: the operations.
        keys: the tensors, or contents of variables.
        leaves: the tensors of the data, and the variables, that were not finite before the step.

    Returns:
        The first origin in the order of execution; None if the operations do not lead to one.
    """
    # The operation that came upon each tensor; -1 for the tensors to begin with.
    waiting = [(key, -1) for key in keys if key is not None]
    visited: set[int] = set()
    found: list[tuple[int, Origin]] = []
    while waiting:
        key, by = waiting.pop()
        if key in leaves:
            found.append((by, Origin(None, key)))
        operation = trace.maker_of(key)
        if key in visited or key in leaves or operation is None or operation.is_finite:
            continue
        visited.add(key)
        before, origins = _step_back(trace, operation, leaves)
        waiting += [(each, operation.number) for each in before]
        found += origins
    return min(found, key=lambda each: each[0])[1] if found else None


def _step_back(
    trace: OperationTrace, operation: Operation, leaves: set[int]
) -> tuple[list[int], list[tuple[int, Origin]]]:
    """The tensors to go on from behind an operation, or else the origins that lie there."""
    before = _bad_inputs(trace, operation, leaves)
    if not operation.has_nan:
        return before, [] if before else [(operation.number, Origin(operation))]
    with_nan = [each for each in before if each in leaves or _has_nan(trace, each)]
    if with_nan:
        return with_nan, []
    made, reached = _infinities(trace, before, leaves)
    if reached and not made:
        return [], [(operation.number, Origin(None, min(reached)))]
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
    """The operations that made infinities of finite numbers, back from these; and the leaves."""
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
