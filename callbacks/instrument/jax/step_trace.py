"""Trace of a train step of JAX: optimizer calls, clipping and loss.

The patches exist only inside `observed_step`. JAX traces a compiled step once, so that a compiled
training carries no patches.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any, Protocol, runtime_checkable

import jax
import keras

from gradkeeper.callbacks._keras_private import (
    APPLY_GRADIENTS,
    CLIP_GRADIENTS,
    accumulated_gradients,
    calls_of,
    variables_of,
)
from gradkeeper.callbacks.instrument.optimizers import is_plain, learning_rates_of, with_nested


@dataclass
class Clip:
    """One call of an optimizer's clipping.

    Attributes:
        variables: the variables of the gradients.
        entered: the gradients before the clipping.
        left: the gradients after it.
        is_update: whether the gradients are applied, a boolean scalar; None if they always are.
    """

    variables: list[Any]
    entered: list[Any]
    left: list[Any]
    is_update: Any = None


@dataclass
class Call:
    """One outermost call of an optimizer.

    Attributes:
        optimizer: the optimizer.
        round: number of earlier calls in this train step for some of the variables.
        variables: the trained variables.
        gradients: the gradients that the train step passes, None without one.
        before: the values of the variables before the update.
        after: their values after it.
        scale: the factor of the loss, and so of each gradient; None for 1.
        learning_rate: the learning rate; None if there is none.
        rates: the learning rates of the optimizer and those nested in it.
        number: number of calls of the optimizer before this one, a scalar.
        clips: the calls of the clipping.
        is_plain: whether the given gradients are applied unchanged in every step.
    """

    optimizer: keras.optimizers.Optimizer
    round: int
    variables: list[Any]
    gradients: list[Any]
    before: list[Any]
    after: list[Any] = field(default_factory=list)
    scale: Any = None
    learning_rate: Any = None
    rates: list[Any] = field(default_factory=list)
    number: Any = None
    clips: list[Clip] = field(default_factory=list)
    is_plain: bool = False


@runtime_checkable
class Clipper(Protocol):
    """Observer that clips where the optimizer would."""

    def clip(
        self,
        optimizer: keras.optimizers.Optimizer,
        gradients: list[Any],
        variables: Sequence[Any],
        is_update: Any,
    ) -> list[Any]:
        """Return the clipped gradients, traced.

        Args:
            optimizer: the optimizer that applies the gradients.
            gradients: the gradients, without loss scale.
            variables: their variables.
            is_update: whether the gradients are applied, a boolean scalar; None if they always are.
        """


class StepTrace:
    """Record of the optimizer calls and the loss of one train step.

    Args:
        model: the model.
        optimizers: the optimizers to observe.
        clippers: observers that clip the gradients.

    Attributes:
        model: the model.
        calls: the optimizer calls.
        is_refused: whether a guard skips the step, a boolean scalar; None without a guard.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizers: Sequence[keras.optimizers.Optimizer],
        clippers: Sequence[Clipper] = (),
    ) -> None:
        self.model, self._optimizers, self._clippers = model, optimizers, clippers
        self.calls: list[Call] = []
        self.is_refused: Any = None
        self._value: Any = None
        self._is_of_keras = False
        self._call: Call | None = None
        self._is_muted = False
        self._clipped: list[Any] = []

    @property
    def loss(self) -> Any:
        """Loss of the step without loss scale, a scalar; None if it is unknown."""
        if self._value is None or self._is_of_keras or not self.calls:
            return self._value
        scale = self.calls[-1].scale
        return self._value if scale is None else self._value / scale

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the step that runs inside the block."""
        with ExitStack() as stack:
            stack.enter_context(self._reads_loss())
            for optimizer in self._optimizers:
                stack.enter_context(_replaced(optimizer, "stateless_apply", self._apply))
                for each in with_nested(optimizer):
                    stack.enter_context(_replaced(each, APPLY_GRADIENTS, self._apply_gradients))
                    stack.enter_context(_replaced(each, CLIP_GRADIENTS, self._clip))
            yield

    @contextmanager
    def _reads_loss(self) -> Iterator[None]:
        """Read the values of `jax.value_and_grad` in this thread."""
        differentiate, thread = jax.value_and_grad, get_ident()

        def value_and_grad(function: Callable, *args: Any, **options: Any) -> Callable:
            computed = differentiate(function, *args, **options)
            if get_ident() != thread:
                return computed

            def read(*inputs: Any, **named: Any) -> Any:
                found = computed(*inputs, **named)
                value, self._is_of_keras = found[0], False
                if isinstance(value, tuple):  # with `has_aux`
                    value, others = value
                    if function == self.model.compute_loss_and_updates:
                        value, self._is_of_keras = others[0], True
                if not getattr(value, "shape", ()):
                    self._value = value
                return found

            return read

        jax.value_and_grad = value_and_grad
        try:
            yield
        finally:
            jax.value_and_grad = differentiate

    def _apply(
        self,
        optimizer: keras.optimizers.Optimizer,
        apply: Callable,
        optimizer_variables: Sequence[Any],
        grads: Sequence[Any],
        trainable_variables: Sequence[Any],
    ) -> Any:
        if self._call is not None or not optimizer.built:  # Keras refuses an unbuilt optimizer
            return apply(optimizer_variables, grads, trainable_variables)
        variables = variables_of(optimizer, None)
        call = Call(
            optimizer,
            self._round_of(optimizer),
            variables,
            list(grads),
            list(trainable_variables),
            is_plain=is_plain(optimizer) and not self._clippers,
        )
        mapping = [
            *zip(variables, trainable_variables, strict=True),
            *zip(optimizer.variables, optimizer_variables, strict=True),
        ]
        scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        with keras.StatelessScope(state_mapping=mapping):
            call.number = keras.ops.convert_to_tensor(calls_of(optimizer))
            call.scale = optimizer.loss_scale_factor
            if scales:
                call.scale = keras.ops.convert_to_tensor(optimizer.dynamic_scale)
            # An optimizer that contains several others has no learning rate.
            rate = getattr(optimizer, "learning_rate", None)
            if rate is not None:
                call.learning_rate = keras.ops.convert_to_tensor(rate)
            call.rates = [keras.ops.convert_to_tensor(r) for r in learning_rates_of(optimizer)]
        self.calls.append(call)
        self._call, self._is_muted = call, scales
        if scales and self._clippers:
            grads = self._clipped_while_scaled(call)
        try:
            result = apply(optimizer_variables, grads, trainable_variables)
        finally:
            self._call, self._is_muted = None, False
        if scales:
            with keras.StatelessScope(state_mapping=mapping):
                call.clips = _clips_of(call, grads)
        call.after = list(result[0])
        return result

    def _apply_gradients(
        self,
        optimizer: keras.optimizers.Optimizer,
        apply: Callable,
        grads: Sequence[Any],
        trainable_variables: Sequence[Any],
    ) -> Any:
        self._clipped.append(list(trainable_variables))
        try:
            return apply(grads, trainable_variables)
        finally:
            self._clipped.pop()

    def _clip(
        self, optimizer: keras.optimizers.Optimizer, clip: Callable, grads: Sequence[Any]
    ) -> Any:
        if self._call is None or self._is_muted or not self._clipped:
            return clip(grads)
        variables, is_update, given = self._clipped[-1], _is_update(optimizer), list(grads)
        for each in self._clippers:
            given = each.clip(optimizer, given, variables, is_update)
        left = clip(given)
        self._call.clips.append(Clip(variables, list(grads), list(left), is_update))
        return left

    def _clipped_while_scaled(self, call: Call) -> list[Any]:
        """Return the gradients of a `LossScaleOptimizer`, clipped by the clippers.

        The optimizer clips in a branch, from which no state of a clipper can be returned.
        """
        present = [each is not None for each in call.gradients]
        unscaled = [gradient / call.scale for gradient in call.gradients if gradient is not None]
        variables = [v for v, there in zip(call.variables, present, strict=True) if there]
        for each in self._clippers:
            unscaled = each.clip(call.optimizer.inner_optimizer, unscaled, variables, None)
        scaled = iter([gradient * call.scale for gradient in unscaled])
        return [next(scaled) if there else None for there in present]

    def _round_of(self, optimizer: keras.optimizers.Optimizer) -> int:
        return sum(each.optimizer is optimizer for each in self.calls)


def _is_update(optimizer: keras.optimizers.Optimizer) -> Any:
    """Return whether the current call updates the variables; None if each call does."""
    steps = optimizer.gradient_accumulation_steps
    return None if not steps else (calls_of(optimizer) + 1) % steps == 0


def _clips_of(call: Call, given: Sequence[Any]) -> list[Clip]:
    """Return the clipping inside a `LossScaleOptimizer`, computed a second time.

    The optimizer clips in a branch, whose values are unknown outside of it.

    Args:
        call: the call of the optimizer.
        given: the gradients that the optimizer receives.
    """
    inner = call.optimizer.inner_optimizer
    finite = keras.ops.all(
        keras.ops.stack(
            [keras.ops.all(keras.ops.isfinite(g)) for g in call.gradients if g is not None]
        )
    )
    pairs = [
        (gradient / call.scale, variable)
        for gradient, variable in zip(call.gradients, call.variables, strict=True)
        if gradient is not None
    ]
    is_update = _is_update(inner)
    entered = [gradient for gradient, _ in pairs]
    if is_update is not None:
        sums = dict(zip(map(id, call.variables), accumulated_gradients(inner), strict=True))
        steps = inner.gradient_accumulation_steps
        entered = [(gradient + sums[id(variable)]) / steps for gradient, variable in pairs]
        finite = finite & is_update
    clipped = entered if is_update is not None else [g / call.scale for g in given if g is not None]
    left = getattr(inner, CLIP_GRADIENTS)(clipped)
    return [Clip([variable for _, variable in pairs], entered, list(left), finite)]


@contextmanager
def _replaced(optimizer: Any, name: str, replacement: Callable) -> Iterator[None]:
    """Call `replacement(optimizer, method, ...)` instead of a method inside the block."""
    method, attributes = getattr(optimizer, name), vars(optimizer)
    before = attributes.get(name)
    attributes[name] = lambda *args, **named: replacement(optimizer, method, *args, **named)
    try:
        yield
    finally:
        if before is None:
            del attributes[name]
        else:
            attributes[name] = before
