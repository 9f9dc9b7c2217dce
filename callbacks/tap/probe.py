"""What can be seen of a train step from inside, and who wants to see it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import keras
import tensorflow as tf

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
        clippings: how many calls of a Keras optimizer's clipping it has led to so far; those
            of optimizers inside it are for a part of the variables each.
        weights: what the variables were before, if a probe asked.
    """

    optimizer: keras.optimizers.Optimizer
    variables: Variables
    replica: Replica
    turn: int
    scale: Any
    clipping: Clipping | None
    is_plain: bool
    accumulates: bool
    clippings: int = 0
    weights: list[tf.Tensor] = field(default_factory=list)


class Probe:
    """What wants to see a train step from inside. Every method runs while the step is traced.

    Gradients and their variables come one to one; a gradient is None where the loss does not
    depend on the variable, and as it was handed over: not divided by `scale`.
    """

    def step_begin(self, replica: Replica) -> None:
        """Called before the model's `train_step`; outside of one, before each `apply`."""

    def loss(self, replica: Replica, value: Any) -> None:
        """Called with what the model's `compute_loss` returned in the train step."""

    def before(self, application: Application, gradients: Gradients) -> None:
        """Called with the gradients that the train step hands to the optimizer."""

    def clipped(
        self, application: Application, entered: Gradients, left: Gradients, variables: Variables
    ) -> None:
        """Called with the gradients before and after the optimizer's clipping."""

    def reduced(self, application: Application, gradients: Gradients, variables: Variables) -> None:
        """Called with the gradients that are applied; of all replicas, added up."""

    def after(self, application: Application) -> None:
        """Called when `apply` has returned."""

    def step_end(self, replica: Replica, done: Sequence[tf.Tensor]) -> None:
        """Called after the model's `train_step`; outside of one, after each `apply`.

        Args:
            replica: the replica whose step ends.
            done: tensors that are there only if the step came to its end, and not if its
                batch was none: TensorFlow runs what does not need them all the same.
        """
