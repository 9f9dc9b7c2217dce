"""The instrumented train function, which replaces a model's train function for one call."""

import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Optional, TypeAlias, TypeVar

import keras

from gradkeeper.callbacks._fit_frame import FitFrame
from gradkeeper.callbacks.instrument.observer import GradientTransform, Owner, ReusableObserver
from gradkeeper.callbacks.instrument.optimizers import optimizers_of
from gradkeeper.callbacks.instrument.patch import find_train_function, is_made_by_keras
from gradkeeper.callbacks.instrument.step_context import StepContexts
from gradkeeper.callbacks.instrument.step_patches import StepPatches


class BatchTee:
    """Batches of one execution of Keras's train function, each passed to the transforms first.

    Raises:
        StopIteration: if the iterator has no more batches. The train function itself would not
            raise this error.
    """

    def __init__(self, iterator: Any, transforms: Sequence[GradientTransform]) -> None:
        self._iterator, self._transforms = iterator, transforms
        self._first = [next(iterator)]

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        batch = self._first.pop() if self._first else next(self._iterator)
        for transform in self._transforms:
            transform.on_batch(batch)
        return batch


_ATTRIBUTE = "_gradkeeper_train_function"

# The options of a callback, and the `id` of its optimizers (None for those of the model).
Key: TypeAlias = tuple[Hashable, tuple[int, ...] | None]

ObserverT = TypeVar("ObserverT", bound=ReusableObserver)


class InstrumentedTrainFunction:
    """Instrumentation of one train function of a model, shared by all callbacks.

    The model and its optimizer carry no patches between two train steps. A callback instruments the
    next call in `on_train_batch_begin`, and that call restores the model, even if it raises. Keras
    calls no cleanup after an exception or a KeyboardInterrupt in `fit`, and none is needed. The
    instrumented functions are stored on the original train function and share its lifetime: a
    second `fit` does not trace again, and recompiling discards them.
    """

    def __init__(self, model: keras.Model, plain: Callable) -> None:
        self._model = model
        self._plain = plain
        self._is_of_keras = is_made_by_keras(plain) and not _makes_its_own(model)
        self._can_be_made = is_made_by_keras(plain) or _makes_its_own(model)
        # A user's function that does not contain Keras's train function has no slot and runs
        # unchanged.
        self._slot = None if self._can_be_made else find_train_function(plain)
        compiled = bool(model.jit_compile) and not model.run_eagerly
        self._contexts = StepContexts(compiled=compiled)
        self._patches: dict[tuple[ReusableObserver, ...], StepPatches] = {}
        self._twins: dict[tuple[ReusableObserver, ...], Callable] = {}
        self._settled: dict[tuple[ReusableObserver, ...], _Settled] = {}
        self._observers: dict[Key, list[Any]] = {}

    @classmethod
    def of(
        cls, model: keras.Model, before: Optional["InstrumentedTrainFunction"] = None
    ) -> "InstrumentedTrainFunction":
        """Return the instrumentation of the model's train function; create it at the first call.

        Args:
            model: the model, whose `train_function` must exist.
            before: the instrumentation that the caller used before; returned again if still valid.
        """
        function = model.train_function
        if isinstance(function, _TrainFunctionProxy):
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
        if not isinstance(function, _TrainFunctionProxy):
            return
        function.waiting = [
            each for each in function.waiting if each[0] != beginner and each[0].is_running()
        ]
        if not function.waiting:
            _put(model, function.instrumented._plain)

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
        if not isinstance(proxy, _TrainFunctionProxy):
            proxy = _put(self._model, _TrainFunctionProxy(self))
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
        self, iterator: Any, observers: Sequence[ReusableObserver], proxy: "_TrainFunctionProxy"
    ) -> Any:
        """Run the train function with the observers; run it unchanged if there are none.

        Restore the model afterwards. Calls that other runs wait for stay instrumented.
        """
        attributes = vars(self._model)
        attributes["train_function"] = self._plain
        try:
            return self._run(iterator, tuple(observers)) if observers else self._plain(iterator)
        finally:
            if proxy.waiting and attributes["train_function"] is self._plain:
                attributes["train_function"] = proxy

    def _run(self, iterator: Any, observers: tuple[ReusableObserver, ...]) -> Any:
        settled = self._settled.get(observers)
        for observer in observers:
            if observer.timer is not None:
                observer.timer.call_begins(observer)
        if settled is None:  # the set of patches may still change
            patches = self._patches_for(observers)
            with patches.applied():
                result = self._call(iterator, observers)
            self._settle(observers, patches)
        else:
            with settled.patches.applied() if settled.patches else nullcontext():
                result = settled.twin(_shown(iterator, settled.holding))
        for observer in observers:
            if observer.timer is not None:
                observer.timer.call_ends(observer)
        return result

    def _call(self, iterator: Any, observers: tuple[ReusableObserver, ...]) -> Any:
        if self._slot is None and not self._can_be_made:
            return self._plain(iterator)
        if observers not in self._twins:
            self._twins[observers] = self._make_twin()
        twin = self._twins[observers]
        if self._slot is None:
            return twin(_shown(iterator, _holding(observers) if is_made_by_keras(twin) else []))
        with self._slot.replaced_by(twin):
            return self._plain(iterator)

    def _settle(self, observers: tuple[ReusableObserver, ...], patches: StepPatches) -> None:
        """Store how calls with these observers are run, once this can no longer change.

        A train function made by Keras calls only the model's `train_step`.
        """
        twin = self._twins.get(observers)
        if (
            self._slot is None
            and twin is not None
            and is_made_by_keras(twin)
            and all(observer.has_seen_gradients for observer in observers)
        ):
            patches.patch_within_step_only()
            to_apply = None if patches.are_called_by(twin) else patches
            self._settled[observers] = _Settled(to_apply, twin, _holding(observers))

    def _patches_for(self, observers: tuple[ReusableObserver, ...]) -> StepPatches:
        patches = self._patches.get(observers)
        # Search again until an optimizer is called: a train step may create its optimizers.
        if patches is None or not all(observer.has_seen_gradients for observer in observers):
            named = [each for observer in observers for each in observer.optimizers or ()]
            if patches is None:
                patches = StepPatches(observers, [], self._model, self._contexts)
                self._patches[observers] = patches
            patches.add_optimizers([*optimizers_of(self._model), *named])
        return patches

    def _make_twin(self) -> Callable:
        try:
            _put(self._model, None)
            self._model.make_train_function()
            return self._model.train_function or self._plain
        finally:
            _put(self._model, self._plain)


@dataclass
class PendingCall(Generic[ObserverT]):
    """A scheduled call, which can be scheduled again at low cost if nothing has changed."""

    instrumented: InstrumentedTrainFunction
    function: "_TrainFunctionProxy"
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


class _TrainFunctionProxy:
    """Replacement for `model.train_function` until each waiting run has called it once.

    Attributes:
        instrumented: instrumentation of the original train function.
        waiting: runs whose next call is observed, each with its observers.
    """

    def __init__(self, instrumented: InstrumentedTrainFunction) -> None:
        self.instrumented = instrumented
        self.waiting: list[tuple[FitFrame, list[ReusableObserver]]] = []

    def observers_for(self, frame: FitFrame) -> list[ReusableObserver] | None:
        """Return the observers of the run's next call; None if the run does not wait for one."""
        return next((observers for each, observers in self.waiting if each == frame), None)

    def __call__(self, iterator: Any) -> Any:
        caller = sys._getframe(1)
        for each in list(self.waiting):
            frame, observers = each
            if frame.is_calling(caller):
                self.waiting.remove(each)
                return self.instrumented.run(iterator, observers, self)
        return self.instrumented.run(iterator, [], self)


class _Settled(NamedTuple):
    """Fixed train function and patches for calls with the same observers.

    Attributes:
        patches: the patches; None if `twin` closes over the patched `train_step`, as since Keras
            3.15.
        twin: the instrumented train function, made by Keras.
        holding: the gradient transforms that receive each batch.
    """

    patches: StepPatches | None
    twin: Callable
    holding: list[GradientTransform]


def _holding(observers: Sequence[ReusableObserver]) -> list[GradientTransform]:
    return [
        each for each in observers if isinstance(each, GradientTransform) and each.needs_batches
    ]


def _shown(iterator: Any, transforms: Sequence[GradientTransform]) -> Any:
    """Return the iterator, wrapped if gradient transforms receive each batch."""
    return BatchTee(iterator, transforms) if transforms else iterator


def _put(model: keras.Model, function: Any) -> Any:
    """Set `model.train_function` without Keras's slow attribute tracking."""
    vars(model)["train_function"] = function
    return function


def _makes_its_own(model: keras.Model) -> bool:
    """Return True if the class of the model overrides `make_train_function`."""
    return type(model).make_train_function is not keras.Model.make_train_function
