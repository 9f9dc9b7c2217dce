"""Interfaces of step observers and gradient transforms."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import keras
import tensorflow as tf

from gradkeeper.callbacks.tap.gating import Undoing
from gradkeeper.callbacks.tap.optimizers import Clipping
from gradkeeper.callbacks.tap.replica import Replica

Gradients: TypeAlias = list[Any]
Variables: TypeAlias = list[Any]


@dataclass
class Application:
    """One outermost call of an optimizer's `apply`, while the call is traced or run.

    Attributes:
        optimizer: the optimizer that the train step called.
        variables: the variables of the call, one per gradient.
        replica: the replica that made the call.
        turn: number of earlier calls in this train step for some of these variables.
        scale: the factor of the loss, and so of each gradient; None for 1.
        clipping: the name of the optimizer's own clipping argument; None without clipping.
        is_plain: whether the given gradients are applied unchanged in every step.
        accumulates: whether the optimizer accumulates gradients over several steps.
        misses_scale: whether the optimizer divides by a `scale` that the loss was not multiplied
            by.
        clippings: number of clipping calls of Keras optimizers in this call so far. Each nested
            optimizer clips a part of the variables.
        weights: the values of the variables before the call, if an observer requested them.
        allowed: whether the gradients are applied, a boolean scalar; None if no gradient transform
            decides.
        measured: tensors that observers have computed from the gradients of this replica.
        undoing: rollback to the values before the step; None outside of a model's train step.
    """

    optimizer: keras.optimizers.Optimizer
    variables: Variables
    replica: Replica
    turn: int
    scale: Any
    clipping: Clipping | None
    is_plain: bool
    accumulates: bool
    misses_scale: bool = False
    clippings: int = 0
    weights: list[tf.Tensor] = field(default_factory=list)
    allowed: tf.Tensor | None = None
    measured: list[tf.Tensor] = field(default_factory=list)
    undoing: Undoing | None = None


class Probe:
    """Base class of step observers.

    Every method is called while the step is traced or run eagerly. Each gradient belongs to the
    variable at the same position. A gradient is None if the loss does not depend on the variable.
    Gradients have the values that the optimizer receives: they are not divided by `scale`.
    """

    def step_begin(self, replica: Replica, data: Any) -> None:
        """Called before the model's `train_step`; outside of one, before each `apply`.

        Args:
            replica: the replica whose step begins.
            data: the argument of `train_step`; None outside of one.
        """

    def loss(self, replica: Replica, value: Any) -> None:
        """Called with the loss of the train step.

        Args:
            replica: the replica that computed the loss.
            value: the return value of the model's `compute_loss`, during the step. If the step does
                not call `compute_loss`, the losses in the logs that the step returns, at the end of
                the step; None if the logs have no loss.
        """

    def mask_ends(self, layer: keras.layers.Layer) -> None:
        """Called with a layer that uses the mask of its input and does not pass the mask on."""

    def before(self, application: Application, gradients: Gradients) -> None:
        """Called with the gradients that the train step passes to the optimizer."""

    def clipped(
        self, application: Application, entered: Gradients, left: Gradients, variables: Variables
    ) -> None:
        """Called with the gradients before and after the optimizer's clipping."""

    def reduced(self, application: Application, gradients: Gradients, variables: Variables) -> None:
        """Called with the gradients that are applied, summed over all replicas."""

    def refused(self, application: Application, gradients: Gradients) -> None:
        """Called on each of several replicas with its gradients if they are not applied.

        In this case, the gradients are not summed over replicas, because the sum is a part of
        `apply`.
        """

    def after(self, application: Application) -> None:
        """Called after `apply` has returned."""

    def step_end(self, replica: Replica, done: Sequence[tf.Tensor]) -> None:
        """Called after the model's `train_step`; outside of one, after each `apply`.

        Args:
            replica: the replica whose step ends.
            done: tensors that are computed only if the step has a batch and completes. TensorFlow
                also runs operations that do not depend on them if the batch is missing.
        """


class Owner(Protocol):
    """Reader of an observer's records."""

    def flush(self) -> None:
        """Read the pending records."""


class Stopwatch(Protocol):
    """Timer of the calls of the train function."""

    def call_begins(self, probe: Any) -> None:
        """Called before each call of the train function."""

    def call_ends(self, probe: Any) -> None:
        """Called after the train function has returned."""


class Shared(Probe):
    """Observer that callbacks with equal options reuse, one after the other.

    A later callback therefore does not trace the step again. The records belong to the current
    owner; see `claim`.

    Attributes:
        has_seen_gradients: whether an optimizer was called in a train step that was traced or run.
        optimizers: the optimizers whose calls are observed; None for all.
        stopwatch: timer of the calls of the train function; None without one.
        is_called_by_keras: whether Keras's own train function calls the train step, and no user
            function wraps that train function.
    """

    def __init__(self, optimizers: tuple[keras.optimizers.Optimizer, ...] | None = None) -> None:
        self.has_seen_gradients = False
        self.optimizers = optimizers
        self.stopwatch: Stopwatch | None = None
        self.is_called_by_keras = False
        self._owner: weakref.ref[Owner] | None = None

    def claim(self, owner: Owner) -> bool:
        """Transfer ownership to `owner`, after flushing pending records to the previous owner.

        Returns:
            True if the owner has changed.
        """
        before = self._owner() if self._owner else None
        if before is owner:
            return False
        if before is not None:
            before.flush()
        self._owner = weakref.ref(owner)
        self.stopwatch = None
        self.begin_anew()
        return True

    def asks_about(self, optimizer: keras.optimizers.Optimizer) -> bool:
        """Return True if calls of the optimizer are observed."""
        return self.optimizers is None or any(optimizer is each for each in self.optimizers)

    def is_read_by(self, owner: Owner | None) -> bool:
        """Return True if `owner` is the current owner."""
        return self._owner is not None and self._owner() is owner

    def begin_anew(self) -> None:
        """Discard the records."""


class Stage(Shared):
    """Observer that can change or reject gradients.

    Attributes:
        clips: whether `clipped_first` changes gradients.
        clips_the_sum: whether the optimizer's own clipping acts on the sum of the gradients over
            all replicas, instead of each replica's gradients.
        holds_batches: whether `hold` is called. Python then starts each step of an execution
            separately.
    """

    clips = False
    clips_the_sum = False
    holds_batches = False

    def hold(self, batch: Any) -> None:
        """Called with each batch before the batch's step begins; not in the graph."""

    def allows(self, application: Application, gradients: Gradients) -> tf.Tensor | None:
        """Return whether to apply the gradients, the same on every replica; None to apply them.

        A step with rejected gradients changes no weights, optimizer variables, moving averages,
        metrics or random seeds.
        """

    def may_undo_update(self, application: Application) -> bool:
        """Return True if `accepts` may reject the step after this call's update is applied.

        The values of variables and optimizer from before the update are then stored.
        """
        return False

    def accepts(self, replica: Replica, undoing: Undoing) -> tf.Tensor | None:
        """Return whether to keep the results of the finished step; None to keep them.

        The answer is the same on every replica. The method is called before `step_end`. If the
        answer is False, all variables that `undoing` holds are restored.
        """

    def handed_on(self, application: Application, gradients: Gradients) -> Gradients:
        """Return the gradients to apply instead of this replica's.

        Called only if the gradients are applied.
        """
        return gradients

    def clipped_first(
        self, application: Application, gradients: Gradients, variables: Variables
    ) -> Gradients:
        """Return the gradients to pass to the optimizer's own clipping instead of this replica's.

        The given gradients are those of an update: accumulated, divided by the loss scale, and of a
        step that is not skipped.
        """
        return gradients
