"""Calls of a model's train function that callbacks observe, one at a time."""

import sys
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Optional, TypeAlias, TypeVar

import keras

from gradkeeper.callbacks._fit_frame import FitFrame
from gradkeeper.callbacks.instrument.ownership import Owned, Owner

_ATTRIBUTE = "_gradkeeper_train_function"

# The options of a callback, and the `id` of its optimizers (None for those of the model).
Key: TypeAlias = tuple[Hashable, tuple[int, ...] | None]

ObserverT = TypeVar("ObserverT", bound=Owned)


class ObservedTrainFunction:
    """Observation of one train function of a model, shared by all callbacks.

    The model and its optimizer carry no patches between two train steps. A callback schedules the
    observation of the next call in `on_train_batch_begin`, and that call restores the model, even
    if it raises. Keras calls no cleanup after an exception or a KeyboardInterrupt in `fit`, and
    none is needed. The object is stored on the original train function and shares its lifetime: a
    second `fit` does not trace again, and recompiling discards it.

    Args:
        model: the model.
        plain: its train function.
    """

    def __init__(self, model: keras.Model, plain: Callable) -> None:
        self._model = model
        self._plain = plain
        self._observers: dict[Key, list[Any]] = {}
        # Whether Keras's own train function calls the train step.
        self._is_of_keras = True

    @classmethod
    def of(
        cls, model: keras.Model, before: Optional["ObservedTrainFunction"] = None
    ) -> "ObservedTrainFunction":
        """Return the observation of the model's train function; create it at the first call.

        Args:
            model: the model, whose `train_function` must exist.
            before: the observation that the caller used before; returned again if still valid.
        """
        function = model.train_function
        if isinstance(function, TrainFunctionProxy):
            return function.instrumented
        if before is not None and before._model is model and before._plain == function:
            return before
        instrumented = getattr(function, _ATTRIBUTE, None)
        if instrumented is None or instrumented._model is not model:
            instrumented = cls(model, function)
            # A user's train function may be an object that accepts no attributes.
            with suppress(AttributeError):
                setattr(function, _ATTRIBUTE, instrumented)
        return instrumented

    @property
    def is_kept(self) -> bool:
        """Return True if the train function stores this object, so that no caller has to."""
        return getattr(self._plain, _ATTRIBUTE, None) is self

    @staticmethod
    def remove_stale(model: keras.Model, beginner: FitFrame) -> None:
        """Remove instrumentation left behind by runs that raised before their next step.

        Args:
            model: the model.
            beginner: the run that is starting; its frame id may be reused from a run that has died.
        """
        function = model.train_function
        if not isinstance(function, TrainFunctionProxy):
            return
        function.waiting = [
            each for each in function.waiting if each[0] != beginner and each[0].is_running()
        ]
        if not function.waiting:
            put_train_function(model, function.instrumented._plain)

    def instrument_next_call(
        self,
        options: Hashable,
        make: Callable[..., ObserverT],
        frame: FitFrame,
        optimizers: Sequence[keras.optimizers.Optimizer] | None = None,
    ) -> "PendingCall[ObserverT]":
        """Report the next call of the model's train function to an observer.

        Args:
            options: options of the observer. Callbacks with equal options reuse one observer one
                after the other, so that a later callback does not trace again. Within a step, each
                callback has a separate observer.
            make: creates the observer if there is none; called with the options and the model, and
                with the keyword arguments `optimizers` and `compiled` (whether XLA compiles the
                train step).
            frame: the run that must make the call. Other calls, such as `train_on_batch` or
                another `fit` in a callback, are not observed.
            optimizers: the optimizers to observe; those of the model by default.

        Returns:
            The pending call with the observer, which the caller must still acquire.
        """
        proxy = self._model.train_function
        if not isinstance(proxy, TrainFunctionProxy):
            proxy = put_train_function(self._model, TrainFunctionProxy(self))
        named = None if optimizers is None else tuple(optimizers)
        alike = self._observers.setdefault((options, named and tuple(map(id, named))), [])
        # Do not share an observer that another callback or run has scheduled for its next call.
        taken = [each for _, observers in proxy.waiting for each in observers]
        observer = next((each for each in alike if each not in taken), None)
        if observer is None:
            compiled = bool(self._model.jit_compile) and not self._model.run_eagerly
            observer = make(options, self._model, optimizers=named, compiled=compiled)
            observer.is_called_by_keras = self._is_of_keras
            alike.append(observer)
        others = proxy.observers_for(frame)
        if others is None:
            proxy.waiting.append((frame, [observer]))
        else:
            others.append(observer)
        return PendingCall(self, proxy, observer, self._model.steps_per_execution)

    def run(
        self, arguments: tuple[Any, ...], observers: Sequence[Owned], proxy: "TrainFunctionProxy"
    ) -> Any:
        """Run the train function with the observers; run it unchanged if there are none.

        Restore the model afterwards. Calls that other runs wait for stay instrumented.
        """
        attributes = vars(self._model)
        attributes["train_function"] = self._plain
        try:
            if not observers:
                return self._plain(*arguments)
            return self.run_observed(arguments, tuple(observers))
        finally:
            if proxy.waiting and attributes["train_function"] is self._plain:
                attributes["train_function"] = proxy

    def run_observed(self, arguments: tuple[Any, ...], observers: tuple[Any, ...]) -> Any:
        """Run the train function with observers, and return its result.

        Args:
            arguments: the arguments of the call.
            observers: the observers, at least one.
        """
        raise NotImplementedError


@dataclass
class PendingCall(Generic[ObserverT]):
    """A scheduled call, which can be scheduled again at low cost if nothing has changed."""

    instrumented: ObservedTrainFunction
    function: "TrainFunctionProxy"
    observer: ObserverT
    steps_per_execution: int

    def again(self, model: keras.Model, frame: FitFrame, reader: Owner) -> bool:
        """Report the next call to the same observer if `reader` still owns it.

        Returns:
            True on success. False if another run has instrumented the model already, or if its
            train function, its settings or the owner of the observer have changed.
        """
        attributes, waiting = vars(model), self.function.waiting
        if model.steps_per_execution != self.steps_per_execution:
            return False
        if not self.observer.is_owned_by(reader):
            return False
        if attributes.get("train_function") is self.function:
            others = self.function.observers_for(frame)
            if others is None or self.observer in others:
                return False
            others.append(self.observer)
            return True
        if waiting or attributes.get("train_function") is not self.instrumented._plain:
            return False
        waiting.append((frame, [self.observer]))
        attributes["train_function"] = self.function
        return True


class TrainFunctionProxy:
    """Replacement for `model.train_function` until each waiting run has called it once.

    Attributes:
        instrumented: instrumentation of the original train function.
        waiting: runs whose next call is observed, each with its observers.
    """

    def __init__(self, instrumented: ObservedTrainFunction) -> None:
        self.instrumented = instrumented
        self.waiting: list[tuple[FitFrame, list[Any]]] = []

    def observers_for(self, frame: FitFrame) -> list[Any] | None:
        """Return the observers of the run's next call; None if the run does not wait for one."""
        return next((observers for each, observers in self.waiting if each == frame), None)

    def __call__(self, *arguments: Any) -> Any:
        caller = sys._getframe(1)
        for each in list(self.waiting):
            frame, observers = each
            if frame.is_calling(caller):
                self.waiting.remove(each)
                return self.instrumented.run(arguments, observers, self)
        return self.instrumented.run(arguments, [], self)


def put_train_function(model: keras.Model, function: Any) -> Any:
    """Set `model.train_function` without Keras's slow attribute tracking."""
    vars(model)["train_function"] = function
    return function
