"""Mapping from an operation, the data, the learning rate or the update to the fault."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from gradkeeper.callbacks.diagnosis import faults
from gradkeeper.callbacks.diagnosis.faults import Fault
from gradkeeper.callbacks.diagnosis.operations import (
    Operation,
    OperationTrace,
    all_finite,
    arrays_of,
)
from gradkeeper.callbacks.diagnosis.origin import (
    divides_by_norm,
    exponentials,
    has_empty_segment,
    introduces_infinity,
    is_rounding,
    subtracts_maximum,
)
from gradkeeper.callbacks.diagnosis.step_trace import StepTrace
from gradkeeper.callbacks.diagnosis.verdict import Place
from gradkeeper.callbacks.instrument.optimizers import LARGEST_RATE, with_nested

_Arrays: TypeAlias = list[np.ndarray]
_Rule: TypeAlias = Callable[..., Fault | None]
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
        return faults.FROM_OUTSIDE
    numbers = arrays_of(operation.tensors)
    known = _known_fault(operation, numbers, wide)
    fault = known or _other_fault(operation, numbers, place, wide, smaller)
    return _in_context(fault, operation, trace)


def _known_fault(operation: Operation, numbers: _Arrays, wide: bool | None) -> Fault | None:
    """Return the fault that belongs to the operation's kind; None if there is none."""
    if operation.gradient_of is not None:
        # A logarithm inside the gradient of another function is not in the user's code.
        return _gradient_fault(operation.gradient_of.kind, numbers, wide)
    rule = _RULES.get(operation.kind)
    if rule is None or not numbers:
        return None
    return rule if isinstance(rule, Fault) else rule(*numbers)


def _other_fault(
    operation: Operation, numbers: _Arrays, place: Place, wide: bool | None, smaller: bool | None
) -> Fault:
    """Return the fault according to the results in float64 and with smaller inputs."""
    if operation.has_inf and introduces_infinity(operation):
        return faults.INTENTIONAL_INFINITY
    if any(bool(np.isinf(each).any()) for each in numbers):
        return faults.INDETERMINATE
    if wide or smaller:
        if not operation.is_half:
            return faults.OVERFLOW
        return faults.HALF_OVERFLOW_BACKWARD if place == "backward" else faults.HALF_OVERFLOW
    if wide is None and smaller is None:
        return faults.UNKNOWN
    return faults.SINGULAR if operation.gradient_of is None else faults.SINGULAR_GRADIENT


def _in_context(fault: Fault, operation: Operation, trace: OperationTrace) -> Fault:
    """Refine the fault by the operations that produced the inputs."""
    if fault is faults.LOG_OF_ZERO and (made := exponentials(trace, operation)):
        was_masked = not all(all_finite(each.given) for each in made)
        return faults.ALL_MASKED_SUM if was_masked else faults.UNDERFLOW
    if fault is faults.ZERO_BY_ZERO and divides_by_norm(trace, operation):
        return faults.ZERO_NORM
    if fault is faults.ROOT_OF_NEGATIVE and not is_rounding(trace, operation):
        return faults.ROOT_OF_NEGATIVE_ARGUMENT
    if fault is faults.INDETERMINATE and subtracts_maximum(trace, operation):
        return faults.ALL_MASKED
    if fault is faults.OVERFLOW and has_empty_segment(trace, operation):
        return faults.EMPTY_SEGMENT
    return fault


def _gradient_fault(forward: str, numbers: _Arrays, wide: bool | None) -> Fault | None:
    if forward in _GRADIENTS:
        return _GRADIENTS[forward]
    # The reciprocal of a subnormal number is infinite in float32 and finite in float64. That of 0
    # is infinite in both, so if the float64 result is finite, the 0 is not the cause.
    if wide:
        numbers = [each[each != 0] for each in numbers]
    smallest = min((np.abs(each).min() for each in numbers if each.size), default=np.inf)
    if smallest < np.finfo(np.float32).tiny:
        return _GRADIENTS_AT_ZERO.get(forward)
    is_division = forward in (*_DIVISIONS, "Rsqrt")
    return faults.GRADIENT_OF_DIVISION if smallest < 1 and is_division else None


def _first(*cases: tuple[Any, Fault]) -> Fault | None:
    """Return the fault of the first case that holds for any number."""
    return next((fault for holds, fault in cases if np.any(holds)), None)


def _log(x: np.ndarray, zero: float = 0.0) -> Fault | None:
    is_negative = (x < zero) & np.isrealobj(x)
    return _first((x == zero, faults.LOG_OF_ZERO), (is_negative, faults.LOG_OF_NEGATIVE))


def _times_log(factor: np.ndarray, x: np.ndarray, zero: float = 0.0) -> Fault | None:
    factor, x = np.broadcast_arrays(factor, x)
    return _log(x[factor != 0], zero)


def _division(over: np.ndarray, under: np.ndarray) -> Fault | None:
    over, under = np.broadcast_arrays(over, under)
    both = (over == 0) & (under == 0)
    fault = _first((both, faults.ZERO_BY_ZERO), (under == 0, faults.DIVISION_BY_ZERO))
    if fault is not None or not under.size:
        return fault
    sizes = np.abs(under).astype(np.float64)
    quotients = np.abs(over) / sizes
    return faults.DIVISION_BY_SMALL if sizes.flat[quotients.argmax()] < 1 else None


def _power(base: np.ndarray, exponent: np.ndarray | float = -1.0) -> Fault | None:
    # On JAX, an integer exponent is not among the inputs. A singular one is negative.
    if ((base == 0) & (exponent < 0)).any():
        return faults.DIVISION_BY_ZERO
    return _first(((base < 0) & (np.mod(exponent, 1) != 0), faults.ROOT_OF_NEGATIVE))


def _softmax(scores: np.ndarray, *_: np.ndarray) -> Fault | None:
    return _first((np.isneginf(scores).all(axis=-1), faults.ALL_MASKED))


def _at_pole(x: np.ndarray, *_: np.ndarray) -> Fault | None:
    return _first((x <= 0, faults.POLE))


def _in_bounds(low: float, high: float) -> _Rule:
    return lambda x: _first(
        ((x < low) | (x > high), faults.OUT_OF_DOMAIN),
        ((x == low) | (x == high), faults.AT_BOUND),
    )


def _normalization(over: Callable[[np.ndarray], tuple[int, ...]]) -> _Rule:
    return lambda x, *_: _first((np.ptp(x, axis=over(x)) == 0, faults.ZERO_VARIANCE))


def _if_empty(fault: Fault) -> _Rule:
    return lambda x, *_: fault if x.size == 0 else None


_RULES: dict[str, Fault | _Rule] = {
    "Log": _log,
    "Log1p": partial(_log, zero=-1.0),
    "Xlogy": _times_log,
    "Xlog1py": partial(_times_log, zero=-1.0),
    "Sqrt": faults.ROOT_OF_NEGATIVE,
    "Rsqrt": lambda x: _first((x < 0, faults.ROOT_OF_NEGATIVE)) or faults.ZERO_VARIANCE,
    "Pow": _power,
    "Mean": _if_empty(faults.MEAN_OF_NOTHING),
    "Acosh": _in_bounds(1.0, np.inf),
    "Ndtri": _in_bounds(0.0, 1.0),
    **dict.fromkeys(("RealDiv", "Div", "Xdivy"), _division),
    **dict.fromkeys(
        ("FloorMod", "Mod", "TruncateMod", "FloorDiv", "TruncateDiv"),
        lambda over, under: _first((under == 0, faults.DIVISION_BY_ZERO)),
    ),
    **dict.fromkeys(("Reciprocal", "Inv"), lambda x: _division(np.ones_like(x), x)),
    **dict.fromkeys(("Max", "Min"), _if_empty(faults.EXTREME_OF_NOTHING)),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _softmax),
    **dict.fromkeys(
        ("SoftmaxCrossEntropyWithLogits", "SparseSoftmaxCrossEntropyWithLogits"), _softmax
    ),
    # On torch, a normalization is one operation.
    "native_layer_norm": _normalization(lambda x: (-1,)),
    "native_batch_norm": _normalization(lambda x: (0, *range(2, x.ndim))),
    **dict.fromkeys(("Exp", "Expm1", "Sinh", "Cosh"), faults.EXP_OVERFLOW),
    **dict.fromkeys(("Asin", "Acos", "Atanh", "Erfinv"), _in_bounds(-1.0, 1.0)),
    **dict.fromkeys(("Betainc", "Igamma", "Igammac"), faults.OUT_OF_DOMAIN),
    **dict.fromkeys(("Digamma", "Lgamma", "Polygamma", "Zeta"), _at_pole),
    **dict.fromkeys(("BesselK0", "BesselK1", "BesselK0e", "BesselK1e"), _at_pole),
    **dict.fromkeys(("BesselY0", "BesselY1"), _at_pole),
    **dict.fromkeys(MATRIX_KINDS, faults.SINGULAR_MATRIX),
}
_DIVISIONS = ("RealDiv", "Div", "Reciprocal", "Inv", "Xdivy")
_GRADIENTS = {
    **dict.fromkeys(
        ("Asin", "Acos", "Atanh", "Acosh", "Erfinv", "Ndtri"), faults.GRADIENT_AT_BOUND
    ),
    **dict.fromkeys(MATRIX_KINDS, faults.GRADIENT_OF_MATRIX),
}
_GRADIENTS_AT_ZERO = {
    "Sqrt": faults.GRADIENT_OF_ROOT,
    "Rsqrt": faults.ZERO_VARIANCE,
    "Pow": faults.GRADIENT_OF_POWER,
    "EuclideanNorm": faults.GRADIENT_OF_NORM,
    **dict.fromkeys(("Log", "Log1p", "Xlogy", "Xlog1py"), faults.GRADIENT_OF_LOG),
    **dict.fromkeys(("Atan2", "Angle"), faults.GRADIENT_OF_ANGLE),
    **dict.fromkeys(_DIVISIONS, faults.GRADIENT_OF_DIVISION),
}
_BY_ZERO = (
    *(faults.ZERO_BY_ZERO, faults.DIVISION_BY_ZERO, faults.DIVISION_BY_SMALL),
    *(faults.ZERO_NORM, faults.ZERO_VARIANCE),
)


def fault_of_data(part: str, batch: Any, *, masked: bool) -> Fault:
    """Return the fault of a non-finite part of the batch, such as "[1], example 3".

    With `masked`, the loss is finite and a gradient is not.
    """
    if masked:
        return faults.LATE_WHERE
    has_weights = isinstance(batch, tuple) and len(batch) == 3
    return faults.BAD_SAMPLE_WEIGHT if has_weights and part[:3] == "[2]" else faults.BAD_DATA


def bad_rates(rates: Sequence[float]) -> list[float]:
    """Return the learning rates that are not finite, or whose square overflows."""
    return [rate for rate in rates if not abs(rate) <= LARGEST_RATE]


def fault_of_rate(rates: Sequence[float]) -> Fault:
    """Return the fault of a learning rate that is not finite, or whose square overflows."""
    rate = next(iter(bad_rates(rates)), float("nan"))
    return Fault(
        f"the learning rate is {rate:g}",
        "A schedule or a callback set this value: check what it divides by, and its first and "
        "last step. Continue with a finite rate, such as optimizer.learning_rate = 1e-3.",
    )


def fault_of_update(trace: StepTrace, operation: Operation, fault: Fault) -> Fault:
    """Refine the fault of an operation that belongs to an optimizer update."""
    if not np.isfinite(trace.rates).all():
        return fault_of_rate(trace.rates)
    if operation.part == "constraint":
        if fault in _BY_ZERO:
            return faults.ZERO_CONSTRAINT
        return dataclasses.replace(fault, name=f"{fault.name} in a constraint")
    begun = [each for each in trace.updates if each.begin <= operation.number]
    if fault in _BY_ZERO:
        optimizers = with_nested(begun[-1].optimizer) if begun else []
        has_epsilon = any(getattr(each, "epsilon", None) for each in optimizers)
        return faults.EPSILON_UNDERFLOW if has_epsilon else faults.EPSILON_ZERO
    # The variable and the assigned change are finite, so their sum overflowed.
    if fault.is_overflow or operation.kind.startswith(("Assign", "Resource")):
        gradients = begun[-1].gradients if begun else None
        if gradients is None:
            return faults.UPDATE_BY_HAND
        is_rate_larger = max(trace.rates, default=0.0) > gradients.magnitude
        if is_rate_larger and operation.kind != "Square":
            return faults.UPDATE_OF_RATE
        return faults.UPDATE_OF_GRADIENT
    return fault
