"""Adaptive clipping in the train step of JAX."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from gradkeeper.callbacks.clipping.methods import (
    AGC,
    Arrays,
    Method,
    factor_of,
    part_of,
    require_shapes,
)
from gradkeeper.callbacks.instrument.jax.observer import JaxObserver, TracedStep
from gradkeeper.callbacks.instrument.optimizers import optimizers_of, with_nested
from gradkeeper.callbacks.statistics.jax_gradients import l2_norms


class JaxClipTransform(JaxObserver):
    """Observer that clips by a limit computed from gradient norms; see `ClipTransform`.

    Every optimizer has a limit of its own. The arguments are those of `StepCallback`'s `make`.
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
        self.carry = jax.tree.map(jnp.asarray, self._first)
        self._traced: dict[str, Any] = {}

    @property
    def state(self) -> Arrays:
        """Return the state of all limits."""
        limits = jax.device_get(self.carry)
        return {
            f"{number}/{name}": np.asarray(value)
            for number, limit in limits.items()
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
        self.carry = jax.tree.map(
            lambda held, new: jax.device_put(jnp.asarray(new, held.dtype), held.sharding),
            self.carry,
            parts,
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
        self.has_seen_gradients = True
        if isinstance(self._method, AGC):
            pairs = zip(gradients, variables, strict=True)
            factors = [self._method.factor(gradient, variable) for gradient, variable in pairs]
        else:
            number = str(self._ids.index(id(optimizer)))
            before, norm = self._traced[number], jnp.linalg.norm(l2_norms(gradients, "float32"))
            highest, after = self._method.limit(norm, before)
            is_taken = jnp.isfinite(norm) if is_update is None else jnp.isfinite(norm) & is_update
            self._traced[number] = {
                name: jnp.where(is_taken, after[name], value) for name, value in before.items()
            }
            factor = jnp.where(jnp.isfinite(norm), factor_of(norm, highest), 1.0)
            factors = [factor] * len(gradients)
        return [g * f.astype(g.dtype) for g, f in zip(gradients, factors, strict=True)]

    def on_step(self, step: TracedStep, carry: Any) -> tuple[Any, Any]:
        """Return the state of the limits, that before the step if a guard skips it."""
        refused, after = step.trace.is_refused, self._traced
        if refused is not None:
            after = jax.tree.map(lambda new, old: jnp.where(refused, old, new), after, carry)
        return after, None

    def end_step(self, outputs: Any, data: Any, state: Any) -> None:
        """Do nothing: the carry holds the state."""
