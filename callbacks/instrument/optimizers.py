"""Optimizer discovery and inspection."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias, get_args

import keras
import ml_dtypes
import numpy as np

from gradkeeper.callbacks._keras_private import (
    CLIP_GRADIENTS,
    Moments,
    moments_by_variable,
    sublayers,
)
from gradkeeper.callbacks.instrument.variable_names import instances_in

# Clipping arguments of Keras optimizers.
Clipping: TypeAlias = Literal["clipnorm", "global_clipnorm", "clipvalue"]

# The square of a larger learning rate overflows in float32.
LARGEST_RATE = 1e19

_EPSILONS = ("epsilon", "epsilon_1", "epsilon_2")
_WITHOUT_SQUARES = (keras.optimizers.SGD, keras.optimizers.Lion)

_CLIPPINGS: tuple[Clipping, ...] = get_args(Clipping)


def optimizers_of(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """Return the compiled optimizer and those in attributes of the model and its layers.

    Lists, tuples and dicts are searched as well. An optimizer inside another one is not listed.
    """
    owners: dict[int, keras.layers.Layer] = {id(model): model}
    waiting = [model]
    while waiting:
        new = {id(each): each for each in sublayers(waiting.pop()) if id(each) not in owners}
        owners.update(new)
        waiting += new.values()
    found = [getattr(model, "optimizer", None)]
    for owner in owners.values():
        found += instances_in(vars(owner), keras.optimizers.Optimizer)
    optimizers = list({id(each): each for each in found if each is not None}.values())
    inner = {id(each) for optimizer in optimizers for each in nested_optimizers(optimizer)}
    return [each for each in optimizers if id(each) not in inner]


def attribute_name(owner: Any, optimizer: keras.optimizers.Optimizer) -> str | None:
    """Return the name of the owner's attribute that holds the optimizer; None if there is none."""
    attributes = {} if owner is None else {"optimizer": owner.optimizer, **vars(owner)}
    return next((name for name, value in attributes.items() if value is optimizer), None)


def nested_optimizers(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """Return the optimizers in the attributes of an optimizer, recursively."""
    found: dict[int, keras.optimizers.Optimizer] = {}
    waiting = [optimizer]
    while waiting:
        for each in instances_in(vars(waiting.pop()), keras.optimizers.Optimizer):
            if each is not optimizer and id(each) not in found:
                found[id(each)] = each
                waiting.append(each)
    return list(found.values())


def with_nested(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """Return the optimizer and the optimizers nested in it."""
    return [optimizer, *nested_optimizers(optimizer)]


def clipping_of(optimizer: keras.optimizers.Optimizer) -> Clipping | None:
    """Return the clipping argument of the optimizer, or of the first nested one that clips."""
    return next((name for name, _ in _clip_limits(optimizer)), None)


def clip_limit_of(optimizer: keras.optimizers.Optimizer) -> float | None:
    """Return the limit of the clipping that `clipping_of` names; None without clipping."""
    return next((limit for _, limit in _clip_limits(optimizer)), None)


def accumulates(optimizer: keras.optimizers.Optimizer) -> bool:
    """Return True if the optimizer, or a nested one, accumulates gradients over several steps."""
    every = with_nested(optimizer)
    return any(getattr(each, "gradient_accumulation_steps", None) for each in every)


def is_plain(optimizer: keras.optimizers.Optimizer) -> bool:
    """Return True if the optimizer applies the given gradients unchanged in every step."""
    own, base = type(optimizer), keras.optimizers.Optimizer
    return (
        own.apply is base.apply
        and getattr(own, CLIP_GRADIENTS) is getattr(base, CLIP_GRADIENTS)
        and not nested_optimizers(optimizer)
        and clipping_of(optimizer) is None
        and not accumulates(optimizer)
    )


def bypasses_apply(optimizer: keras.optimizers.Optimizer) -> bool:
    """Return True if the class overrides `apply_gradients`, which then need not call `apply`."""
    own = type(optimizer).apply_gradients
    return own is not keras.optimizers.Optimizer.apply_gradients


def learning_rates_of(optimizer: keras.optimizers.Optimizer) -> list[Any]:
    """Return the learning rates that an optimizer call uses; for a schedule, the current one."""
    leaves = [each for each in with_nested(optimizer) if not nested_optimizers(each)]
    rates = (getattr(each, "learning_rate", None) for each in leaves)
    return [rate for rate in rates if rate is not None]


def moments_of(optimizer: keras.optimizers.Optimizer, variables: Sequence[Any]) -> list[Moments]:
    """Return the moments of each variable, in the optimizer or in one nested in it."""
    found: dict[int, Moments] = {}
    for each in with_nested(optimizer):
        found |= moments_by_variable(each)
    return [found.get(id(variable), Moments()) for variable in variables]


def squares_gradients(optimizer: keras.optimizers.Optimizer) -> bool:
    """Return True if a Keras optimizer stores squares of gradients that are not clipped."""
    if clipping_of(optimizer) or isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return False
    own = with_nested(optimizer)
    return all(_is_of_keras(type(each)) for each in own) and not all(
        isinstance(each, _WITHOUT_SQUARES) for each in own
    )


def update_may_not_be_finite(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[Any]
) -> bool:
    """Return True if finite gradients and a finite learning rate can give a non-finite update.

    Keras's optimizers divide by a root plus epsilon. The quotient is not finite if epsilon is 0 or
    underflows in the variable's dtype, or if the root is of a difference that rounding makes
    negative (`RMSprop(centered=True)`). float16 overflows at 65,504. Custom optimizers and custom
    constraints are unknown and return True.
    """
    own = with_nested(optimizer)
    constraints = [type(each) for v in variables if (each := getattr(v, "constraint", None))]
    if not all(map(_is_of_keras, [*map(type, own), *constraints])):
        return True
    dtypes = {keras.backend.standardize_dtype(variable.dtype) for variable in variables}
    floating = [np.dtype(each) for each in dtypes if keras.backend.is_float_dtype(each)]
    smallest = max((float(ml_dtypes.finfo(each).tiny) for each in floating), default=0.0)
    epsilons = [getattr(each, name, None) for each in own for name in _EPSILONS]
    return (
        "float16" in dtypes
        or any(each is not None and each < smallest for each in epsilons)
        or any(getattr(each, "centered", False) for each in own)
    )


def loss_scale(optimizer: keras.optimizers.Optimizer, variables: Sequence[Any]) -> Any:
    """Return the factor by which the optimizer multiplied the loss; None for 1."""
    if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer.loss_scale_factor
    # Before the build, `dynamic_scale` is the initial value and not the variable.
    build_like_apply(optimizer, variables)
    return optimizer.dynamic_scale


def build_like_apply(optimizer: keras.optimizers.Optimizer, variables: Sequence[Any]) -> None:
    """Build the optimizer if it is not built, as `apply` does first."""
    if not optimizer.built:
        with keras.name_scope(optimizer.name, caller=optimizer):
            optimizer.build(variables)
        optimizer.built = True


def _is_of_keras(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in ("keras", "gradkeeper")


def _clip_limits(optimizer: keras.optimizers.Optimizer) -> Iterator[tuple[Clipping, float]]:
    for each in with_nested(optimizer):
        for name in _CLIPPINGS:
            if limit := getattr(each, name, None):
                yield name, float(limit)
