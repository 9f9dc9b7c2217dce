"""Base of the callbacks that observe train steps."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

import keras

from gradkeeper.callbacks._fit_frame import FitFrame
from gradkeeper.callbacks._keras_private import print_msg
from gradkeeper.callbacks.instrument.observer import Owner, ReusableObserver
from gradkeeper.callbacks.instrument.optimizers import bypasses_apply, optimizers_of
from gradkeeper.callbacks.instrument.train_function import InstrumentedTrainFunction, PendingCall

ObserverT = TypeVar("ObserverT", bound=ReusableObserver)

_NOT_KERAS_3 = (
    "{} requires a Keras 3 model (keras.Model). Models of the legacy tf_keras package are not "
    "supported. Received: type(model)={}"
)


class Attachment(Generic[ObserverT]):
    """Observation of the train steps of the run that a callback is attached to.

    Args:
        owner: the callback.
        make: creates the observer, see `InstrumentedTrainFunction.instrument_next_call`.

    Attributes:
        frame: the frame that trains the model; None outside a run.
        model: the model that is trained; None outside a run. (Keras sets `model` of the callback
            before the callback can reject a second run.)
    """

    def __init__(self, owner: Owner, make: Callable[..., ObserverT]) -> None:
        self._owner, self._make = owner, make
        self._name = type(owner).__name__
        self.frame: FitFrame | None = None
        self._instrumented: InstrumentedTrainFunction | None = None
        self._pending: PendingCall[ObserverT] | None = None
        self.model: keras.Model | None = None

    @property
    def observer(self) -> ObserverT:
        """Observer of the next train step.

        Raises:
            RuntimeError: if no train step has been instrumented yet.
        """
        if self._pending is None:
            raise RuntimeError("No train step has been instrumented yet.")
        return self._pending.observer

    @property
    def has_observer(self) -> bool:
        """True if a train step of this run has been instrumented."""
        return self._pending is not None

    def check(self, model: Any) -> None:
        """Check that the callback can be attached to a model.

        Raises:
            TypeError: if `model` is not a Keras 3 model.
            RuntimeError: if the backend of Keras is not TensorFlow.
        """
        # The class is not checked: Keras also trains objects that are not a keras.Model.
        if not hasattr(model, "make_train_function") or type(model).__module__.startswith("tf_"):
            raise TypeError(_NOT_KERAS_3.format(self._name, type(model)))
        if keras.backend.backend() != "tensorflow":
            raise RuntimeError(
                f"{self._name} requires the TensorFlow backend. Set KERAS_BACKEND=tensorflow. "
                f"Received: KERAS_BACKEND={keras.backend.backend()}"
            )

    def refuse_tf_keras(self) -> None:
        """Raise the TypeError for a callback that is passed to tf_keras."""
        raise TypeError(_NOT_KERAS_3.format(self._name, "tf_keras.Model"))

    def begin(self, model: keras.Model, frame: FitFrame) -> None:
        """Start a run. No other run of this callback may be active."""
        InstrumentedTrainFunction.remove_stale(model, frame)
        self.frame, self.model = frame, model

    def refuse_if_running(self, frame: FitFrame | None, received: str) -> None:
        """Raise RuntimeError if a run of another frame is active."""
        if self.frame is not None and self.frame.is_running_beside(frame):
            raise RuntimeError(
                f"This {self._name} is attached to a fit that is still running. Use a separate "
                f"callback for each fit. Received: {received}"
            )

    def instrument_next_call(
        self,
        options: Callable[[keras.Model], Hashable],
        frame: FitFrame,
        optimizers: Sequence[keras.optimizers.Optimizer] | None = None,
    ) -> bool:
        """Instrument the next train step of the run.

        Args:
            options: returns the options of the observer for a model.
            frame: the frame that calls the callback.
            optimizers: the optimizers to observe; those of the model by default.

        Returns:
            True if the observer differs from that of the previous step, or if another callback
            has used the observer since.
        """
        model = self.model
        assert model is not None
        if self._pending is not None and self._pending.again(model, frame, self._owner):
            return False
        before = self._pending.observer if self._pending is not None else None
        self._instrumented = InstrumentedTrainFunction.of(model, self._instrumented)
        self._pending = self._instrumented.instrument_next_call(
            options(model), self._make, frame, optimizers
        )
        return self._pending.observer.acquire(self._owner) or self._pending.observer is not before

    def end(self) -> None:
        """End the run and release the model."""
        self.frame = self.model = self._pending = None
        if self._instrumented is not None and self._instrumented.is_kept:
            self._instrumented = None


def no_gradients_warning(
    who: str, what_is_missing: str, optimizers: Sequence[keras.optimizers.Optimizer], remedy: str
) -> str:
    """Return the warning for a run in which no call of an optimizer was observed.

    Args:
        who: the name of the callback.
        what_is_missing: the consequence, such as "records nothing".
        optimizers: the observed optimizers.
        remedy: the action for an optimizer that is not an attribute of the model.
    """
    names = ", ".join(type(each).__name__ for each in optimizers) or "none was found"
    bypassing = [type(each).__name__ for each in optimizers if bypasses_apply(each)]
    reason = (
        f"{', '.join(bypassing)} overrides apply_gradients() and does not call apply()."
        if bypassing
        else "Either the train step updates the variables without an optimizer; or the optimizer "
        f"is not an attribute of the model ({remedy}); or a custom train function or tf.function "
        f"was traced before the {who} was attached."
    )
    return (
        f"{who} sees no gradients and {what_is_missing}: the train step did not call apply() "
        f"of any observed optimizer ({names}). {reason}"
    )


class StepCallback(keras.callbacks.Callback, Generic[ObserverT]):
    """Callback with an observer inside the train steps of a run.

    Args:
        make: creates the observer, see `InstrumentedTrainFunction.instrument_next_call`.

    Raises:
        RuntimeError: if the callback is attached to a second `fit` while the first is running.
        TypeError: if the callback is attached to an object that is not a Keras 3 model.
    """

    def __init__(self, make: Callable[..., ObserverT]) -> None:
        super().__init__()
        self._attachment = Attachment(self, make)
        self._has_warned = False

    def set_model(self, model: keras.Model) -> None:
        self._attachment.check(model)
        super().set_model(model)

    def _implements_train_batch_hooks(self) -> bool:
        """Raise TypeError for tf_keras, the only caller of this method."""
        self._attachment.refuse_tf_keras()
        return True

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        frame, model = FitFrame.calling("on_train_begin"), self.model
        if self._attachment.model is not None:  # Keras sets the new model before it can be rejected
            super().set_model(self._attachment.model)
        self._refuse_if_running(frame, f"model={model.name!r}")
        super().set_model(model)
        self._attachment.begin(model, frame)
        self._has_warned = False

    def _warn_if_no_gradients(self, what_is_missing: str) -> None:
        """Print a warning, once per run, if no gradient has been observed so far.

        Args:
            what_is_missing: the consequence, such as "skips no steps".
        """
        attachment = self._attachment
        if (
            self._has_warned
            or not attachment.has_observer
            or attachment.observer.has_seen_gradients
        ):
            return
        self._has_warned = True
        optimizers = optimizers_of(attachment.model) if attachment.model is not None else []
        remedy = "assign it to one"
        print_msg(no_gradients_warning(type(self).__name__, what_is_missing, optimizers, remedy))

    def flush(self) -> None:
        """Read the records since the last flush."""

    def _refuse_if_running(self, frame: FitFrame | None, received: str) -> None:
        """Raise RuntimeError if the callback is attached to another active run."""
        self._attachment.refuse_if_running(frame, received)

    def _model_in_training(self) -> keras.Model | None:
        """Return the model whose next train step is instrumented; None outside a run."""
        model = self._attachment.model
        if model is not None and model.train_function is None:
            model.make_train_function()  # before the first step of a custom loop
        return model


def steps_taken(model: keras.Model) -> int:
    """Return the step count of the optimizer of a model; 0 without an optimizer."""
    optimizer = getattr(model, "optimizer", None)
    return 0 if optimizer is None else int(optimizer.iterations.numpy())
