"""Adaptive clipping in the train step of JAX and torch."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from gradkeeper.callbacks.clipping.methods import (
    AGC,
    Arrays,
    Method,
    factor_of,
    part_of,
    require_shapes,
)
from gradkeeper.callbacks.instrument.array_step import ArrayObserver, ObservedStep
from gradkeeper.callbacks.instrument.optimizers import optimizers_of, with_nested
from gradkeeper.callbacks.statistics.array_gradients import l2_norms


class ArrayClipTransform(ArrayObserver):
    """Observer that clips by a limit computed from gradient norms; see `ClipTransform`.

    Each optimizer has its own limit. The arguments are those of `StepCallback`'s `make`.
    """

    def __init__(
        self, method: Method, model: keras.Model, *, optimizers: Any, compiled: bool
    ) -> None:
        super().__init__(optimizers)
        self._method = method
        every = [each for one in optimizers or optimizers_of(model) for each in with_nested(one)]
        self._ids = [id(each) for each in every]
        first = {} if isinstance(method, AGC) else method.first_values()
        self._first = {str(number): first for number, _ in enumerate(every)}
        self.carry = keras.tree.map_structure(ops.convert_to_tensor, self._first)
        self._traced: dict[str, Any] = {}

    @property
    def state(self) -> Arrays:
        """Return the state of all limits."""
        return {
            f"{number}/{name}": ops.convert_to_numpy(value)
            for number, limit in self.carry.items()
            for name, value in limit.items()
        }

    def load(self, state: Arrays) -> None:
        """Load the state.

        Raises:
            ValueError: if the state belongs to another method or other options.
        """
        parts = {number: part_of(state, int(number)) for number in self._first}
        for number, part in parts.items():
            require_shapes(self._first[number], part)
        # On JAX, the sum keeps the devices of the arrays.
        self.carry = keras.tree.map_structure(
            lambda held, new: ops.zeros_like(held) + ops.cast(new, held.dtype), self.carry, parts
        )

    def reset(self) -> None:
        """Reset the state of all limits."""
        self.load({f"{n}/{k}": v for n, part in self._first.items() for k, v in part.items()})

    def begin_step(self, carry: Any) -> None:
        self._traced = dict(carry)

    def clip(
        self,
        optimizer: keras.optimizers.Optimizer,
        gradients: list[Any],
        variables: Sequence[Any],
        is_update: Any,
    ) -> list[Any]:
        """Return the clipped gradients, traced; see `Clipper`. Non-finite ones are not changed."""
        if id(optimizer) not in self._ids:
            return gradients
        if isinstance(self._method, AGC):
            pairs = zip(gradients, variables, strict=True)
            factors = [self._method.factor(gradient, variable) for gradient, variable in pairs]
        else:
            number = str(self._ids.index(id(optimizer)))
            before, norm = self._traced[number], ops.norm(l2_norms(gradients, "float32"))
            highest, after = self._method.limit(norm, before)
            is_taken = ops.isfinite(norm) if is_update is None else ops.isfinite(norm) & is_update
            self._traced[number] = {
                name: ops.where(is_taken, after[name], value) for name, value in before.items()
            }
            factor = ops.where(ops.isfinite(norm), factor_of(norm, highest), 1.0)
            factors = [factor] * len(gradients)
        return [g * ops.cast(f, g.dtype) for g, f in zip(gradients, factors, strict=True)]

    def on_step(self, step: ObservedStep, carry: Any) -> tuple[Any, Any]:
        """Return the state of the limits, that before the step if a guard skips it."""
        self.has_seen_gradients |= any(self.observes(each.optimizer) for each in step.trace.calls)
        refused, after = step.trace.is_refused, self._traced
        if refused is not None:
            after = keras.tree.map_structure(
                lambda new, old: ops.where(refused, old, new), after, carry
            )
        return after, None

    def end_step(self, outputs: Any, data: Any, state: Any) -> None:
        """Do nothing: the carry holds the state."""
