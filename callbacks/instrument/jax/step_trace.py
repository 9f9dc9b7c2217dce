"""Trace of a train step of JAX: optimizer calls, clipping and loss.

The patches exist only inside `observed_step`. JAX traces a compiled step once, so that a compiled
training carries no patches.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from threading import get_ident
from typing import Any

import jax
import keras

from gradkeeper.callbacks._keras_private import (
    APPLY_GRADIENTS,
    CLIP_GRADIENTS,
    accumulated_gradients,
    calls_of,
    variables_of,
)
from gradkeeper.callbacks.instrument.array_step import (
    Call,
    Clip,
    Clipper,
    StepTrace,
    is_update_of,
    replaced,
)
from gradkeeper.callbacks.instrument.optimizers import is_plain, learning_rates_of, with_nested


class JaxStepTrace(StepTrace):
    """Record of a train step of JAX; see `StepTrace`."""

    def __init__(
        self,
        model: keras.Model,
        optimizers: Sequence[keras.optimizers.Optimizer],
        clippers: Sequence[Clipper] = (),
    ) -> None:
        super().__init__(model, optimizers, clippers)
        self._value: Any = None
        self._is_of_keras = False
        self._is_muted = False

    @property
    def loss(self) -> Any:
        if self._value is None or self._is_of_keras or not self.calls:
            return self._value
        scale = self.calls[-1].scale
        return self._value if scale is None else self._value / scale

    @contextmanager
    def recording(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(self._reads_loss())
            for optimizer in self._optimizers:
                stack.enter_context(replaced(optimizer, "stateless_apply", self._apply))
                for each in with_nested(optimizer):
                    stack.enter_context(replaced(each, APPLY_GRADIENTS, self._apply_gradients))
                    stack.enter_context(replaced(each, CLIP_GRADIENTS, self._clip))
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

    def _clip(
        self, optimizer: keras.optimizers.Optimizer, clip: Callable, grads: Sequence[Any]
    ) -> Any:
        return clip(grads) if self._is_muted else super()._clip(optimizer, clip, grads)

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
    is_update = is_update_of(inner)
    entered = [gradient for gradient, _ in pairs]
    if is_update is not None:
        sums = dict(zip(map(id, call.variables), accumulated_gradients(inner), strict=True))
        steps = inner.gradient_accumulation_steps
        entered = [(gradient + sums[id(variable)]) / steps for gradient, variable in pairs]
        finite = finite & is_update
    clipped = entered if is_update is not None else [g / call.scale for g in given if g is not None]
    left = getattr(inner, CLIP_GRADIENTS)(clipped)
    return [Clip([variable for _, variable in pairs], entered, list(left), finite)]
