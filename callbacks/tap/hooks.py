"""Instance attributes put in place for the length of one call, and taken back."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
import tensorflow as tf

from gradkeeper.callbacks.tap.keras_private import CLIP_GRADIENTS, variables_of

Gradients = list[Any]
Variables = list[Any]


class Probe:
    """What wants to see a train step from inside. Every method runs while the step is traced.

    `before_clipping` and `applied` receive gradients and their variables, one to one; a
    gradient is None where the loss does not depend on the variable.
    """

    def before_clipping(self, gradients: Gradients, variables: Variables) -> None:
        """Called with the unscaled gradients that the train step hands to the optimizer."""

    def applied(self, gradients: Gradients, variables: Variables) -> None:
        """Called with the gradients that the optimizer applies, after its own clipping."""

    def step_end(self) -> None:
        """Called after the model's `train_step`; outside of one, after each `apply`."""


class Depth:
    """How many calls of a model's `train_step` are under way.

    One for all calls of a train function: it keeps the hooked `train_step` that it was made
    with, while the optimizer's hooks are new at every call.
    """

    def __init__(self) -> None:
        self.steps = 0

    @contextmanager
    def one_more(self) -> Iterator[None]:
        self.steps += 1
        try:
            yield
        finally:
            self.steps -= 1


@contextmanager
def hooked(model: keras.Model, probes: tuple[Probe, ...], depth: Depth) -> Iterator[None]:
    """Lets the probes see `model`'s train step inside the block; afterwards nothing is left."""
    with ExitStack() as stack:
        stack.enter_context(_attribute(model, "train_step", _train_step(model, probes, depth)))
        for optimizer in optimizers_of(model):
            stack.enter_context(_hooked_optimizer(optimizer, probes, depth))
        yield


@contextmanager
def _hooked_optimizer(
    optimizer: keras.optimizers.Optimizer, probes: tuple[Probe, ...], depth: Depth
) -> Iterator[None]:
    """Lets the probes see what goes into `optimizer.apply` and what leaves its clipping."""
    innermost = getattr(optimizer, "inner_optimizer", optimizer)
    applying: list[Variables] = []
    with (
        _attribute(innermost, "apply", _innermost_apply(innermost, applying)),
        _attribute(innermost, CLIP_GRADIENTS, _clip(innermost, probes, applying)),
        _attribute(optimizer, "apply", _apply(optimizer, probes, depth)),
    ):
        yield


def optimizers_of(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """The compiled optimizer and those that a custom `train_step` keeps in attributes."""
    candidates = [getattr(model, "optimizer", None), *vars(model).values()]
    found = [each for each in candidates if isinstance(each, keras.optimizers.Optimizer)]
    return list({id(each): each for each in found}.values())


@contextmanager
def _attribute(owner: Any, name: str, value: Callable) -> Iterator[None]:
    # Straight into the instance's dict: Keras's __setattr__ would track the value.
    attributes = vars(owner)
    before = attributes.get(name)
    attributes[name] = value
    try:
        yield
    finally:
        if before is None:
            del attributes[name]
        else:
            attributes[name] = before


def _train_step(model: keras.Model, probes: tuple[Probe, ...], depth: Depth) -> Callable:
    original = model.train_step

    def train_step(*args: Any, **kwargs: Any) -> Any:
        with depth.one_more():
            result = original(*args, **kwargs)
        for probe in probes:
            probe.step_end()
        return result

    return train_step


def _apply(
    optimizer: keras.optimizers.Optimizer, probes: tuple[Probe, ...], depth: Depth
) -> Callable:
    original = optimizer.apply

    def apply(grads: Any, trainable_variables: Any = None, **kwargs: Any) -> Any:
        grads, variables = list(grads), variables_of(optimizer, trainable_variables)
        seen = _unscaled(optimizer, grads, variables)
        for probe in probes:
            probe.before_clipping(seen, variables)
        result = original(grads, _as_given(trainable_variables, variables), **kwargs)
        if not depth.steps:
            for probe in probes:
                probe.step_end()
        return result

    return apply


def _innermost_apply(optimizer: keras.optimizers.Optimizer, applying: list[Variables]) -> Callable:
    """Notes which variables a call of `apply` is for: its clipping is not told."""
    original = optimizer.apply

    def apply(grads: Any, trainable_variables: Any = None, **kwargs: Any) -> Any:
        grads, variables = list(grads), variables_of(optimizer, trainable_variables)
        applying.append([v for g, v in zip(grads, variables, strict=False) if g is not None])
        try:
            return original(grads, _as_given(trainable_variables, variables), **kwargs)
        finally:
            applying.pop()

    return apply


def _as_given(trainable_variables: Any, variables: Variables) -> Variables | None:
    """The variables as the caller meant them: none stays none, an iterator was read once."""
    return None if trainable_variables is None else variables


def _clip(
    optimizer: keras.optimizers.Optimizer,
    probes: tuple[Probe, ...],
    applying: list[Variables],
) -> Callable:
    original = getattr(optimizer, CLIP_GRADIENTS)

    def clip_gradients(grads: Any) -> Any:
        clipped = list(original(grads))
        variables = applying[-1] if applying else []
        if len(variables) == len(clipped):
            for probe in probes:
                probe.applied(clipped, variables)
        return clipped

    return clip_gradients


def _unscaled(
    optimizer: keras.optimizers.Optimizer, gradients: Gradients, variables: Variables
) -> Gradients:
    """The gradients divided by the scale that the optimizer multiplied the loss with."""
    scale = optimizer.loss_scale_factor
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        if not optimizer.built:
            # What `apply` does first: the scale read must be the variable, not its first value.
            with keras.name_scope(optimizer.name):
                optimizer.build(variables)
            optimizer.built = True
        scale = optimizer.dynamic_scale
    if scale is None:
        return gradients
    return [None if each is None else _divided(each, scale) for each in gradients]


def _divided(gradient: tf.Tensor | tf.IndexedSlices, scale: Any) -> tf.Tensor | tf.IndexedSlices:
    if isinstance(gradient, tf.IndexedSlices):
        values = _divided(gradient.values, scale)
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
    # In float32 at least: an unscaled float16 gradient may underflow.
    wide = gradient if gradient.dtype == tf.float64 else tf.cast(gradient, tf.float32)
    return wide / tf.cast(tf.convert_to_tensor(scale), wide.dtype)
