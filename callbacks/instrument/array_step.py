"""Train steps on JAX and torch: the record of a step, and the base class of its observers."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, runtime_checkable

import keras

from gradkeeper.callbacks._keras_private import calls_of
from gradkeeper.callbacks.instrument.generators import global_generators
from gradkeeper.callbacks.instrument.optimizers import optimizers_of
from gradkeeper.callbacks.instrument.ownership import Owned
from gradkeeper.callbacks.instrument.patch import is_made_by_keras
from gradkeeper.callbacks.instrument.train_calls import ObservedTrainFunction
from gradkeeper.callbacks.instrument.variable_names import unlisted_variables


@dataclass
class Clip:
    """One call of an optimizer's clipping.

    Attributes:
        variables: the variables of the gradients.
        entered: the gradients before the clipping.
        left: the gradients after it.
        is_update: whether the gradients are applied, a boolean scalar; None if they always are.
    """

    variables: list[Any]
    entered: list[Any]
    left: list[Any]
    is_update: Any = None


@dataclass
class Call:
    """One outermost call of an optimizer.

    Attributes:
        optimizer: the optimizer.
        round: number of earlier calls in this train step for some of the variables.
        variables: the trained variables.
        gradients: the gradients that the train step passes, None without one.
        before: the values of the variables before the update.
        after: their values after it.
        scale: the factor of the loss, and so of each gradient; None for 1.
        learning_rate: the learning rate; None if there is none.
        rates: the learning rates of the optimizer and those nested in it.
        number: number of calls of the optimizer before this one, a scalar; None in a step that runs
            eagerly.
        clips: the calls of the clipping.
        is_plain: whether the given gradients are applied unchanged in every step.
    """

    optimizer: keras.optimizers.Optimizer
    round: int
    variables: list[Any]
    gradients: list[Any]
    before: list[Any]
    after: list[Any] = field(default_factory=list)
    scale: Any = None
    learning_rate: Any = None
    rates: list[Any] = field(default_factory=list)
    number: Any = None
    clips: list[Clip] = field(default_factory=list)
    is_plain: bool = False


@runtime_checkable
class Clipper(Protocol):
    """Observer that clips where the optimizer would."""

    def clip(
        self,
        optimizer: keras.optimizers.Optimizer,
        gradients: list[Any],
        variables: Sequence[Any],
        is_update: Any,
    ) -> list[Any]:
        """Return the clipped gradients, traced.

        Args:
            optimizer: the optimizer that applies the gradients.
            gradients: the gradients, without loss scale.
            variables: their variables.
            is_update: whether the gradients are applied, a boolean scalar; None if they always are.
        """


class StepTrace:
    """Record of the optimizer calls and the loss of one train step.

    Args:
        model: the model.
        optimizers: the optimizers to observe.
        clippers: observers that clip the gradients.

    Attributes:
        model: the model.
        calls: the optimizer calls.
        is_refused: whether a guard skips the step, a boolean scalar; None without a guard.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizers: Sequence[keras.optimizers.Optimizer],
        clippers: Sequence[Clipper] = (),
    ) -> None:
        self.model, self._optimizers, self._clippers = model, optimizers, clippers
        self.calls: list[Call] = []
        self.is_refused: Any = None
        self._call: Call | None = None
        self._clipped: list[Any] = []

    @property
    def loss(self) -> Any:
        """Loss of the step without loss scale, a scalar; None if it is unknown."""
        raise NotImplementedError

    def recording(self) -> AbstractContextManager[None]:
        """Record the step that runs inside the block."""
        raise NotImplementedError

    def _apply_gradients(
        self,
        optimizer: keras.optimizers.Optimizer,
        apply: Callable,
        grads: Sequence[Any],
        trainable_variables: Sequence[Any],
    ) -> Any:
        self._clipped.append(list(trainable_variables))
        try:
            return apply(grads, trainable_variables)
        finally:
            self._clipped.pop()

    def _clip(
        self, optimizer: keras.optimizers.Optimizer, clip: Callable, grads: Sequence[Any]
    ) -> Any:
        if self._call is None or not self._clipped:
            return clip(grads)
        variables, is_update, given = self._clipped[-1], is_update_of(optimizer), list(grads)
        for each in self._clippers:
            given = each.clip(optimizer, given, variables, is_update)
        left = clip(given)
        self._call.clips.append(Clip(variables, list(grads), list(left), is_update))
        return left

    def _round_of(self, optimizer: keras.optimizers.Optimizer) -> int:
        return sum(each.optimizer is optimizer for each in self.calls)


def is_update_of(optimizer: keras.optimizers.Optimizer) -> Any:
    """Return whether the current call updates the variables; None if each call does."""
    steps = optimizer.gradient_accumulation_steps
    return None if not steps else (calls_of(optimizer) + 1) % steps == 0


@contextmanager
def replaced(owner: Any, name: str, replacement: Callable) -> Iterator[None]:
    """Call `replacement(owner, method, ...)` instead of a method inside the block."""
    method = getattr(owner, name)
    with assigned([(owner, name, partial(replacement, owner, method))]):
        yield


@contextmanager
def assigned(functions: Iterable[tuple[Any, str, Callable]]) -> Iterator[None]:
    """Call functions instead of methods inside the block.

    Args:
        functions: the owner and the name of each method, and the function.
    """
    before: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for owner, name, function in functions:
            attributes = vars(owner)
            before.append((attributes, name, attributes.get(name)))
            attributes[name] = function
        yield
    finally:
        for attributes, name, former in reversed(before):
            if former is None:
                del attributes[name]
            else:
                attributes[name] = former


def state_variables(model: keras.Model) -> list[list[Any]]:
    """Return the variables that a step may change.

    The first four lists are those of `keras.Model.train_step` on JAX. The fifth has the variables
    of layers that Keras does not list, and torch's generators. Each further optimizer has a list.
    An optimizer that a step builds appends variables to its list.
    """
    first = model.optimizer
    return [
        model.trainable_variables,
        model.non_trainable_variables,
        [] if first is None else first.variables,
        model.metrics_variables,
        [*unlisted_variables(model), *global_generators()],
        *(each.variables for each in optimizers_of(model) if each is not first),
    ]


@dataclass
class ObservedStep:
    """A train step, under trace or run eagerly.

    The state has the lists of `state_variables`; on JAX, the first four.

    Attributes:
        trace: the optimizer calls and the loss.
        before: the state before the step.
        after: the state after the step.
        logs: the logs of the step.
        is_compiled: whether the values are unknown while the step is traced.
    """

    trace: StepTrace
    before: Any
    after: Any
    logs: Any
    is_compiled: bool


class ArrayObserver(Owned):
    """Observer of train steps on JAX and torch.

    The compiled step passes a carry, arrays on the device, from one observed step to the next.

    Attributes:
        carry: the carry of the next step, nested dicts of arrays.
        changes_step: whether the observer may change the state after the step. Such an observer
            acts before the others.
        needs_state: whether the observer needs the state before the step after it.
        measures_next: whether the next step is observed.
        needs_values: whether the observer needs the values of trained variables before an update.
    """

    changes_step = False
    needs_state = False
    needs_values = False
    measures_next = True

    def __init__(self, optimizers: Any = None) -> None:
        super().__init__(optimizers)
        self.carry: Any = {}

    def begin_step(self, carry: Any) -> None:
        """Receive the carry before the step runs, traced."""

    def on_step(self, step: ObservedStep, carry: Any) -> tuple[Any, Any]:
        """Return the carry and the outputs of the step; called where the step runs or is traced."""
        raise NotImplementedError

    def end_step(self, outputs: Any, data: Any, state: Any) -> None:
        """Receive the outputs of a step, arrays on the device.

        Args:
            outputs: the outputs; None if the step was not observed.
            data: the batch.
            state: the state before the step if the step runs eagerly; otherwise, the state after
                it.
        """
        raise NotImplementedError


class ArrayTrainFunction(ObservedTrainFunction):
    """Observed train function of JAX and torch. A user's train function runs unchanged."""

    def __init__(self, model: keras.Model, plain: Callable) -> None:
        super().__init__(model, plain)
        self._is_of_keras = is_made_by_keras(plain)

    def run_observed(self, arguments: tuple[Any, ...], observers: tuple[ArrayObserver, ...]) -> Any:
        if not self._is_of_keras:
            return self._plain(*arguments)
        observers = tuple(sorted(observers, key=lambda each: not each.changes_step))
        for observer in observers:
            if observer.timer is not None:
                observer.timer.call_begins(observer)
        result = self._run(arguments, observers)
        for observer in observers:
            if observer.timer is not None:
                observer.timer.call_ends(observer, result)
        return result

    def _run(self, arguments: tuple[Any, ...], observers: tuple[ArrayObserver, ...]) -> Any:
        """Run the train function. The observers that change the step come first."""
        raise NotImplementedError

    def _optimizers(self, observers: Sequence[ArrayObserver]) -> list[keras.optimizers.Optimizer]:
        """Return the optimizers of the model, and those that the observers name."""
        named = [each for observer in observers for each in observer.optimizers or ()]
        return list({id(each): each for each in [*optimizers_of(self._model), *named]}.values())
