"""The stage of the train step that refuses bad gradients, and notes what they were like."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.guard.event import Cause, GuardEvent
from gradkeeper.callbacks.guard.trigger import Judgement, Trigger
from gradkeeper.callbacks.tap.branch import branch, when
from gradkeeper.callbacks.tap.gating import everywhere
from gradkeeper.callbacks.tap.measure import l2_norms, statistics
from gradkeeper.callbacks.tap.names import variable_names
from gradkeeper.callbacks.tap.pairs import pairs_of, summed_over_replicas
from gradkeeper.callbacks.tap.probe import Application, Gradients, Stage
from gradkeeper.callbacks.tap.replica import Replica
from gradkeeper.callbacks.tap.ring import MISSING, Ring, make_variable
from gradkeeper.callbacks.tap.shadow import shadow

_CAUSES: tuple[Cause, ...] = ("gradient", "loss", "norm")
_FACTS = 4  # step, cause, loss, norm
_CAPACITY = 64


@dataclass(frozen=True)
class GateOptions:
    """Gates with equal options can stand in for one another.

    Attributes:
        refuses: whether bad steps are refused; otherwise they are noted only.
        halts_after: bad steps in a row after which every step is refused until the host has
            had its say; 0 for never.
        checks_loss: whether a loss that is not finite makes a step bad by itself.
        trigger: what else does; None for nothing.
    """

    refuses: bool
    halts_after: int
    checks_loss: bool
    trigger: Trigger | None


@dataclass
class _Side:
    """What one replica keeps. Each sees the same flags, so that all of them agree."""

    seen: tf.Variable
    noted: tf.Variable
    in_a_row: tf.Variable
    halted: tf.Variable
    judgement: Judgement | None
    device: str | None
    facts: Ring
    loss: tf.Tensor | None = None
    gradients: dict[tuple[int, ...], Ring] = field(default_factory=dict)
    spread: tf.Tensor | None = None


class Gate(Stage):
    """Refuses a train step whose gradients are not finite on any replica.

    Where a `LossScaleOptimizer` scales the loss, gradients overflow now and then, and it skips
    such a step by itself: that is left to it, unless the loss is not finite either, or the
    scale has come down below 1.

    Args:
        options: what is refused.
        model: gives the variables their names.
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
        self._model = weakref.ref(model)
        self._sides: dict[int, _Side] = {}
        self._names: dict[tuple[int, ...], tuple[str, ...]] = {}
        self._read = 0

    @property
    def steps(self) -> int:
        """Train steps seen so far; waits for those under way."""
        return int(self._sides[0].seen.numpy()) if self._sides else 0

    def begin_anew(self) -> None:
        """Forgets what was noted, and refuses bad steps only."""
        self.drain()
        self.resume()

    def resume(self) -> None:
        """Takes steps again after a halt."""
        for side in self._sides.values():
            side.halted.assign(False)
            side.in_a_row.assign(0)

    @property
    def has_halted(self) -> bool:
        """Whether every step is refused by now."""
        return bool(self._sides) and bool(self._sides[0].halted.numpy())

    def drain(self) -> tuple[list[GuardEvent], int]:
        """What was noted since the last call, steps counted from the gate's first.

        Returns:
            The events that are known in full, and how many there were in all.
        """
        if not self._sides:
            return [], 0
        sides = [self._sides[index] for index in sorted(self._sides)]
        end = min(int(side.noted.numpy()) for side in sides)
        count, self._read, begin = end - self._read, end, self._read
        kept = np.arange(max(begin, end - _CAPACITY), end)
        if not len(kept):
            return [], count
        slots = kept % _CAPACITY
        facts = sides[0].facts.read(slots)
        # Of a call's gradients, [sides][events, 3, variables].
        rows = {
            key: [side.gradients[key].read(slots).reshape(len(slots), 3, -1) for side in sides]
            for key in sides[0].gradients
        }
        events = [
            self._event(fact, {k: [s[i] for s in r] for k, r in rows.items()})
            for i, fact in enumerate(facts)
        ]
        for side in sides:
            for ring in side.gradients.values():
                ring.clear()
        return events, count

    def _event(self, fact: np.ndarray, rows: dict[tuple[int, ...], list[np.ndarray]]) -> GuardEvent:
        step, cause, loss, norm = fact
        # Of several calls in a step, the one that was refused has written its row.
        (key,) = (key for key, sides in rows.items() if not (sides[0] == MISSING).any())
        sides = np.stack(rows[key])
        return GuardEvent(
            step=int(step),
            cause=_CAUSES[int(cause)],
            loss=float(loss),
            norm=float(np.linalg.norm(sides[:, 0]) if np.isnan(norm) else norm),
            variables=self._names[key],
            norms=sides[:, 0],
            nonfinite=sides[:, 2].astype(np.int64),
        )

    def step_begin(self, replica: Replica) -> None:
        if replica.index not in self._sides:
            self._sides[replica.index] = self._new_side(replica)
        self._sides[replica.index].loss = None

    def loss(self, replica: Replica, value: Any) -> None:
        parts = [part for part in keras.tree.flatten(value) if tf.is_tensor(part)]
        if parts:
            means = [tf.cast(tf.reduce_mean(shadow(part)), tf.float32) for part in parts]
            self._sides[replica.index].loss = tf.add_n(means)

    def allows(self, application: Application, gradients: Gradients) -> tf.Tensor | None:
        named = self.optimizers
        if named is not None and all(application.optimizer is not each for each in named):
            return None
        pairs = pairs_of(gradients, application.variables)
        if not pairs:
            return None
        self.has_seen_gradients = True
        gradients = [gradient for gradient, _ in pairs]
        variables = [variable for _, variable in pairs]
        replica, side = application.replica, self._sides[application.replica.index]
        finite = everywhere(_is_finite(gradients), replica)
        side.spread = finite
        loss = tf.constant(0.0) if side.loss is None else side.loss
        sound = everywhere(tf.math.is_finite(loss), replica)
        bad = ~finite
        if isinstance(application.optimizer, keras.optimizers.LossScaleOptimizer):
            scale = tf.cast(tf.convert_to_tensor(application.scale), tf.float32)
            bad &= ~sound | (scale < 1.0)
        if self.options.checks_loss:
            bad |= ~sound
        norm, too_large = tf.constant(np.nan), tf.constant(False)
        if side.judgement is not None:
            norm = _global_norm(application, gradients)
            too_large = finite & ~bad & side.judgement.refuses(norm)
        refused = bad | too_large
        halted = side.halted.read_value()
        in_a_row = tf.where(refused, side.in_a_row + 1, 0)
        cause = tf.where(too_large, 2, tf.where(finite, 1, 0))
        facts = [side.seen.read_value(), cause, loss if side.loss is not None else np.nan, norm]
        measured = _statistics_if(refused, gradients, application.scale)
        with tf.control_dependencies([halted]):
            when(refused & ~halted, lambda: self._note(side, measured, variables, facts))
        judgement = side.judgement
        if judgement is not None:
            when(finite & ~refused & ~halted, lambda: judgement.learn(norm))
        side.in_a_row.assign(in_a_row)
        if not self.options.refuses:
            return None
        if self.options.halts_after:
            side.halted.assign(halted | (in_a_row >= self.options.halts_after))
        return ~refused & ~halted

    def handed_on(self, application: Application, gradients: Gradients) -> Gradients:
        spread = self._sides[application.replica.index].spread
        is_scaled = isinstance(application.optimizer, keras.optimizers.LossScaleOptimizer)
        if not is_scaled or application.replica.count == 1 or spread is None:
            return gradients
        # Keras asks the first replica alone whether its gradients are finite.
        return [_or_nan(gradient, spread) for gradient in gradients]

    def step_end(self, replica: Replica, done: Sequence[tf.Tensor]) -> None:
        with tf.control_dependencies(done):
            self._sides[replica.index].seen.assign_add(1)

    def _new_side(self, replica: Replica) -> _Side:
        device = replica.device if self._compiled or replica.device else "CPU:0"
        trigger = self.options.trigger
        return _Side(
            seen=make_variable(np.array(0), device),
            noted=make_variable(np.array(0), device),
            in_a_row=make_variable(np.array(0), device),
            halted=make_variable(np.array(False), device),
            judgement=None if trigger is None else trigger.begin(device),
            device=device,
            facts=Ring(_CAPACITY, _FACTS, tf.float64, empty=np.nan, device=device),
        )

    def _note(
        self, side: _Side, measured: tf.Tensor, variables: list[Any], facts: list[Any]
    ) -> None:
        key = tuple(map(id, variables))
        if key not in self._names:
            self._names[key] = tuple(variable_names(self._model(), variables))
        if key not in side.gradients:
            width = 3 * len(variables)
            side.gradients[key] = Ring(
                _CAPACITY, width, tf.float32, empty=MISSING, device=side.device
            )
        slot = tf.reshape(side.noted % _CAPACITY, [1])
        side.gradients[key].write(slot, measured)
        side.facts.write(slot, tf.stack([tf.cast(fact, tf.float64) for fact in facts]))
        side.noted.assign_add(1)


def _global_norm(application: Application, gradients: Gradients) -> tf.Tensor:
    """The norm of the gradient of the global batch, before any clipping."""
    if application.replica.count > 1:
        gradients = summed_over_replicas(gradients)
    norm = tf.norm(l2_norms(gradients, tf.float32))
    if application.scale is None:
        return norm
    return norm / tf.cast(tf.convert_to_tensor(application.scale), norm.dtype)


def _statistics_if(condition: tf.Tensor, gradients: Gradients, scale: Any) -> tf.Tensor:
    """`statistics` of the gradients where the condition is true, [3, gradients]."""
    divisor = (
        tf.constant(1.0) if scale is None else tf.cast(tf.convert_to_tensor(scale), tf.float32)
    )

    def measured(divisor: tf.Tensor, *parts: tf.Tensor) -> tf.Tensor:
        whole = tf.nest.pack_sequence_as(gradients, list(parts), expand_composites=True)
        norms, largest, bad = tf.unstack(statistics(whole, tf.float32))
        return tf.stack([norms / divisor, largest / divisor, bad])

    def nothing(*_: tf.Tensor) -> tf.Tensor:
        return tf.zeros([3, len(gradients)])

    parts = tf.nest.flatten(gradients, expand_composites=True)
    return branch(condition, measured, nothing, [divisor, *parts])


def _is_finite(gradients: Gradients) -> tf.Tensor:
    """Whether every element is finite; a sum of squares may overflow though each is."""

    def one_by_one(*tensors: tf.Tensor) -> tf.Tensor:
        return tf.reduce_all([tf.reduce_all(tf.math.is_finite(each)) for each in tensors])

    tensors = _tensors(gradients)
    sums = [tf.cast(tf.nn.l2_loss(each), tf.float32) for each in tensors]
    plain = tf.reduce_all(tf.math.is_finite(tf.stack(sums)))
    return branch(plain, lambda *_: tf.constant(True), one_by_one, tensors)


def _tensors(gradients: Gradients) -> list[tf.Tensor]:
    """What the gradients are made of, real."""
    tensors = [each.values if isinstance(each, tf.IndexedSlices) else each for each in gradients]
    return [tf.abs(each) if each.dtype.is_complex else each for each in tensors]


def _or_nan(gradient: Any, finite: tf.Tensor) -> Any:
    if gradient is None:
        return None
    if isinstance(gradient, tf.IndexedSlices):
        values = _or_nan(gradient.values, finite)
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
    return gradient * tf.where(
        finite, tf.ones([], gradient.dtype), gradient.dtype.as_numpy_dtype("nan")
    )
