"""The optimizers of a model, and what is inside one."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, TypeAlias, get_args

import keras
import ml_dtypes
import tensorflow as tf

from gradkeeper.callbacks.tap.keras_private import CLIP_GRADIENTS, sublayers

# The arguments by which a Keras optimizer clips.
Clipping: TypeAlias = Literal["clipnorm", "global_clipnorm", "clipvalue"]

# The square of a larger learning rate overflows in float32.
LARGEST_RATE = 1e19

_EPSILONS = ("epsilon", "epsilon_1", "epsilon_2")
_WITHOUT_SQUARES = (keras.optimizers.SGD, keras.optimizers.Lion)

_CLIPPINGS: tuple[Clipping, ...] = get_args(Clipping)


def optimizers_of(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """The compiled optimizer and those in attributes of the model and of models inside it.

    Looked for in lists, tuples and dicts as well; one that is inside another is not listed.
    """
    owners: dict[int, keras.layers.Layer] = {id(model): model}
    waiting = [model]
    while waiting:
        new = {id(each): each for each in sublayers(waiting.pop()) if id(each) not in owners}
        owners.update(new)
        waiting += new.values()
    found = [getattr(model, "optimizer", None)]
    for owner in owners.values():
        found += _optimizers_in(vars(owner).values())
    optimizers = list({id(each): each for each in found if each is not None}.values())
    inner = {id(each) for optimizer in optimizers for each in nested_optimizers(optimizer)}
    return [each for each in optimizers if id(each) not in inner]


def attribute_name(owner: Any, optimizer: keras.optimizers.Optimizer) -> str | None:
    """The attribute in which the model keeps the optimizer; None if it is in none."""
    attributes = {} if owner is None else {"optimizer": owner.optimizer, **vars(owner)}
    names = (name for name, value in attributes.items() if value is optimizer)
    return next(names, None)


def nested_optimizers(
    optimizer: keras.optimizers.Optimizer,
) -> list[keras.optimizers.Optimizer]:
    """The optimizers that an optimizer has in its attributes, and those inside them."""
    found: dict[int, keras.optimizers.Optimizer] = {}
    waiting = [optimizer]
    while waiting:
        for each in _optimizers_in(vars(waiting.pop()).values()):
            if each is not optimizer and id(each) not in found:
                found[id(each)] = each
                waiting.append(each)
    return list(found.values())


def with_nested(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """The optimizer, and those inside it."""
    return [optimizer, *nested_optimizers(optimizer)]


def clipping_of(optimizer: keras.optimizers.Optimizer) -> Clipping | None:
    """The argument by which the optimizer, or the first one inside that does, clips."""
    return next((name for name, _ in _clip_limits(optimizer)), None)


def clip_limit_of(optimizer: keras.optimizers.Optimizer) -> float | None:
    """The limit of that clipping."""
    return next((limit for _, limit in _clip_limits(optimizer)), None)


def accumulates(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether the optimizer, or one inside it, gathers gradients over several steps."""
    every = with_nested(optimizer)
    return any(getattr(each, "gradient_accumulation_steps", None) for each in every)


def is_plain(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether the optimizer applies, in every step, just the gradients that it is given."""
    own, base = type(optimizer), keras.optimizers.Optimizer
    return (
        own.apply is base.apply
        and getattr(own, CLIP_GRADIENTS) is getattr(base, CLIP_GRADIENTS)
        and not nested_optimizers(optimizer)
        and clipping_of(optimizer) is None
        and not accumulates(optimizer)
    )


def bypasses_apply(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether the class has an `apply_gradients` of its own, which need not call `apply`."""
    own = type(optimizer).apply_gradients
    return own is not keras.optimizers.Optimizer.apply_gradients


def learning_rates_of(optimizer: keras.optimizers.Optimizer) -> list[Any]:
    """Return the learning rates that a call of the optimizer uses, of schedules the current ones."""
    leaves = [each for each in with_nested(optimizer) if not nested_optimizers(each)]
    rates = [getattr(each, "learning_rate", None) for each in leaves]
    return [rate for rate in rates if rate is not None]


def squares_gradients(optimizer: keras.optimizers.Optimizer) -> bool:
    """Return whether one of Keras's optimizers stores squares of gradients that nothing clips."""
    if clipping_of(optimizer) or isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return False
    own = with_nested(optimizer)
    return all(_is_of_keras(type(each)) for each in own) and not all(
        isinstance(each, _WITHOUT_SQUARES) for each in own
    )


def update_may_not_be_finite(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[Any]
) -> bool:
    """Return whether finite gradients and a finite learning rate can give a non-finite update.

    Keras's optimizers divide by a root plus epsilon. The quotient is not finite where epsilon
    is 0 or underflows in the variable's dtype, or where the root is of a difference that
    rounding makes negative (`RMSprop(centered=True)`). float16 overflows at 65,504. Of
    optimizers and constraints that are not Keras's own, nothing is known.
    """
    own = with_nested(optimizer)
    constraints = [type(each) for v in variables if (each := getattr(v, "constraint", None))]
    if not all(map(_is_of_keras, [*map(type, own), *constraints])):
        return True
    dtypes = {tf.as_dtype(variable.dtype) for variable in variables}
    floating = [each.as_numpy_dtype for each in dtypes if each.is_floating]
    smallest = max((float(ml_dtypes.finfo(each).tiny) for each in floating), default=0.0)
    epsilons = [getattr(each, name, None) for each in own for name in _EPSILONS]
    return (
        tf.float16 in dtypes
        or any(each is not None and each < smallest for each in epsilons)
        or any(getattr(each, "centered", False) for each in own)
    )


def loss_scale(optimizer: keras.optimizers.Optimizer, variables: Sequence[Any]) -> Any:
    """What the optimizer has multiplied the loss with."""
    if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer.loss_scale_factor
    build_like_apply(
        optimizer, variables
    )  # the scale read must be the variable, not its first value
    return optimizer.dynamic_scale


def build_like_apply(optimizer: keras.optimizers.Optimizer, variables: Sequence[Any]) -> None:
    """What `apply` does first."""
    if not optimizer.built:
        with keras.name_scope(optimizer.name):
            optimizer.build(variables)
        optimizer.built = True


def _is_of_keras(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in ("keras", "gradkeeper")


def _clip_limits(optimizer: keras.optimizers.Optimizer) -> Iterator[tuple[Clipping, float]]:
    for each in with_nested(optimizer):
        for name in _CLIPPINGS:
            limit = getattr(each, name, None)
            if limit:
                yield name, float(limit)


def _optimizers_in(values: Iterable[Any]) -> Iterator[keras.optimizers.Optimizer]:
    for value in values:
        if isinstance(value, keras.optimizers.Optimizer):
            yield value
        elif isinstance(value, dict):
            yield from _optimizers_in(value.values())
        elif isinstance(value, (list, tuple)):
            yield from _optimizers_in(value)
