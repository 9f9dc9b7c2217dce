"""Connection of a callback to the train steps of one run."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

import keras

from gradkeeper.callbacks.driver import Driver
from gradkeeper.callbacks.tap import Arming, Owner, Tap
from gradkeeper.callbacks.tap.probe import Shared

SharedT = TypeVar("SharedT", bound=Shared)

_NOT_KERAS_3 = (
    "{} requires a Keras 3 model (keras.Model). Models of the legacy tf_keras package are not "
    "supported. Received: type(model)={}"
)


class Attachment(Generic[SharedT]):
    """Observation of the train steps of the run that a callback is attached to.

    Args:
        owner: the callback.
        make: creates the observer, see `Tap.arm`.

    Attributes:
        driver: the frame that trains the model; None outside a run.
        model: the model that is trained; None outside a run. (Keras sets `model` of the callback
            before the callback can reject a second run.)
    """

    def __init__(self, owner: Owner, make: Callable[..., SharedT]) -> None:
        self._owner, self._make = owner, make
        self._name = type(owner).__name__
        self.driver: Driver | None = None
        self._tap: Tap | None = None
        self._armed: Arming[SharedT] | None = None
        self.model: keras.Model | None = None

    @property
    def probe(self) -> SharedT:
        """Observer of the next train step.

        Raises:
            RuntimeError: if no train step has been instrumented yet.
        """
        if self._armed is None:
            raise RuntimeError("No train step has been instrumented yet.")
        return self._armed.probe

    @property
    def is_armed(self) -> bool:
        """True if a train step of this run has been instrumented."""
        return self._armed is not None

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

    def begin(self, model: keras.Model, driver: Driver) -> None:
        """Start a run. No other run of this callback may be active."""
        Tap.disarm(model, driver)
        self.driver, self.model = driver, model

    def refuse_if_running(self, driver: Driver | None, received: str) -> None:
        """Raise RuntimeError if a run of another driver is active."""
        if self.driver is not None and self.driver.is_running_beside(driver):
            raise RuntimeError(
                f"This {self._name} is attached to a fit that is still running. Use a separate "
                f"callback for each fit. Received: {received}"
            )

    def arm(
        self,
        wishes: Callable[[keras.Model], Hashable],
        driver: Driver,
        optimizers: Sequence[keras.optimizers.Optimizer] | None = None,
    ) -> bool:
        """Instrument the next train step of the run.

        Args:
            wishes: returns the options of the observer for a model.
            driver: the frame that calls the callback.
            optimizers: the optimizers to observe; those of the model by default.

        Returns:
            True if the observer differs from that of the previous step, or if another callback
            has used the observer since.
        """
        model = self.model
        assert model is not None
        if self._armed is not None and self._armed.again(model, driver, self._owner):
            return False
        before = self._armed.probe if self._armed is not None else None
        self._tap = Tap.of(model, self._tap)
        self._armed = self._tap.arm(wishes(model), self._make, driver, optimizers)
        return self._armed.probe.claim(self._owner) or self._armed.probe is not before

    def end(self) -> None:
        """End the run and release the model."""
        self.driver = self.model = self._armed = None
        if self._tap is not None and self._tap.is_kept:
            self._tap = None
