"""From what was seen of a step to where it went wrong."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.diagnosis.causes import fault_of
from gradkeeper.callbacks.diagnosis.faults import BAD_DATA, BAD_WEIGHT, OVERFLOW, REFUSED
from gradkeeper.callbacks.diagnosis.layers import LayerCall
from gradkeeper.callbacks.diagnosis.operations import Operation
from gradkeeper.callbacks.diagnosis.origin import Origin, origin_of
from gradkeeper.callbacks.diagnosis.ranges import numbers_of, range_of
from gradkeeper.callbacks.diagnosis.repeat import is_finite_if_smaller, is_finite_in_float64
from gradkeeper.callbacks.diagnosis.source import raising_source
from gradkeeper.callbacks.diagnosis.step import StepTrace, tensors_in
from gradkeeper.callbacks.diagnosis.tensorflow_private import key_of
from gradkeeper.callbacks.diagnosis.verdict import Place, Verdict


def judged(
    trace: StepTrace,
    batch: Any,
    handles: Mapping[int | None, str],
    lost: Sequence[str],
    replica: int,
) -> Verdict:
    """Where the first number arose that is not finite.

    Args:
        trace: what was seen of the step.
        batch: what it was called with.
        handles: names of the model's variables, by the key of their handle.
        lost: names of those that were finite before the step and are not after it.
        replica: whose batch it was.
    """
    path = _path(trace)
    known: dict[str, Any] = {"replica": replica, "loss": trace.mean_loss, "path": path}
    if trace.refusal is not None:
        return _by_refusal(trace, trace.refusal, known)
    bad = next(filter(None, map(_bad, trace.results)), [])
    if not bad:
        if lost:
            return Verdict("optimizer", variable=lost[0], fault=OVERFLOW, **known)
        return Verdict("none", **known)
    data = _bad_parts(batch)
    origin = origin_of(trace.operations, [key_of(each) for each in bad], set(data))
    if origin is None:
        return _by_layers(trace, known)
    if origin.operation is None:
        assert origin.leaf is not None
        return Verdict("data", data=data[origin.leaf], fault=BAD_DATA, **known)
    if origin.operation.kind == "ReadVariableOp":
        name = handles.get(origin.operation.inputs[0], "")
        layer = name.rpartition("/")[0]
        return Verdict(
            "weights", layer=layer or None, variable=name or None, fault=BAD_WEIGHT, **known
        )
    return _by_operation(trace, origin, known)


def _by_operation(trace: StepTrace, origin: Origin, known: dict[str, Any]) -> Verdict:
    operation = origin.operation
    assert operation is not None
    forward = _forward_of(trace, operation)
    layer = forward.layers[-1] if forward is not None and forward.layers else None
    place = _place(trace, operation)
    of = operation.gradient_of
    return Verdict(
        place,
        layer=layer,
        variable=_first_bad_variable(trace, layer) if place == "backward" else None,
        operation=operation.kind,
        gradient_of=None if of is None else of.kind,
        source=operation.source or (None if forward is None else forward.source),
        inputs=range_of(operation.tensors),
        fault=fault_of(operation),
        finite_in_float64=is_finite_in_float64(operation),
        finite_if_smaller=is_finite_if_smaller(operation),
        **known,
    )


def _by_refusal(trace: StepTrace, refusal: tf.errors.OpError, known: dict[str, Any]) -> Verdict:
    layer = trace.layers.interrupted
    after: Place = "backward" if trace.operations.targets else "loss"
    operation = re.search(r"\[Op:(\w+)\]", refusal.message)
    return Verdict(
        after if layer is None and trace.layers.calls else "forward",
        layer=layer,
        operation=operation[1] if operation else None,
        source=raising_source(refusal),
        fault=REFUSED,
        message=re.sub(r"\{\{.*?\}\}|\[Op:.*", "", refusal.message).strip(),
        **known,
    )


def _by_layers(trace: StepTrace, known: dict[str, Any]) -> Verdict:
    """The verdict where operations could not be followed: by layers and variables alone."""
    for call in trace.layers.calls:
        if _is_good(call.given) and not _is_good(call.returned):
            return Verdict("forward", layer=call.path, **known)
    if _bad(trace.losses):
        return Verdict("loss", **known)
    return Verdict("backward", variable=_first_bad_variable(trace, None), **known)


def _place(trace: StepTrace, operation: Operation) -> Place:
    if operation.is_backward:
        return "backward"
    if operation.layers:
        return "forward"
    before = trace.operations.operations[: operation.number]
    return "loss" if any(each.layers for each in before) else "forward"


def _forward_of(trace: StepTrace, operation: Operation) -> Operation | None:
    """The operation of the forward pass that it belongs to.

    Where that is not known, what was differentiated last.
    """
    if not operation.is_backward or operation.forward is not operation:
        return operation.forward
    before = trace.operations.operations[: operation.number]
    return next((each.gradient_of for each in reversed(before) if each.gradient_of), None)


def _first_bad_variable(trace: StepTrace, layer: str | None) -> str | None:
    """Going backwards, the first variable (of the layer) with a gradient that is not finite."""
    bad = [name for name, gradient in trace.gradients.items() if _bad(tensors_in([gradient]))]
    own = [name for name in bad if layer is None or name.startswith(f"{layer}/")]
    return own[-1] if own else None


def _path(trace: StepTrace) -> tuple[LayerCall, ...]:
    """The calls of layers, with the gradients that came to them."""
    operations = trace.operations
    for call in trace.layers.calls:
        makers = [maker for key in call.outputs if (maker := operations.maker_of(key))]
        gradients = [each for maker in makers if (each := operations.gradient_at(maker))]
        call.gradient = gradients[0] if gradients else None
    return tuple(trace.layers.calls)


def _bad_parts(batch: Any) -> dict[int, str]:
    """Where in the batch something is not finite, by the tensor's key."""
    found: dict[int, str] = {}
    for path, part in keras.tree.flatten_with_path(batch):
        tensors = tf.nest.flatten(part, expand_composites=True)
        for tensor in _bad([each for each in tensors if tf.is_tensor(each)]):
            place = "".join(f"[{step!r}]" for step in path) or "all of it"
            found[key_of(tensor) or 0] = place + _rows(tensor)
    return found


def _rows(tensor: tf.Tensor) -> str:
    """Which examples are not finite."""
    numbers = numbers_of(tensor)
    if numbers is None or numbers.ndim == 0:
        return ""
    bad = np.flatnonzero(~np.isfinite(numbers).reshape(len(numbers), -1).all(axis=1))
    some = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
    return f", examples {some} of {len(numbers)}" if len(bad) > 1 else f", example {some}"


def _bad(tensors: Sequence[Any]) -> list[Any]:
    return [each for each in tensors if not _is_good(range_of([each]))]


def _is_good(numbers: Any) -> bool:
    return numbers is None or numbers.is_finite
