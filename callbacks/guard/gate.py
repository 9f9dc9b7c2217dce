"""The stage of the train step that refuses bad gradients, and notes what they were like."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.capsule.state import state_of
from gradkeeper.callbacks.guard.bell import Bell
from gradkeeper.callbacks.guard.event import GuardEvent
from gradkeeper.callbacks.guard.keeper import GraphKeeper, HostKeeper, Kept
from gradkeeper.callbacks.guard.loss import HeldLoss, PassedLoss, StepLoss
from gradkeeper.callbacks.guard.notebook import CAUSES, Notebook
from gradkeeper.callbacks.guard.tally import Counts, Tally
from gradkeeper.callbacks.guard.trigger import Judgement, Trigger
from gradkeeper.callbacks.tap.branch import when
from gradkeeper.callbacks.tap.finite import all_finite, statistics_if
from gradkeeper.callbacks.tap.gating import everywhere
from gradkeeper.callbacks.tap.measure import l2_norms
from gradkeeper.callbacks.tap.pairs import pairs_of, summed_over_replicas
from gradkeeper.callbacks.tap.probe import Application, Gradients, Stage
from gradkeeper.callbacks.tap.replica import Replica
from gradkeeper.callbacks.tap.site import may_have_functions
from gradkeeper.callbacks.tap.values import mean_loss, with_values


@dataclass(frozen=True)
class GateOptions:
    """Gates with equal options can stand in for one another.

    Attributes:
        refuses: whether bad steps are refused; otherwise they are noted only.
        halts_after: bad steps in a row after which every step is refused until the host has
            had its say; 0 for never.
        checks_loss: whether a loss that is not finite makes a step bad by itself.
        trigger: what else does; None for nothing.
        keeps: whether bad steps are kept for a capsule.
        keeps_batch: whether their batches are.
        outruns_host: whether a bad step may be followed by others before the host can look.
    """

    refuses: bool
    halts_after: int
    checks_loss: bool
    trigger: Trigger | None
    keeps: bool = False
    keeps_batch: bool = True
    outruns_host: bool = False

    def can_keep(self, compiled: bool) -> bool:
        """Whether bad steps are kept: what XLA overwrites in a step that is taken is lost."""
        return self.keeps and (self.refuses or not compiled)


@dataclass(frozen=True)
class Glance:
    """How things stand between two steps.

    Attributes:
        steps: train steps seen so far.
        has_noted: whether a bad one was noted since the last `drain`.
        has_halted: whether every step is refused by now.
    """

    steps: int
    has_noted: bool
    has_halted: bool


@dataclass
class _Side:
    """What one replica counts. Each sees the same flags, so that all of them agree."""

    tally: Tally
    judgement: Judgement | None
    loss: StepLoss
    spread: tf.Tensor | None = None
    noted: tf.Tensor | None = None


class Gate(Stage):
    """Refuses a train step whose gradients are not finite on any replica.

    Where a `LossScaleOptimizer` scales the loss, gradients overflow now and then, and it skips
    such a step by itself: that is left to it, unless the loss is not finite either, or the
    scale has come down below 1.

    Args:
        options: what is refused.
        model: the model.
        optimizers: whose calls are looked at; None for all that are seen.
        compiled: whether XLA compiles the train step as a whole.
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
        self._sides: dict[int, _Side] = {}
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
        """Whether a look is worth its time: a bad step was noted, or it cannot be told."""
        return self._bell.may_have_rung

    def glance(self) -> Glance:
        """How things stand; waits for the steps under way."""
        self._bell.be_still()
        counts = [side.tally.on_host() for side in self._sides.values()]
        noted = min((each.noted for each in counts), default=0)
        return Glance(
            steps=max((each.seen for each in counts), default=0),
            has_noted=noted > self._drained,
            has_halted=any(each.halted for each in counts),
        )

    def begin_anew(self) -> None:
        """Forgets what was noted, and refuses bad steps only."""
        self.drain()
        self.resume()

    def resume(self) -> None:
        """Takes steps again after a halt."""
        for side in self._sides.values():
            side.tally.resume()

    def let_go(self, glance: Glance) -> None:
        """Holds no batches any more of steps that were good."""
        if self._on_host is not None:
            self._on_host.let_go(glance.steps)

    def drain(self) -> tuple[list[GuardEvent], int, Kept | None]:
        """What was noted since the last call, steps counted from the gate's first.

        Returns:
            The events that are known in full, how many there were in all, and what was kept of
            one of them.
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
            # A step that was refused has left no trace: the state is still that from before it.
            keeper.state = state_of(model) if self._notebook.has_unread else None
        keeper.hold(batch)

    def step_begin(self, replica: Replica, data: Any) -> None:
        if replica.index not in self._sides:
            device = replica.home(compiled=self._compiled)
            self._sides[replica.index] = self._new_side(device)
            self._notebook.open(replica, device)
        side = self._sides[replica.index]
        side.loss.begin_step()
        if not self._is_plain_call or tf.distribute.has_strategy():
            self._bell.cannot_ring()
        if self._in_graph is not None:
            self._in_graph.step_begin(replica, data, self._model())
            side.noted = side.tally.in_graph().noted if self._has_functions else None

    def loss(self, replica: Replica, value: Any) -> None:
        self._sides[replica.index].loss.hold(mean_loss(value, tf.float32))

    def allows(self, application: Application, gradients: Gradients) -> tf.Tensor | None:
        pairs = pairs_of(gradients, application.variables)
        if not pairs or not self.asks_about(application.optimizer):
            return None
        self.has_seen_gradients = True
        gradients = [gradient for gradient, _ in pairs]
        variables = [variable for _, variable in pairs]
        replica, side = application.replica, self._sides[application.replica.index]
        finite = side.spread = everywhere(all_finite(gradients), replica)
        loss, sound = side.loss.value, everywhere(side.loss.is_sound, replica)
        bad = self._is_bad(application, finite, sound)
        norm, too_large = tf.constant(np.nan), tf.constant(False)
        if side.judgement is not None:
            norm = _global_norm(application, gradients)
            too_large = finite & ~bad & side.judgement.refuses(norm)
        refused = bad | too_large
        counts = side.tally.in_graph()
        halted = counts.halted > 0
        cause = tf.where(too_large, CAUSES.index("norm"), tf.where(finite, CAUSES.index("loss"), 0))
        facts = [counts.seen, cause, loss, norm]
        measured = statistics_if(refused, gradients, application.scale)

        def note() -> None:
            self._notebook.write(replica, variables, measured, facts)
            if self._in_graph is not None and side.noted is None:
                self._in_graph.keep(replica, counts.seen)
            self._bell.ring()

        def count() -> None:
            is_noted = refused & ~halted
            when(is_noted, note)
            in_a_row = tf.where(refused, counts.in_a_row + 1, 0)
            halts = halted
            if self.options.refuses and self.options.halts_after:
                halts |= in_a_row >= self.options.halts_after
            noted = counts.noted + tf.cast(is_noted, tf.int64)
            side.tally.write(Counts(counts.seen, noted, in_a_row, halts))

        with tf.control_dependencies([halted]):
            # As long as nothing was bad, there is nothing to count.
            when(refused | (counts.in_a_row > 0), count)
        judgement = side.judgement
        if judgement is not None:
            when(finite & ~refused & ~halted, lambda: judgement.learn(norm))
        return ~refused & ~halted if self.options.refuses else None

    def handed_on(self, application: Application, gradients: Gradients) -> Gradients:
        spread = self._sides[application.replica.index].spread
        is_scaled = isinstance(application.optimizer, keras.optimizers.LossScaleOptimizer)
        if not is_scaled or application.replica.count == 1 or spread is None:
            return gradients

        # Keras asks the first replica alone whether its gradients are finite.
        def or_nan(values: tf.Tensor) -> tf.Tensor:
            nan = values.dtype.as_numpy_dtype("nan")
            return values * tf.where(spread, tf.ones([], values.dtype), nan)

        return [with_values(gradient, or_nan) for gradient in gradients]

    def step_end(self, replica: Replica, done: Sequence[tf.Tensor]) -> None:
        side, keeper = self._sides[replica.index], self._in_graph
        with tf.control_dependencies(done):
            if keeper is not None and side.noted is not None:
                # What the step has been given is known out here, and not in functions of its own.
                counts = side.tally.in_graph()
                when(counts.noted > side.noted, lambda: keeper.keep(replica, counts.seen))
            side.tally.count_step()

    @property
    def _is_plain_call(self) -> bool:
        """Whether nothing but Python and TensorFlow's executor runs the step: no XLA anywhere."""
        return self.is_called_by_keras and not self._compiled and not self._has_functions

    def _is_bad(self, application: Application, finite: tf.Tensor, sound: tf.Tensor) -> tf.Tensor:
        """Whether something is not finite that should be."""
        bad = ~finite
        if isinstance(application.optimizer, keras.optimizers.LossScaleOptimizer):
            scale = tf.cast(tf.convert_to_tensor(application.scale), tf.float32)
            bad &= ~sound | (scale < 1.0)
        return bad | ~sound if self.options.checks_loss else bad

    def _new_side(self, device: str | None) -> _Side:
        trigger = self.options.trigger
        return _Side(
            tally=Tally(device),
            judgement=None if trigger is None else trigger.begin(device),
            loss=HeldLoss(device) if self._has_functions else PassedLoss(),
        )


def _global_norm(application: Application, gradients: Gradients) -> tf.Tensor:
    """The norm of the gradient of the global batch, before any clipping."""
    if application.replica.count > 1:
        gradients = summed_over_replicas(gradients)
    norm = tf.norm(l2_norms(gradients, tf.float32))
    if application.scale is None:
        return norm
    return norm / tf.cast(tf.convert_to_tensor(application.scale), norm.dtype)
