"""The optimizer call that a replica makes, and the state of the replica's train step."""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from gradkeeper.callbacks.instrument.optimizers import Clipping
from gradkeeper.callbacks.instrument.replica import Replica
from gradkeeper.callbacks.instrument.rollback import StateRollback

Gradients: TypeAlias = list[Any]
Variables: TypeAlias = list[Any]


@dataclass
class OptimizerCall:
    """One outermost call of an optimizer's `apply`, while the call is traced or run.

    Attributes:
        optimizer: the optimizer that the train step called.
        variables: the variables of the call, one per gradient.
        replica: the replica that made the call.
        round: number of earlier calls in this train step for some of these variables.
        scale: the factor of the loss, and so of each gradient; None for 1.
        clipping: the name of the optimizer's own clipping argument; None without clipping.
        is_plain: whether the given gradients are applied unchanged in every step.
        accumulates: whether the optimizer accumulates gradients over several steps.
        lacks_loss_scaling: whether the optimizer divides by a `scale` that the loss was not multiplied
            by.
        clippings: number of clipping calls of Keras optimizers in this call so far. Each nested
            optimizer clips a part of the variables.
        weights: the values of the variables before the call, if an observer requested them.
        allowed: whether the gradients are applied, a boolean scalar; None if no gradient transform
            decides.
        measured: tensors that observers have computed from the gradients of this replica.
        rollback: rollback to the values before the step; None outside of a model's train step.
    """

    optimizer: keras.optimizers.Optimizer
    variables: Variables
    replica: Replica
    round: int
    scale: Any
    clipping: Clipping | None
    is_plain: bool
    accumulates: bool
    lacks_loss_scaling: bool = False
    clippings: int = 0
    weights: list[tf.Tensor] = field(default_factory=list)
    allowed: tf.Tensor | None = None
    measured: list[tf.Tensor] = field(default_factory=list)
    rollback: StateRollback | None = None


GradAndVar: TypeAlias = tuple[Any, Any]


def pair_with_variables(gradients: Gradients, variables: Variables) -> list[GradAndVar]:
    """Return the gradients that can be measured, each with its variable."""
    return [
        (gradient, variable)
        for gradient, variable in zip(gradients, variables, strict=False)
        if isinstance(gradient, (tf.Tensor, tf.IndexedSlices))
    ]


def sum_over_replicas(gradients: Gradients) -> Gradients:
    """Return the gradients summed over all replicas, on each replica."""
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, gradients) if gradients else []


@dataclass
class ReplicaStepState:
    """State of a replica within its train step.

    The state is kept per replica and not per thread, because a strategy runs parts of one step in
    other threads.
    """

    steps: int = 0
    call: OptimizerCall | None = None
    clipped_variables: list[Variables] = field(default_factory=list)
    rounds: dict[int, list[set[int]]] = field(default_factory=dict)
    rollback: StateRollback | None = None

    def round(self, optimizer: keras.optimizers.Optimizer, variables: Variables) -> int:
        """Return the number of earlier calls in this step for some of the same variables."""
        rounds = self.rounds.setdefault(id(optimizer), [])
        keys = {id(variable) for variable in variables}
        for number, seen in enumerate(rounds):
            if not seen & keys:
                seen |= keys
                return number
        rounds.append(keys)
        return len(rounds) - 1
