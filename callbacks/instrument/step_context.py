"""The train step of a replica and its optimizer calls, while they are traced or run."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.instrument.graph import Replica, TraceScope, make_variable
from gradkeeper.callbacks.instrument.optimizers import Clipping
from gradkeeper.callbacks.instrument.rollback import StateRollback

Gradients: TypeAlias = list[Any]
Variables: TypeAlias = list[Any]
GradAndVar: TypeAlias = tuple[Any, Any]

_UNKNOWN_LOSS = np.array([np.nan, 0.0])


class StepLoss:
    """The loss of a train step.

    A step that may call a `tf.function` carries the loss in a variable as well, because the graph
    of the step cannot read tensors of an inner graph.

    Args:
        device: the device of the variable; None for TensorFlow's choice.

    Attributes:
        latest: the last loss that was set in this trace of the step; None if there is none.
    """

    def __init__(self, device: str | None) -> None:
        self._device = device
        # The loss, and 1 if it is known.
        self._variable: tf.Variable | None = None
        # The variable, if this step uses it.
        self._carrier: tf.Variable | None = None
        self.latest: tf.Tensor | None = None
        self._scope: TraceScope | None = None

    def begin_step(self, *, in_variable: bool) -> None:
        """Mark the loss as unknown. `in_variable` states whether a variable carries it."""
        self.latest = self._carrier = None
        if in_variable:
            if self._variable is None:
                self._variable = make_variable(_UNKNOWN_LOSS, self._device)
            self._carrier = self._variable
            self._carrier.assign(_UNKNOWN_LOSS)

    def set(self, loss: tf.Tensor) -> None:
        """Set the loss, a scalar."""
        self.latest, self._scope = loss, TraceScope.current()
        if self._carrier is not None:
            self._carrier.assign(tf.stack([tf.cast(loss, tf.float64), 1.0]))

    @property
    def tensor(self) -> tf.Tensor | None:
        """Return the loss as a tensor; None if it is unknown or this graph cannot read it."""
        return self.latest if self._scope == TraceScope.current() else None

    @property
    def is_known(self) -> bool:
        """Return True if `set` was called in this trace of the step."""
        return self.latest is not None

    @property
    def may_be_known(self) -> bool:
        """Return False if no loss was set, and no `tf.function` can have set one."""
        return self.is_known or self._carrier is not None

    @property
    def value(self) -> tf.Tensor:
        """Return the loss, NaN if it is unknown."""
        if self._carrier is not None:
            return self._carrier[0]
        return tf.constant(np.nan, tf.float64) if self.latest is None else self.latest

    @property
    def is_ok(self) -> tf.Tensor:
        """Return whether the loss is finite or unknown, a boolean scalar."""
        if self._carrier is not None:
            value, is_known = tf.unstack(self._carrier.read_value())
            return tf.math.is_finite(value) | tf.equal(is_known, 0.0)
        return tf.constant(True) if self.latest is None else tf.math.is_finite(self.latest)


class StepContext:
    """The train step of a replica.

    The context is kept per replica and not per thread, because a strategy runs parts of one step in
    other threads. All observers of a train function share it.

    Args:
        replica: the replica.
        device: the device for small variables; None for TensorFlow's choice.

    Attributes:
        replica: the replica.
        device: the device for small variables.
        loss: the loss of the step.
        depth: number of nested calls of `train_step`; 0 outside of a model's train step.
        call: the optimizer call under way; None outside of one.
        clipped_variables: the variables that reach Keras's clipping, for each nested call of
            `apply`.
        rollback: rollback to the values before the step; None outside of a model's train step.
        scope: the trace scope in which the step began.
        masks: tensors that entered a layer, with their masks, by `id` of the tensor.
    """

    def __init__(self, replica: Replica, device: str | None) -> None:
        self.replica, self.device = replica, device
        self.loss = StepLoss(device)
        self.depth = 0
        self.call: OptimizerCall | None = None
        self.clipped_variables: list[Variables] = []
        self.rollback: StateRollback | None = None
        self.scope: TraceScope | None = None
        self.masks: dict[int, tuple[Any, Any]] = {}
        self._rounds: dict[int, list[set[int]]] = {}

    def begin_step(self, *, loss_in_variable: bool = False) -> None:
        """Begin a step; see `StepLoss.begin_step`."""
        self.call, self.rollback = None, None
        self.scope, self.masks = TraceScope.current(), {}
        self.clipped_variables, self._rounds = [], {}
        self.loss.begin_step(in_variable=loss_in_variable)

    def next_round(self, optimizer: keras.optimizers.Optimizer, variables: Variables) -> int:
        """Return the number of earlier calls in this step for some of the same variables."""
        rounds = self._rounds.setdefault(id(optimizer), [])
        keys = {id(variable) for variable in variables}
        for number, seen in enumerate(rounds):
            if not seen & keys:
                seen |= keys
                return number
        rounds.append(keys)
        return len(rounds) - 1

    @cached_property
    def skip_flag(self) -> tf.Variable:
        """Return the variable that carries a skip out of functions that the step calls."""
        return make_variable(np.array(False), self.device)


class StepContexts:
    """The step contexts of the replicas of this process.

    Args:
        compiled: whether XLA compiles the whole train step.
    """

    def __init__(self, *, compiled: bool = False) -> None:
        self._compiled = compiled
        self._contexts: dict[int, StepContext] = {}

    def current(self) -> StepContext:
        """Return the context of the replica whose step is being traced or run."""
        replica = Replica.current()
        if replica.index not in self._contexts:
            device = replica.home(compiled=self._compiled)
            self._contexts[replica.index] = StepContext(replica, device)
        context = self._contexts[replica.index]
        context.replica = replica
        return context


@dataclass
class OptimizerCall:
    """One outermost call of an optimizer's `apply`, while the call is traced or run.

    Attributes:
        context: the train step that makes the call.
        optimizer: the optimizer that the train step called.
        variables: the variables of the call, one per gradient.
        round: number of earlier calls in this train step for some of these variables.
        scale: the factor of the loss, and so of each gradient; None for 1.
        clipping: the name of the optimizer's own clipping argument; None without clipping.
        is_plain: whether the given gradients are applied unchanged in every step.
        accumulates: whether the optimizer accumulates gradients over several steps.
        lacks_loss_scaling: whether the optimizer divides by a `scale` that the loss was not
            multiplied by.
        clippings: number of clipping calls of Keras optimizers in this call so far. Each nested
            optimizer clips a part of the variables.
        nested: number of calls of nested optimizers so far.
        weights: the values of the variables before the call, if an observer requested them, as
            tensors or variables.
        momenta: likewise the first moments, by `id` of the trained variable.
        allowed: whether the gradients are applied, a boolean scalar; None if no gradient transform
            decides.
        measured: tensors that observers have computed from the gradients of this replica.
    """

    context: StepContext
    optimizer: keras.optimizers.Optimizer
    variables: Variables
    round: int
    scale: Any
    clipping: Clipping | None
    is_plain: bool
    accumulates: bool
    lacks_loss_scaling: bool = False
    clippings: int = 0
    nested: int = 0
    weights: list[Any] = field(default_factory=list)
    momenta: dict[int, Any] = field(default_factory=dict)
    allowed: tf.Tensor | None = None
    measured: list[tf.Tensor] = field(default_factory=list)

    @property
    def replica(self) -> Replica:
        """Return the replica that makes the call."""
        return self.context.replica

    @property
    def is_left_out(self) -> bool:
        """Return True if an eager call may have applied no gradients: skipped, or accumulated.

        A graph contains the update of every step, also where it is conditional.
        """
        if not tf.executing_eagerly():
            return False
        if self.allowed is not None and not self.allowed:
            return True
        is_scaled = isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)
        return self.accumulates or (is_scaled and not self.nested)


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
