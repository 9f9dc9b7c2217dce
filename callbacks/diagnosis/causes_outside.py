"""Faults of the data, the learning rate and the optimizer update."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradkeeper.callbacks.diagnosis.faults import (
    BAD_DATA,
    BAD_SAMPLE_WEIGHT,
    DIVISION_BY_SMALL,
    DIVISION_BY_ZERO,
    EPSILON_UNDERFLOW,
    EPSILON_ZERO,
    LATE_WHERE,
    UPDATE_BY_HAND,
    UPDATE_OF_GRADIENT,
    UPDATE_OF_RATE,
    ZERO_BY_ZERO,
    ZERO_CONSTRAINT,
    ZERO_NORM,
    ZERO_VARIANCE,
    Fault,
)
from gradkeeper.callbacks.diagnosis.operations import Operation
from gradkeeper.callbacks.diagnosis.step import StepTrace, Update
from gradkeeper.callbacks.instrument.optimizers import LARGEST_RATE, with_nested

_BY_ZERO = (ZERO_BY_ZERO, DIVISION_BY_ZERO, DIVISION_BY_SMALL, ZERO_NORM, ZERO_VARIANCE)


def fault_of_data(part: str, batch: Any, *, masked: bool) -> Fault:
    """Return the fault of a non-finite part of the batch.

    Args:
        part: location of the part, such as "[1], example 3".
        batch: the batch.
        masked: whether the loss is finite and a gradient is not.
    """
    if masked:
        return LATE_WHERE
    has_weights = isinstance(batch, tuple) and len(batch) == 3
    return BAD_SAMPLE_WEIGHT if has_weights and part.startswith("[2]") else BAD_DATA


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
            return ZERO_CONSTRAINT
        return dataclasses.replace(fault, name=f"{fault.name} in a constraint")
    begun = [each for each in trace.updates if each.begin <= operation.number]
    if fault in _BY_ZERO:
        return _fault_of_epsilon(begun)
    # The variable and the assigned change are finite, so their sum overflowed.
    if fault.is_overflow or operation.kind.startswith(("Assign", "Resource")):
        return _fault_of_size(trace, operation, begun)
    return fault


def _fault_of_epsilon(begun: Sequence[Update]) -> Fault:
    optimizers = with_nested(begun[-1].optimizer) if begun else []
    epsilons = [each for each in (getattr(o, "epsilon", None) for o in optimizers) if each]
    return EPSILON_UNDERFLOW if epsilons else EPSILON_ZERO


def _fault_of_size(trace: StepTrace, operation: Operation, begun: Sequence[Update]) -> Fault:
    """Return the fault of the larger factor: the learning rate or the gradient."""
    gradients = begun[-1].gradients if begun else None
    if gradients is None:
        return UPDATE_BY_HAND
    if operation.kind == "Square":
        return UPDATE_OF_GRADIENT
    largest = max(abs(gradients.lowest), abs(gradients.highest))
    return UPDATE_OF_RATE if max(trace.rates, default=0.0) > largest else UPDATE_OF_GRADIENT
