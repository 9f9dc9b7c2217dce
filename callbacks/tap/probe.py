"""What can be seen of a train step from inside, and who wants to see it."""

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
    """One outermost call of an optimizer's `apply`, while it is traced or run.

    Attributes:
        optimizer: the optimizer that the train step called.
        variables: what it was called for, one to one with the gradients.
        replica: the replica that called it.
        turn: how many calls in this train step had some of these variables before.
        scale: what the loss, and so each gradient, was multiplied with; None for 1.
        clipping: the optimizer's own clipping, by the name of its argument; None without.
        is_plain: whether what is handed to it is applied as it is, in every step.
        accumulates: whether it gathers gradients over several steps.
        misses_scale: whether the optimizer divides by a `scale` that the loss was not multiplied
            by.
        clippings: how many calls of a Keras optimizer's clipping it has led to so far; those
            of optimizers inside it are for a part of the variables each.
        weights: what the variables were before, if a probe asked.
        allowed: whether the gradients are applied, a boolean scalar; None where no stage has
            a say in that.
        measured: what has been read from the gradients of this replica.
        undoing: holds the values of variables from before the step; None outside of a model's
            train step.
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
    """What wants to see a train step from inside. Every method runs while the step is traced.

    Gradients and their variables come one to one; a gradient is None where the loss does not
    depend on the variable, and as it was handed over: not divided by `scale`.
    """

    def step_begin(self, replica: Replica, data: Any) -> None:
        """Called before the model's `train_step`; outside of one, before each `apply`.

        Args:
            replica: the replica whose step begins.
            data: what `train_step` is called with; None outside of one.
        """

    def loss(self, replica: Replica, value: Any) -> None:
        """Called with the loss of the train step.

        Args:
            replica: the replica whose loss it is.
            value: the return value of the model's `compute_loss`, in the middle of the step.
                If the step does not call `compute_loss`, the losses among the logs that the
                step returns, at the end of the step; None if there are none.
        """

    def mask_ends(self, layer: keras.layers.Layer) -> None:
        """Called with a layer that uses the mask of its input and does not pass it on."""

    def before(self, application: Application, gradients: Gradients) -> None:
        """Called with the gradients that the train step hands to the optimizer."""

    def clipped(
        self, application: Application, entered: Gradients, left: Gradients, variables: Variables
    ) -> None:
        """Called with the gradients before and after the optimizer's clipping."""

    def reduced(self, application: Application, gradients: Gradients, variables: Variables) -> None:
        """Called with the gradients that are applied; of all replicas, added up."""

    def refused(self, application: Application, gradients: Gradients) -> None:
        """Called under several replicas, with this one's gradients, where they are not applied.

        The adding up of all replicas' gradients, which is part of applying them, is left out then.
        """

    def after(self, application: Application) -> None:
        """Called when `apply` has returned."""

    def step_end(self, replica: Replica, done: Sequence[tf.Tensor]) -> None:
        """Called after the model's `train_step`; outside of one, after each `apply`.

        Args:
            replica: the replica whose step ends.
            done: tensors that are there only if the step came to its end, and not if its
                batch was none: TensorFlow runs what does not need them all the same.
        """


class Owner(Protocol):
    """Who reads what a probe has written."""

    def flush(self) -> None:
        """Reads what is there."""


class Stopwatch(Protocol):
    """Who wants to know how long the calls of the train function take."""

    def call_begins(self, probe: Any) -> None:
        """Called before the train function is."""

    def call_ends(self, probe: Any) -> None:
        """Called when it has returned."""


class Shared(Probe):
    """A probe that callbacks with the same wishes use one after the other.

    So a fresh callback traces nothing anew. What was written belongs to who claimed the probe.

    Attributes:
        has_seen_gradients: whether an optimizer was called in a train step that was traced or
            run.
        optimizers: whose calls are of interest; None for all that are seen.
        stopwatch: who wants to know how long the calls of the train function take.
        is_called_by_keras: whether the train function that Keras makes calls the train step, and
            no function of the user's stands around it.
    """

    def __init__(self, optimizers: tuple[keras.optimizers.Optimizer, ...] | None = None) -> None:
        self.has_seen_gradients = False
        self.optimizers = optimizers
        self.stopwatch: Stopwatch | None = None
        self.is_called_by_keras = False
        self._owner: weakref.ref[Owner] | None = None

    def claim(self, owner: Owner) -> bool:
        """Makes `owner` the reader of what is to come; a former one gets what is there first.

        Returns:
            Whether there has been another reader, or none.
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
        """Whether the optimizer's calls are of interest."""
        return self.optimizers is None or any(optimizer is each for each in self.optimizers)

    def is_read_by(self, owner: Owner | None) -> bool:
        """Whether `owner` has claimed the probe."""
        return self._owner is not None and self._owner() is owner

    def begin_anew(self) -> None:
        """Forgets what was written."""


class Stage(Shared):
    """A probe that also has a say in what is applied.

    Attributes:
        clips: whether it changes gradients by `clipped_first`.
        clips_the_sum: whether the optimizer's own clipping is to act on the gradients of all
            replicas added up, in place of each replica's.
        holds_batches: whether `hold` is to be called, for which each step of an execution is
            begun from Python.
    """

    clips = False
    clips_the_sum = False
    holds_batches = False

    def hold(self, batch: Any) -> None:
        """Called with each batch before its step begins; not in the graph."""

    def allows(self, application: Application, gradients: Gradients) -> tf.Tensor | None:
        """Whether the gradients may be applied, the same on every replica; None for yes.

        What is not applied leaves no trace: neither in the weights and the optimizer, nor in
        moving averages, metrics and random seeds.
        """

    def may_undo_update(self, application: Application) -> bool:
        """Return whether `accepts` may refuse the step after this call's update is applied.

        The values of variables and optimizer are then held from before the update.
        """
        return False

    def accepts(self, replica: Replica, undoing: Undoing) -> tf.Tensor | None:
        """Return whether the results of the finished step may stay, the same on every replica.

        Called before `step_end`. None stands for yes. If False, all that `undoing` holds is
        restored.
        """

    def handed_on(self, application: Application, gradients: Gradients) -> Gradients:
        """What the optimizer gets in place of this replica's gradients; called where it does."""
        return gradients

    def clipped_first(
        self, application: Application, gradients: Gradients, variables: Variables
    ) -> Gradients:
        """What the optimizer's own clipping gets in place of this replica's gradients.

        These are the ones to be applied: accumulated, divided by the loss scale, and of a step
        that is not skipped.
        """
        return gradients
