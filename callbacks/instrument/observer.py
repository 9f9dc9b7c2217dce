"""Interfaces of step observers and gradient transforms."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from gradkeeper.callbacks.instrument.layer_outputs import LayerOutput
from gradkeeper.callbacks.instrument.ownership import Owned
from gradkeeper.callbacks.instrument.step_context import (
    Gradients,
    OptimizerCall,
    StepContext,
    Variables,
)


class StepObserver:
    """Base class of step observers.

    Every method is called while the step is traced or run eagerly. Each gradient belongs to the
    variable at the same position. A gradient is None if the loss does not depend on the variable.
    Gradients have the values that the optimizer receives: they are not divided by `scale`.

    Attributes:
        reads_loss: whether the observer reads `StepContext.loss`.
        reads_outputs: whether `on_output` and `on_hidden_outputs` are called.
    """

    reads_loss = False
    reads_outputs = False

    def on_step_begin(self, context: StepContext, data: Any) -> None:
        """Called before the model's `train_step`; outside of one, before each `apply`.

        Args:
            context: the step that begins.
            data: the argument of `train_step`; None outside of one.
        """

    def on_loss(self, context: StepContext, value: Any) -> None:
        """Called with the loss of the train step.

        Args:
            context: the step.
            value: the return value of the model's `compute_loss`, during the step. If the step does
                not call `compute_loss`, the losses in the logs that the step returns, at the end of
                the step; None if the logs have no loss.
        """

    def on_mask_lost(
        self, layers: Sequence[keras.layers.Layer], user: keras.layers.Layer | None
    ) -> None:
        """Called with layers that do not pass the masks of their inputs on to their user.

        Args:
            layers: the layers.
            user: the later layer that would use the masks; None for the loss.
        """

    def on_output(self, context: StepContext, output: LayerOutput) -> None:
        """Called with each tensor that a layer returns in the forward pass of a train step."""

    def on_predictions(self, context: StepContext, predictions: Sequence[tf.Tensor]) -> None:
        """Called with the tensors whose loss `compute_loss` has computed, after its return."""

    def on_hidden_outputs(self, path: str) -> None:
        """Called with the path of a layer whose outputs the graph of the step cannot read."""

    def on_gradients(self, call: OptimizerCall, gradients: Gradients) -> None:
        """Called with the gradients that the train step passes to the optimizer."""

    def on_clip(
        self, call: OptimizerCall, entered: Gradients, left: Gradients, variables: Variables
    ) -> None:
        """Called with the gradients before and after the optimizer's clipping."""

    def on_reduce(self, call: OptimizerCall, gradients: Gradients, variables: Variables) -> None:
        """Called with the gradients that are applied, summed over all replicas."""

    def on_skip(self, call: OptimizerCall, gradients: Gradients) -> None:
        """Called on each of several replicas with its gradients if they are not applied.

        In this case, the gradients are not summed over replicas, because the sum is a part of
        `apply`.
        """

    def on_update(self, call: OptimizerCall) -> None:
        """Called after `apply` has returned."""

    def on_step_end(self, context: StepContext, done: Sequence[tf.Tensor]) -> None:
        """Called after the model's `train_step`; outside of one, after each `apply`.

        Args:
            context: the step that ends.
            done: tensors that are computed only if the step has a batch and completes. TensorFlow
                also runs operations that do not depend on them if the batch is missing.
        """


class ReusableObserver(StepObserver, Owned):
    """Step observer that callbacks with equal options reuse, one after the other."""

    def for_next_call(self) -> "ReusableObserver":
        """Return the observer of the train steps in the next call of the train function.

        The train function is traced for each observer that this method returns.
        """
        return self


class GradientTransform(ReusableObserver):
    """Observer that can change or reject gradients.

    Attributes:
        clips: whether `transform_before_clip` changes gradients.
        clips_after_reduce: whether the optimizer's own clipping acts on the sum of the gradients
            over all replicas, instead of each replica's gradients.
        needs_batches: whether `on_batch` is called. Python then starts each step of an execution
            separately.
    """

    clips = False
    clips_after_reduce = False
    needs_batches = False

    def on_batch(self, batch: Any) -> None:
        """Called with each batch before the batch's step begins; not in the graph."""

    def should_apply(self, call: OptimizerCall, gradients: Gradients) -> tf.Tensor | None:
        """Return whether to apply the gradients, the same on every replica; None to apply them.

        A step with rejected gradients changes no weights, optimizer variables, moving averages,
        metrics or random seeds.
        """

    def may_undo_update(self, call: OptimizerCall) -> bool:
        """Return True if `should_keep` may reject the step after this call's update is applied.

        The values of variables and optimizer from before the update are then stored.
        """
        return False

    def should_keep(self, context: StepContext) -> tf.Tensor | None:
        """Return whether to keep the results of the finished step; None to keep them.

        The answer is the same on every replica. The method is called before `on_step_end`. If the
        answer is False, all variables that `context.rollback` holds are restored.
        """

    def transform(self, call: OptimizerCall, gradients: Gradients) -> Gradients:
        """Return the gradients to apply instead of this replica's.

        Called only if the gradients are applied.
        """
        return gradients

    def transform_before_clip(
        self, call: OptimizerCall, gradients: Gradients, variables: Variables
    ) -> Gradients:
        """Return the gradients to pass to the optimizer's own clipping instead of this replica's.

        The given gradients are those of an update: accumulated, divided by the loss scale, and of a
        step that is not skipped.
        """
        return gradients


class Observers:
    """The observers of a train step.

    Args:
        observers: the observers.

    Attributes:
        transforms: the gradient transforms among them.
        read_loss: whether an observer reads `StepContext.loss`.
        read_outputs: whether an observer reads the outputs of layers.
    """

    def __init__(self, observers: Sequence[StepObserver]) -> None:
        self._observers = tuple(observers)
        self.transforms = tuple(each for each in observers if isinstance(each, GradientTransform))
        self.read_loss = any(each.reads_loss for each in observers)
        self.read_outputs = any(each.reads_outputs for each in observers)

    @tf.autograph.experimental.do_not_convert
    def notify(self, event: Callable[[StepObserver], None]) -> None:
        """Call `event` with each observer."""
        for observer in self._observers:
            event(observer)
