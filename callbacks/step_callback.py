"""What all callbacks share that see the train step from inside."""

from collections.abc import Callable
from typing import Any, Generic

import keras

from gradkeeper.callbacks.attachment import Attachment, SharedT
from gradkeeper.callbacks.blindness import why_nothing_was_seen
from gradkeeper.callbacks.driver import Driver
from gradkeeper.callbacks.tap.keras_private import print_msg
from gradkeeper.callbacks.tap.optimizers import optimizers_of


class StepCallback(keras.callbacks.Callback, Generic[SharedT]):
    """A callback with a probe in the train steps of the training that it is attached to.

    Args:
        make: makes its probe, see `Tap.arm`.

    Raises:
        RuntimeError: if it is attached to a fit while another fit that it is attached to runs.
        TypeError: if it is attached to something that is no Keras 3 model.
    """

    def __init__(self, make: Callable[..., SharedT]) -> None:
        super().__init__()
        self._attachment = Attachment(self, make)
        self._told_blind = False

    def set_model(self, model: keras.Model) -> None:
        self._attachment.check(model)
        super().set_model(model)

    def _implements_train_batch_hooks(self) -> bool:
        """Asked by tf_keras alone, before it hands over its model."""
        self._attachment.refuse_tf_keras()
        return True

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        driver, model = Driver.calling("on_train_begin"), self.model
        if self._attachment.model is not None:  # Keras has set the new one before it is refused
            super().set_model(self._attachment.model)
        self._refuse_if_running(driver, f"model={model.name!r}")
        super().set_model(model)
        self._attachment.begin(model, driver)
        self._told_blind = False

    def _complain_if_blind(self, what_is_missing: str) -> None:
        """Tells, once in a training, if no train step so far has shown any gradients.

        Args:
            what_is_missing: what the callback would do with them, as in "refuses nothing".
        """
        attachment = self._attachment
        if self._told_blind or not attachment.is_armed or attachment.probe.has_seen_gradients:
            return
        self._told_blind = True
        optimizers = optimizers_of(attachment.model) if attachment.model is not None else []
        remedy = "keep it in one"
        print_msg(why_nothing_was_seen(type(self).__name__, what_is_missing, optimizers, remedy))

    def flush(self) -> None:
        """Reads what the train steps have written since the last look."""

    def _refuse_if_running(self, driver: Driver | None, received: str) -> None:
        """Raises if another training runs that the callback is attached to."""
        self._attachment.refuse_if_running(driver, received)

    def _awaiting(self) -> keras.Model | None:
        """The model whose next train step is to be seen; None outside a training."""
        model = self._attachment.model
        if model is not None and model.train_function is None:
            model.make_train_function()  # in a loop of one's own, before its first step
        return model


def steps_taken(model: keras.Model) -> int:
    """Train steps that the model's optimizer has taken; 0 if it has none."""
    optimizer = getattr(model, "optimizer", None)
    return 0 if optimizer is None else int(optimizer.iterations.numpy())
