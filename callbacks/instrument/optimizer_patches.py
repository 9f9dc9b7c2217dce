"""Patches that report the calls of optimizers to observers."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from gradkeeper.callbacks._keras_private import ALL_REDUCE, CLIP_GRADIENTS, variables_of
from gradkeeper.callbacks.instrument.graph import apply_if
from gradkeeper.callbacks.instrument.losses import ScaledLosses, tensors_in
from gradkeeper.callbacks.instrument.observer import Observers
from gradkeeper.callbacks.instrument.optimizers import (
    accumulates,
    build_like_apply,
    clipping_of,
    is_plain,
    loss_scale,
    with_nested,
)
from gradkeeper.callbacks.instrument.patch import AttributePatch
from gradkeeper.callbacks.instrument.step_context import (
    Gradients,
    OptimizerCall,
    StepContext,
    StepContexts,
    Variables,
)

_unconverted = tf.autograph.experimental.do_not_convert


class OptimizerPatches:
    """Patches of `apply`, clipping and all-reduce of optimizers.

    Args:
        observers: the observers.
        contexts: the step contexts.

    Attributes:
        are_called_in_functions: True once a function that the train step calls has called an
            optimizer.
    """

    def __init__(self, observers: Observers, contexts: StepContexts) -> None:
        self._observers, self._contexts = observers, contexts
        self._outermost: list[keras.optimizers.Optimizer] = []
        self._patched: set[int] = set()
        self._scaled_losses = ScaledLosses()
        # Clipping methods of the optimizers, by `id`.
        self._clippings: dict[int, Callable] = {}
        self.are_called_in_functions = False

    @property
    def variables(self) -> list[Any]:
        """Return the variables of all optimizers."""
        return [each for optimizer in self._outermost for each in optimizer.variables]

    def patches_for(
        self, optimizers: Sequence[keras.optimizers.Optimizer]
    ) -> Iterator[AttributePatch]:
        """Yield the patches of optimizers, and of the optimizers nested in them, once each."""
        for outer in optimizers:
            if not any(outer is each for each in self._outermost):
                self._outermost.append(outer)
            for optimizer in with_nested(outer):
                if id(optimizer) not in self._patched:
                    self._patched.add(id(optimizer))
                    yield AttributePatch(optimizer, "apply", self._apply)
                    yield AttributePatch(optimizer, CLIP_GRADIENTS, self._clip)
                    yield AttributePatch(optimizer, ALL_REDUCE, self._all_reduce)
                    yield AttributePatch(optimizer, "scale_loss", self._scaled_losses.wrapper)

    def _apply(self, optimizer: keras.optimizers.Optimizer) -> Callable:
        original = optimizer.apply

        # If a custom loop uses Autograph, Autograph converts this function and with it the
        # original.
        def apply(grads: Any, trainable_variables: Any = None, **kwargs: Any) -> Any:
            grads, variables = list(grads), variables_of(optimizer, trainable_variables)
            call = self._enter(optimizer, grads, variables)
            try:
                # None stays None. `variables` replaces an iterator, which can be read only once.
                given = None if trainable_variables is None else variables
                with tf.control_dependencies(_read_before_sum(call)):
                    if call is None or not self._observers.transforms:
                        result = original(grads, given, **kwargs)
                    else:
                        result = self._apply_transformed(call, original, grads, given, kwargs)
            finally:
                self._leave(call)
            self._finish(call, grads)
            return result

        return apply

    @_unconverted
    def _enter(
        self, optimizer: keras.optimizers.Optimizer, grads: Gradients, variables: Variables
    ) -> OptimizerCall | None:
        """Record a call of `apply`, and return the optimizer call if this is the outermost one."""
        context = self._contexts.current()
        call = None
        if context.call is not None:
            context.call.nested += 1
        else:
            if not context.depth:  # outside of a model's train step, each call is a step
                context.begin_step()
                self._observers.notify(lambda each: each.on_step_begin(context, None))
            call = context.call = self._call(context, optimizer, grads, variables)
        context.clipped_variables.append(
            [v for g, v in zip(grads, variables, strict=False) if _is_clipped(g, v)]
        )
        if call is not None:
            try:
                self._observers.notify(lambda each: each.on_gradients(call, grads))
            except BaseException:
                self._leave(call)
                raise
        return call

    def _call(
        self,
        context: StepContext,
        optimizer: keras.optimizers.Optimizer,
        grads: Gradients,
        variables: Variables,
    ) -> OptimizerCall:
        clips = any(transform.clips for transform in self._observers.transforms)
        return OptimizerCall(
            context,
            optimizer,
            variables,
            round=context.next_round(optimizer, variables),
            scale=loss_scale(optimizer, variables),
            clipping=clipping_of(optimizer),
            is_plain=is_plain(optimizer) and not clips,
            accumulates=accumulates(optimizer),
            lacks_loss_scaling=self._scaled_losses.are_missing_for(
                optimizer, grads, in_step=bool(context.depth)
            ),
        )

    @_unconverted
    def _apply_transformed(
        self,
        call: OptimizerCall,
        original: Callable,
        grads: Gradients,
        given: Variables | None,
        kwargs: dict[str, Any],
    ) -> Any:
        """Transform the gradients, and apply them if every gradient transform allows it."""

        def apply(grads: Gradients) -> Any:
            for transform in self._observers.transforms:
                grads = transform.transform(call, grads)
            return original(list(grads), given, **kwargs)

        build_like_apply(call.optimizer, call.variables)
        self._save_weights(call)
        flags = [each.should_apply(call, grads) for each in self._observers.transforms]
        flags = [flag for flag in flags if flag is not None]
        if not flags:
            return apply(grads)
        call.allowed = tf.reduce_all(tf.stack(flags))
        if call.context.rollback is not None:
            call.context.rollback.unless(call.allowed)
        apply_if(call.allowed, apply, grads, call.replica)
        if call.replica.count > 1:

            def skip(grads: Gradients) -> None:
                self._observers.notify(lambda each: each.on_skip(call, grads))

            apply_if(~call.allowed, skip, grads, call.replica)
        return None

    def _save_weights(self, call: OptimizerCall) -> None:
        """Store the weights if an update may have to be rolled back after it was applied."""
        rollback = call.context.rollback
        if rollback is None:
            return
        self.are_called_in_functions |= not rollback.is_in_step_scope
        asked = [each.may_undo_update(call) for each in self._observers.transforms]
        is_one_of_several = len(self._outermost) > 1 or call.round > 0
        if any(asked) or is_one_of_several or self.are_called_in_functions:
            rollback.restore_spare()
            rollback.add([*call.variables, *call.optimizer.variables], "weight")

    @_unconverted
    def _leave(self, call: OptimizerCall | None) -> None:
        context = self._contexts.current()
        context.clipped_variables.pop()
        if call is not None:
            context.call = None

    @_unconverted
    def _finish(self, call: OptimizerCall | None, grads: Gradients) -> None:
        if call is None:
            return
        self._observers.notify(lambda each: each.on_update(call))
        if not call.context.depth:
            done = tensors_in(grads)
            self._observers.notify(lambda each: each.on_step_end(call.context, done))

    def _clip(self, optimizer: keras.optimizers.Optimizer) -> Callable:
        original = self._clippings[id(optimizer)] = getattr(optimizer, CLIP_GRADIENTS)

        @_unconverted
        def clip_gradients(grads: Any) -> Any:
            entered = list(grads)
            call, variables = self._current_call(len(entered))
            if call is None:
                return list(original(entered))
            changed = entered
            for transform in self._observers.transforms:
                changed = transform.transform_before_clip(call, changed, variables)
            left = list(changed if self._clips_after_reduce(call) else original(changed))
            self._observers.notify(lambda each: each.on_clip(call, entered, left, variables))
            call.clippings += 1
            return left

        return clip_gradients

    def _all_reduce(self, optimizer: keras.optimizers.Optimizer) -> Callable:
        original = getattr(optimizer, ALL_REDUCE)

        @_unconverted
        def all_reduce(grads_and_vars: Any) -> Any:
            grads_and_vars = list(original(grads_and_vars))
            call, variables = self._current_call(len(grads_and_vars))
            if call is None:
                return grads_and_vars
            gradients = [gradient for gradient, _ in grads_and_vars]
            if self._clips_after_reduce(call):
                gradients = list(self._clippings[id(optimizer)](gradients))
                kept = [variable for _, variable in grads_and_vars]
                grads_and_vars = list(zip(gradients, kept, strict=True))
            self._observers.notify(lambda each: each.on_reduce(call, gradients, variables))
            return grads_and_vars

        return all_reduce

    def _current_call(self, gradients: int) -> tuple[OptimizerCall | None, Variables]:
        """Return the call under way and the variables of its gradients.

        The call is None outside of one, or if the number of gradients does not fit.
        """
        context = self._contexts.current()
        variables = context.clipped_variables[-1] if context.clipped_variables else []
        return (context.call if len(variables) == gradients else None), variables

    def _clips_after_reduce(self, call: OptimizerCall) -> bool:
        """Return True if the optimizer's own clipping acts on the sum over replicas."""
        return call.replica.count > 1 and any(
            each.clips_after_reduce and each.observes(call.optimizer)
            for each in self._observers.transforms
        )


def _read_before_sum(call: OptimizerCall | None) -> list[tf.Tensor]:
    """Return the tensors to read before the gradients of the replicas are summed.

    TensorFlow sums tensors in place. It starts with the first tensor whose memory has no other
    reader, and adds the others to it. A late reader would change the order of summation. The sum of
    two tensors is the same in both orders.
    """
    if call is None or call.replica.count < 3:
        return []
    return call.measured


def _is_clipped(gradient: Any, variable: Any) -> bool:
    """Return True if the pair reaches Keras's clipping. Float8 scales are overwritten earlier."""
    return gradient is not None and not getattr(variable, "overwrite_with_gradient", False)
