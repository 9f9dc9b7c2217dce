"""Diagnosis of a recorded train step."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from gradkeeper.callbacks.diagnosis import faults
from gradkeeper.callbacks.diagnosis.backend import (
    is_finite_with,
    key_of,
    scaled_down,
    tensors_in,
    widened,
)
from gradkeeper.callbacks.diagnosis.causes import (
    MATRIX_KINDS,
    bad_rates,
    fault_of,
    fault_of_data,
    fault_of_rate,
    fault_of_update,
)
from gradkeeper.callbacks.diagnosis.faults import Fault
from gradkeeper.callbacks.diagnosis.operations import Operation, all_finite, numbers_of, range_of
from gradkeeper.callbacks.diagnosis.origin import Origin, is_masked, origin_of
from gradkeeper.callbacks.diagnosis.step_trace import LayerCall, Refusal, StepTrace, bad_among
from gradkeeper.callbacks.diagnosis.verdict import Place, Verdict


def locate(trace: StepTrace, replica: int, *, names: Mapping[int, str]) -> Verdict:
    """Locate the first non-finite value of a step.

    Args:
        trace: the recorded step.
        replica: the replica that the batch belongs to.
        names: names of the variables of the model and its optimizers, by their keys.
    """
    batch, lost = trace.batch, trace.lost
    known: dict[str, Any] = {"replica": replica, "loss": trace.mean_loss, "path": _path(trace)}
    results = trace.bad_results
    data = _bad_parts(batch)
    keys = [*map(key_of, results), *map(trace.operations.contents_of, lost)]
    origin = origin_of(trace.operations, keys, {*data, *trace.bad_before})
    if trace.refusal is not None and origin is None:
        return _by_refusal(trace, trace.refusal, known)
    if not keys and bad_rates(trace.rates):
        return Verdict("optimizer", fault=fault_of_rate(trace.rates), **known)
    if not keys:
        return Verdict("none", **known)
    if lost:
        known["variable"] = names[lost[0]] or None
    if origin is None:
        return _by_layers(trace, known) if results else Verdict("optimizer", **known)
    if origin.leaf in data:
        known["variable"] = None
        masked = trace.has_finite_loss and bool(results)
        fault = fault_of_data(data[origin.leaf], batch, masked=masked)
        reader = origin.reader.source if masked and origin.reader else None
        return Verdict("data", data=data[origin.leaf], source=reader, fault=fault, **known)
    handle = _handle(origin)
    if handle is not None:
        return _by_variable(trace, names.get(handle, ""), known)
    return _by_operation(trace, origin, known)


def _handle(origin: Origin) -> int | None:
    """Return the handle of the variable that was non-finite before the step; None if none."""
    if origin.operation is None:
        return origin.leaf
    # A variable outside the model is not among the leaves.
    is_read = origin.operation.kind in ("ReadVariableOp", "ResourceGather", "ResourceGatherNd")
    return origin.operation.inputs[0] if is_read else None


def _by_variable(trace: StepTrace, name: str, known: dict[str, Any]) -> Verdict:
    layer, _, own = name.rpartition("/")
    if own == "learning_rate":
        return Verdict("optimizer", fault=fault_of_rate(trace.rates), **known)
    known["variable"] = name or None
    return Verdict("weights", layer=layer or None, fault=faults.BAD_WEIGHT, **known)


def _by_operation(trace: StepTrace, origin: Origin, known: dict[str, Any]) -> Verdict:
    operation = origin.operation
    assert operation is not None
    forward = _forward_of(trace, operation)
    layer = forward.layers[-1] if forward and forward.layers else None
    place = _place(trace, operation)
    if place == "loss" and not trace.bad_results:
        place = "optimizer"  # the train step assigns variables without an optimizer
    if place == "backward":
        known["variable"] = _first_bad_variable(trace, layer)
    elif trace.bad_results and place != "optimizer":
        known["variable"] = None
    wide, smaller = is_finite_with(widened, operation), is_finite_with(scaled_down, operation)
    fault = fault_of(operation, trace.operations, place, wide=wide, smaller=smaller)
    return Verdict(
        place,
        layer=layer,
        operation=operation.name,
        gradient_of=operation.gradient_of.name if operation.gradient_of else None,
        source=operation.source or (forward.source if forward else None),
        inputs=range_of(operation.tensors),
        fault=_fault_in_step(fault, trace, operation, place),
        finite_in_float64=wide,
        finite_at_smaller_scale=smaller,
        **known,
    )


def _fault_in_step(fault: Fault, trace: StepTrace, operation: Operation, place: Place) -> Fault:
    """Refine the fault of an operation by the step that contains it."""
    if place == "optimizer":
        return fault_of_update(trace, operation, fault)
    if _is_empty(trace.batch):
        return faults.EMPTY_BATCH
    if trace.has_finite_loss and place == "forward" and is_masked(trace.operations, operation):
        return faults.not_taken(fault)
    return fault


def _by_refusal(trace: StepTrace, refusal: Refusal, known: dict[str, Any]) -> Verdict:
    layer = trace.interrupted
    after: Place = "backward" if trace.operations.targets else "loss"
    return Verdict(
        after if layer is None and trace.calls else "forward",
        layer=layer,
        operation=refusal.kind,
        source=refusal.source,
        fault=faults.NOT_INVERTIBLE if refusal.kind in MATRIX_KINDS else faults.REFUSED,
        message=refusal.message,
        **known,
    )


def _by_layers(trace: StepTrace, known: dict[str, Any]) -> Verdict:
    """Return a verdict from layers and variables alone, if the operations lead to no origin."""
    for call in trace.calls:
        if all_finite(call.given) and not all_finite(call.returned):
            return Verdict("forward", layer=call.path, **known)
    if bad_among(trace.losses):
        return Verdict("loss", **known)
    known["variable"] = _first_bad_variable(trace, None)
    return Verdict("backward", **known)


def _place(trace: StepTrace, operation: Operation) -> Place:
    if operation.is_backward:
        return "backward"
    if operation.layers:
        return "forward"
    if operation.part is not None or operation.kind.startswith("Assign"):
        return "optimizer"
    before = trace.operations.operations[: operation.number]
    return "loss" if any(each.layers for each in before) else "forward"


def _forward_of(trace: StepTrace, operation: Operation) -> Operation | None:
    """Return the forward operation that `operation` belongs to.

    If it is unknown, return the forward operation that was differentiated last.
    """
    if not operation.is_backward or operation.forward is not operation:
        return operation.forward
    before = trace.operations.operations[: operation.number]
    return next((each.gradient_of for each in reversed(before) if each.gradient_of), None)


def _first_bad_variable(trace: StepTrace, layer: str | None) -> str | None:
    """Return the variable (of the layer) whose gradient became non-finite first."""
    own = {
        name: bad[0]
        for name, gradient in trace.gradients.items()
        if (bad := bad_among([gradient])) and (not layer or name.startswith(f"{layer}/"))
    }

    def order(name: str) -> int:
        # A gradient that no recorded operation produced precedes all others.
        maker = trace.operations.maker_of(key_of(own[name]))
        return -1 if maker is None else maker.number

    return min(own, key=order, default=None)


def _path(trace: StepTrace) -> tuple[LayerCall, ...]:
    """Return the layer calls with the gradients with respect to their outputs."""
    for call in trace.calls:
        makers = filter(None, map(trace.operations.maker_of, call.outputs))
        call.gradient = next(filter(None, map(trace.operations.gradient_at, makers)), None)
    return tuple(trace.calls)


def _bad_parts(batch: Any) -> dict[int, str]:
    """Return the locations of non-finite values in the batch, by tensor key."""
    found: dict[int, str] = {}
    for path, part in keras.tree.flatten_with_path(batch):
        for tensor in bad_among(tensors_in(part)):
            place = "".join(f"[{step!r}]" for step in path) or "all of it"
            found[key_of(tensor) or 0] = place + _rows(tensor)
    return found


def _rows(tensor: Any) -> str:
    """Return the indices of the non-finite examples as text."""
    numbers = numbers_of(tensor)
    if numbers is None or numbers.ndim == 0:
        return ""
    bad = np.flatnonzero(~np.isfinite(numbers).reshape(len(numbers), -1).all(axis=1))
    some = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
    return f", examples {some} of {len(numbers)}" if len(bad) > 1 else f", example {some}"


def _is_empty(batch: Any) -> bool:
    """Return True if the batch has no examples."""
    shapes = [getattr(each, "shape", ()) for each in keras.tree.flatten(batch)]
    return any(tuple(shape)[:1] == (0,) for shape in shapes)
