"""Mapping from the kind and inputs of an operation to the fault."""

from collections.abc import Callable

import numpy as np

from gradkeeper.callbacks.diagnosis.faults import (
    ALL_MASKED,
    ALL_MASKED_SUM,
    AT_BOUND,
    DIVISION_BY_SMALL,
    DIVISION_BY_ZERO,
    EMPTY_SEGMENT,
    EXP_OVERFLOW,
    EXTREME_OF_NOTHING,
    FROM_OUTSIDE,
    GRADIENT_AT_BOUND,
    GRADIENT_OF_ANGLE,
    GRADIENT_OF_DIVISION,
    GRADIENT_OF_LOG,
    GRADIENT_OF_MATRIX,
    GRADIENT_OF_NORM,
    GRADIENT_OF_POWER,
    GRADIENT_OF_ROOT,
    HALF_OVERFLOW,
    HALF_OVERFLOW_BACKWARD,
    INDETERMINATE,
    INTENTIONAL_INFINITY,
    LOG_OF_NEGATIVE,
    LOG_OF_ZERO,
    MEAN_OF_NOTHING,
    OUT_OF_DOMAIN,
    OVERFLOW,
    POLE,
    ROOT_OF_NEGATIVE,
    ROOT_OF_NEGATIVE_ARGUMENT,
    SINGULAR,
    SINGULAR_GRADIENT,
    SINGULAR_MATRIX,
    UNDERFLOW,
    UNKNOWN,
    ZERO_BY_ZERO,
    ZERO_NORM,
    ZERO_VARIANCE,
    Fault,
)
from gradkeeper.callbacks.diagnosis.operations import Operation, OperationTrace
from gradkeeper.callbacks.diagnosis.origin import (
    divides_by_norm,
    exponentials,
    has_empty_segment,
    introduces_infinity,
    is_rounding,
)
from gradkeeper.callbacks.diagnosis.ranges import numbers_of
from gradkeeper.callbacks.diagnosis.verdict import Place

# On a CPU, these operations reject a matrix that is singular or not positive definite.
MATRIX_KINDS = frozenset(
    {"Cholesky", "MatrixInverse", "MatrixSolve", "MatrixTriangularSolve", "MatrixSolveLs"}
    | {"LogMatrixDeterminant", "MatrixDeterminant", "MatrixLogarithm", "MatrixSquareRoot"}
    | {"SelfAdjointEigV2", "Eig", "Svd", "Qr", "Lu", "BandedTriangularSolve", "TridiagonalSolve"}
)


def fault_of(
    operation: Operation,
    trace: OperationTrace,
    place: Place,
    *,
    wide: bool | None,
    smaller: bool | None,
) -> Fault:
    """Return the fault of an operation that produced a NaN or infinity from inputs without NaN.

    Args:
        operation: the operation.
        trace: the operations of the step.
        place: the part of the step that the operation belongs to.
        wide: whether the operation's result is finite in float64; None if unknown.
        smaller: whether the result is finite with inputs divided by 1,024; None if unknown.
    """
    if not operation.tensors and operation.inputs:
        return FROM_OUTSIDE
    numbers = [each for each in map(numbers_of, operation.tensors) if each is not None]
    fault = _known_fault(operation, numbers, wide) or _other_fault(
        operation, numbers, place, wide=wide, smaller=smaller
    )
    return _in_context(fault, operation, trace)


def _known_fault(
    operation: Operation, numbers: list[np.ndarray], wide: bool | None
) -> Fault | None:
    """Return the fault that belongs to the operation's kind; None if there is none."""
    if operation.gradient_of is not None:
        # A logarithm inside the gradient of another function is not in the user's code.
        return _gradient_fault(operation.gradient_of, numbers, wide)
    rule = _RULES.get(operation.kind)
    return rule(numbers) if rule is not None and numbers else None


def _other_fault(
    operation: Operation,
    numbers: list[np.ndarray],
    place: Place,
    *,
    wide: bool | None,
    smaller: bool | None,
) -> Fault:
    """Return the fault according to the results in float64 and with smaller inputs."""
    if operation.has_inf and introduces_infinity(operation):
        return INTENTIONAL_INFINITY
    if any(bool(np.isinf(each).any()) for each in numbers):
        return INDETERMINATE
    if wide or smaller:
        half = HALF_OVERFLOW_BACKWARD if place == "backward" else HALF_OVERFLOW
        return half if _is_half(operation) else OVERFLOW
    if wide is None and smaller is None:
        return UNKNOWN
    return SINGULAR if operation.gradient_of is None else SINGULAR_GRADIENT


def _in_context(fault: Fault, operation: Operation, trace: OperationTrace) -> Fault:
    """Refine the fault by the operations that produced the inputs."""
    if fault is LOG_OF_ZERO and (made := exponentials(trace, operation)):
        was_masked = any(each.given is not None and not each.given.is_finite for each in made)
        return ALL_MASKED_SUM if was_masked else UNDERFLOW
    if fault is ZERO_BY_ZERO and divides_by_norm(trace, operation):
        return ZERO_NORM
    if fault is ROOT_OF_NEGATIVE and not is_rounding(trace, operation):
        return ROOT_OF_NEGATIVE_ARGUMENT
    if fault is OVERFLOW and has_empty_segment(trace, operation):
        return EMPTY_SEGMENT
    return fault


def _gradient_fault(
    forward: Operation, numbers: list[np.ndarray], wide: bool | None
) -> Fault | None:
    fault = _GRADIENTS.get(forward.kind)
    if fault is not None:
        return fault
    smallest = _smallest(numbers)
    # The reciprocal of a subnormal number is infinite in float32 and finite in float64. That of 0 is
    # infinite in both, so if the float64 result is finite, the 0 is not the cause.
    if smallest == 0 and wide:
        smallest = _smallest([each[each != 0] for each in numbers])
    if smallest < np.finfo(np.float32).tiny:
        return _GRADIENTS_AT_ZERO.get(forward.kind)
    return GRADIENT_OF_DIVISION if smallest < 1 and forward.kind in _DIVISIONS else None


def _smallest(numbers: list[np.ndarray]) -> float:
    return min((float(np.abs(each).min()) for each in numbers if each.size), default=np.inf)


_DIVISIONS = ("RealDiv", "Div", "Reciprocal", "Inv", "Rsqrt", "Xdivy")
_GRADIENTS = {
    **dict.fromkeys(("Asin", "Acos", "Atanh", "Acosh", "Erfinv", "Ndtri"), GRADIENT_AT_BOUND),
    **dict.fromkeys(MATRIX_KINDS, GRADIENT_OF_MATRIX),
}
_GRADIENTS_AT_ZERO = {
    "Sqrt": GRADIENT_OF_ROOT,
    "Rsqrt": ZERO_VARIANCE,
    "Pow": GRADIENT_OF_POWER,
    "EuclideanNorm": GRADIENT_OF_NORM,
    **dict.fromkeys(("Log", "Log1p", "Xlogy", "Xlog1py"), GRADIENT_OF_LOG),
    **dict.fromkeys(("Atan2", "Angle"), GRADIENT_OF_ANGLE),
    **dict.fromkeys(("RealDiv", "Div", "Reciprocal", "Inv", "Xdivy"), GRADIENT_OF_DIVISION),
}


def _log(argument: np.ndarray, zero: float = 0.0) -> Fault | None:
    if (argument == zero).any():
        return LOG_OF_ZERO
    return LOG_OF_NEGATIVE if not np.iscomplexobj(argument) and (argument < zero).any() else None


def _times_log(numbers: list[np.ndarray], zero: float = 0.0) -> Fault | None:
    factor, argument = np.broadcast_arrays(*numbers[:2])
    return _log(argument[factor != 0], zero)


def _division(numbers: list[np.ndarray]) -> Fault | None:
    over, under = np.broadcast_arrays(*numbers[:2])
    if ((over == 0) & (under == 0)).any():
        return ZERO_BY_ZERO
    return _by(over, under)


def _by(over: np.ndarray, under: np.ndarray) -> Fault | None:
    if ((over != 0) & (under == 0)).any():
        return DIVISION_BY_ZERO
    sizes = np.abs(under).astype(np.float64)
    quotients = np.divide(np.abs(over), sizes, out=np.zeros(sizes.shape), where=sizes > 0)
    return DIVISION_BY_SMALL if quotients.size and sizes.flat[quotients.argmax()] < 1 else None


def _remainder(numbers: list[np.ndarray]) -> Fault | None:
    return DIVISION_BY_ZERO if (numbers[1] == 0).any() else None


def _reciprocal(numbers: list[np.ndarray]) -> Fault | None:
    return _by(np.ones_like(numbers[0]), numbers[0])


def _reciprocal_root(numbers: list[np.ndarray]) -> Fault | None:
    return ROOT_OF_NEGATIVE if (numbers[0] < 0).any() else ZERO_VARIANCE


def _power(numbers: list[np.ndarray]) -> Fault | None:
    base, exponent = np.broadcast_arrays(*numbers[:2])
    if ((base == 0) & (exponent < 0)).any():
        return DIVISION_BY_ZERO
    return ROOT_OF_NEGATIVE if ((base < 0) & (exponent % 1 != 0)).any() else None


def _softmax(numbers: list[np.ndarray]) -> Fault | None:
    return ALL_MASKED if np.isneginf(numbers[0]).all(axis=-1).any() else None


def _at_pole(numbers: list[np.ndarray]) -> Fault | None:
    return POLE if (numbers[0] <= 0).any() else None


def _in_bounds(low: float, high: float) -> Callable[[list[np.ndarray]], Fault | None]:
    def rule(numbers: list[np.ndarray]) -> Fault | None:
        x = numbers[0]
        if ((x < low) | (x > high)).any():
            return OUT_OF_DOMAIN
        return AT_BOUND if ((x == low) | (x == high)).any() else None

    return rule


def _if_empty(fault: Fault) -> Callable[[list[np.ndarray]], Fault | None]:
    return lambda numbers: fault if numbers[0].size == 0 else None


def _is_half(operation: Operation) -> bool:
    # Attributes hold the DataType enum value: float16 is 19.
    return 19 in (operation.attributes.get("DstT"), operation.attributes.get("T"))


def _always(fault: Fault) -> Callable[[list[np.ndarray]], Fault | None]:
    return lambda numbers: fault


_RULES: dict[str, Callable[[list[np.ndarray]], Fault | None]] = {
    "Log": lambda numbers: _log(numbers[0]),
    "Log1p": lambda numbers: _log(numbers[0], -1.0),
    "Xlogy": _times_log,
    "Xlog1py": lambda numbers: _times_log(numbers, -1.0),
    "Rsqrt": _reciprocal_root,
    "Sqrt": _always(ROOT_OF_NEGATIVE),
    "Pow": _power,
    "Mean": _if_empty(MEAN_OF_NOTHING),
    "Acosh": _in_bounds(1.0, np.inf),
    "Ndtri": _in_bounds(0.0, 1.0),
    **dict.fromkeys(("RealDiv", "Div", "Xdivy"), _division),
    **dict.fromkeys(("FloorMod", "Mod", "TruncateMod", "FloorDiv", "TruncateDiv"), _remainder),
    **dict.fromkeys(("Reciprocal", "Inv"), _reciprocal),
    **dict.fromkeys(("Max", "Min"), _if_empty(EXTREME_OF_NOTHING)),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _softmax),
    **dict.fromkeys(
        ("SoftmaxCrossEntropyWithLogits", "SparseSoftmaxCrossEntropyWithLogits"), _softmax
    ),
    **dict.fromkeys(("Exp", "Expm1", "Sinh", "Cosh"), _always(EXP_OVERFLOW)),
    **dict.fromkeys(("Asin", "Acos", "Atanh", "Erfinv"), _in_bounds(-1.0, 1.0)),
    **dict.fromkeys(("Betainc", "Igamma", "Igammac"), _always(OUT_OF_DOMAIN)),
    **dict.fromkeys(("Digamma", "Lgamma", "Polygamma", "Zeta"), _at_pole),
    **dict.fromkeys(("BesselK0", "BesselK1", "BesselK0e", "BesselK1e"), _at_pole),
    **dict.fromkeys(("BesselY0", "BesselY1"), _at_pole),
    **dict.fromkeys(MATRIX_KINDS, _always(SINGULAR_MATRIX)),
}
