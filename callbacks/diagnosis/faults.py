"""The ways in which finite numbers become NaN or infinite, and what to do about each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradkeeper.callbacks.diagnosis.operations import Operation
from gradkeeper.callbacks.diagnosis.ranges import numbers_of


@dataclass(frozen=True)
class Fault:
    """A way to lose a finite number.

    Attributes:
        name: in a few words.
        remedy: what to do.
        is_overflow: whether a wider range of numbers would have helped.
    """

    name: str
    remedy: str
    is_overflow: bool = False


BAD_DATA = Fault(
    "the data is not finite",
    "Clean the data before training: drop or fill what is NaN or infinite, and check what "
    "divides or takes logarithms in the input pipeline.",
)
BAD_WEIGHT = Fault(
    "a weight is not finite",
    "The weights were lost in an earlier step: go back to a checkpoint from before it, and keep "
    "a NonFiniteGuard in the training from its first step.",
)
LOG_OF_ZERO = Fault(
    "logarithm of 0",
    "Keep the argument above 0, log(x + epsilon) or log(maximum(x, epsilon)); for a probability "
    "use a loss with from_logits=True, which never forms it.",
)
LOG_OF_NEGATIVE = Fault(
    "logarithm of a negative number",
    "The argument must be positive: make it so by softplus or exp, or check the sign of what "
    "comes in.",
)
DIVISION_BY_ZERO = Fault(
    "division by 0",
    "Divide by maximum(x, epsilon) or x + epsilon, or use keras.ops.divide_no_nan.",
)
ZERO_BY_ZERO = Fault(
    "0 divided by 0",
    "What is averaged or normalised is empty or all 0: divide by maximum(count, 1) or "
    "maximum(norm, epsilon), or use keras.ops.divide_no_nan.",
)
ZERO_VARIANCE = Fault(
    "division by the root of a variance of 0",
    "All values that are normalised are equal. Give the normalisation an epsilon above 0 (1e-3 "
    "as in Keras, larger in float16).",
)
ROOT_OF_NEGATIVE = Fault(
    "root of a negative number",
    "Rounding makes small differences negative, such as those of a variance computed as "
    "E[x²] - E[x]²: take the root of maximum(x, 0), with an epsilon for the gradient.",
)
GRADIENT_OF_ROOT = Fault(
    "gradient of a root at 0",
    "The slope of a root at 0 is infinite, that of a norm undefined: use sqrt(x + epsilon). A "
    "where() around it does not help, since the branch that is not taken has a gradient too.",
)
GRADIENT_OF_LOG = Fault(
    "gradient of a logarithm at 0",
    "Keep the argument itself above 0, log(maximum(x, epsilon)). A where() around the logarithm "
    "does not help: the branch that is not taken has a gradient too, and 0 times infinity is NaN.",
)
GRADIENT_OF_POWER = Fault(
    "gradient of a power at 0",
    "The slope of x**p at 0 is infinite for p below 1: raise x + epsilon to the power.",
)
GRADIENT_OF_DIVISION = Fault(
    "gradient of a division by a number too small",
    "The slope of a/x goes with 1/x²: keep the divisor above an epsilon, as in "
    "a / maximum(x, epsilon). A where() around the division does not help: the branch that is "
    "not taken has a gradient too.",
)
OUT_OF_DOMAIN = Fault(
    "argument outside the function's domain",
    "Clip the argument to the domain, for arcsin and arccos to -1 + epsilon .. 1 - epsilon.",
)
GRADIENT_AT_BOUND = Fault(
    "gradient at the bound of the function's domain",
    "The slope is infinite there: clip the argument to -1 + epsilon .. 1 - epsilon.",
)
EXP_OVERFLOW = Fault(
    "overflow of an exponential",
    "float32 holds exp(x) up to x = 88, float16 up to x = 11: subtract the maximum first "
    "(softmax, logsumexp), use softplus, or bound x.",
    is_overflow=True,
)
HALF_OVERFLOW = Fault(
    "overflow of float16",
    "float16 ends at 65,504: let a LossScaleOptimizer lower its scale, use mixed_bfloat16, or "
    "keep this layer in float32 (dtype='float32').",
    is_overflow=True,
)
OVERFLOW = Fault(
    "overflow",
    "The numbers have grown too large for their dtype: lower the learning rate, clip gradients "
    "(global_clipnorm=1.0), normalise inputs and activations, or choose gated or orthogonal "
    "recurrent layers.",
    is_overflow=True,
)
ALL_MASKED = Fault(
    "softmax over positions that are all masked",
    "A row whose every score is -inf has no largest one. Mask with a large finite number (-1e9, "
    "in float16 -3e4) instead of -inf, or leave out rows without a valid position.",
)
INDETERMINATE = Fault(
    "infinity minus infinity, or 0 times infinity",
    "An infinity was brought in on purpose, and then reckoned with: replace it by a large finite "
    "number.",
)
UNKNOWN = Fault(
    "an operation of finite numbers gave one that is not",
    "Look at the operation's inputs below, and bound them.",
)


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
    if any(bool(np.isinf(each).any()) for each in numbers):
        return INDETERMINATE
    if _is_half(operation):
        return HALF_OVERFLOW
    return OVERFLOW if operation.has_inf or operation.kind in _SUMS else UNKNOWN


_SUMS = frozenset({"MatMul", "BatchMatMulV2", "Einsum", "Conv2D", "Sum", "Mean", "AddN"})


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
}
