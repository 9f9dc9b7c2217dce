"""Patches that report the calls of a train step to observers."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradkeeper.callbacks._keras_private import ALL_REDUCE, CLIP_GRADIENTS, variables_of
from gradkeeper.callbacks.instrument.conditional import apply_if
from gradkeeper.callbacks.instrument.losses import ScaledLosses, returned_loss, tensors_in
from gradkeeper.callbacks.instrument.masks import mask_patches
from gradkeeper.callbacks.instrument.observer import GradientTransform, StepObserver
from gradkeeper.callbacks.instrument.optimizer_call import (
    Gradients,
    OptimizerCall,
    ReplicaStepState,
    Variables,
)
from gradkeeper.callbacks.instrument.optimizers import (
    accumulates,
    build_like_apply,
    clipping_of,
    is_plain,
    loss_scale,
    with_nested,
)
from gradkeeper.callbacks.instrument.patch import AttributePatch
from gradkeeper.callbacks.instrument.replica import Replica, make_variable, may_have_functions
from gradkeeper.callbacks.instrument.rollback import StateRollback
from gradkeeper.callbacks.instrument.variable_names import unlisted_variables

_unconverted = tf.autograph.experimental.do_not_convert


class StepPatches:
    """Temporary patches that report a model's train steps, or optimizer calls, to observers.

    Args:
        observers: the observers.
        optimizers: the optimizers to patch, including the optimizers nested in them.
        model: the model whose `train_step` is one step; None if each `apply` is one step.
    """

    def __init__(
        self,
        observers: Sequence[StepObserver],
        optimizers: Sequence[keras.optimizers.Optimizer],
        model: keras.Model | None = None,
    ) -> None:
        self._observers = tuple(observers)
        self._transforms = tuple(each for each in observers if isinstance(each, GradientTransform))
        self._optimizers: list[keras.optimizers.Optimizer] = []
        self._step: list[AttributePatch] = []
        self._inner: list[AttributePatch] = []
        self._within_step_only = False
        if model is not None:
            self._step.append(AttributePatch(model, "train_step", self._train_step))
            self._inner.append(AttributePatch(model, "compute_loss", self._compute_loss))
            self._inner += mask_patches(
                model, lambda layer: self._notify(lambda each: each.on_mask_end(layer))
            )
        self._patched: set[int] = set()
        self._scaled_losses = ScaledLosses()
        self.add_optimizers(optimizers)
        self._steps_inside, self._lock = 0, threading.Lock()
        # Clipping methods of the optimizers, by `id`.
        self._clippings: dict[int, Callable] = {}
        self._step_states: dict[int, ReplicaStepState] = {}
        # By replica; used if the train step may call a `tf.function`.
        self._refused: dict[int, tf.Variable] = {}
        self._computes_loss = False
        # True once a function that the train step calls has called an optimizer.
        self._applies_inside = False

    def add_optimizers(self, optimizers: Sequence[keras.optimizers.Optimizer]) -> None:
        """Add optimizers to patch. Do not call this between `put` and `revert`."""
        for outer in optimizers:
            if not any(outer is each for each in self._optimizers):
                self._optimizers.append(outer)
            for optimizer in with_nested(outer):
                if id(optimizer) in self._patched:
                    continue
                self._patched.add(id(optimizer))
                self._inner += [
                    AttributePatch(optimizer, "apply", self._apply),
                    AttributePatch(optimizer, CLIP_GRADIENTS, self._clip),
                    AttributePatch(optimizer, ALL_REDUCE, self._all_reduce),
                    AttributePatch(optimizer, "scale_loss", self._scaled_losses.wrapper),
                ]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Apply the patches inside the block, and revert them afterwards."""
        try:
            self.apply()
            yield
        finally:
            self.revert()

    def patch_within_step_only(self) -> None:
        """Limit the inner patches to the time in which the model's `train_step` runs.

        Call this once `train_step` is known to make every call that is observed. A compiled
        `train_step` runs only while it is traced.
        """
        self._within_step_only = True

    def are_called_by(self, function: Callable) -> bool:
        """Return True if `function` closes over the patched `train_step`."""
        return all(patch.is_called_by(function) for patch in self._step)

    def apply(self) -> None:
        """Apply the patches until `revert` is called."""
        for patch in self._step:
            patch.apply()
        if not self._within_step_only:
            for patch in self._inner:
                patch.apply()

    def revert(self) -> None:
        """Restore every attribute to its value before `put`."""
        if not self._within_step_only:
            for patch in reversed(self._inner):
                patch.revert()
        for patch in self._step:
            patch.revert()

    @contextmanager
    def _inner_applied(self) -> Iterator[None]:
        """Apply the inner patches inside the block, in which a train step runs."""
        if not self._within_step_only:
            yield
            return
        # Each replica runs its step in a separate thread, one replica at a time.
        with self._lock:
            self._steps_inside += 1
            if self._steps_inside == 1:
                for patch in self._inner:
                    patch.apply()
        try:
            yield
        finally:
            with self._lock:
                self._steps_inside -= 1
                if self._steps_inside == 0:
                    for patch in reversed(self._inner):
                        patch.revert()

    def _train_step(self, model: keras.Model) -> Callable:
        original = model.train_step
        has_functions = may_have_functions(original)

        def train_step(*args: Any, **kwargs: Any) -> Any:
            replica = Replica.current()
            state = self._step_state(replica)
            if not state.steps:
                state = self._step_states[replica.index] = ReplicaStepState()
            state.steps += 1
            try:
                if state.steps == 1 and self._transforms:
                    state.rollback = self._rollback(model, replica, has_functions)
                data = args[0] if args else kwargs.get("data")
                self._notify(lambda each: each.on_step_begin(replica, data))
                with self._inner_applied():
                    result = original(*args, **kwargs)
            finally:
                state.steps -= 1
            if not state.steps and not self._computes_loss:
                self._notify(lambda each: each.on_loss(replica, returned_loss(result)))
            if not state.steps:
                self._ask_at_end(replica, state.rollback, result)
            self._notify(lambda each: each.on_step_end(replica, tensors_in(result)))
            if not state.steps and state.rollback is not None:
                result = state.rollback.end_step(model, result)
            return result

        return train_step

    def _compute_loss(self, model: keras.Model) -> Callable:
        original = model.compute_loss

        def compute_loss(*args: Any, **kwargs: Any) -> Any:
            value = original(*args, **kwargs)
            replica = Replica.current()
            if self._step_state(replica).steps:
                self._computes_loss = True
                self._notify(lambda each: each.on_loss(replica, value))
            return value

        return compute_loss

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
                    if call is None or not self._transforms:
                        result = original(grads, given, **kwargs)
                    else:
                        result = self._apply_transforms(call, original, grads, given, kwargs)
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
        replica = Replica.current()
        state = self._step_state(replica)
        outermost = state.call is None
        if outermost and not state.steps:
            state.rounds.clear()
            self._notify(lambda each: each.on_step_begin(replica, None))
        call = None
        if outermost:
            call = state.call = OptimizerCall(
                optimizer,
                variables,
                replica,
                state.round(optimizer, variables),
                loss_scale(optimizer, variables),
                clipping_of(optimizer),
                is_plain(optimizer) and not any(transform.clips for transform in self._transforms),
                accumulates(optimizer),
                lacks_loss_scaling=self._scaled_losses.are_missing_for(
                    optimizer, grads, in_step=bool(state.steps)
                ),
            )
        state.clipped_variables.append(
            [v for g, v in zip(grads, variables, strict=False) if _is_clipped(g, v)]
        )
        if call is not None:
            try:
                self._notify(lambda each: each.on_gradients(call, grads))
            except BaseException:
                self._leave(call)
                raise
        return call

    @_unconverted
    def _apply_transforms(
        self,
        call: OptimizerCall,
        original: Callable,
        grads: Gradients,
        given: Variables | None,
        kwargs: dict[str, Any],
    ) -> Any:
        """Transform the gradients and apply them if every gradient transform should_apply it."""

        def apply(grads: Gradients) -> Any:
            for transform in self._transforms:
                grads = transform.transform(call, grads)
            return original(list(grads), given, **kwargs)

        state = self._step_state(call.replica)
        call.rollback = rollback = state.rollback
        build_like_apply(call.optimizer, call.variables)
        if rollback is not None and self._must_save_weights(call, rollback):
            rollback.restore_spare()
            rollback.add([*call.variables, *call.optimizer.variables], "weight")
        flags = [transform.should_apply(call, grads) for transform in self._transforms]
        asked = [flag for flag in flags if flag is not None]
        if not asked:
            return apply(grads)
        call.allowed = tf.reduce_all(tf.stack(asked))
        if rollback is not None:
            rollback.unless(call.allowed)
        apply_if(call.allowed, apply, grads, call.replica)
        if call.replica.count > 1:
            apply_if(
                ~call.allowed,
                lambda grads: self._notify(lambda each: each.on_skip(call, grads)),
                grads,
                call.replica,
            )
        return None

    def _must_save_weights(self, call: OptimizerCall, rollback: StateRollback) -> bool:
        """Return True if an update may have to be rolled back after an optimizer has applied it."""
        self._applies_inside |= not rollback.is_in_step_scope
        asked = [transform.may_undo_update(call) for transform in self._transforms]
        is_one_of_several = len(self._optimizers) > 1 or call.round > 0
        return any(asked) or is_one_of_several or self._applies_inside

    def _rollback(self, model: keras.Model, replica: Replica, has_functions: bool) -> StateRollback:
        """Store the values that must be restored after a skipped step."""
        refused = self._refused.get(replica.index)
        if has_functions and refused is None:
            compiled = bool(model.jit_compile) and not model.run_eagerly
            refused = make_variable(np.array(False), replica.home(compiled=compiled))
            self._refused[replica.index] = refused
        rollback = StateRollback(replica, refused if has_functions else None)
        rollback.add(model.metrics_variables, "metric")
        rollback.add([*model.non_trainable_variables, *unlisted_variables(model)], "state")
        if has_functions:
            optimizers = [each for outer in self._optimizers for each in outer.variables]
            spare = not self._applies_inside
            rollback.add([*model.trainable_variables, *optimizers], "weight", spare=spare)
        return rollback

    @_unconverted
    def _ask_at_end(self, replica: Replica, rollback: StateRollback | None, result: Any) -> None:
        """Roll back the step at its end if a gradient transform rejects its results."""
        if rollback is None:
            return
        with tf.control_dependencies(tensors_in(result)):
            for transform in self._transforms:
                allowed = transform.should_keep(replica, rollback)
                if allowed is not None:
                    rollback.unless(allowed)

    @_unconverted
    def _leave(self, call: OptimizerCall | None) -> None:
        state = self._step_state(Replica.current())
        state.clipped_variables.pop()
        if call is not None:
            state.call = None

    @_unconverted
    def _finish(self, call: OptimizerCall | None, grads: Gradients) -> None:
        if call is None:
            return
        self._notify(lambda each: each.on_update(call))
        if not self._step_state(call.replica).steps:
            self._notify(lambda each: each.on_step_end(call.replica, tensors_in(grads)))

    def _clip(self, optimizer: keras.optimizers.Optimizer) -> Callable:
        original = self._clippings[id(optimizer)] = getattr(optimizer, CLIP_GRADIENTS)

        @_unconverted
        def clip_gradients(grads: Any) -> Any:
            entered = list(grads)
            state = self._step_state(Replica.current())
            variables = state.clipped_variables[-1] if state.clipped_variables else []
            call = state.call
            if call is None or len(variables) != len(entered):
                return list(original(entered))
            changed = entered
            for transform in self._transforms:
                changed = transform.transform_before_clip(call, changed, variables)
            left = list(changed if self._clips_after_reduce(call) else original(changed))
            self._notify(lambda each: each.on_clip(call, entered, left, variables))
            call.clippings += 1
            return left

        return clip_gradients

    def _clips_after_reduce(self, call: OptimizerCall) -> bool:
        """Return True if the optimizer's own clipping acts on the sum over replicas."""
        return call.replica.count > 1 and any(
            transform.clips_after_reduce and transform.observes(call.optimizer)
            for transform in self._transforms
        )

    def _all_reduce(self, optimizer: keras.optimizers.Optimizer) -> Callable:
        original = getattr(optimizer, ALL_REDUCE)

        @_unconverted
        def all_reduce(grads_and_vars: Any) -> Any:
            grads_and_vars = list(original(grads_and_vars))
            state = self._step_state(Replica.current())
            variables = state.clipped_variables[-1] if state.clipped_variables else []
            if state.call is not None and len(variables) == len(grads_and_vars):
                gradients = [gradient for gradient, _ in grads_and_vars]
                if self._clips_after_reduce(state.call):
                    gradients = list(self._clippings[id(optimizer)](gradients))
                    grads_and_vars = [
                        (one, each)
                        for one, (_, each) in zip(gradients, grads_and_vars, strict=True)
                    ]
                self._notify(lambda each: each.on_reduce(state.call, gradients, variables))
            return grads_and_vars

        return all_reduce

    def _step_state(self, replica: Replica) -> ReplicaStepState:
        return self._step_states.setdefault(replica.index, ReplicaStepState())

    @_unconverted
    def _notify(self, event: Callable[[StepObserver], None]) -> None:
        for observer in self._observers:
            event(observer)


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
