"""Callback that clips the gradient of the global batch under several replicas."""

from typing import Any

from gradkeeper.callbacks._step_callback import StepCallback
from gradkeeper.callbacks.instrument.optimizers import clipping_of, optimizers_of
from gradkeeper.callbacks.instrument.ownership import Owned


class ClipAfterReduce(StepCallback[Owned]):
    """Callback that applies the optimizer's own clipping after the all-reduce.

        model.fit(..., callbacks=[ClipAfterReduce()])

    Under a `tf.distribute` strategy, Keras clips the gradient of each replica and then sums the
    clipped gradients. Two replicas with gradients 10 and -9 and `clipnorm=1` sum to 0, where one
    device has the clipped gradient 1. With this callback, `clipnorm`, `global_clipnorm` and
    `clipvalue` apply to the gradient of the global batch, so N replicas train like one device, up
    to rounding. With one replica, the callback does nothing.

    Raises:
        ValueError: when training starts and no optimizer clips.
        TypeError: if the callback is attached to an object that is not a Keras 3 model.
    """

    _other_backends = "On JAX and torch, Keras clips the gradient of the global batch"

    def __init__(self) -> None:
        super().__init__(_make_transform)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        optimizers = optimizers_of(self.model)
        if optimizers and all(clipping_of(each) is None for each in optimizers):
            raise ValueError(
                "The optimizer has no clipping. Set `clipnorm`, `global_clipnorm` or `clipvalue`. "
                f"Received: optimizer={optimizers[0].name}"
            )
        super().on_train_begin(logs)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        model = self._model_in_training()
        if model is not None and model.distribute_strategy.num_replicas_in_sync > 1:
            self._warn_if_no_gradients("has no effect")
            self._observe_next_step(lambda _: ClipAfterReduce)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._warn_if_no_gradients("has no effect")


def _make_transform(options: Any, model: Any, *, optimizers: Any, compiled: bool) -> Owned:
    from gradkeeper.callbacks.clipping.transform import ClipSumTransform

    return ClipSumTransform(optimizers)
