"""Replay of a capsule: runs the step again and chooses the advice."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from gradkeeper.callbacks.capsule.capsule import Capsule, CapsuleError
from gradkeeper.callbacks.capsule.model import (
    batch_of,
    model_of,
    named_state,
    prepare,
    restore,
    state_of,
)
from gradkeeper.callbacks.diagnosis.backend import (
    FAILURES,
    ends_well,
    run_step,
    scaled_down,
    to_tensors,
    wide_numbers,
    widened,
    with_numbers,
)
from gradkeeper.callbacks.diagnosis.faults import OVERFLOW
from gradkeeper.callbacks.diagnosis.locate import locate
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


def _with_advice(verdict: Verdict, model: keras.Model, *, is_trained: bool) -> Verdict:
    """Replace the remedy of an overflow by advice for this step.

    With the initial weights, neither a lower learning rate nor clipping changes the step.
    """
    if verdict.fault is not OVERFLOW:
        return verdict
    place, layer = verdict.place, verdict.layer
    cell = None if layer is None else _recurrent_cell(model, layer)
    advice = {
        _BOUNDED: place == "forward" and cell is not None and _is_unbounded(cell),
        _SHRINKING: place == "backward" and cell is not None,
        _SMALLER_INPUTS: verdict.step_if_smaller,
        _SMALLER_LOSS: place != "forward" and cell is None,
        _FROM_THE_START: is_trained,
    }
    remedy = " ".join(text for text, applies in advice.items() if applies) or _SMALLER_WEIGHTS
    return dataclasses.replace(verdict, fault=dataclasses.replace(OVERFLOW, remedy=remedy))


def _recurrent_cell(model: keras.Model, layer: str) -> keras.layers.Layer | None:
    """Return the cell of the recurrent layer at the path `layer` or around it; None if none."""
    around = (each for path, each in layer_paths(model) if f"{layer}/".startswith(f"{path}/"))
    return next((each.cell for each in around if isinstance(each, keras.layers.RNN)), None)


def _is_unbounded(cell: keras.layers.Layer) -> bool:
    """Return True if an activation of `cell` is unbounded."""
    names = ("activation", "recurrent_activation")
    functions = [each for name in names if (each := getattr(cell, name, None)) is not None]
    large = np.full((1, 1), 1e3, "float32")
    results = [keras.ops.convert_to_numpy(function(large)) for function in functions]
    # The bounded activations of Keras return at most 1 (hard_tanh, sigmoid) or 6 (relu6).
    return any(bool((each > 10).any()) for each in results)


def replay(
    capsule: str | Path | Capsule,
    model: keras.Model | None = None,
    *,
    batch: Any = None,
    trust_model: bool = False,
) -> Verdict:
    """Run the step of a capsule operation by operation and locate its first non-finite value.

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
    batches = _batches(capsule, batch)
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
        verdict = _with_advice(verdict, model, is_trained=_is_trained(capsule))
    return dataclasses.replace(verdict, capsule=capsule.path)


def _is_trained(capsule: Capsule) -> bool:
    """Return True if the weights before the step may differ from the initial ones."""
    named = {name.rpartition("/")[2]: value for name, value in capsule.state.items()}
    return capsule.step > 0 or int(named.get("iteration", 0)) > 0


def _batches(capsule: Capsule, batch: Any) -> dict[int, Any]:
    """Return the batches to replay, by replica: the given one, or those of the capsule.

    If only the loss was non-finite, the capsule does not record the replica: return all batches.
    """
    if batch is not None:
        return {next(iter(capsule.replicas), 0): to_tensors(batch)}
    some = capsule.replicas[:1] or range(max(len(capsule.forms), 1))
    return {replica: batch_of(capsule, replica) for replica in some}


def verdict_of_step(
    model: keras.Model, batch: Any, *, compiled: bool = False, replica: int = 0
) -> Verdict:
    """Run a step from the model's current state and locate its first non-finite value.

    Args:
        model: the compiled and built model; the step changes its state.
        batch: the argument of `train_step`.
        compiled: whether to reproduce the random numbers and gradients of XLA; on JAX, they are
            the same in any case.
        replica: the replica that the batch belongs to.
    """
    names, variables = named_state(model)
    trace = run_step(model, batch, variables, compiled=compiled)
    named = {k: n.partition(": ")[2] for k, n in zip(trace.variables, names, strict=True)}
    return locate(trace, replica, names=named)


def _is_finite_at_smaller_scale(capsule: Capsule, model: keras.Model, batch: Any) -> bool:
    """Return True if the step is finite with inputs divided by 1,024."""
    prepare(model, capsule)
    x, *rest = batch if isinstance(batch, tuple) else (batch,)
    x = with_numbers(x, scaled_down)
    smaller = (x, *rest) if isinstance(batch, tuple) else x
    return ends_well(model, smaller, compiled=capsule.is_compiled)


def _is_finite_in_float64(capsule: Capsule, batch: Any, *, trust_model: bool) -> bool | None:
    """Return True if the step is finite in float64; None if it cannot run in float64."""
    with wide_numbers():
        try:
            model = model_of(capsule, dtype="float64", trust_model=trust_model)
            batch = with_numbers(batch, widened)
            return ends_well(model, batch, compiled=capsule.is_compiled)
        except (CapsuleError, *FAILURES):
            return None  # custom code may not support float64


@contextmanager
def _unchanged(model: keras.Model) -> Iterator[None]:
    """Restore the model's state after the block."""
    before = state_of(model) if model.built else {}
    try:
        yield
    finally:
        restore(model, before)
