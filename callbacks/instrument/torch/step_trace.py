"""Trace of a train step of torch: optimizer calls, clipping and loss.

The patches exist only while the step runs. Each replaces a method by the same function in every
step, because `torch.compile` compiles the step again for another function. The functions themselves
run eagerly.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident
from typing import Any, NamedTuple

import keras
import torch

from gradkeeper.callbacks._keras_private import (
    APPLY_GRADIENTS,
    CLIP_GRADIENTS,
    variables_of,
)
from gradkeeper.callbacks.instrument.array_step import Call, StepTrace, assigned
from gradkeeper.callbacks.instrument.optimizers import (
    build_like_apply,
    is_plain,
    loss_scale,
    nested_optimizers,
    with_nested,
)


class _Parts(NamedTuple):
    """Constant properties of an optimizer.

    Attributes:
        nested: the optimizer and those nested in it.
        leaves: those of them that contain no optimizer.
        is_plain: see `Call`.
    """

    nested: list[keras.optimizers.Optimizer]
    leaves: list[keras.optimizers.Optimizer]
    is_plain: bool


class TorchStepTrace(StepTrace):
    """Record of a train step of torch, which is used again for each step; see `StepTrace`.

    Args:
        model: the model.
        optimizers: the optimizers to observe.
        clippers: observers that clip the gradients.
        keeps_values: whether to copy the trained variables before each update.

    Attributes:
        first_values: the variables of the optimizers that the step has built, with copies of
            their values before the update.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizers: Sequence[keras.optimizers.Optimizer],
        clippers: Sequence[Any] = (),
        *,
        keeps_values: bool = False,
    ) -> None:
        super().__init__(model, optimizers, clippers)
        self._keeps_values = keeps_values
        self._is_compiled = bool(getattr(model, "jit_compile", False))
        self._functions: dict[tuple[int, str], Callable] = {}
        self._methods: dict[tuple[int, str], Callable] = {}
        self._parts = {id(each): self._parts_of(each) for each in optimizers}
        self.first_values: list[tuple[Any, torch.Tensor]] = []
        self._value: torch.Tensor | None = None
        self._is_unscaled = False
        self._thread = get_ident()

    @property
    def loss(self) -> Any:
        if self._value is None or self._is_unscaled or not self.calls:
            return self._value
        scale = self.calls[-1].scale
        return self._value if scale is None else self._value / scale

    def _parts_of(self, optimizer: keras.optimizers.Optimizer) -> _Parts:
        leaves = [each for each in with_nested(optimizer) if not nested_optimizers(each)]
        plain = is_plain(optimizer) and not self._clippers
        return _Parts(with_nested(optimizer), leaves, plain)

    @contextmanager
    def recording(self) -> Iterator[None]:
        self.calls, self.is_refused, self.first_values = [], None, []
        self._value, self._is_unscaled = None, False
        with self._reads_loss(), assigned(self._replacements()):
            yield

    def _replacements(self) -> Iterator[tuple[Any, str, Callable]]:
        """Yield the owner and the name of each replaced method, and its replacement."""
        for optimizer in self._optimizers:
            yield self._replacement(optimizer, "apply", self._apply)
            if not self._is_compiled:  # `torch.compile` would divide the step there
                yield self._replacement(optimizer, "scale_loss", self._scale_loss)
            for each in self._parts[id(optimizer)].nested:
                yield self._replacement(each, APPLY_GRADIENTS, self._apply_gradients)
                yield self._replacement(each, CLIP_GRADIENTS, self._clip)

    def _replacement(
        self, owner: Any, name: str, replacement: Callable
    ) -> tuple[Any, str, Callable]:
        """Return a function that calls `replacement(owner, method, ...)`, with its place."""
        key = id(owner), name

        def call(*args: Any, **named: Any) -> Any:
            return replacement(owner, self._methods[key], *args, **named)

        self._methods[key] = getattr(owner, name)
        return owner, name, self._eager(key, call)

    def _eager(self, key: tuple[int, str], function: Callable) -> Callable:
        """Return the function of the first call with this key, which runs eagerly."""
        if key not in self._functions:
            self._functions[key] = (
                torch.compiler.disable(function) if self._is_compiled else function
            )
        return self._functions[key]

    @contextmanager
    def _reads_loss(self) -> Iterator[None]:
        """Read the scalars on which this thread calls `backward`, unless the loss is known."""
        key = id(torch.Tensor), "backward"
        backward = self._methods[key] = torch.Tensor.backward
        self._thread = get_ident()

        def read(tensor: torch.Tensor, *args: Any, **options: Any) -> None:
            if get_ident() == self._thread and not (tensor.shape or self._is_unscaled):
                self._value = tensor.detach()
            self._methods[key](tensor, *args, **options)

        torch.Tensor.backward = self._eager(key, read)
        try:
            yield
        finally:
            torch.Tensor.backward = backward

    def _scale_loss(self, optimizer: Any, scale_loss: Callable, loss: torch.Tensor) -> torch.Tensor:
        self._value, self._is_unscaled = loss.detach(), True
        return scale_loss(loss)

    def _apply(
        self,
        optimizer: keras.optimizers.Optimizer,
        apply: Callable,
        grads: Sequence[Any],
        trainable_variables: Sequence[Any] | None = None,
    ) -> None:
        variables = variables_of(optimizer, trainable_variables)
        if self._call is not None or not variables:
            return apply(grads, trainable_variables)
        if not optimizer.built:
            build_like_apply(optimizer, variables)
            self.first_values += [(each, copy_of(each)) for each in optimizer.variables]
        call = Call(
            optimizer,
            self._round_of(optimizer),
            variables,
            list(grads),
            [copy_of(each) for each in variables]
            if self._keeps_values
            else [None] * len(variables),
            scale=_copied(loss_scale(optimizer, variables)),
            is_plain=self._parts[id(optimizer)].is_plain,
        )
        call.learning_rate = _copied(getattr(optimizer, "learning_rate", None))
        call.rates = [
            call.learning_rate
            if each is optimizer
            else _copied(getattr(each, "learning_rate", None))
            for each in self._parts[id(optimizer)].leaves
        ]
        self.calls.append(call)
        self._call = call
        try:
            apply(grads, trainable_variables)
        finally:
            self._call = None
        call.after = [each.value if self._keeps_values else None for each in variables]
        return None


def copy_of(variable: Any) -> torch.Tensor:
    """Return a copy of the value of a variable."""
    return variable.value.detach().clone()


def _copied(value: Any) -> Any:
    """Return the current value of a variable or scalar as a tensor; None for None."""
    if value is None:
        return None
    if isinstance(value, keras.Variable):
        return copy_of(value)
    return keras.ops.convert_to_tensor(value).detach().clone()
