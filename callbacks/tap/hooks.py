"""Patches that report the calls of a train step to observers."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradkeeper.callbacks.tap.gating import Undoing, apply_if
from gradkeeper.callbacks.tap.keras_private import ALL_REDUCE, CLIP_GRADIENTS, variables_of
from gradkeeper.callbacks.tap.loss_scaling import ScaledLosses
from gradkeeper.callbacks.tap.masks import mask_points
from gradkeeper.callbacks.tap.names import unlisted_variables
from gradkeeper.callbacks.tap.optimizers import (
    accumulates,
    build_like_apply,
    clipping_of,
    is_plain,
    loss_scale,
    with_nested,
)
from gradkeeper.callbacks.tap.point import Point
from gradkeeper.callbacks.tap.probe import Application, Gradients, Probe, Stage, Variables
from gradkeeper.callbacks.tap.replica import Replica
from gradkeeper.callbacks.tap.ring import make_variable
from gradkeeper.callbacks.tap.site import may_have_functions
from gradkeeper.callbacks.tap.stand import Stand
from gradkeeper.callbacks.tap.values import returned_loss, tensors_in

_unconverted = tf.autograph.experimental.do_not_convert


class Hooks:
    """Temporary patches that report a model's train steps, or optimizer calls, to observers.

    Args:
        probes: the observers.
        optimizers: the optimizers to patch, including the optimizers nested in them.
        model: the model whose `train_step` is one step; None if each `apply` is one step.
    """

    def __init__(
        self,
        probes: Sequence[Probe],
        optimizers: Sequence[keras.optimizers.Optimizer],
        model: keras.Model | None = None,
    ) -> None:
        self._probes = tuple(probes)
        self._stages = tuple(each for each in probes if isinstance(each, Stage))
        self._optimizers: list[keras.optimizers.Optimizer] = []
        self._step: list[Point] = []
        self._within: list[Point] = []
        self._looks_inside = False
        if model is not None:
            self._step.append(Point(model, "train_step", self._train_step))
            self._within.append(Point(model, "compute_loss", self._compute_loss))
            self._within += mask_points(model, lambda layer: self._tell("mask_ends", layer))
        self._looked_at: set[int] = set()
        self._scaled_losses = ScaledLosses()
        self.look_at(optimizers)
        self._steps_inside, self._lock = 0, threading.Lock()
        # Clipping methods of the optimizers, by `id`.
        self._clippings: dict[int, Callable] = {}
        self._stands: dict[int, Stand] = {}
        # By replica; used if the train step may call a `tf.function`.
        self._refused: dict[int, tf.Variable] = {}
        self._computes_loss = False
        # True once a function that the train step calls has called an optimizer.
        self._applies_inside = False

    def look_at(self, optimizers: Sequence[keras.optimizers.Optimizer]) -> None:
        """Add optimizers to patch. Do not call this between `put` and `take_back`."""
        for outer in optimizers:
            if not any(outer is each for each in self._optimizers):
                self._optimizers.append(outer)
            for optimizer in with_nested(outer):
                if id(optimizer) in self._looked_at:
                    continue
                self._looked_at.add(id(optimizer))
                self._within += [
                    Point(optimizer, "apply", self._apply),
                    Point(optimizer, CLIP_GRADIENTS, self._clip),
                    Point(optimizer, ALL_REDUCE, self._all_reduce),
                    Point(optimizer, "scale_loss", self._scaled_losses.wrapper),
                ]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Apply the patches inside the block, and revert them afterwards."""
        try:
            self.put()
            yield
        finally:
            self.take_back()

    def look_inside(self) -> None:
        """Limit the inner patches to the time in which the model's `train_step` runs.

        Call this once `train_step` is known to make every call that is observed. A compiled
        `train_step` runs only while it is traced.
        """
        self._looks_inside = True

    def are_held_by(self, function: Callable) -> bool:
        """Return True if `function` closes over the patched `train_step`."""
        return all(point.is_held_by(function) for point in self._step)

    def put(self) -> None:
        """Apply the patches until `take_back` is called."""
        for point in self._step:
            point.put()
        if not self._looks_inside:
            for point in self._within:
                point.put()

    def take_back(self) -> None:
        """Restore every attribute to its value before `put`."""
        if not self._looks_inside:
            for point in reversed(self._within):
                point.take_back()
        for point in self._step:
            point.take_back()

    @contextmanager
    def _all_seen(self) -> Iterator[None]:
        """Apply the inner patches inside the block, in which a train step runs."""
        if not self._looks_inside:
            yield
            return
        # Each replica runs its step in a separate thread, one replica at a time.
        with self._lock:
            self._steps_inside += 1
            if self._steps_inside == 1:
                for point in self._within:
                    point.put()
        try:
            yield
        finally:
            with self._lock:
                self._steps_inside -= 1
                if self._steps_inside == 0:
                    for point in reversed(self._within):
                        point.take_back()

    def _train_step(self, model: keras.Model) -> Callable:
        original = model.train_step
        has_functions = may_have_functions(original)

        def train_step(*args: Any, **kwargs: Any) -> Any:
            replica = Replica.current()
            stand = self._stand(replica)
            if not stand.steps:
                stand = self._stands[replica.index] = Stand()
            stand.steps += 1
            try:
                if stand.steps == 1 and self._stages:
                    stand.undoing = self._undoing(model, replica, has_functions)
                data = args[0] if args else kwargs.get("data")
                self._tell("step_begin", replica, data)
                with self._all_seen():
                    result = original(*args, **kwargs)
            finally:
                stand.steps -= 1
            if not stand.steps and not self._computes_loss:
                self._tell("loss", replica, returned_loss(result))
            if not stand.steps:
                self._ask_at_end(replica, stand.undoing, result)
            self._tell("step_end", replica, tensors_in(result))
            if not stand.steps and stand.undoing is not None:
                result = stand.undoing.end_step(model, result)
            return result

        return train_step

    def _compute_loss(self, model: keras.Model) -> Callable:
        original = model.compute_loss

        def compute_loss(*args: Any, **kwargs: Any) -> Any:
            value = original(*args, **kwargs)
            replica = Replica.current()
            if self._stand(replica).steps:
                self._computes_loss = True
                self._tell("loss", replica, value)
            return value

        return compute_loss

    def _apply(self, optimizer: keras.optimizers.Optimizer) -> Callable:
        original = optimizer.apply

        # If a custom loop uses Autograph, Autograph converts this function and with it the
        # original.
        def apply(grads: Any, trainable_variables: Any = None, **kwargs: Any) -> Any:
            grads, variables = list(grads), variables_of(optimizer, trainable_variables)
            application = self._enter(optimizer, grads, variables)
            try:
                # None stays None. `variables` replaces an iterator, which can be read only once.
                given = None if trainable_variables is None else variables
                with tf.control_dependencies(_read_before_sum(application)):
                    if application is None or not self._stages:
                        result = original(grads, given, **kwargs)
                    else:
                        result = self._through_stages(application, original, grads, given, kwargs)
            finally:
                self._leave(application)
            self._finish(application, grads)
            return result

        return apply

    @_unconverted
    def _enter(
        self, optimizer: keras.optimizers.Optimizer, grads: Gradients, variables: Variables
    ) -> Application | None:
        """Record a call of `apply`, and return the optimizer call if this is the outermost one."""
        replica = Replica.current()
        stand = self._stand(replica)
        outermost = stand.application is None
        if outermost and not stand.steps:
            stand.turns.clear()
            self._tell("step_begin", replica, None)
        application = None
        if outermost:
            application = stand.application = Application(
                optimizer,
                variables,
                replica,
                stand.turn(optimizer, variables),
                loss_scale(optimizer, variables),
                clipping_of(optimizer),
                is_plain(optimizer) and not any(stage.clips for stage in self._stages),
                accumulates(optimizer),
                misses_scale=self._scaled_losses.are_missed_by(
                    optimizer, grads, in_step=bool(stand.steps)
                ),
            )
        stand.applying.append(
            [v for g, v in zip(grads, variables, strict=False) if _is_clipped(g, v)]
        )
        if application is not None:
            try:
                self._tell("before", application, grads)
            except BaseException:
                self._leave(application)
                raise
        return application

    @_unconverted
    def _through_stages(
        self,
        application: Application,
        original: Callable,
        grads: Gradients,
        given: Variables | None,
        kwargs: dict[str, Any],
    ) -> Any:
        """Transform the gradients and apply them if every gradient transform allows it."""

        def apply(grads: Gradients) -> Any:
            for stage in self._stages:
                grads = stage.handed_on(application, grads)
            return original(list(grads), given, **kwargs)

        stand = self._stand(application.replica)
        application.undoing = undoing = stand.undoing
        build_like_apply(application.optimizer, application.variables)
        if undoing is not None and self._must_hold_weights(application, undoing):
            undoing.hold_spare()
            undoing.add([*application.variables, *application.optimizer.variables], "weight")
        flags = [stage.allows(application, grads) for stage in self._stages]
        asked = [flag for flag in flags if flag is not None]
        if not asked:
            return apply(grads)
        application.allowed = tf.reduce_all(tf.stack(asked))
        if undoing is not None:
            undoing.unless(application.allowed)
        apply_if(application.allowed, apply, grads, application.replica)
        if application.replica.count > 1:
            apply_if(
                ~application.allowed,
                lambda grads: self._tell("refused", application, grads),
                grads,
                application.replica,
            )
        return None

    def _must_hold_weights(self, application: Application, undoing: Undoing) -> bool:
        """Return True if an update may have to be rolled back after an optimizer has applied it."""
        self._applies_inside |= not undoing.is_here
        asked = [stage.may_undo_update(application) for stage in self._stages]
        is_one_of_several = len(self._optimizers) > 1 or application.turn > 0
        return any(asked) or is_one_of_several or self._applies_inside

    def _undoing(self, model: keras.Model, replica: Replica, has_functions: bool) -> Undoing:
        """Store the values that must be restored after a skipped step."""
        refused = self._refused.get(replica.index)
        if has_functions and refused is None:
            compiled = bool(model.jit_compile) and not model.run_eagerly
            refused = make_variable(np.array(False), replica.home(compiled=compiled))
            self._refused[replica.index] = refused
        undoing = Undoing(replica, refused if has_functions else None)
        undoing.add(model.metrics_variables, "metric")
        undoing.add([*model.non_trainable_variables, *unlisted_variables(model)], "state")
        if has_functions:
            optimizers = [each for outer in self._optimizers for each in outer.variables]
            spare = not self._applies_inside
            undoing.add([*model.trainable_variables, *optimizers], "weight", spare=spare)
        return undoing

    @_unconverted
    def _ask_at_end(self, replica: Replica, undoing: Undoing | None, result: Any) -> None:
        """Roll back the step at its end if a gradient transform rejects its results."""
        if undoing is None:
            return
        with tf.control_dependencies(tensors_in(result)):
            for stage in self._stages:
                allowed = stage.accepts(replica, undoing)
                if allowed is not None:
                    undoing.unless(allowed)

    @_unconverted
    def _leave(self, application: Application | None) -> None:
        stand = self._stand(Replica.current())
        stand.applying.pop()
        if application is not None:
            stand.application = None

    @_unconverted
    def _finish(self, application: Application | None, grads: Gradients) -> None:
        if application is None:
            return
        self._tell("after", application)
        if not self._stand(application.replica).steps:
            self._tell("step_end", application.replica, tensors_in(grads))

    def _clip(self, optimizer: keras.optimizers.Optimizer) -> Callable:
        original = self._clippings[id(optimizer)] = getattr(optimizer, CLIP_GRADIENTS)

        @_unconverted
        def clip_gradients(grads: Any) -> Any:
            entered = list(grads)
            stand = self._stand(Replica.current())
            variables = stand.applying[-1] if stand.applying else []
            application = stand.application
            if application is None or len(variables) != len(entered):
                return list(original(entered))
            changed = entered
            for stage in self._stages:
                changed = stage.clipped_first(application, changed, variables)
            left = list(changed if self._clips_the_sum(application) else original(changed))
            self._tell("clipped", application, entered, left, variables)
            application.clippings += 1
            return left

        return clip_gradients

    def _clips_the_sum(self, application: Application) -> bool:
        """Return True if the optimizer's own clipping acts on the sum over replicas."""
        return application.replica.count > 1 and any(
            stage.clips_the_sum and stage.asks_about(application.optimizer)
            for stage in self._stages
        )

    def _all_reduce(self, optimizer: keras.optimizers.Optimizer) -> Callable:
        original = getattr(optimizer, ALL_REDUCE)

        @_unconverted
        def all_reduce(grads_and_vars: Any) -> Any:
            pairs = list(original(grads_and_vars))
            stand = self._stand(Replica.current())
            variables = stand.applying[-1] if stand.applying else []
            if stand.application is not None and len(variables) == len(pairs):
                gradients = [gradient for gradient, _ in pairs]
                if self._clips_the_sum(stand.application):
                    gradients = list(self._clippings[id(optimizer)](gradients))
                    pairs = [(one, each) for one, (_, each) in zip(gradients, pairs, strict=True)]
                self._tell("reduced", stand.application, gradients, variables)
            return pairs

        return all_reduce

    def _stand(self, replica: Replica) -> Stand:
        return self._stands.setdefault(replica.index, Stand())

    @_unconverted
    def _tell(self, method: str, *args: Any) -> None:
        for probe in self._probes:
            getattr(probe, method)(*args)


def _read_before_sum(application: Application | None) -> list[tf.Tensor]:
    """Return the tensors to read before the gradients of the replicas are summed.

    TensorFlow sums tensors in place. It starts with the first tensor whose memory has no other
    reader, and adds the others to it. A late reader would change the order of summation. The sum of
    two tensors is the same in both orders.
    """
    if application is None or application.replica.count < 3:
        return []
    return application.measured


def _is_clipped(gradient: Any, variable: Any) -> bool:
    """Return True if the pair reaches Keras's clipping. Float8 scales are overwritten earlier."""
    return gradient is not None and not getattr(variable, "overwrite_with_gradient", False)
