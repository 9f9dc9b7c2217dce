"""Observer of the train steps of which a recorder stores nothing."""

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from gradkeeper.callbacks.instrument.observer import ReusableObserver
from gradkeeper.callbacks.instrument.step_context import Gradients, OptimizerCall, StepContext
from gradkeeper.callbacks.recording.replica_log import ReplicaLog


class StepCounter(ReusableObserver):
    """Observer that counts the train steps of which a recorder stores nothing.

    The graph of such a step contains no measurement. A conditional around the measurements would
    cost almost as much as the norms: TensorFlow visits its operations in every step, and may not
    reuse the memory of the tensors that it reads.

    Args:
        logs: the logs of the recorder, by replica.
        optimizers: the optimizers whose calls are recorded; None for all.
    """

    def __init__(
        self,
        logs: Mapping[int, ReplicaLog],
        optimizers: tuple[keras.optimizers.Optimizer, ...] | None,
    ) -> None:
        super().__init__(optimizers)
        self._logs = logs

    def on_gradients(self, call: OptimizerCall, gradients: Gradients) -> None:
        self.has_seen_gradients |= self.observes(call.optimizer)

    def on_step_end(self, context: StepContext, done: Sequence[tf.Tensor]) -> None:
        with tf.control_dependencies(done):
            self._logs[context.replica.index].count_step()
