"""Patches that report the train steps of a model to observers."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from gradkeeper.callbacks._keras_private import metric_variables
from gradkeeper.callbacks.instrument.graph import may_have_functions
from gradkeeper.callbacks.instrument.losses import mean_loss, returned_loss, tensors_in
from gradkeeper.callbacks.instrument.mask_patches import (
    arguments_of,
    lost_by_loss,
    mask_patches,
)
from gradkeeper.callbacks.instrument.observer import Observers, StepObserver
from gradkeeper.callbacks.instrument.optimizer_patches import OptimizerPatches
from gradkeeper.callbacks.instrument.output_patches import output_patches
from gradkeeper.callbacks.instrument.patch import AttributePatch
from gradkeeper.callbacks.instrument.rollback import StateRollback
from gradkeeper.callbacks.instrument.step_context import StepContext, StepContexts
from gradkeeper.callbacks.instrument.variable_names import unlisted_variables


class StepPatches:
    """Temporary patches that report a model's train steps, or optimizer calls, to observers.

    Args:
        observers: the observers.
        optimizers: the optimizers to patch, including the optimizers nested in them.
        model: the model whose `train_step` is one step; None if each `apply` is one step.
        contexts: the step contexts; new ones by default.
    """

    def __init__(
        self,
        observers: Sequence[StepObserver],
        optimizers: Sequence[keras.optimizers.Optimizer],
        model: keras.Model | None = None,
        contexts: StepContexts | None = None,
    ) -> None:
        self._observers = Observers(observers)
        self._contexts = contexts or StepContexts()
        self._optimizers = OptimizerPatches(self._observers, self._contexts)
        self._step: list[AttributePatch] = []
        self._inner: list[AttributePatch] = []
        self._within_step_only = False
        if model is not None:
            self._step.append(AttributePatch(model, "train_step", self._train_step))
            self._inner.append(AttributePatch(model, "compute_loss", self._compute_loss))
            self._inner += mask_patches(model, self._observers)
            if self._observers.read_outputs:
                self._inner += output_patches(model, self._observers, self._contexts)
        self.add_optimizers(optimizers)
        self._running, self._lock = 0, threading.Lock()
        self._computes_loss = False

    def add_optimizers(self, optimizers: Sequence[keras.optimizers.Optimizer]) -> None:
        """Add optimizers to patch. Do not call this inside `applied`."""
        self._inner += self._optimizers.patches_for(optimizers)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Apply the patches inside the block, and restore every attribute afterwards."""
        patches = [*self._step, *([] if self._within_step_only else self._inner)]
        try:
            for patch in patches:
                patch.apply()
            yield
        finally:
            for patch in reversed(patches):
                patch.revert()

    def patch_within_step_only(self) -> None:
        """Limit the inner patches to the time in which the model's `train_step` runs.

        Call this once `train_step` is known to make every call that is observed. A compiled
        `train_step` runs only while it is traced.
        """
        self._within_step_only = True

    def are_called_by(self, function: Callable) -> bool:
        """Return True if `function` closes over the patched `train_step`."""
        return all(patch.is_called_by(function) for patch in self._step)

    @contextmanager
    def _inner_applied(self) -> Iterator[None]:
        """Apply the inner patches inside the block, in which a train step runs."""
        if not self._within_step_only:
            yield
            return
        # Each replica runs its step in a separate thread, one replica at a time.
        with self._lock:
            self._running += 1
            if self._running == 1:
                for patch in self._inner:
                    patch.apply()
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                if self._running == 0:
                    for patch in reversed(self._inner):
                        patch.revert()

    def _train_step(self, model: keras.Model) -> Callable:
        original = model.train_step
        has_functions = may_have_functions(original)

        def train_step(*args: Any, **kwargs: Any) -> Any:
            context = self._contexts.current()
            if not context.depth:
                carries = has_functions and self._observers.read_loss
                context.begin_step(loss_in_variable=carries)
            context.depth += 1
            try:
                if context.depth == 1 and self._observers.transforms:
                    context.rollback = self._rollback(model, context, has_functions)
                data = args[0] if args else kwargs.get("data")
                self._observers.notify(lambda each: each.on_step_begin(context, data))
                with self._inner_applied():
                    result = original(*args, **kwargs)
            finally:
                context.depth -= 1
            if not context.depth:
                if not self._computes_loss:
                    self._set_loss(context, returned_loss(result))
                self._check_results(context, result)
            done = tensors_in(result)
            self._observers.notify(lambda each: each.on_step_end(context, done))
            if not context.depth and context.rollback is not None:
                result = context.rollback.end_step(model, result)
            return result

        return train_step

    def _compute_loss(self, model: keras.Model) -> Callable:
        original = model.compute_loss

        def compute_loss(*args: Any, **kwargs: Any) -> Any:
            value = original(*args, **kwargs)
            context = self._contexts.current()
            if context.depth:
                self._computes_loss = True
                self._note_predictions(context, original, args, kwargs)
                self._set_loss(context, value)
            return value

        return compute_loss

    @tf.autograph.experimental.do_not_convert
    def _note_predictions(
        self, context: StepContext, compute_loss: Callable, args: Any, kwargs: Any
    ) -> None:
        if layers := lost_by_loss(compute_loss, args, kwargs):
            self._observers.notify(lambda each: each.on_mask_lost(layers, None))
        if self._observers.read_outputs:
            predictions = tensors_in(arguments_of(compute_loss, args, kwargs).get("y_pred"))
            self._observers.notify(lambda each: each.on_predictions(context, predictions))

    @tf.autograph.experimental.do_not_convert
    def _set_loss(self, context: StepContext, value: Any) -> None:
        if self._observers.read_loss and (mean := mean_loss(value)) is not None:
            context.loss.set(mean)
        self._observers.notify(lambda each: each.on_loss(context, value))

    def _rollback(
        self, model: keras.Model, context: StepContext, has_functions: bool
    ) -> StateRollback:
        """Store the values that must be restored after a skipped step."""
        rollback = StateRollback(context.replica, context.skip_flag if has_functions else None)
        rollback.add(metric_variables(model), "metric")
        rollback.add([*model.non_trainable_variables, *unlisted_variables(model)], "state")
        if has_functions:
            weights = [*model.trainable_variables, *self._optimizers.variables]
            rollback.add(weights, "weight", spare=not self._optimizers.are_called_in_functions)
        return rollback

    @tf.autograph.experimental.do_not_convert
    def _check_results(self, context: StepContext, result: Any) -> None:
        """Roll back the step at its end if a gradient transform rejects its results."""
        if context.rollback is None:
            return
        with tf.control_dependencies(tensors_in(result)):
            for transform in self._observers.transforms:
                if (allowed := transform.should_keep(context)) is not None:
                    context.rollback.unless(allowed)
