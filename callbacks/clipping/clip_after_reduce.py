"""The callback that has several replicas clip as one device does."""

from typing import Any

import keras

from gradkeeper.callbacks.driver import Driver
from gradkeeper.callbacks.step_callback import StepCallback
from gradkeeper.callbacks.tap.optimizers import clipping_of, optimizers_of
from gradkeeper.callbacks.tap.probe import Application, Gradients, Stage


class ClipAfterReduce(StepCallback["_SumStage"]):
    """Moves the optimizer's own clipping behind the all-reduce while it is attached.

        model.fit(..., callbacks=[ClipAfterReduce()])

    Under a `tf.distribute` strategy Keras clips each replica's gradient, and then adds them up:
    two replicas with gradients of 10 and -9 and `clipnorm=1` make no step at all, where one device
    makes one of 1. With this callback, `clipnorm`, `global_clipnorm` and `clipvalue` act on the
    gradient of the global batch, and N replicas train as one device does, up to rounding. With
    one replica it does nothing.

    Raises:
        ValueError: at the beginning of a training whose optimizers do not clip.
        TypeError: if it is attached to something that is no Keras 3 model.
    """

    def __init__(self) -> None:
        super().__init__(_sum_stage)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        optimizers = optimizers_of(self.model)
        if optimizers and all(clipping_of(each) is None for each in optimizers):
            raise ValueError(
                "There is no clipping to move: give the optimizer `clipnorm`, `global_clipnorm` "
                f"or `clipvalue`. Received: optimizer={optimizers[0].name}"
            )
        super().on_train_begin(logs)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        model = self._awaiting()
        if model is not None and model.distribute_strategy.num_replicas_in_sync > 1:
            self._complain_if_blind("moves no clipping")
            driver = Driver.calling("on_train_batch_begin", self._attachment.driver)
            self._attachment.arm(lambda _: ClipAfterReduce, driver)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._complain_if_blind("moves no clipping")

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._attachment.end()


class _SumStage(Stage):
    """The stage of the train step that has the sum of the replicas clipped."""

    clips_the_sum = True

    def before(self, application: Application, gradients: Gradients) -> None:
        self.has_seen_gradients |= self.asks_about(application.optimizer)


def _sum_stage(wishes: Any, model: keras.Model, *, optimizers: Any, compiled: bool) -> _SumStage:
    return _SumStage(optimizers)
