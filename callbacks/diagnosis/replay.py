"""Replay of a capsule: runs the step again and chooses the advice."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.capsule.capsule import Capsule, CapsuleError
from gradkeeper.callbacks.capsule.model import (
    batch_of,
    model_of,
    named_state,
    prepare,
    restore,
    state_of,
)
from gradkeeper.callbacks.diagnosis._tensorflow_private import key_of
from gradkeeper.callbacks.diagnosis.faults import OVERFLOW
from gradkeeper.callbacks.diagnosis.locate import StepVariables, locate
from gradkeeper.callbacks.diagnosis.ranges import range_of
from gradkeeper.callbacks.diagnosis.rerun import wide_dtype
from gradkeeper.callbacks.diagnosis.step import StepTrace, run_step
from gradkeeper.callbacks.diagnosis.verdict import Verdict
from gradkeeper.callbacks.instrument.variable_names import layer_paths

_BOUNDED = (
    "Use bounded activations in the recurrent layer: activation='tanh' and, in a gated layer, "
    "recurrent_activation='sigmoid'."
)
_SHRINKING = (
    "The gradient grows from time step to time step: use recurrent_initializer='orthogonal', a "
    "gated layer (LSTM, GRU), or shorter sequences."
)
_SMALLER_INPUTS = "Normalise the inputs: with inputs divided by 1,024, the step is finite."
_SMALLER_WEIGHTS = "Use smaller initial weights, or insert a normalisation layer before this layer."
_SMALLER_LOSS = (
    "Reduce the loss: standardise the targets, replace a sum by a mean, and lower "
    "loss_weights and sample weights."
)
_FROM_THE_START = (
    "If the weights grew during training, restart with a lower learning rate or with clipped "
    "gradients (ClipAdvisor recommends a limit). Neither changes the result of this step."
)


def with_advice(verdict: Verdict, model: keras.Model, *, is_trained: bool) -> Verdict:
    """Replace the remedy of an overflow by advice for this step.

    Args:
        verdict: the result of the replay.
        model: the replayed model.
        is_trained: whether the weights may differ from the initial ones. With the initial
            weights, neither a lower learning rate nor clipping changes the step.

    Returns:
        The verdict with the remedy. A verdict whose fault is not an overflow is unchanged.
    """
    if verdict.fault is not OVERFLOW:
        return verdict
    parts = _parts(verdict, _recurrent_cell(model, verdict.layer))
    if is_trained:
        parts.append(_FROM_THE_START)
    elif not parts:
        parts.append(_SMALLER_WEIGHTS)
    fault = dataclasses.replace(OVERFLOW, remedy=" ".join(parts))
    return dataclasses.replace(verdict, fault=fault)


def _parts(verdict: Verdict, cell: keras.layers.Layer | None) -> list[str]:
    parts = []
    if verdict.place == "forward" and cell is not None and _is_unbounded(cell):
        parts.append(_BOUNDED)
    if verdict.place == "backward" and cell is not None:
        parts.append(_SHRINKING)
    if verdict.step_if_smaller:
        parts.append(_SMALLER_INPUTS)
    if verdict.place != "forward" and cell is None:
        parts.append(_SMALLER_LOSS)
    return parts


def _recurrent_cell(model: keras.Model, layer: str | None) -> keras.layers.Layer | None:
    """Return the cell of the recurrent layer at the path `layer` or around it; None if none."""
    for path, each in layer_paths(model):
        is_around = layer is not None and f"{layer}/".startswith(f"{path}/")
        if is_around and isinstance(each, keras.layers.RNN):
            return each.cell
    return None


def _is_unbounded(cell: keras.layers.Layer) -> bool:
    """Return True if an activation of `cell` is unbounded."""
    names = ("activation", "recurrent_activation")
    functions = [each for name in names if (each := getattr(cell, name, None)) is not None]
    large = np.full((1, 1), 1e3, "float32")
    results = [keras.ops.convert_to_numpy(function(large)) for function in functions]
    # The bounded activations of Keras return at most 1 (hard_tanh, sigmoid) or 6 (relu6).
    return any(bool((each > 10).any()) for each in results)


_SMALLER = 2.0**-10


def replay(
    capsule: str | Path | Capsule,
    model: keras.Model | None = None,
    *,
    batch: Any = None,
    trust_model: bool = False,
) -> Verdict:
    """Run the step of a capsule eagerly and locate its first non-finite value.

    Args:
        capsule: the capsule or its directory.
        model: the compiled model. Required if the capsule cannot create it: a subclassed model,
            or one with custom layers or losses. Its state is restored afterwards.
        batch: the argument of `train_step`. Required if the capsule was written without data.
        trust_model: whether to create the model from the capsule's configuration with Keras 3.13.1
            or earlier. The configuration can then load files and run code, so set it only for
            capsules that you trust. Later versions do not need it.

    Returns:
        The location, the cause and a remedy.

    Raises:
        CapsuleError: if the capsule is damaged or belongs to another model; if the model or the
            batch is neither in the capsule nor passed; or if the model can only be created in an
            unsafe way.
    """
    if not isinstance(capsule, Capsule):
        capsule = Capsule.read(capsule)
    batches = _batches(capsule) if batch is None else {_first(capsule): _in_tensors(batch)}
    if model is None:
        model = model_of(capsule, trust_model=trust_model)
    with _unchanged(model):
        for replica, each in batches.items():
            prepare(model, capsule)
            batch, compiled = each, capsule.is_compiled
            verdict = verdict_of_step(model, batch, compiled=compiled, replica=replica)
            if verdict.place != "none":
                break
        if verdict.place in ("forward", "loss", "backward") and verdict.message is None:
            verdict = dataclasses.replace(
                verdict,
                step_in_float64=_is_finite_in_float64(capsule, batch, trust_model=trust_model),
                step_if_smaller=_is_finite_at_smaller_scale(capsule, model, batch),
            )
        verdict = with_advice(verdict, model, is_trained=_is_trained(capsule))
    return dataclasses.replace(verdict, capsule=capsule.path)


def _is_trained(capsule: Capsule) -> bool:
    """Return True if the weights before the step may differ from the initial ones."""
    named = {name.rpartition("/")[2]: value for name, value in capsule.state.items()}
    return capsule.step > 0 or int(named.get("iteration", 0)) > 0


def _first(capsule: Capsule) -> int:
    return next(iter(capsule.replicas), 0)


def _batches(capsule: Capsule) -> dict[int, Any]:
    """Return the batches to replay, by replica.

    If only the loss was non-finite, the capsule does not record the replica: return all batches.
    """
    some = capsule.replicas[:1] or range(max(len(capsule.forms), 1))
    return {replica: batch_of(capsule, replica) for replica in some}


def verdict_of_step(
    model: keras.Model, batch: Any, *, compiled: bool = False, replica: int = 0
) -> Verdict:
    """Run a step from the model's current state and locate its first non-finite value.

    Args:
        model: the compiled and built model; the step changes its state.
        batch: the argument of `train_step`.
        compiled: whether to reproduce the random numbers and gradients of XLA.
        replica: the replica that the batch belongs to.
    """
    names, variables = named_state(model)
    handles = [_handle(each) for each in variables]
    bad = _not_finite(variables)
    trace = run_step(model, batch, compiled=compiled)
    named = {h: n.partition(": ")[2] for h, n in zip(handles, names, strict=True)}
    lost = [each for each in _not_finite(variables) if each not in bad]
    return locate(trace, batch, StepVariables(named, bad, lost), replica)


def _handle(variable: keras.Variable) -> int:
    key = key_of(variable.value.handle)
    assert key is not None
    return key


def _not_finite(variables: list[keras.Variable]) -> list[int]:
    return [_handle(each) for each in variables if not _is_finite([each.value])]


def _is_finite_at_smaller_scale(capsule: Capsule, model: keras.Model, batch: Any) -> bool:
    """Return True if the step is finite with inputs divided by 1,024."""
    prepare(model, capsule)
    x, *rest = batch if isinstance(batch, tuple) else (batch,)
    x = _with_numbers(x, lambda tensor: tensor * tf.cast(_SMALLER, tensor.dtype))
    smaller = (x, *rest) if isinstance(batch, tuple) else x
    return _ends_well(run_step(model, smaller, compiled=capsule.is_compiled))


def _is_finite_in_float64(capsule: Capsule, batch: Any, *, trust_model: bool) -> bool | None:
    """Return True if the step is finite in float64; None if it cannot run in float64."""
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        model = model_of(capsule, dtype="float64", trust_model=trust_model)
        batch = _with_numbers(batch, lambda tensor: tf.cast(tensor, wide_dtype(tensor.dtype)))
        return _ends_well(run_step(model, batch, compiled=capsule.is_compiled))
    except (CapsuleError, TypeError, ValueError, tf.errors.OpError):
        return None  # custom code may not support float64
    finally:
        keras.config.set_floatx(before)


def _ends_well(trace: StepTrace) -> bool:
    return trace.refusal is None and not trace.bad_results


def _is_finite(tensors: list[Any]) -> bool:
    numbers = range_of(tensors)
    return numbers is None or numbers.is_finite


def _in_tensors(batch: Any) -> Any:
    return keras.tree.map_structure(lambda each: tf.convert_to_tensor(each), batch)


def _with_numbers(structure: Any, change: Any) -> Any:
    def changed(part: Any) -> Any:
        is_number = tf.is_tensor(part) and (part.dtype.is_floating or part.dtype.is_complex)
        return change(part) if is_number else part

    return tf.nest.map_structure(changed, structure, expand_composites=True)


@contextmanager
def _unchanged(model: keras.Model) -> Iterator[None]:
    """Restore the model's state after the block."""
    before = state_of(model) if model.built else {}
    try:
        yield
    finally:
        restore(model, before)
