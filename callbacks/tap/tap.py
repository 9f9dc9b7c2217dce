"""The instrumented twin of a model's train function, put in its place one call at a time.

Nothing of ours stays on the model or its optimizer between two train steps: a callback
arms the tap in `on_train_batch_begin`, and the call that follows takes everything back,
whatever it raises. So an exception or a KeyboardInterrupt in `fit` needs no clean-up,
which Keras would not call for. The twins are kept on the plain train function, whose life
they share: a second `fit` does not trace again, and recompiling drops them.
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

# What a callback wishes, and of which optimizers (by `id`; None for the model's).
Key: TypeAlias = tuple[Hashable, tuple[int, ...] | None]

SharedT = TypeVar("SharedT", bound=Shared)


class Tap:
    """All that our callbacks share on one train function of a model."""

    def __init__(self, model: keras.Model, plain: Callable) -> None:
        self._model = model
        self._plain = plain
        self._is_of_keras = is_made_by_keras(plain) and not _makes_its_own(model)
        self._can_be_made = is_made_by_keras(plain) or _makes_its_own(model)
        # A function of the user's own, through and through, has none: it is run as it is.
        self._place = None if self._can_be_made else place_of_train_function(plain)
        self._hooks: dict[tuple[Shared, ...], Hooks] = {}
        self._twins: dict[tuple[Shared, ...], Callable] = {}
        self._settled: dict[tuple[Shared, ...], _Settled] = {}
        self._probes: dict[Key, list[Any]] = {}

    @classmethod
    def of(cls, model: keras.Model, before: Optional["Tap"] = None) -> "Tap":
        """The tap of the model's current train function; made at the first call.

        Args:
            model: the model, whose `train_function` is there.
            before: the tap that the caller had before, which it gets again if it can.
        """
        function = model.train_function
        if isinstance(function, _ArmedFunction):
            return function.tap
        if before is not None and before._model is model and before._plain == function:
            return before
        tap = getattr(function, _ATTRIBUTE, None)
        if tap is None or tap._model is not model:
            tap = cls(model, function)
            # A function set by hand may be an object that takes no attributes.
            with suppress(AttributeError):
                setattr(function, _ATTRIBUTE, tap)
        return tap

    @property
    def is_kept(self) -> bool:
        """Whether the train function keeps the tap, so that nobody else has to."""
        return getattr(self._plain, _ATTRIBUTE, None) is self

    @staticmethod
    def disarm(model: keras.Model, beginner: Driver) -> None:
        """Takes back what trainings that died between arming and their next step have left.

        Args:
            model: the model.
            beginner: who begins a training just now, perhaps where a dead one's frame was.
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
        """Has a probe see the next call of the model's train function.

        Args:
            wishes: what the probe does; callbacks with equal wishes use one after the other
                (so that a fresh one traces nothing anew), and one each within a step.
            make: makes the probe, if there is none; called with the wishes, the model, and by
                name with the `optimizers` and whether the train step is `compiled` by XLA.
            driver: who must make the call: others (a `train_on_batch` or another `fit` in a
                callback) are not the training that is watched.
            optimizers: the optimizers to look at; those of the model by default.

        Returns:
            The probe, not yet claimed, in an arming.
        """
        armed = self._model.train_function
        if not isinstance(armed, _ArmedFunction):
            armed = _put(self._model, _ArmedFunction(self))
        named = None if optimizers is None else tuple(optimizers)
        alike = self._probes.setdefault((wishes, named and tuple(map(id, named))), [])
        # A probe that another callback or training waits with is not to be shared.
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
        """Runs the train function with the probes inside; as it is if there are none.

        Afterwards the model is as it was found; what still waits stays armed.
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
        """One of the first calls with these probes: what they have to look at is not settled."""
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
        """Notes how calls with these probes are run, once nothing about it can change any more.

        A train function made by Keras calls nothing but the model's `train_step`.
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
        # Looked for again until one is called: a train step may make its optimizers itself.
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
    """One call of `Tap.arm`, which can be repeated at little cost where nothing has changed."""

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
        """Has the same probe see the next call, if `reader` still reads it.

        Returns:
            Whether that was done: not if another training has armed the model already, or if
            its train function, its settings or the probe's reader have changed.
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
    """Stands in for `model.train_function` until the trainings that armed it call it, once each.

    Attributes:
        tap: the tap of the train function behind it.
        waiting: trainings whose next call is to be seen, each with the probes that see it.
    """

    def __init__(self, tap: Tap) -> None:
        self.tap = tap
        self.waiting: list[tuple[Driver, list[Shared]]] = []

    def awaited_by(self, driver: Driver) -> list[Shared] | None:
        """The probes that see the training's next call; None if it is not awaited."""
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
    """How calls with some probes are run.

    Attributes:
        hooks: what has the probes see; None where the twin holds that itself, as of Keras 3.15.
        twin: the instrumented train function, made by Keras.
        holding: the probes that want to hold each batch.
    """

    hooks: Hooks | None
    twin: Callable
    holding: list[Stage]


def _holding(probes: Sequence[Shared]) -> list[Stage]:
    return [each for each in probes if isinstance(each, Stage) and each.holds_batches]


def _shown(iterator: Any, stages: Sequence[Stage]) -> Any:
    """The iterator, by way of the stages that want to hold each batch."""
    return HeldBatches(iterator, stages) if stages else iterator


def _put(model: keras.Model, function: Any) -> Any:
    """Sets `model.train_function`, without the cost of Keras's looking for what to track."""
    vars(model)["train_function"] = function
    return function


def _makes_its_own(model: keras.Model) -> bool:
    """Whether the model has a `make_train_function` of its own."""
    return type(model).make_train_function is not keras.Model.make_train_function
