"""Gradient transform that skips bad train steps and records their statistics."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from gradkeeper.callbacks.capsule.state import state_of
from gradkeeper.callbacks.guard.bell import Bell
from gradkeeper.callbacks.guard.event import GuardEvent
from gradkeeper.callbacks.guard.keeper import GraphKeeper, HostKeeper, Kept
from gradkeeper.callbacks.guard.notebook import Facts, Notebook
from gradkeeper.callbacks.guard.replica_gate import GateOptions, Note, ReplicaGate
from gradkeeper.callbacks.tap.branch import when
from gradkeeper.callbacks.tap.gating import Undoing
from gradkeeper.callbacks.tap.pairs import pairs_of
from gradkeeper.callbacks.tap.probe import Application, Gradients, Stage
from gradkeeper.callbacks.tap.replica import Replica
from gradkeeper.callbacks.tap.site import may_have_functions
from gradkeeper.callbacks.tap.values import mean_loss, with_values


@dataclass(frozen=True)
class Glance:
    """Status of a gate between two train steps.

    Attributes:
        steps: number of train steps so far.
        has_noted: True if a bad step was recorded since the last `drain`.
        has_halted: True if the gate skips every step until `resume`.
    """

    steps: int
    has_noted: bool
    has_halted: bool


class Gate(Stage):
    """Gradient transform that skips a train step with a non-finite value on any replica.

    Gradients, loss, learning rate, moving averages and layer states are checked before the
    update. Variables and optimizer are checked after an update that may be non-finite.

    With a `LossScaleOptimizer`, gradients overflow occasionally, and the optimizer skips these
    steps. The gate checks them only if the loss is non-finite as well or the scale is below 1.

    Args:
        options: the conditions under which a step is skipped.
        model: the model.
        optimizers: the optimizers whose calls are checked; None for all.
        compiled: whether XLA compiles the whole train step.
    """

    def __init__(
        self,
        options: GateOptions,
        model: keras.Model,
        *,
        optimizers: tuple[keras.optimizers.Optimizer, ...] | None = None,
        compiled: bool = False,
    ) -> None:
        super().__init__(optimizers)
        self._compiled = compiled
        self.options = options
        self.holds_batches = (
            compiled
            and options.can_keep(compiled)
            and (options.keeps_batch or options.outruns_host)
        )
        self._model = weakref.ref(model)
        self._has_functions = may_have_functions(model.train_step)
        self._sides: dict[int, ReplicaGate] = {}
        self._notebook = Notebook(model)
        self._bell = Bell()
        self._drained = 0
        self._in_graph: GraphKeeper | None = None
        self._on_host: HostKeeper | None = None
        if options.can_keep(compiled) and compiled:
            self._on_host = HostKeeper(keeps_batch=options.keeps_batch)
        elif options.can_keep(compiled):
            state_is_lost = not options.refuses or options.outruns_host
            self._in_graph = GraphKeeper(keeps_batch=options.keeps_batch, keeps_state=state_is_lost)

    @property
    def may_have_noted(self) -> bool:
        """Return True if a skipped step may be pending."""
        return self._bell.may_have_rung

    def glance(self) -> Glance:
        """Return the status. Blocks until the running steps have finished."""
        self._bell.be_still()
        counts = [side.tally.on_host() for side in self._sides.values()]
        noted = min((each.noted for each in counts), default=0)
        return Glance(
            steps=max((each.seen for each in counts), default=0),
            has_noted=noted > self._drained,
            has_halted=any(each.halted for each in counts),
        )

    def begin_anew(self) -> None:
        """Discard the recorded steps, and stop skipping every step."""
        self.drain()
        self.resume()

    def resume(self) -> None:
        """Stop skipping every step."""
        for side in self._sides.values():
            side.tally.resume()

    def let_go(self, glance: Glance) -> None:
        """Release the batches of good steps."""
        if self._on_host is not None:
            self._on_host.let_go(glance.steps)

    def drain(self) -> tuple[list[GuardEvent], int, Kept | None]:
        """Return the steps recorded since the last call, and clear the log.

        Returns:
            The events that the log still holds (steps counted from the gate's first step), the
            number of all recorded steps, and the captured data of one of them.
        """
        events, count = self._notebook.drain()
        self._drained += count
        kept = None
        if self._in_graph is not None:
            kept = self._in_graph.take()
        elif self._on_host is not None:
            kept = self._on_host.take(events[0].step) if events else None
            self.let_go(self.glance())
        return events, count, kept

    def hold(self, batch: Any) -> None:
        keeper, model = self._on_host, self._model()
        assert keeper is not None
        assert model is not None
        if self.options.outruns_host and keeper.holds_any and keeper.state is None:
            # A skipped step changes no variable, so this is the state from before the step.
            keeper.state = state_of(model) if self._notebook.has_unread else None
        keeper.hold(batch)

    def step_begin(self, replica: Replica, data: Any) -> None:
        if replica.index not in self._sides:
            device = replica.home(compiled=self._compiled)
            self._sides[replica.index] = ReplicaGate(
                self.options, device, has_functions=self._has_functions
            )
            self._notebook.open(replica, device)
        self._sides[replica.index].begin_step()
        if not self._is_plain_call or tf.distribute.has_strategy():
            self._bell.cannot_ring()
        if self._in_graph is not None:
            self._in_graph.step_begin(replica, data, self._model())

    def loss(self, replica: Replica, value: Any) -> None:
        self._sides[replica.index].loss.hold(mean_loss(value))

    def may_undo_update(self, application: Application) -> bool:
        if not self.asks_about(application.optimizer):
            return False
        return self._sides[application.replica.index].holds_weights(application)

    def allows(self, application: Application, gradients: Gradients) -> tf.Tensor | None:
        pairs = pairs_of(gradients, application.variables)
        if not pairs or not self.asks_about(application.optimizer):
            return None
        self.has_seen_gradients = True
        replica = application.replica
        # A function that the step calls cannot read the step's batch: see `step_end`.
        note = self._note(replica, keeps=not self._has_functions)
        return self._sides[replica.index].allows(application, pairs, note)

    def accepts(self, replica: Replica, undoing: Undoing) -> tf.Tensor | None:
        note = self._note(replica, keeps=not self._has_functions)
        return self._sides[replica.index].accepts(replica, undoing, note)

    def handed_on(self, application: Application, gradients: Gradients) -> Gradients:
        finite = self._sides[application.replica.index].gradients_are_finite
        is_scaled = isinstance(application.optimizer, keras.optimizers.LossScaleOptimizer)
        if not is_scaled or application.replica.count == 1 or finite is None:
            return gradients

        # Keras checks only the first replica's gradients.
        def or_nan(values: tf.Tensor) -> tf.Tensor:
            nan = values.dtype.as_numpy_dtype("nan")
            return values * tf.where(finite, tf.ones([], values.dtype), nan)

        return [with_values(gradient, or_nan) for gradient in gradients]

    def step_end(self, replica: Replica, done: Sequence[tf.Tensor]) -> None:
        side, keeper = self._sides[replica.index], self._in_graph
        with tf.control_dependencies(done):
            if keeper is not None and self._has_functions:
                counts = side.tally.in_graph()
                when(counts.noted > side.noted, lambda: keeper.keep(replica, counts.seen))
            side.tally.count_step()

    @property
    def _is_plain_call(self) -> bool:
        """Return True if Python or TensorFlow's executor runs the whole step, without XLA."""
        return self.is_called_by_keras and not self._compiled and not self._has_functions

    def _note(self, replica: Replica, *, keeps: bool) -> Note:
        """Return a function that records a bad step of the replica, in the graph."""

        def note(variables: list[Any], measured: tf.Tensor | None, facts: Facts) -> None:
            self._notebook.write(replica, variables, measured, facts)
            if self._in_graph is not None and keeps:
                self._in_graph.keep(replica, facts.step)
            self._bell.ring()

        return note
