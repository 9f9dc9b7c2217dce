"""Search for the operation that produced the first non-finite value."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from gradkeeper.callbacks.diagnosis.operations import (
    Operation,
    OperationTrace,
    arrays_of,
    range_of,
)

# These operations change the shape, dtype or layout of a tensor, but not its values.
_FORM = frozenset(
    {"Identity", "Reshape", "Squeeze", "ExpandDims", "BroadcastTo", "Cast", "StridedSlice"}
)
# These operations occur between densities and their weighted, normalised sum.
_SUMMING = _FORM | {"Sum", "Mean", "Mul", "RealDiv", "AddV2", "Neg", "Max", "Pack", "ConcatV2"}
_SUMMING |= {"MatMul", "BatchMatMulV2", "Einsum", "GatherV2", "Prod", "Transpose", "Maximum", "Abs"}
# In units of machine epsilon times the largest operand. Rounding errors of a variance, a squared
# distance and an eigenvalue, over 4 to 1e6 numbers in float32, float16 and bfloat16, reach 7.
_ROUNDING = 64


def divides_by_norm(trace: OperationTrace, division: Operation) -> bool:
    """Return True if the divisor is a root, such as a norm or a standard deviation."""
    before = _behind(trace, division.inputs[1:2], _FORM | {"Maximum", "AddV2"})
    return any(each.kind in ("Sqrt", "EuclideanNorm") for each in before)


def subtracts_maximum(trace: OperationTrace, operation: Operation) -> bool:
    """Return True for the difference of scores and their maximum, as in a softmax."""
    before = _behind(trace, operation.inputs[1:2], _FORM | {"Maximum"})
    return operation.kind == "Sub" and any(each.kind == "Max" for each in before)


def exponentials(trace: OperationTrace, logarithm: Operation) -> list[Operation]:
    """Return the exponentials that underflowed to 0 and whose sum is the logarithm's input."""
    return [
        each
        for each in _behind(trace, logarithm.inputs, _SUMMING)
        if each.kind == "Exp" and each.returned is not None and each.returned.lowest == 0
    ]


def has_empty_segment(trace: OperationTrace, operation: Operation) -> bool:
    """Return True if an input derives from the fill value of an empty segment."""
    fill = float(np.finfo(np.float32).max)
    return any(
        each.kind in ("UnsortedSegmentMax", "UnsortedSegmentMin")
        and each.returned is not None
        and fill in (abs(each.returned.lowest), abs(each.returned.highest))
        for each in _behind(trace, operation.inputs, None)
    )


def is_rounding(trace: OperationTrace, operation: Operation) -> bool:
    """Return True if a negative argument is within the rounding error of a difference."""
    argument, *_ = operation.tensors
    numbers = range_of([argument])
    assert numbers is not None
    scales = [abs(numbers.highest)]
    for each in _behind(trace, operation.inputs[:1], _FORM | {"AddV2", "Maximum"}):
        if each.kind == "Sub" and each.given is not None:
            scales.append(each.given.magnitude)
    unit = float(ml_dtypes.finfo(argument.dtype.name).eps)
    return -numbers.lowest <= _ROUNDING * unit * max(scales)


def is_masked(trace: OperationTrace, operation: Operation) -> bool:
    """Return True if a where() of the forward pass discards the non-finite outputs."""
    bad = set(operation.outputs)
    for each in trace.operations[operation.number + 1 :]:
        if each.is_backward or not bad.intersection(each.inputs):
            continue
        if not each.is_finite:
            bad.update(each.outputs)
        elif each.kind in ("Select", "SelectV2"):
            return True
    return False


def _behind(
    trace: OperationTrace, keys: list[int | None], through: frozenset[str] | None
) -> Iterator[Operation]:
    """Yield the operations that produced the tensors, breadth first.

    Follow the inputs of the operations whose kind is in `through`; of all if it is None.
    """
    waiting, visited = list(keys), set[int]()
    while waiting:
        maker = trace.maker_of(waiting.pop(0))
        if maker is None or maker.number in visited:
            continue
        visited.add(maker.number)
        yield maker
        if through is None or maker.kind in through:
            waiting += maker.inputs


_FILLING = frozenset({"Fill", "Select", "SelectV2", "BroadcastTo"})


def introduces_infinity(operation: Operation) -> bool:
    """Return True if an operation introduces an intentional infinity.

    The caller has checked that no earlier operation produced the infinity. A cast to fewer bits
    introduces one if its input is a mask, with at most two distinct values such as 0 and -1e9.
    With other inputs, the cast overflows.
    """
    if operation.kind == "Cast":
        return all(np.unique(each).size <= 2 for each in arrays_of(operation.tensors))
    return operation.kind in _FILLING


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
    with_nan = [
        each
        for each in before
        if each in leaves or ((maker := trace.maker_of(each)) and maker.has_nan)
    ]
    if with_nan:
        return with_nan, []
    made, reached = _infinities(trace, before, leaves)
    if reached and not made:
        return [], [(operation.number, Origin(None, min(reached), operation))]
    return [], [(each.number, Origin(each)) for each in made or [operation]]


def _bad_inputs(trace: OperationTrace, operation: Operation, leaves: set[int]) -> list[int]:
    """Return the keys of the inputs that are leaves, or not finite."""
    return [
        key
        for key in dict.fromkeys(operation.inputs)
        if key is not None
        and (key in leaves or ((maker := trace.maker_of(key)) and not maker.is_finite))
    ]


def _infinities(
    trace: OperationTrace, keys: list[int], leaves: set[int]
) -> tuple[list[Operation], set[int]]:
    """Return the preceding operations that made infinities from finite inputs, and the leaves.

    The keys are those of `_bad_inputs`.
    """
    waiting, visited = list(keys), set[int]()
    found: list[Operation] = []
    while waiting:
        key = waiting.pop()
        operation = None if key in visited or key in leaves else trace.maker_of(key)
        visited.add(key)
        if operation is None:
            continue
        before = _bad_inputs(trace, operation, leaves)
        waiting += before
        if not before and not introduces_infinity(operation):
            found.append(operation)
    return found, visited & leaves
