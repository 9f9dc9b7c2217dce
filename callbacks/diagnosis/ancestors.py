"""Search of the operations that produced the inputs of an operation."""

from collections.abc import Iterator

import ml_dtypes
import numpy as np

from gradkeeper.callbacks.diagnosis.operations import Operation, OperationTrace
from gradkeeper.callbacks.diagnosis.ranges import range_of

# These operations change the shape, dtype or layout of a tensor, but not its values.
_FORM = frozenset(
    {"Identity", "Reshape", "Squeeze", "ExpandDims", "BroadcastTo", "Cast", "StridedSlice"}
)
# These operations occur between densities and their weighted, normalised sum.
_SUMMING = _FORM | {"Sum", "Mean", "Mul", "RealDiv", "AddV2", "Neg", "Max", "Pack", "ConcatV2"}
_SUMMING |= {"MatMul", "BatchMatMulV2", "Einsum", "GatherV2", "Prod", "Transpose", "Maximum"}
# In units of machine epsilon times the largest operand. Rounding errors of a variance, a squared
# distance and an eigenvalue, over 4 to 1e6 numbers in float32, float16 and bfloat16, reach 7.
_ROUNDING = 64


def divides_by_norm(trace: OperationTrace, division: Operation) -> bool:
    """Return True if the divisor is a root, such as a norm or a standard deviation."""
    before = _behind(trace, division.inputs[1:2], _FORM | {"Maximum", "AddV2"})
    return any(each.kind in ("Sqrt", "EuclideanNorm") for each in before)


def exponentials(trace: OperationTrace, logarithm: Operation) -> list[Operation]:
    """Return the exponentials that underflowed to 0 and whose sum is the logarithm's input."""
    before = _behind(trace, logarithm.inputs, _SUMMING)
    alike = [each for each in before if each.kind == "Exp" and each.returned is not None]
    return [each for each in alike if each.returned and each.returned.lowest == 0]


def has_empty_segment(trace: OperationTrace, operation: Operation) -> bool:
    """Return True if an input derives from the fill value of an empty segment."""
    for each in _behind(trace, operation.inputs, None):
        if each.kind in ("UnsortedSegmentMax", "UnsortedSegmentMin") and each.returned:
            limits = (abs(each.returned.lowest), abs(each.returned.highest))
            if float(np.finfo(np.float32).max) in limits:
                return True
    return False


def is_rounding(trace: OperationTrace, operation: Operation) -> bool:
    """Return True if a negative argument is within the rounding error of a difference."""
    argument, *_ = operation.tensors
    numbers = range_of([argument])
    assert numbers is not None
    scales = [abs(numbers.highest)]
    for each in _behind(trace, operation.inputs[:1], _FORM | {"AddV2", "Maximum"}):
        if each.kind == "Sub" and each.given is not None:
            scales += [abs(each.given.lowest), abs(each.given.highest)]
    unit = float(ml_dtypes.finfo(argument.dtype.as_numpy_dtype).eps)
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

    Args:
        trace: the recorded operations.
        keys: keys of the tensors.
        through: kinds of operations whose inputs are followed further; None for all kinds.
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
