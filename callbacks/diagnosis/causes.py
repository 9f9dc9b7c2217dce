"""What went wrong in an operation, by its kind and the numbers that it was given."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gradkeeper.callbacks.diagnosis.faults import (
    ALL_MASKED,
    DIVISION_BY_ZERO,
    EXP_OVERFLOW,
    GRADIENT_AT_BOUND,
    GRADIENT_OF_DIVISION,
    GRADIENT_OF_LOG,
    GRADIENT_OF_POWER,
    GRADIENT_OF_ROOT,
    HALF_OVERFLOW,
    INDETERMINATE,
    LOG_OF_NEGATIVE,
    LOG_OF_ZERO,
    MEANT_INFINITY,
    OUT_OF_DOMAIN,
    OVERFLOW,
    ROOT_OF_NEGATIVE,
    UNKNOWN,
    ZERO_BY_ZERO,
    ZERO_VARIANCE,
    Fault,
)
from gradkeeper.callbacks.diagnosis.meant import brings_in
from gradkeeper.callbacks.diagnosis.operations import Operation
from gradkeeper.callbacks.diagnosis.ranges import numbers_of


def fault_of(operation: Operation) -> Fault:
    """What went wrong in an operation whose inputs hold no NaN and whose outputs do, or Inf."""
    numbers = [each for each in map(numbers_of, operation.tensors) if each is not None]
    if operation.gradient_of is not None:
        fault = _gradient_fault(operation.gradient_of, numbers)
        if fault is not None:
            return fault
    rule = _RULES.get(operation.kind)
    fault = rule(numbers) if rule is not None and numbers else None
    if fault is not None:
        return fault
    if operation.has_inf and brings_in(operation):
        return MEANT_INFINITY
    if any(bool(np.isinf(each).any()) for each in numbers):
        return INDETERMINATE
    if _is_half(operation):
        return HALF_OVERFLOW
    return OVERFLOW if operation.has_inf or operation.kind in _SUMS else UNKNOWN


# Inside these, numbers may overflow with either sign, and their sum is NaN.
_SUMS = frozenset(
    {"MatMul", "BatchMatMulV2", "Einsum", "Sum", "Mean", "AddN", "Cumsum", "BiasAddGrad"}
    | {"Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter", "DepthwiseConv2dNative"}
    | {"DepthwiseConv2dNativeBackpropInput", "DepthwiseConv2dNativeBackpropFilter"}
    | {"Conv3D", "Conv3DBackpropInputV2", "Conv3DBackpropFilterV2", "UnsortedSegmentSum"}
)


def _gradient_fault(forward: Operation, numbers: list[np.ndarray]) -> Fault | None:
    any_zero = any(bool((each == 0).any()) for each in numbers)
    if forward.kind in ("Asin", "Acos", "Atanh", "Acosh"):
        return GRADIENT_AT_BOUND
    if not any_zero:
        return GRADIENT_OF_DIVISION if forward.kind in _DIVISIONS else None
    return _AT_ZERO.get(forward.kind)


_DIVISIONS = ("RealDiv", "Div", "Reciprocal", "Inv", "Rsqrt")
_AT_ZERO = {
    "Sqrt": GRADIENT_OF_ROOT,
    "Rsqrt": ZERO_VARIANCE,
    "Log": GRADIENT_OF_LOG,
    "Log1p": GRADIENT_OF_LOG,
    "Pow": GRADIENT_OF_POWER,
    **dict.fromkeys(("RealDiv", "Div", "Reciprocal", "Inv"), GRADIENT_OF_DIVISION),
}


def _log(numbers: list[np.ndarray], zero: float = 0.0) -> Fault | None:
    lowest = numbers[0].min()
    return LOG_OF_NEGATIVE if lowest < zero else LOG_OF_ZERO if lowest == zero else None


def _division(numbers: list[np.ndarray]) -> Fault | None:
    over, under = np.broadcast_arrays(*numbers[:2])
    if ((over == 0) & (under == 0)).any():
        return ZERO_BY_ZERO
    return DIVISION_BY_ZERO if (under == 0).any() else None


def _reciprocal(numbers: list[np.ndarray]) -> Fault | None:
    return DIVISION_BY_ZERO if (numbers[0] == 0).any() else None


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
    return OUT_OF_DOMAIN if (numbers[0] <= 0).any() else None


def _is_half(operation: Operation) -> bool:
    # By number, as attributes come: float16 is 19.
    return 19 in (operation.attributes.get("DstT"), operation.attributes.get("T"))


def _always(fault: Fault) -> Callable[[list[np.ndarray]], Fault | None]:
    return lambda numbers: fault


_RULES: dict[str, Callable[[list[np.ndarray]], Any]] = {
    "Log": _log,
    "Log1p": lambda numbers: _log(numbers, -1.0),
    "RealDiv": _division,
    "Div": _division,
    "Reciprocal": _reciprocal,
    "Inv": _reciprocal,
    "Rsqrt": _reciprocal_root,
    "Sqrt": _always(ROOT_OF_NEGATIVE),
    "Pow": _power,
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "Exp": _always(EXP_OVERFLOW),
    "Expm1": _always(EXP_OVERFLOW),
    "Sinh": _always(EXP_OVERFLOW),
    "Cosh": _always(EXP_OVERFLOW),
    "Asin": _always(OUT_OF_DOMAIN),
    "Acos": _always(OUT_OF_DOMAIN),
    "Atanh": _always(OUT_OF_DOMAIN),
    "Acosh": _always(OUT_OF_DOMAIN),
    "Erfinv": _always(OUT_OF_DOMAIN),
    "Ndtri": _always(OUT_OF_DOMAIN),
    "Digamma": _at_pole,
    "Lgamma": _at_pole,
}
