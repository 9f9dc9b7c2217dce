"""The instrumented train function of TensorFlow."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import keras

from gradkeeper.callbacks.instrument.graph import may_have_functions
from gradkeeper.callbacks.instrument.observer import GradientTransform, ReusableObserver
from gradkeeper.callbacks.instrument.optimizers import optimizers_of
from gradkeeper.callbacks.instrument.patch import find_train_function, is_made_by_keras
from gradkeeper.callbacks.instrument.step_context import StepContexts
from gradkeeper.callbacks.instrument.step_patches import StepPatches
from gradkeeper.callbacks.instrument.train_calls import ObservedTrainFunction, put_train_function


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


class InstrumentedTrainFunction(ObservedTrainFunction):
    """Observed train function of TensorFlow, which is traced with patches of the train step."""

    def __init__(self, model: keras.Model, plain: Callable) -> None:
        super().__init__(model, plain)
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

    def run_observed(
        self, arguments: tuple[Any, ...], observers: tuple[ReusableObserver, ...]
    ) -> Any:
        (iterator,) = arguments
        for observer in observers:
            if observer.timer is not None:
                observer.timer.call_begins(observer)
        settled = self._settled.get(observers)
        if settled is not None and settled.can_alternate:
            chosen = tuple(observer.for_next_call() for observer in observers)
            result = self._run(iterator, chosen)
        else:
            result = self._run(iterator, observers)
        for observer in observers:
            if observer.timer is not None:
                observer.timer.call_ends(observer)
        return result

    def _run(self, iterator: Any, observers: tuple[ReusableObserver, ...]) -> Any:
        settled = self._settled.get(observers)
        if settled is None:  # the set of patches may still change
            patches = self._patches_for(observers)
            with patches.applied():
                result = self._call(iterator, observers)
            self._settle(observers, patches)
        else:
            with settled.patches.applied() if settled.patches else nullcontext():
                result = settled.twin(_shown(iterator, settled.holding))
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
            # A `tf.function` that the train step calls is traced once, with one of the observers.
            can_alternate = not may_have_functions(self._model.train_step)
            holding = _holding(observers)
            self._settled[observers] = _Settled(to_apply, twin, holding, can_alternate)

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
            put_train_function(self._model, None)
            self._model.make_train_function()
            return self._model.train_function or self._plain
        finally:
            put_train_function(self._model, self._plain)


class _Settled(NamedTuple):
    """Fixed train function and patches for calls with the same observers.

    Attributes:
        patches: the patches; None if `twin` closes over the patched `train_step`, as since Keras
            3.15.
        twin: the instrumented train function, made by Keras.
        holding: the gradient transforms that receive each batch.
        can_alternate: whether other calls may run with other observers (`for_next_call`).
    """

    patches: StepPatches | None
    twin: Callable
    holding: list[GradientTransform]
    can_alternate: bool


def _holding(observers: Sequence[ReusableObserver]) -> list[GradientTransform]:
    return [
        each for each in observers if isinstance(each, GradientTransform) and each.needs_batches
    ]


def _shown(iterator: Any, transforms: Sequence[GradientTransform]) -> Any:
    """Return the iterator, wrapped if gradient transforms receive each batch."""
    return BatchTee(iterator, transforms) if transforms else iterator


def _makes_its_own(model: keras.Model) -> bool:
    """Return True if the class of the model overrides `make_train_function`."""
    return type(model).make_train_function is not keras.Model.make_train_function
