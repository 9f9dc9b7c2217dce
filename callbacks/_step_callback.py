"""Base of the callbacks that observe train steps."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

import keras

from gradkeeper.callbacks._backend import InstrumentedTrainFunction
from gradkeeper.callbacks._backend_support import BackendSupport
from gradkeeper.callbacks._fit_frame import FitFrame
from gradkeeper.callbacks._keras_private import calls_of, print_msg
from gradkeeper.callbacks.instrument.optimizers import bypasses_apply, optimizers_of
from gradkeeper.callbacks.instrument.ownership import Owned
from gradkeeper.callbacks.instrument.train_calls import ObservedTrainFunction, PendingCall

ObserverT = TypeVar("ObserverT", bound=Owned)

_NOT_KERAS_3 = (
    "{} requires a Keras 3 model (keras.Model). Models of the legacy tf_keras package are not "
    "supported. Received: type(model)={}"
)


class StepCallback(BackendSupport, keras.callbacks.Callback, Generic[ObserverT]):
    """Callback with an observer inside the train steps of a run.

    Args:
        make: creates the observer, see `InstrumentedTrainFunction.instrument_next_call`.

    Raises:
        RuntimeError: if the callback is attached to a second `fit` while the first is running.
        TypeError: if the callback is attached to an object that is not a Keras 3 model.
    """

    # What to know on the other backends, a sentence without full stop; "" for nothing.
    _other_backends = ""
    # The custom loop that is running, None outside of one; and the words for it in the error of
    # `_refuse_if_running`: what the callback does, and what to use separately.
    _loop: Any = None
    _loop_words = ("", "")

    def __init__(self, make: Callable[..., ObserverT]) -> None:
        super().__init__()
        self._make = make
        # The frame and the model of the run; None outside a run. (Keras sets `model` of the
        # callback before the callback can reject a second run.)
        self._frame: FitFrame | None = None
        self._trained_model: keras.Model | None = None
        self._instrumented: ObservedTrainFunction | None = None
        self._next_call: PendingCall[ObserverT] | None = None
        self._has_warned = False

    def set_model(self, model: keras.Model) -> None:
        name = type(self).__name__
        # The class is not checked: Keras also trains objects that are not a keras.Model.
        if not hasattr(model, "make_train_function") or type(model).__module__.startswith("tf_"):
            raise TypeError(_NOT_KERAS_3.format(name, type(model)))
        if not self.supports_backend():
            note = f" {self._other_backends}." if self._other_backends else ""
            raise RuntimeError(
                f"{name} supports these backends of Keras: {', '.join(self._backends)}.{note} "
                f"Received: KERAS_BACKEND={keras.backend.backend()}"
            )
        if getattr(keras.config, "is_nnx_enabled", lambda: False)():  # since Keras 3.11
            raise RuntimeError(
                f"{name} does not support Keras with flax.nnx. Unset KERAS_NNX_ENABLED. "
                "Received: KERAS_NNX_ENABLED=true"
            )
        super().set_model(model)

    def _implements_train_batch_hooks(self) -> bool:
        """Raise TypeError for tf_keras, the only caller of this method."""
        raise TypeError(_NOT_KERAS_3.format(type(self).__name__, "tf_keras.Model"))

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        frame, model = FitFrame.calling("on_train_begin"), self.model
        if self._trained_model is not None:  # Keras sets the new model before it can be rejected
            super().set_model(self._trained_model)
        self._refuse_if_running(frame, f"model={model.name!r}")
        super().set_model(model)
        InstrumentedTrainFunction.remove_stale(model, frame)
        self._frame, self._trained_model = frame, model
        self._has_warned = False

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._frame = self._trained_model = self._next_call = None
        if self._instrumented is not None and self._instrumented.is_kept:
            self._instrumented = None

    def flush(self) -> None:
        """Read the records since the last flush."""

    def _refuse_if_running(self, frame: FitFrame | None, received: str) -> None:
        """Raise RuntimeError if the callback is attached to another active run."""
        if self._loop is not None:
            use, separate = self._loop_words
        elif self._frame is not None and self._frame != frame and self._frame.is_running():
            use, separate = "is attached to a fit", "callback for each fit"
        else:
            return
        raise RuntimeError(
            f"This {type(self).__name__} {use} that is still running. Use a separate {separate}. "
            f"Received: {received}"
        )

    @staticmethod
    def _refuse_loop_without_tensorflow() -> None:
        """Raise RuntimeError if a custom loop cannot be observed on the backend of Keras."""
        if keras.backend.backend() != "tensorflow":
            raise RuntimeError(
                "watch() requires the TensorFlow backend. On other backends, a custom loop "
                "computes its gradients itself: check them there, or train with fit(). "
                f"Received: KERAS_BACKEND={keras.backend.backend()}"
            )

    def _model_in_training(self) -> keras.Model | None:
        """Return the model whose next train step is instrumented; None outside a run."""
        model = self._trained_model
        if model is not None and model.train_function is None:
            model.make_train_function()  # before the first step of a custom loop
        return model

    @property
    def _observer(self) -> ObserverT | None:
        """Return the observer of the next train step; None before the first one of a run."""
        return None if self._next_call is None else self._next_call.observer

    def _observe_next_step(
        self,
        options: Callable[[keras.Model], Hashable],
        optimizers: Sequence[keras.optimizers.Optimizer] | None = None,
    ) -> ObserverT | None:
        """Instrument the next train step. Call this in `on_train_batch_begin`.

        Args:
            options: returns the options of the observer for a model.
            optimizers: the optimizers to observe; those of the model by default.

        Returns:
            The observer if it differs from that of the previous step, or if another callback has
            used it since; None otherwise.
        """
        frame = FitFrame.calling("on_train_batch_begin", self._frame)
        model, call, before = self._trained_model, self._next_call, self._observer
        assert model is not None
        if call is not None and call.again(model, frame, self):
            return None
        self._instrumented = InstrumentedTrainFunction.of(model, self._instrumented)
        self._next_call = self._instrumented.instrument_next_call(
            options(model), self._make, frame, optimizers
        )
        observer = self._next_call.observer
        return observer if observer.acquire(self) or observer is not before else None

    def _warn_if_no_gradients(
        self,
        what_is_missing: str,
        *,
        observer: Owned | None = None,
        optimizers: Sequence[keras.optimizers.Optimizer] | None = None,
        remedy: str = "assign it to one",
        report: Callable[[str], None] = print_msg,
    ) -> None:
        """Print a warning, once per run, if no gradient has been observed so far.

        Args:
            what_is_missing: the consequence, such as "skips no steps".
            observer: the observer; that of the next train step by default.
            optimizers: the observed optimizers; those of the model by default.
            remedy: see `no_gradients_warning`.
            report: prints the warning.
        """
        observer, model = observer or self._observer, self._trained_model
        if self._has_warned or observer is None or observer.has_seen_gradients:
            return
        self._has_warned = True
        if optimizers is None:
            optimizers = [] if model is None else optimizers_of(model)
        report(no_gradients_warning(type(self).__name__, what_is_missing, optimizers, remedy))


def no_gradients_warning(
    who: str, what_is_missing: str, optimizers: Sequence[keras.optimizers.Optimizer], remedy: str
) -> str:
    """Return the warning for a run in which no call of an optimizer was observed.

    Args:
        who: the name of the callback.
        what_is_missing: the consequence, such as "records nothing".
        optimizers: the observed optimizers.
        remedy: the action for an optimizer that is not an attribute of the model; "" in a custom
            loop, where the optimizers are passed.
    """
    names = ", ".join(type(each).__name__ for each in optimizers) or "none was found"
    bypassing = [type(each).__name__ for each in optimizers if bypasses_apply(each)]
    other = (
        f"is not an attribute of the model ({remedy})" if remedy else "was not passed to watch()"
    )
    reason = (
        f"{', '.join(bypassing)} overrides apply_gradients() and does not call apply()."
        if bypassing
        else "Either the train step updates the variables without an optimizer; or the optimizer "
        f"{other}; or a custom train function or tf.function was traced before the {who} was "
        "attached."
    )
    return (
        f"{who} sees no gradients and {what_is_missing}: the train step did not call apply() "
        f"of any observed optimizer ({names}). {reason}"
    )


def steps_taken(model: keras.Model) -> int:
    """Return the number of train steps that the optimizer of a model has seen; 0 without one.

    Steps that loss scaling or a guard has skipped are not counted.
    """
    optimizer = getattr(model, "optimizer", None)
    return 0 if optimizer is None else calls_taken(optimizer)


def calls_taken(optimizer: keras.optimizers.Optimizer) -> int:
    """Return the number of gradients that an optimizer has received, without skipped ones.

    `optimizer.iterations` counts updates, of which accumulated gradients have one in several steps.
    """
    while isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    return int(keras.ops.convert_to_numpy(calls_of(optimizer)))
