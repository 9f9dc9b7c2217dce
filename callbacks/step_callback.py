"""Base class of the callbacks that instrument the train step."""

from collections.abc import Callable
from typing import Any, Generic

import keras

from gradkeeper.callbacks.attachment import Attachment, SharedT
from gradkeeper.callbacks.blindness import why_nothing_was_seen
from gradkeeper.callbacks.driver import Driver
from gradkeeper.callbacks.tap.keras_private import print_msg
from gradkeeper.callbacks.tap.optimizers import optimizers_of


class StepCallback(keras.callbacks.Callback, Generic[SharedT]):
    """Callback with an observer inside the train steps of a run.

    Args:
        make: creates the observer, see `Tap.arm`.

    Raises:
        RuntimeError: if the callback is attached to a second `fit` while the first is running.
        TypeError: if the callback is attached to an object that is not a Keras 3 model.
    """

    def __init__(self, make: Callable[..., SharedT]) -> None:
        super().__init__()
        self._attachment = Attachment(self, make)
        self._told_blind = False

    def set_model(self, model: keras.Model) -> None:
        self._attachment.check(model)
        super().set_model(model)

    def _implements_train_batch_hooks(self) -> bool:
        """Raise TypeError for tf_keras, the only caller of this method."""
        self._attachment.refuse_tf_keras()
        return True

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        driver, model = Driver.calling("on_train_begin"), self.model
        if self._attachment.model is not None:  # Keras sets the new model before it can be rejected
            super().set_model(self._attachment.model)
        self._refuse_if_running(driver, f"model={model.name!r}")
        super().set_model(model)
        self._attachment.begin(model, driver)
        self._told_blind = False

    def _complain_if_blind(self, what_is_missing: str) -> None:
        """Print a warning, once per run, if no gradient has been observed so far.

        Args:
            what_is_missing: the consequence, such as "skips no steps".
        """
        attachment = self._attachment
        if self._told_blind or not attachment.is_armed or attachment.probe.has_seen_gradients:
            return
        self._told_blind = True
        optimizers = optimizers_of(attachment.model) if attachment.model is not None else []
        remedy = "assign it to one"
        print_msg(why_nothing_was_seen(type(self).__name__, what_is_missing, optimizers, remedy))

    def flush(self) -> None:
        """Read the records since the last flush."""

    def _refuse_if_running(self, driver: Driver | None, received: str) -> None:
        """Raise RuntimeError if the callback is attached to another active run."""
        self._attachment.refuse_if_running(driver, received)

    def _awaiting(self) -> keras.Model | None:
        """Return the model whose next train step is instrumented; None outside a run."""
        model = self._attachment.model
        if model is not None and model.train_function is None:
            model.make_train_function()  # before the first step of a custom loop
        return model


def steps_taken(model: keras.Model) -> int:
    """Return the step count of the optimizer of a model; 0 without an optimizer."""
    optimizer = getattr(model, "optimizer", None)
    return 0 if optimizer is None else int(optimizer.iterations.numpy())
