"""What ties a callback to the train steps of one training."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

import keras

from gradkeeper.callbacks.driver import Driver
from gradkeeper.callbacks.tap import Arming, Owner, Tap
from gradkeeper.callbacks.tap.probe import Shared

SharedT = TypeVar("SharedT", bound=Shared)

_NOT_KERAS_3 = (
    "{} needs a Keras 3 model (keras.Model); models of the legacy tf_keras package are not "
    "supported. Received: {}"
)


class Attachment(Generic[SharedT]):
    """Has a probe see the train steps of the training that a callback is attached to.

    Args:
        owner: the callback.
        make: makes its probe, see `Tap.arm`.

    Attributes:
        driver: who trains it; None outside a training.
        model: the model that is trained; None outside a training. (A callback's own `model`
            Keras sets before a second training can be refused.)
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
        """The probe that sees the next train step.

        Raises:
            RuntimeError: before the first.
        """
        if self._armed is None:
            raise RuntimeError("No train step has been awaited yet.")
        return self._armed.probe

    @property
    def is_armed(self) -> bool:
        """Whether a train step of this training was awaited."""
        return self._armed is not None

    def check(self, model: Any) -> None:
        """Refuses what cannot be attached to.

        Raises:
            TypeError: if that is no Keras 3 model.
            RuntimeError: if Keras runs on another backend than TensorFlow.
        """
        # Not by class: what Keras trains need not be a keras.Model.
        if not hasattr(model, "make_train_function") or type(model).__module__.startswith("tf_"):
            raise TypeError(_NOT_KERAS_3.format(self._name, type(model)))
        if keras.backend.backend() != "tensorflow":
            raise RuntimeError(
                f"{self._name} works in the train step of Keras's TensorFlow backend. "
                f"Received: KERAS_BACKEND={keras.backend.backend()}"
            )

    def refuse_tf_keras(self) -> None:
        """Raises the error for a callback that tf_keras is about to give its model."""
        raise TypeError(_NOT_KERAS_3.format(self._name, "tf_keras, the legacy Keras 2"))

    def begin(self, model: keras.Model, driver: Driver) -> None:
        """A training begins, and none that the callback is attached to still runs."""
        Tap.disarm(model, driver)
        self.driver, self.model = driver, model

    def refuse_if_running(self, driver: Driver | None, received: str) -> None:
        """Raises if a training runs that is not this driver's."""
        if self.driver is not None and self.driver.is_running_beside(driver):
            raise RuntimeError(
                f"This {self._name} is attached to a fit that is still running; give each fit "
                f"one of its own. Received: {received}"
            )

    def arm(
        self,
        wishes: Callable[[keras.Model], Hashable],
        driver: Driver,
        optimizers: Sequence[keras.optimizers.Optimizer] | None = None,
    ) -> bool:
        """Has the next train step of the training seen.

        Args:
            wishes: what the probe does, by the model.
            driver: who calls the callback.
            optimizers: the optimizers to look at; those of the model by default.

        Returns:
            Whether another probe sees it than saw the last one, or one that others have read
            meanwhile.
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
        """The training has ended; lets go of the model."""
        self.driver = self.model = self._armed = None
        if self._tap is not None and self._tap.is_kept:
            self._tap = None
