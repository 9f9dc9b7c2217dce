"""Instrumented train function, installed on the model for one call at a time.

The model and its optimizer carry no patches between two train steps. A callback instruments the
next call in `on_train_batch_begin`, and that call restores the model, even if it raises. Keras
calls no cleanup after an exception or a KeyboardInterrupt in `fit`, and none is needed. The
instrumented functions are stored on the original train function and share its lifetime: a second
`fit` does not trace again, and recompiling discards them.
"""

import sys
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import Any, Generic, NamedTuple, Optional, TypeAlias, TypeVar

import keras

from gradkeeper.callbacks.driver import Driver
from gradkeeper.callbacks.tap.held import HeldBatches
from gradkeeper.callbacks.tap.hooks import Hooks
from gradkeeper.callbacks.tap.optimizers import optimizers_of
from gradkeeper.callbacks.tap.probe import Owner, Shared, Stage
from gradkeeper.callbacks.tap.substitution import is_made_by_keras, place_of_train_function

_ATTRIBUTE = "_gradkeeper_tap"

# The options of a callback, and the `id` of its optimizers (None for those of the model).
Key: TypeAlias = tuple[Hashable, tuple[int, ...] | None]

SharedT = TypeVar("SharedT", bound=Shared)


class Tap:
    """Instrumentation of one train function of a model, shared by all callbacks."""

    def __init__(self, model: keras.Model, plain: Callable) -> None:
        self._model = model
        self._plain = plain
        self._is_of_keras = is_made_by_keras(plain) and not _makes_its_own(model)
        self._can_be_made = is_made_by_keras(plain) or _makes_its_own(model)
        # A user's function that does not contain Keras's train function has no slot and runs
        # unchanged.
        self._place = None if self._can_be_made else place_of_train_function(plain)
        self._hooks: dict[tuple[Shared, ...], Hooks] = {}
        self._twins: dict[tuple[Shared, ...], Callable] = {}
        self._settled: dict[tuple[Shared, ...], _Settled] = {}
        self._probes: dict[Key, list[Any]] = {}

    @classmethod
    def of(cls, model: keras.Model, before: Optional["Tap"] = None) -> "Tap":
        """Return the instrumentation of the model's train function; create it at the first call.

        Args:
            model: the model, whose `train_function` must exist.
            before: the instrumentation that the caller used before; returned again if still valid.
        """
        function = model.train_function
        if isinstance(function, _ArmedFunction):
            return function.tap
        if before is not None and before._model is model and before._plain == function:
            return before
        tap = getattr(function, _ATTRIBUTE, None)
        if tap is None or tap._model is not model:
            tap = cls(model, function)
            # A user's train function may be an object that accepts no attributes.
            with suppress(AttributeError):
                setattr(function, _ATTRIBUTE, tap)
        return tap

    @property
    def is_kept(self) -> bool:
        """Return True if the train function stores this object, so that no caller has to."""
        return getattr(self._plain, _ATTRIBUTE, None) is self

    @staticmethod
    def disarm(model: keras.Model, beginner: Driver) -> None:
        """Remove instrumentation left behind by runs that raised before their next step.

        Args:
            model: the model.
            beginner: the run that is starting; its frame id may be reused from a run that has died.
        """
        function = model.train_function
        if not isinstance(function, _ArmedFunction):
            return
        function.waiting = [
            (driver, probes)
            for driver, probes in function.waiting
            if driver != beginner and driver.is_running()
        ]
        if not function.waiting:
            _put(model, function.tap._plain)

    def arm(
        self,
        wishes: Hashable,
        make: Callable[..., SharedT],
        driver: Driver,
        optimizers: Sequence[keras.optimizers.Optimizer] | None = None,
    ) -> "Arming[SharedT]":
        """Report the next call of the model's train function to an observer.

        Args:
            wishes: options of the observer. Callbacks with equal options reuse one observer one
                after the other, so that a later callback does not trace again. Within a step, each
                callback has a separate observer.
            make: creates the observer if there is none; called with the options and the model, and
                with the keyword arguments `optimizers` and `compiled` (whether XLA compiles the
                train step).
            driver: the run that must make the call. Other calls, such as `train_on_batch` or
                another `fit` in a callback, are not observed.
            optimizers: the optimizers to observe; those of the model by default.

        Returns:
            An `Arming` with the observer, which the caller must still claim.
        """
        armed = self._model.train_function
        if not isinstance(armed, _ArmedFunction):
            armed = _put(self._model, _ArmedFunction(self))
        named = None if optimizers is None else tuple(optimizers)
        alike = self._probes.setdefault((wishes, named and tuple(map(id, named))), [])
        # Do not share an observer that another callback or run has scheduled for its next call.
        taken = [each for _, probes in armed.waiting for each in probes]
        probe = next((each for each in alike if each not in taken), None)
        if probe is None:
            compiled = bool(self._model.jit_compile) and not self._model.run_eagerly
            probe = make(wishes, self._model, optimizers=named, compiled=compiled)
            probe.is_called_by_keras = self._is_of_keras
            alike.append(probe)
        others = armed.awaited_by(driver)
        if others is None:
            armed.waiting.append((driver, [probe]))
        else:
            others.append(probe)
        return Arming(self, armed, probe, self._model.steps_per_execution)

    def run(self, iterator: Any, probes: Sequence[Shared], armed: "_ArmedFunction") -> Any:
        """Run the train function with the observers; run it unchanged if there are none.

        Restore the model afterwards. Calls that other runs wait for stay instrumented.
        """
        attributes = vars(self._model)
        attributes["train_function"] = self._plain
        try:
            return self._run(iterator, tuple(probes)) if probes else self._plain(iterator)
        finally:
            if armed.waiting and attributes["train_function"] is self._plain:
                attributes["train_function"] = armed

    def _run(self, iterator: Any, probes: tuple[Shared, ...]) -> Any:
        settled = self._settled.get(probes)
        for probe in probes:
            if probe.stopwatch is not None:
                probe.stopwatch.call_begins(probe)
        if settled is None:
            result = self._run_first(iterator, probes)
        elif settled.hooks is None:
            result = settled.twin(_shown(iterator, settled.holding))
        else:
            with settled.hooks.in_place():
                result = settled.twin(_shown(iterator, settled.holding))
        for probe in probes:
            if probe.stopwatch is not None:
                probe.stopwatch.call_ends(probe)
        return result

    def _run_first(self, iterator: Any, probes: tuple[Shared, ...]) -> Any:
        """Run the train function while the set of patches may still change."""
        hooks = self._hooks_of(probes)
        with hooks.in_place():
            result = self._call(iterator, probes)
        self._settle(probes, hooks)
        return result

    def _call(self, iterator: Any, probes: tuple[Shared, ...]) -> Any:
        if self._place is None and not self._can_be_made:
            return self._plain(iterator)
        if probes not in self._twins:
            self._twins[probes] = self._make_twin()
        twin = self._twins[probes]
        if self._place is None:
            return twin(_shown(iterator, _holding(probes) if is_made_by_keras(twin) else []))
        with self._place.holding(twin):
            return self._plain(iterator)

    def _settle(self, probes: tuple[Shared, ...], hooks: Hooks) -> None:
        """Store how calls with these observers are run, once this can no longer change.

        A train function made by Keras calls only the model's `train_step`.
        """
        twin = self._twins.get(probes)
        if (
            self._place is None
            and twin is not None
            and is_made_by_keras(twin)
            and all(probe.has_seen_gradients for probe in probes)
        ):
            hooks.look_inside()
            held = hooks.are_held_by(twin)
            self._settled[probes] = _Settled(None if held else hooks, twin, _holding(probes))

    def _hooks_of(self, probes: tuple[Shared, ...]) -> Hooks:
        hooks = self._hooks.get(probes)
        # Search again until an optimizer is called: a train step may create its optimizers.
        if hooks is None or not all(probe.has_seen_gradients for probe in probes):
            named = [each for probe in probes for each in probe.optimizers or ()]
            optimizers = [*optimizers_of(self._model), *named]
            if hooks is None:
                hooks = self._hooks[probes] = Hooks(probes, optimizers, self._model)
            else:
                hooks.look_at(optimizers)
        return hooks

    def _make_twin(self) -> Callable:
        try:
            _put(self._model, None)
            self._model.make_train_function()
            return self._model.train_function or self._plain
        finally:
            _put(self._model, self._plain)


class Arming(Generic[SharedT]):
    """Result of `Tap.arm`, which can be repeated at low cost if nothing has changed."""

    def __init__(
        self,
        tap: Tap,
        function: "_ArmedFunction",
        probe: SharedT,
        steps_per_execution: int,
    ) -> None:
        self.probe = probe
        self._tap, self._function = tap, function
        self._steps_per_execution = steps_per_execution

    def again(self, model: keras.Model, driver: Driver, reader: Owner) -> bool:
        """Report the next call to the same observer if `reader` still owns it.

        Returns:
            True on success. False if another run has instrumented the model already, or if its
            train function, its settings or the owner of the observer have changed.
        """
        attributes, waiting = vars(model), self._function.waiting
        steps = model.steps_per_execution
        if steps != self._steps_per_execution or not self.probe.is_read_by(reader):
            return False
        if attributes.get("train_function") is self._function:
            others = self._function.awaited_by(driver)
            if others is None or self.probe in others:
                return False
            others.append(self.probe)
            return True
        if waiting or attributes.get("train_function") is not self._tap._plain:
            return False
        waiting.append((driver, [self.probe]))
        attributes["train_function"] = self._function
        return True


class _ArmedFunction:
    """Replacement for `model.train_function` until each waiting run has called it once.

    Attributes:
        tap: instrumentation of the original train function.
        waiting: runs whose next call is observed, each with its observers.
    """

    def __init__(self, tap: Tap) -> None:
        self.tap = tap
        self.waiting: list[tuple[Driver, list[Shared]]] = []

    def awaited_by(self, driver: Driver) -> list[Shared] | None:
        """Return the observers of the run's next call; None if the run does not wait for one."""
        return next((probes for each, probes in self.waiting if each == driver), None)

    def __call__(self, iterator: Any) -> Any:
        caller = sys._getframe(1)
        for each in list(self.waiting):
            driver, probes = each
            if driver.is_calling(caller):
                self.waiting.remove(each)
                return self.tap.run(iterator, probes, self)
        return self.tap.run(iterator, [], self)


class _Settled(NamedTuple):
    """Fixed train function and patches for calls with the same observers.

    Attributes:
        hooks: the patches; None if `twin` closes over the patched `train_step`, as since Keras
            3.15.
        twin: the instrumented train function, made by Keras.
        holding: the gradient transforms that receive each batch.
    """

    hooks: Hooks | None
    twin: Callable
    holding: list[Stage]


def _holding(probes: Sequence[Shared]) -> list[Stage]:
    return [each for each in probes if isinstance(each, Stage) and each.holds_batches]


def _shown(iterator: Any, stages: Sequence[Stage]) -> Any:
    """Return the iterator, wrapped if gradient transforms receive each batch."""
    return HeldBatches(iterator, stages) if stages else iterator


def _put(model: keras.Model, function: Any) -> Any:
    """Set `model.train_function` without Keras's slow attribute tracking."""
    vars(model)["train_function"] = function
    return function


def _makes_its_own(model: keras.Model) -> bool:
    """Return True if the class of the model overrides `make_train_function`."""
    return type(model).make_train_function is not keras.Model.make_train_function
