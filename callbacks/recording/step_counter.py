"""Observer of the train steps of which a recorder stores nothing."""

from collections.abc import Mapping
from typing import Any

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

    def on_step_begin(self, context: StepContext, data: Any) -> None:
        # TensorFlow also runs operations that do not depend on the batch if there is none. As a
        # dependency, the results of the step would make a step of an LSTM 8 % longer.
        batch = [
            each for each in tf.nest.flatten(data, expand_composites=True) if tf.is_tensor(each)
        ]
        with tf.control_dependencies(batch[:1]):
            self._logs[context.replica.index].count_step()
